"""What sequences of edits come to: every figure with its interval, and all that they are made of. Pure.

For an interval passages are drawn again, those of all sequences together (benchmarks/method/statistics.py). Within a
sequence they stand and fall with the same versions, so that it is rather too narrow; sequences are too few to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean

from pydantic import Field

from benchmarks.forgetting import EditSequence
from benchmarks.method.continual_settings import REFERENCE
from benchmarks.method.continual_turns import Played
from benchmarks.method.results import Figure
from benchmarks.method.statistics import interval_of_mean
from common.types import Domain, Sha256

# Of each passage of a sequence; SEAL.md's terms, as in benchmarks/forgetting.py.
FIGURES: Mapping[str, Callable[[EditSequence], list[float]]] = {
    "unedited_mean": lambda s: list(s.rows[0]),
    "learned": lambda s: list(s.right_after),
    "forgetting": lambda s: [then - last for then, last in zip(s.right_after, s.rows[-1], strict=True)],
    "backward_transfer": lambda s: [
        last - then for then, last in zip(s.right_after[:-1], s.rows[-1][:-1], strict=True)
    ],
    "final_mean": lambda s: list(s.rows[-1]),
    "gain": lambda s: [last - first for first, last in zip(s.rows[0], s.rows[-1], strict=True)],
}


class ChainFigures(Domain):
    """One chain over all sequences.

    figures: by the names of FIGURES (gain: final less unedited); after_further: accuracy on a passage after so many
    further edits, 0 first; empty: answers without a word after the last edit, of `questions`; anchors_lost: share of
    those reported, unedited first, then after each edit; scaled: accepted at less than the whole.
    """

    chain: str
    sequences: int
    edits: int
    accepted: int
    scaled: int
    figures: dict[str, Figure]
    after_further: tuple[float, ...]
    questions: int
    empty: int
    anchors: int
    anchors_lost: tuple[float, ...]
    tokens: int
    seconds: float


class ContinualTable(Domain):
    """Everything in one file. differences: each chain less the published one, passage by passage, by figure; judged:
    questions that gates ask, and that none of the figures counts; uncounted: anchors that our procedure rehearses, by
    their places."""

    bench: str = "continual"
    model: str
    base: Sha256
    data: Sha256
    settings: dict[str, object]
    judged: int = 0
    uncounted: tuple[int, ...] = ()
    chains: tuple[ChainFigures, ...]
    differences: dict[str, dict[str, Figure]] = Field(default={})
    sequences: tuple[Played, ...]

    @property
    def matrices(self) -> tuple[EditSequence, ...]:
        """As benchmarks/heat_map.py draws them."""
        return tuple(played.sequence for played in self.sequences)


def chain_figures(chain: str, found: Sequence[Played], seed: int) -> ChainFigures:
    edits = [edit for played in found for edit in played.edits]
    return ChainFigures(
        chain=chain,
        sequences=len(found),
        edits=len(edits),
        accepted=sum(edit.accepted for edit in edits),
        scaled=sum(edit.accepted and edit.scale < 1 for edit in edits),
        figures={
            name: interval_of_mean(by_passage((p.sequence, of(p.sequence)) for p in found), seed)
            for name, of in FIGURES.items()
        },
        after_further=after_further([played.sequence for played in found]),
        questions=sum(sum(played.sequence.questions) for played in found),
        empty=sum(played.sequence.empty[-1] for played in found),
        anchors=sum(played.anchors for played in found),
        anchors_lost=_lost(found),
        tokens=sum(edit.tokens for edit in edits),
        seconds=round(sum(edit.seconds for edit in edits), 1),
    )


def by_passage(values: Iterable[tuple[EditSequence, Sequence[float]]]) -> list[list[float]]:
    """Values of the first passages of each sequence, those of a passage that stands in several together."""
    found: dict[str, list[float]] = {}
    for sequence, of_passages in values:
        for key, value in zip(sequence.passages, of_passages, strict=False):
            found.setdefault(key, []).append(value)
    return list(found.values())


def after_further(sequences: Sequence[EditSequence]) -> tuple[float, ...]:
    """Mean accuracy on a passage right after its edit, and after 1, 2, ... further ones (SEAL.md, continual edits)."""
    length = len(sequences[0].passages)
    return tuple(
        round(fmean(s.rows[place + 1 + later][place] for s in sequences for place in range(length - later)), 4)
        for later in range(length)
    )


def differences(by_chain: Mapping[str, Sequence[Played]], seed: int) -> dict[str, dict[str, Figure]]:
    """Paired by passage: both chains learned the same sequences. Empty without the published chain."""
    theirs = by_chain.get(REFERENCE, ())
    return {
        chain: {
            name: interval_of_mean(
                by_passage(
                    (x.sequence, [a - b for a, b in zip(of(x.sequence), of(y.sequence), strict=True)])
                    for x, y in zip(ours, theirs, strict=True)
                ),
                seed,
            )
            for name, of in FIGURES.items()
        }
        for chain, ours in by_chain.items()
        if theirs and chain != REFERENCE
    }


def _lost(found: Sequence[Played]) -> tuple[float, ...]:
    asked = sum(played.anchors for played in found)
    rows = zip(*(played.lost for played in found), strict=True)
    return tuple(round(sum(row) / asked, 4) if asked else 0.0 for row in rows)
