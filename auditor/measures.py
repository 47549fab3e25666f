"""The port behind which suites are marked by something else than the auditor's own questions and graders.

A measure asks a version through a speaker, which knows the student and the version; it gets texts and likelihoods back
and keeps its keys to itself. auditor/measuring.py is the speaker and keeps the marks; auditor/harness/ is a measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from auditor.tasks import Suite
from common.types import Sampling
from common.versions import OptionScore


@dataclass(frozen=True)
class Measurement:
    """One item's mark, 0..1, and the answer that it rests on: what was written, or the option that was chosen."""

    item_id: str
    answer: str
    score: float


class Speaker(Protocol):
    """A version that can be asked."""

    async def write(self, texts: Sequence[str], sampling: Sampling) -> list[str]:
        """What the version writes after each raw text."""
        ...

    async def score(self, choices: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[OptionScore, ...]]:
        """Log-likelihoods of each raw text's options, in their order."""
        ...


class Measure(Protocol):
    """Marks versions on one suite."""

    @property
    def suite(self) -> Suite:
        """With its `measured`: items by id, and the digest of all that marks depend on beside the version."""
        ...

    async def measure(self, speaker: Speaker) -> Sequence[Measurement]:
        """One mark for each of the suite's items, in their order."""
        ...
