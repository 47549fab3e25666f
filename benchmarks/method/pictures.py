"""A table as one SVG picture, written without any library: a dot with its interval for each arm and procedure. Pure.

A panel a grader. Colour and shape both tell the procedures apart, so neither colours nor a printer's grey are needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from benchmarks.method.results import CONTAINS, TOKEN_F1, ArmFigures, Figure, Table, called

ROW, LEFT, TOP, PANEL, GAP = 24, 210, 62, 280, 36
FONT = 'font-family="system-ui, sans-serif"'
# Okabe and Ito 2008: told apart by all kinds of sight.
COLOURS = {"": "#000000", "seal": "#0072B2", "reference": "#D55E00"}
PANELS = ((CONTAINS, "right by contains, %"), (TOKEN_F1, "token F1, %"))
TICKS = 5


def picture(table: Table) -> str:
    """The picture's text: a row an arm and procedure, in the table's order."""
    width = LEFT + len(PANELS) * (PANEL + GAP)
    height = TOP + len(table.arms) * ROW + 40
    body = [
        _text(8, 20, f"{table.bench}: {table.arms[0].passages} passages, {table.arms[0].questions} questions", size=14),
        *(_text(LEFT - 14, _middle(place), _named(arm), size=12, anchor="end") for place, arm in enumerate(table.arms)),
    ]
    for number, (grader, title) in enumerate(PANELS):
        body += _panel(table.arms, grader, title, LEFT + number * (PANEL + GAP), height - 40)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _panel(arms: Sequence[ArmFigures], grader: str, title: str, left: float, bottom: float) -> Iterator[str]:
    most = _end(max(arm.accuracy[grader].high for arm in arms))
    yield _text(left, TOP - 18, title, size=12)
    for step in range(TICKS + 1):
        x = left + PANEL * step / TICKS
        yield f'<line x1="{x:.1f}" y1="{TOP - 6}" x2="{x:.1f}" y2="{bottom}" stroke="#dddddd"/>'
        yield _text(x, bottom + 18, f"{100 * most * step / TICKS:g}", size=11, anchor="middle")
    for place, arm in enumerate(arms):
        yield from _dot(arm, arm.accuracy[grader], left, PANEL / most, _middle(place) - 4)


def _dot(arm: ArmFigures, figure: Figure, left: float, scale: float, y: float) -> Iterator[str]:
    colour = COLOURS[arm.procedure]
    low, x, high = (left + value * scale for value in (figure.low, figure.mean, figure.high))
    yield f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
    said = f"{_named(arm)}: {100 * figure.mean:.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"
    title = f"<title>{escape(said)}</title>"
    if arm.procedure == "reference":
        yield f'<rect x="{x - 5:.1f}" y="{y - 5}" width="10" height="10" fill="{colour}">{title}</rect>'
    else:
        yield f'<circle cx="{x:.1f}" cy="{y}" r="5.5" fill="{colour}">{title}</circle>'


def _end(highest: float) -> float:
    """Where the scale ends: a whole number of tenths that holds every interval."""
    return max(1, -(-round(1_000 * highest) // 100)) / 10


def _middle(place: int) -> float:
    return TOP + place * ROW + 18


def _named(arm: ArmFigures) -> str:
    return f"{called(arm.arm)}, {arm.procedure}" if arm.procedure else called(arm.arm)


def _text(x: float, y: float, text: str, *, size: int, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" {FONT} font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'
