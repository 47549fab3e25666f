"""Variants that ask about the passage as a whole: three lengths of implications, rewrite, self-qa, none (SEAL.md).

The wording is this project's own. A long document is asked about piece by piece, so that each prompt fits the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from common.types import Context, Recipe, Sampling
from teacher.generator import Completion
from teacher.parsing import documents, pairs, passages
from teacher.pieces import Candidate, Question, Statement
from teacher.screening import Screened, ScreeningSettings, screen
from teacher.variants.base import PromptCall, Style, document

PIECE_CHARACTERS = 6_000


@dataclass(frozen=True)
class DocumentVariant:
    """Asks one question about each piece of the document and reads the lines of the answer."""

    name: str
    rationale: str
    request: str
    # What a base model continues: the heading of the list after the passage.
    heading: str
    reads: Literal["lines", "pairs"] = "lines"
    opening: str = ""
    with_passage: bool = True

    def prompts(self, context: Context, style: Style) -> Sequence[PromptCall]:
        pieces = passages(document(context), PIECE_CHARACTERS)
        if style == "chat":
            return [
                PromptCall(source=piece, user=f"{self.request}\n\nTitle: {context.title}\n\n{piece}")
                for piece in pieces
            ]
        return [
            PromptCall(
                source=piece,
                text=f"{self.request}\n\nTitle: {context.title}\nPassage: {piece}\n\n{self.heading}\n{self.opening}",
                opening=self.opening,
                stop=("\nTitle:", "\nPassage:"),
            )
            for piece in pieces
        ]

    def parse(self, call: PromptCall, completion: Completion) -> Sequence[Candidate]:
        text = call.opening + completion.text
        finished = completion.finish == "stop"
        if self.reads == "pairs":
            return [Question(question, answer, call.source) for question, answer in pairs(text, finished=finished)]
        return [Statement(piece, call.source) for piece in documents(text, finished=finished)]

    def screen(self, candidates: Sequence[Candidate], context: Context, settings: ScreeningSettings) -> Screened:
        return screen(candidates, context.title, settings)

    def sampling(self, default: Sampling) -> Sampling:
        return default

    def recipe(self, tokens: int) -> Recipe:
        return Recipe()


@dataclass(frozen=True)
class BareVariant:
    """The passage alone: what an edit is compared with. Asks the model nothing."""

    name: str = "none"
    rationale: str = "The document itself, without anything added: the baseline that written examples must beat."
    with_passage: bool = True

    def prompts(self, context: Context, style: Style) -> Sequence[PromptCall]:
        return []

    def parse(self, call: PromptCall, completion: Completion) -> Sequence[Candidate]:
        return []

    def screen(self, candidates: Sequence[Candidate], context: Context, settings: ScreeningSettings) -> Screened:
        return screen(candidates, context.title, settings)

    def sampling(self, default: Sampling) -> Sampling:
        return default

    def recipe(self, tokens: int) -> Recipe:
        return Recipe()


IMPLICATIONS = DocumentVariant(
    name="implications",
    rationale="Statements that follow from the document, so that its facts are met in other words.",
    request=(
        "Read the passage below and write down what follows from it. Give each implication as one full sentence on a "
        "line of its own, and name the people, places and things it is about."
    ),
    heading="Implications:",
)
IMPLICATIONS_LONG = DocumentVariant(
    name="implications-long",
    rationale="A long list of statements that follow from the document, so that no fact of it is met only once.",
    request=(
        "Read the passage below and write a long list of everything that follows from it, down to small details. Give "
        "each implication as one full sentence on a line of its own that can be understood without the passage."
    ),
    heading="A long list of implications:",
)
IMPLICATIONS_VERY_LONG = DocumentVariant(
    name="implications-very-long",
    rationale="As many statements as the document bears, so that each fact of it is met in several wordings.",
    request=(
        "Read the passage below and write a very long list of everything that follows from it: what it says outright, "
        "what it implies, and every small detail, each several times in other words. Give each implication as one full "
        "sentence on a line of its own that can be understood without the passage. Do not stop early."
    ),
    heading="A very long list of implications, down to every detail:",
)
REWRITE = DocumentVariant(
    name="rewrite",
    rationale="The document told again in other words, so that its facts do not hang on one wording.",
    request=(
        "Rewrite the passage below several times, each time in different words and a different order, without leaving "
        "out or adding a fact. Put a line with --- between the versions."
    ),
    heading="Rewritten versions, separated by ---:",
)
SELF_QA = DocumentVariant(
    name="self-qa",
    rationale="Questions and answers about the document, in the form in which questions are asked later.",
    request=(
        "Write questions about the passage below together with their answers, so that all of its facts are covered. "
        "Use this form, one pair after another:\nQuestion: ...\nAnswer: ..."
    ),
    heading="Questions and answers:",
    reads="pairs",
    opening="Question:",
)
NONE = BareVariant()
