"""A table of the benchmarks as text: Markdown that a person can read in a terminal as it is. Pure.

Shares are per cent. Intervals are of 95 %, from passages drawn again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.method.results import (
    CONTAINS,
    GRADERS,
    TOKEN_F1,
    ArmFigures,
    Comparison,
    Difference,
    Figure,
    Table,
    called,
)

NAMES = {CONTAINS: "contains", TOKEN_F1: "token F1"}
NOTHING = "-"
FEW = 10  # passages; percentile intervals of fewer are known to be too narrow


def report(table: Table) -> str:
    """All of `table` that a person compares."""
    return "\n".join(_lines(table))


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 2) -> Iterator[str]:
    """A Markdown table with columns of even width; the first `words` columns are text, all others figures."""
    widths = [max(len(line[place]) for line in (head, *rows)) for place in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        even = [
            cell.ljust(width) if place < words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(even)} |"

    yield line(head)
    yield f"|{'|'.join('-' * (w + 2) if place < words else '-' * (w + 1) + ':' for place, w in enumerate(widths))}|"
    for row in rows:
        yield line(row)


def share(value: float) -> str:
    return f"{100 * value:.1f}"


def change(figure: Figure | None) -> str:
    """ "+4.2 [+1.0, +7.5]" in points; "-" where nothing is compared."""
    if figure is None:
        return NOTHING
    return f"{100 * figure.mean:+.1f} [{100 * figure.low:+.1f}, {100 * figure.high:+.1f}]"


def between(figure: Figure) -> str:
    return f"{share(figure.mean)} [{share(figure.low)}, {share(figure.high)}]"


def part(count: int, whole: int) -> str:
    """ "3 of 60 (5.0)"; "-" where nothing was asked."""
    return f"{count} of {whole} ({share(count / whole)})" if whole else NOTHING


def _lines(table: Table) -> Iterator[str]:
    first = table.arms[0]
    once = "one passage an update" if table.together == 1 else f"{table.together} passages an update"
    yield f"{table.model}: {first.passages} passages, {first.questions} questions, {once}"
    yield from _noise(table)
    yield ""
    yield "Questions right, per cent [95 % interval]; gain over the unedited model in points, paired by question."
    yield ""
    yield from _learned(table.arms)
    yield ""
    yield "What it cost. Right to wrong and back: the passages' own questions, by contains."
    yield ""
    yield from _cost(table.arms)
    yield from _without(table.arms)
    if table.differences:
        yield ""
        yield "Ours less the published procedure, on the same edits, in points, paired by question."
        yield ""
        yield from _differences(table.differences)
    if table.comparisons:
        yield ""
        yield "Arm less arm by the same procedure, in points, paired by question."
        yield ""
        yield from _comparisons(table.comparisons)
    if any(arm.with_fallback for arm in table.arms):
        yield ""
        yield "With the parent version's answer in place of an empty one, labelled as the parent's."
        yield ""
        yield from _fallback(table.arms)


def _noise(table: Table) -> Iterator[str]:
    """What the intervals do not say."""
    if (passages := table.arms[0].passages) < FEW:
        yield f"Intervals come from {passages} passages drawn again, which is too few: they are too narrow."
    if table.together > 1:
        yield "Each update on several passages was made once: what another seed would change is in no interval."


def _learned(arms: Sequence[ArmFigures]) -> Iterator[str]:
    head = ["arm", "procedure", *(NAMES[g] for g in GRADERS), *(f"gain, {NAMES[g]}" for g in GRADERS), "empty"]
    rows = [
        [
            called(arm.arm),
            arm.procedure or NOTHING,
            *(between(arm.accuracy[grader]) for grader in GRADERS),
            *(change(arm.gain.get(grader)) for grader in GRADERS),
            share(arm.empty / arm.questions),
        ]
        for arm in arms
    ]
    return grid(head, rows)


def _cost(arms: Sequence[ArmFigures]) -> Iterator[str]:
    head = ["arm", "procedure", "right to wrong", "wrong to right", "anchors lost", "different", "tokens", "seconds"]
    rows = [
        [
            called(arm.arm),
            arm.procedure or NOTHING,
            str(arm.right_to_wrong),
            str(arm.wrong_to_right),
            part(arm.anchors_lost, arm.anchors),
            str(arm.anchor_questions) if arm.anchors else NOTHING,
            f"{arm.tokens:,}" if arm.tokens else NOTHING,
            f"{arm.seconds:,.0f}" if arm.tokens else NOTHING,
        ]
        for arm in arms
    ]
    return grid(head, rows)


def _without(arms: Sequence[ArmFigures]) -> Iterator[str]:
    for arm in arms:
        for reason, count in arm.without.items():
            yield ""
            answered = f"the unedited model answered for {count} of {arm.passages} passages"
            yield f"{called(arm.arm)}, {arm.procedure}: {answered}: {reason}"


def _differences(differences: Sequence[Difference]) -> Iterator[str]:
    head = ["arm", *(NAMES[grader] for grader in GRADERS), "anchors lost: ours", "published", "difference"]
    rows = [
        [
            called(one.arm),
            *_changes(one.accuracy),
            *map(share, one.lost_share),
            change(one.lost),
        ]
        for one in differences
    ]
    return grid(head, rows, words=1)


def _comparisons(comparisons: Sequence[Comparison]) -> Iterator[str]:
    head = ["procedure", "arm", "less", *(NAMES[grader] for grader in GRADERS)]
    rows = [[one.procedure, called(one.arm), called(one.less), *_changes(one.accuracy)] for one in comparisons]
    return grid(head, rows, words=3)


def _changes(accuracy: Mapping[str, Figure]) -> Iterator[str]:
    return (change(accuracy[grader]) for grader in GRADERS)


def _fallback(arms: Sequence[ArmFigures]) -> Iterator[str]:
    rows = [
        [called(arm.arm), arm.procedure or NOTHING, *(between(arm.with_fallback[grader]) for grader in GRADERS)]
        for arm in arms
        if arm.with_fallback
    ]
    return grid(["arm", "procedure", *(NAMES[grader] for grader in GRADERS)], rows)
