"""The port behind which answers are written: by the LoRA engine itself, or by vLLM.

Called on the model's thread, one call at a time, with versions whose liveness the LoRA engine has just proven.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from common.lora.answering import GeneratedText
from common.types import Prompt, Sampling


class AnswerEngine(Protocol):
    """Writes what versions answer."""

    def prepare(self, version: str) -> None:
        """Makes sure that a proven version answers here as itself. Raises Corrupt, NotPossible, Unavailable."""

    def answer(
        self,
        versions: Sequence[str],
        prompts: Sequence[Prompt],
        sampling: Sampling,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[str, GeneratedText]]:
        """(version, answer) of every version to every prompt, each as soon as it has ended.

        Finish (or close) the iterator before asking for anything else. Raises InvalidRequest for a prompt that is too
        long, NotFound and Corrupt for a version, Cancelled soon after `cancelled()` says so, Unavailable.
        """

    def release(self, version: str) -> None:
        """Frees a version's memory if it takes any."""
