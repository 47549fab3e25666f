"""One panel of a dashboard as SVG, written without any library: lines over time, bars, or one figure.

The picture's own look, in the terms of tools/dashboards/panels.py. Pure; tools/pictures/sheet.py puts panels together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from tools.dashboards.panels import Bad, Panel
from tools.pictures.figures import spoken, ticks

FONT = "Inter, 'Segoe UI', system-ui, 'DejaVu Sans', sans-serif"
INK, GREY, FAINT, CARD = "#1f2933", "#616e7c", "#e4e7eb", "#ffffff"
COLOURS = ("#2f6fde", "#e8833a", "#2a9d63", "#b0489c", "#8a6d1f", "#c8443c", "#3aa6b9", "#6b7280")
GOOD, WATCH, WRONG = "#2a9d63", "#d97706", "#c8443c"
PAD, LETTER = 14, 6.1  # an 11 pixel letter's mean width


@dataclass(frozen=True)
class Line:
    """A series: its name, and (time, value) pairs in order."""

    name: str
    points: Sequence[tuple[float, float]]

    @property
    def newest(self) -> float:
        return next((value for _, value in reversed(self.points) if math.isfinite(value)), math.nan)


def panel_svg(panel: Panel, lines: Sequence[Line], width: float, height: float, span: tuple[float, float]) -> str:
    """span: of time that the picture covers, in seconds since the epoch."""
    body = {"stat": _stat, "bars": _bars, "lines": _lines}[panel.kind](panel, lines, width, height, span)
    card = f'<rect width="{width}" height="{height}" rx="6" fill="{CARD}" stroke="{FAINT}"/>'
    title = text(PAD, 23, panel.title, size=13, weight=600)
    return card + title + "".join(body)


def text(
    x: float, y: float, words: str, *, size: int = 11, colour: str = INK, anchor: str = "start", weight: int = 400
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-family="{FONT}" font-size="{size}" font-weight="{weight}" fill="{colour}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def level(value: float, bad: Bad | None) -> str:
    """The colour of a figure by its panel's thresholds."""
    if bad is None or math.isnan(value):
        return INK
    passed = [value < limit if bad.below else value >= limit for limit in (bad.watch, bad.bad)]
    return WRONG if passed[1] else WATCH if passed[0] else GOOD


def _stat(panel: Panel, lines: Sequence[Line], width: float, height: float, span: tuple[float, float]) -> Iterator[str]:
    shown = lines[:3]
    for place, line in enumerate(shown):
        x = width * (place + 0.5) / max(1, len(shown))
        said = line.name if panel.named else spoken(line.newest, panel.unit)
        size = 22 if len(said) <= 8 and len(shown) == 1 else 17
        yield text(
            x, height / 2 + 20, said, size=size, anchor="middle", weight=600, colour=level(line.newest, panel.bad)
        )
        if len(shown) > 1:
            yield text(x, height - 12, line.name, colour=GREY, anchor="middle")
    if not shown:
        yield text(width / 2, height / 2 + 16, "no data", colour=GREY, anchor="middle")


def _bars(panel: Panel, lines: Sequence[Line], width: float, height: float, span: tuple[float, float]) -> Iterator[str]:
    shown = sorted(lines, key=lambda line: -line.newest)[:7]
    most = max((line.newest for line in shown), default=1.0) or 1.0
    left = min(width * 0.5, PAD + 10 + LETTER * max((len(line.name) for line in shown), default=0))
    room = (height - 48) / max(4, len(shown))
    for place, line in enumerate(shown):
        y = 38 + place * room
        long = max(2.0, (width - left - 78) * line.newest / most)
        yield text(left - 8, y + room / 2 + 4, line.name, anchor="end", colour=GREY)
        colour = COLOURS[place % len(COLOURS)]
        bar = min(22.0, room * 0.62)
        shape = f'x="{left:.1f}" y="{y + (room - bar) / 2:.1f}" width="{long:.1f}" height="{bar:.1f}"'
        yield f'<rect {shape} rx="2" fill="{colour}"/>'
        yield text(left + long + 6, y + room / 2 + 4, spoken(line.newest, panel.unit), weight=600)


def _lines(
    panel: Panel, lines: Sequence[Line], width: float, height: float, span: tuple[float, float]
) -> Iterator[str]:
    finite = [value for line in lines for _, value in line.points if math.isfinite(value)]
    low, high = _extent(panel, finite)
    left, right, top, bottom = 60.0, width - PAD, 38.0, height - 58.0

    def x_of(time: float) -> float:
        return left + (right - left) * (time - span[0]) / (span[1] - span[0])

    def y_of(value: float) -> float:
        return bottom - (bottom - top) * (min(max(value, low), high) - low) / (high - low)

    for value in ticks(low, high):
        yield f'<path d="M{left} {y_of(value):.1f}H{right}" stroke="{FAINT}"/>'
        yield text(left - 7, y_of(value) + 4, spoken(value, panel.unit), size=10, colour=GREY, anchor="end")
    for seconds in ticks(0, span[1] - span[0], 5):
        x = x_of(span[0] + seconds)
        yield text(x, bottom + 15, f"{seconds:.0f} s", size=10, colour=GREY, anchor="middle")
    if panel.bad is not None and low <= panel.bad.bad <= high:
        y = y_of(panel.bad.bad)
        yield f'<path d="M{left} {y:.1f}H{right}" stroke="{WRONG}" stroke-dasharray="4 4" opacity="0.7"/>'
    for place, line in enumerate(lines[: len(COLOURS)]):
        yield _path(line, x_of, y_of, COLOURS[place])
    yield from _legend(panel, lines[: len(COLOURS)], width, height)


def _extent(panel: Panel, values: Sequence[float]) -> tuple[float, float]:
    low = panel.least if panel.least is not None else min([0.0, *values])
    high = panel.most if panel.most is not None else max([0.0, *values]) * 1.08
    return (low, high) if high > low else (low, low + 1.0)


def _path(line: Line, x_of: Callable[[float], float], y_of: Callable[[float], float], colour: str) -> str:
    steps: list[str] = []
    pen = "M"
    for time, value in line.points:
        if not math.isfinite(value):
            pen = "M"
            continue
        steps.append(f"{pen}{x_of(time):.1f} {y_of(value):.1f}")
        pen = "L"
    drawn = f'<path d="{"".join(steps)}" fill="none" stroke="{colour}" stroke-width="2" stroke-linejoin="round"/>'
    known = [(time, value) for time, value in line.points if math.isfinite(value)]
    if known:
        time, value = known[-1]
        drawn += f'<circle cx="{x_of(time):.1f}" cy="{y_of(value):.1f}" r="3" fill="{colour}"/>'
    return drawn


def _legend(panel: Panel, lines: Sequence[Line], width: float, height: float) -> Iterator[str]:
    """Two lines of names with their newest values; what does not fit is left out."""
    x, y = float(PAD), height - 26.0
    for place, line in enumerate(lines):
        said = f"{line.name}  {spoken(line.newest, panel.unit)}"
        long = 16 + LETTER * len(said) + 12
        if x > PAD and x + long > width:
            x, y = float(PAD), y + 16
        if y > height - 8:
            return
        yield f'<rect x="{x:.1f}" y="{y - 7:.1f}" width="10" height="3" rx="1" fill="{COLOURS[place]}"/>'
        yield text(x + 15, y, said, colour=GREY)
        x += long
