"""The table of sequences as text: Markdown that a person can read in a terminal as it is. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.method.continual_results import ChainFigures, ContinualTable
from benchmarks.method.report import NOTHING, between, change, grid, share
from benchmarks.method.results import Figure

SHARES = {"learned": "right after its edit", "final_mean": "at the end"}
CHANGES = {"forgetting": "forgotten", "backward_transfer": "backward transfer", "gain": "gain at the end"}


def report(table: ContinualTable) -> str:
    """All of `table` that a person compares."""
    return "\n".join(_lines(table))


def _lines(table: ContinualTable) -> Iterator[str]:
    first = table.chains[0]
    length = first.edits // first.sequences
    many = "sequence" if first.sequences == 1 else "sequences"
    yield f"{table.model}: {first.sequences} {many} of {length} passages, {first.questions} questions"
    yield f"unedited: {between(first.figures['unedited_mean'])} per cent right"
    yield from _noise(table)
    yield ""
    yield "Questions right by contains, per cent [95 % interval]; changes in points. Forgotten: right after a passage's"
    yield "edit less right at the end; gain: at the end less unedited."
    yield ""
    yield from _figures(table.chains)
    yield ""
    yield from _cost(table.chains)
    yield ""
    yield "Right on a passage after so many further edits, per cent."
    yield ""
    yield from _further(table.chains)
    if table.differences:
        yield ""
        yield "Less the published procedure, passage by passage, in points."
        yield ""
        yield from _differences(table.differences)


def _noise(table: ContinualTable) -> Iterator[str]:
    """What the intervals do not say, and what is counted."""
    sequences = table.chains[0].sequences
    yield "Intervals come from passages drawn again. Those of a sequence stand and fall with the same versions, and of"
    yield f"sequences there {'is 1' if sequences == 1 else f'are {sequences}'}: they are too narrow."
    if table.judged:
        yield f"Gates decided by {table.judged} further questions about these passages, which no figure counts."


def _figures(chains: Sequence[ChainFigures]) -> Iterator[str]:
    rows = [
        [
            one.chain,
            *(between(one.figures[name]) for name in SHARES),
            *(change(one.figures[name]) for name in CHANGES),
        ]
        for one in chains
    ]
    return grid(["chain", *SHARES.values(), *CHANGES.values()], rows, words=1)


def _cost(chains: Sequence[ChainFigures]) -> Iterator[str]:
    head = ["chain", "accepted", "scaled down", "empty at the end", "anchors lost at the end", "tokens", "seconds"]
    rows = [
        [
            one.chain,
            f"{one.accepted} of {one.edits}",
            str(one.scaled),
            share(one.empty / one.questions),
            share(one.anchors_lost[-1]) if one.anchors else NOTHING,
            f"{one.tokens:,}",
            f"{one.seconds:,.0f}",
        ]
        for one in chains
    ]
    return grid(head, rows, words=1)


def _further(chains: Sequence[ChainFigures]) -> Iterator[str]:
    head = ["chain", *(str(later) for later in range(len(chains[0].after_further)))]
    return grid(head, [[one.chain, *map(share, one.after_further)] for one in chains], words=1)


def _differences(differences: Mapping[str, Mapping[str, Figure]]) -> Iterator[str]:
    names = {**SHARES, **CHANGES}
    rows = [[chain, *(change(figures[name]) for name in names)] for chain, figures in differences.items()]
    return grid(["chain", *names.values()], rows, words=1)
