"""Lets lm_eval, which waits for its answers, ask a student that is spoken to from an event loop.

The work runs on a thread of its own; its questions are put on the loop that started it. When whoever waits for the work
is cancelled, what is asked is called off and nothing more can be asked, so the thread ends at its next question.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent import futures
from typing import Any, TypeVar

from auditor.harness.asking import Choice
from auditor.measures import Speaker
from common.errors import Cancelled
from common.types import Sampling
from common.versions import OptionScore

T = TypeVar("T")


class VoiceOnThread:
    """A speaker as a `Voice`. Made and run on the event loop's thread, called on another."""

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._loop = asyncio.get_running_loop()
        self._asking: futures.Future[Any] | None = None
        self._closed = False

    async def run(self, work: Callable[[], T]) -> T:
        """Does the work on a thread. Raises what it raises."""
        try:
            return await asyncio.to_thread(work)
        finally:
            self._closed = True
            if self._asking is not None:
                self._asking.cancel()

    def write(self, texts: Sequence[str], sampling: Sampling) -> list[str]:
        return self._ask(self._speaker.write(texts, sampling))

    def score(self, choices: Sequence[Choice]) -> list[tuple[OptionScore, ...]]:
        return self._ask(self._speaker.score([(choice.context, choice.options) for choice in choices]))

    def _ask(self, question: Coroutine[Any, Any, T]) -> T:
        if self._closed:
            question.close()
            raise Cancelled("nobody waits for the answers any more")
        asking = asyncio.run_coroutine_threadsafe(question, self._loop)
        self._asking = asking
        if self._closed:
            # Whoever closed may have looked for the question before it stood here.
            asking.cancel()
        try:
            return asking.result()
        except futures.CancelledError:
            raise Cancelled("nobody waits for the answers any more") from None
