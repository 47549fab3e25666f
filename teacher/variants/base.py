"""What a prompt variant is: how to ask a model about a context, and how to read what it wrote.

A variant is a small object without state. The writer asks it for prompts, has them completed, and hands each completion
back to be read; the pieces then go through screening (teacher/screening.py) before they become training examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from common.types import Context, Recipe, Sampling
from teacher.generator import Completion
from teacher.pieces import Candidate
from teacher.screening import Screened, ScreeningSettings

Style = Literal["chat", "plain"]


@dataclass(frozen=True)
class PromptCall:
    """One prompt, before it is rendered: a user's turn for the chat template, or plain text to continue.

    `source` is the part of the context that it asks about: what the model writes must be grounded there. `opening` is
    put at the start of the answer, so that the completion goes on from it. `limit` caps the new tokens.
    """

    source: str
    user: str = ""
    text: str = ""
    opening: str = ""
    stop: tuple[str, ...] = ()
    limit: int = 0


class Variant(Protocol):
    """One way to write a self-edit."""

    @property
    def name(self) -> str: ...

    @property
    def rationale(self) -> str:
        """Why an edit of this kind should help; recorded with each."""

    @property
    def with_passage(self) -> bool:
        """Whether the document itself belongs into the edit as one more example."""

    def prompts(self, context: Context, style: Style) -> Sequence[PromptCall]:
        """All prompts of one edit; none when the variant needs no model."""

    def parse(self, call: PromptCall, completion: Completion) -> Sequence[Candidate]:
        """The pieces that a completion of `call` holds."""

    def screen(self, candidates: Sequence[Candidate], context: Context, settings: ScreeningSettings) -> Screened:
        """The pieces of one edit that may teach; teacher/screening.py's rules, and perhaps more."""

    def sampling(self, default: Sampling) -> Sampling:
        """How to draw, given the teacher's settings."""

    def recipe(self, tokens: int) -> Recipe:
        """The update directives that suit an edit with so many tokens; a missing field is for others to choose."""


def document(context: Context) -> str:
    """The text of the context. Callers have refused contexts without one."""
    assert context.text is not None
    return context.text.strip()
