"""The port behind which a language model writes completions.

A backend (teacher/backends) holds one base model and any number of policy adapters. Prompts come as token ids, so that
what the model saw is known to the token; the M-step trains on the same ids. The proposer and the learner are the
callers. A version is "base" or the sha256 of an adapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from common.errors import NotPossible
from common.types import Sampling, Software

BASE = "base"


class PromptTooLong(NotPossible):
    """A prompt and its completion do not fit the model."""

    reason = "PROMPT_TOO_LONG"

    def __init__(self, tokens: int, new_tokens: int, limit: int) -> None:
        super().__init__(f"a prompt of {tokens} tokens and {new_tokens} new ones exceed the model's limit of {limit}")


@dataclass(frozen=True)
class Draw:
    """One prompt and how to draw from it. `sampling.max_new_tokens` must be set."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling


@dataclass(frozen=True)
class Completion:
    """What the model wrote: text without the stop string, and the tokens as they were drawn.

    `finish` is "length" when the limit cut it off, "stop" otherwise.
    """

    text: str
    token_ids: tuple[int, ...]
    finish: Literal["stop", "length"]


class Generator(Protocol):
    """A model that writes. Safe to call from one event loop; calls may overlap."""

    async def start(self) -> None:
        """Loads the base model. Called once, before the gRPC server starts."""

    async def generate(self, draws: Sequence[Draw], version: str) -> list[Completion]:
        """One completion a draw, in order. Raises NotPossible when `version` is not loaded, PromptTooLong."""

    async def load(self, version: str, folder: Path) -> None:
        """Makes an adapter (PEFT format) usable as `version`; nothing to do when it is. Raises NotPossible."""

    async def unload(self, version: str) -> None:
        """Frees an adapter. Raises NotFound when it is not loaded."""

    async def loaded(self) -> frozenset[str]:
        """Versions of the adapters that the engine itself says it holds."""

    def software(self) -> Software:
        """Packages, device and threads, for the record."""

    async def close(self) -> None:
        """Frees the model and its processes."""
