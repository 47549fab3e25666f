"""The regex grader: a key is found in the answer (search, not match of the whole: ^ and $ are there for that).

Case counts unless the pattern says (?i). Patterns come from people and answers from a model, and together they can take
for ever. So a pattern that does on texts made to provoke it is refused when a run is ordered (`runaway`), and a search
that is still not over after SECONDS ends the run with the item's name: no mark was found, and 0 would be a made-up one.
"""

from __future__ import annotations

import asyncio
import string
from collections.abc import AsyncGenerator, Iterable, Sequence
from functools import lru_cache

import regex

from auditor.graders.port import Submission
from common.errors import NotPossible

SECONDS = 2.0
TRIAL_SECONDS = 0.2
# Compiled patterns in memory; the regex module itself keeps 500, of whatever size.
KEPT = 64
# Long runs of what patterns like to repeat, with an end that makes them go back. Then every character that may have to
# be there, for a search gives up at once where one is missing.
TRIALS = tuple(unit * 400 + "\u0000" + string.printable for unit in ("a", "1", " ", "a ", "ab1 ", ".", "a,"))


def matches(answer: str, patterns: Iterable[str], seconds: float) -> bool:
    """Whether any pattern is found in the answer. Raises TimeoutError."""
    return any(_compiled(pattern).search(answer, timeout=seconds) for pattern in patterns)


@lru_cache(maxsize=KEPT)
def _compiled(pattern: str) -> regex.Pattern[str]:
    return regex.compile(pattern, cache_pattern=False)


def runaway(pattern: str) -> bool:
    """Whether a pattern takes too long on a text that is made to provoke it. Some escape this; none escapes SECONDS."""
    try:
        for trial in TRIALS:
            matches(trial, [pattern], TRIAL_SECONDS)
    except TimeoutError:
        return True
    return False


class PatternMarker:
    """The regex grader, on a thread: a search cannot be awaited."""

    identity = ""

    async def mark(self, submissions: Sequence[Submission]) -> AsyncGenerator[tuple[int, float], None]:
        for place, submission in enumerate(submissions):
            try:
                found = await asyncio.to_thread(matches, submission.answer, submission.item.answers, SECONDS)
            except TimeoutError:
                raise NotPossible(
                    f"a regular expression took more than {SECONDS:g} s on an answer",
                    reason="GRADER_TOO_SLOW",
                    ids={"item_id": submission.item.item_id},
                ) from None
            yield place, float(found)

    async def close(self) -> None:
        """Holds nothing."""
