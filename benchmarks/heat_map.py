"""Forgetting matrices as one SVG picture, written without any library. Pure.

A panel is a sequence of edits: rows are versions from the unedited one down, columns are passages as they were edited;
the darker, the more questions are answered right; framed is the passage that was just edited (dashed: turned down).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.forgetting import EditSequence

CELL, LEFT, TOP, GAP = 34, 76, 112, 40
FONT = 'font-family="system-ui, sans-serif"'
LIGHT, DARK = (247, 251, 255), (8, 48, 107)


def heat_map(sequences: Sequence[EditSequence]) -> str:
    """The picture's text: arms side by side, orders below one another."""
    arms = list(dict.fromkeys(sequence.arm for sequence in sequences))
    orders = sorted({sequence.order for sequence in sequences})
    columns = max(len(sequence.passages) for sequence in sequences)
    width, height = LEFT + columns * CELL + GAP, TOP + (columns + 1) * CELL + GAP
    body = [
        f'<g transform="translate({arms.index(sequence.arm) * width},{orders.index(sequence.order) * height})">'
        + "".join(_panel(sequence))
        + "</g>"
        for sequence in sequences
    ]
    size = (width * len(arms), height * len(orders))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        f'viewBox="0 0 {size[0]} {size[1]}">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _panel(sequence: EditSequence) -> Iterator[str]:
    yield _text(8, 18, f"{sequence.arm}, order {sequence.order + 1}", size=14, weight="bold")
    said = f"learned {sequence.learned:.1%}, forgotten {sequence.forgetting:.1%}, at the end {sequence.final_mean:.1%}"
    yield _text(8, 36, said, size=11)
    for column, title in enumerate(sequence.titles):
        x, y = LEFT + column * CELL + CELL / 2, TOP - 8
        short = title if len(title) <= 16 else f"{title[:15]}…"
        yield (f'<text x="{x}" y="{y}" {FONT} font-size="10" transform="rotate(-40 {x} {y})">{escape(short)}</text>')
    for version, row in enumerate(sequence.rows):
        y = TOP + version * CELL
        name = "unedited" if version == 0 else f"edit {version}"
        yield _text(LEFT - 8, y + CELL / 2 + 4, name, size=11, anchor="end")
        for column, share in enumerate(row):
            yield _cell(LEFT + column * CELL, y, share)
    for place, accepted in enumerate(sequence.accepted):
        dashes = "" if accepted else ' stroke-dasharray="4 3"'
        yield (
            f'<rect x="{LEFT + place * CELL + 1}" y="{TOP + (place + 1) * CELL + 1}" width="{CELL - 2}" '
            f'height="{CELL - 2}" fill="none" stroke="#d94801" stroke-width="2"{dashes}/>'
        )


def _cell(x: float, y: float, share: float) -> str:
    colour = ",".join(str(round(low + (high - low) * share)) for low, high in zip(LIGHT, DARK, strict=True))
    ink = "white" if share > 0.5 else "black"
    return f'<rect x="{x}" y="{y}" width="{CELL}" height="{CELL}" fill="rgb({colour})" stroke="white"/>' + _text(
        x + CELL / 2, y + CELL / 2 + 4, f"{share * 100:.0f}", size=11, anchor="middle", fill=ink
    )


def _text(
    x: float, y: float, text: str, *, size: int, anchor: str = "start", weight: str = "normal", fill: str = "black"
) -> str:
    return (
        f'<text x="{x}" y="{y}" {FONT} font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
        f'fill="{fill}">{escape(text)}</text>'
    )
