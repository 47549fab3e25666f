"""A dashboard as one SVG, in Grafana's grid: rows with headings, panels beside one another, a caption below."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from tools.dashboards.panels import HEIGHTS, Board, Panel
from tools.pictures.chart import FAINT, GREY, INK, Line, panel_svg, text

WIDTH, COLUMNS, GAP, UNIT, MARGIN = 1_280, 24, 10, 34, 20
GROUND = "#f5f7fa"


class Source(Protocol):
    """What the panels' figures come from."""

    def lines(self, panel: Panel) -> list[Line]: ...


def sheet(board: Board, source: Source, span: tuple[float, float], caption: Sequence[str]) -> str:
    """The picture's text. caption: what was run, on what, line by line."""
    parts: list[str] = []
    y = 58.0
    for row in board.rows:
        parts.append(text(MARGIN, y + 18, row.title, size=14, weight=600))
        y += 28
        x = tallest = 0.0
        for panel in row.panels:
            width = (WIDTH - 2 * MARGIN + GAP) * panel.width / COLUMNS - GAP
            height = float(HEIGHTS[panel.kind] * UNIT - GAP)
            if x + width > WIDTH - 2 * MARGIN + 1:
                y, x, tallest = y + tallest + GAP, 0.0, 0.0
            drawn = panel_svg(panel, source.lines(panel), width, height, span)
            parts.append(f'<g transform="translate({MARGIN + x:.1f},{y:.1f})">{drawn}</g>')
            x, tallest = x + width + GAP, max(tallest, height)
        y += tallest + GAP
    for line in caption:
        parts.append(text(MARGIN, y + 16, line, size=12, colour=GREY))
        y += 17
    height = y + MARGIN
    heading = text(MARGIN, 36, board.title, size=20, weight=700, colour=INK)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}" '
        f'viewBox="0 0 {WIDTH} {height:.0f}">\n<rect width="100%" height="100%" fill="{GROUND}"/>'
        f'<path d="M{MARGIN} 50H{WIDTH - MARGIN}" stroke="{FAINT}"/>\n{heading}\n' + "\n".join(parts) + "\n</svg>\n"
    )


def named(legend: str, labels: dict[str, str]) -> str:
    """A series' name, as Grafana makes it of the legend's format."""
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), legend).strip()
