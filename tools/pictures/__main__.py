"""`python -m tools.pictures [FOLDER]`: runs the services under Prometheus and draws what it saw into docs/pictures.

Takes two to four minutes: three processes with tiny models, which a run really teaches and really makes forget.
"""

from __future__ import annotations

import asyncio
import os
import pty
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.support.monitored_run import Watched, monitored
from tests.support.prometheus import Prometheus
from tools.dashboards.__main__ import DASHBOARDS
from tools.dashboards.panels import Panel
from tools.pictures.chart import Line
from tools.pictures.sheet import named, sheet

FOLDER = Path(__file__).parents[2] / "docs/pictures"
CHOSEN = {"$namespace": ".*", "$job": ".*", "$window": "10m", "$__rate_interval": "15s"}
COLUMNS = 118
CAPTION = (
    "Drawn by `make pictures` from Debian's Prometheus, which scraped one run of the three services every second, with"
    " this dashboard's own queries.",
    "Teacher and student are tiny models (two layers) that knew a few answers by heart; the documents are invented"
    " and have eight questions each. Figures of a real model: README.md.",
)


@dataclass(frozen=True)
class Asked:
    """The figures of a run: over all of it for lines, at its end for the rest."""

    prometheus: Prometheus
    span: tuple[float, float]

    def lines(self, panel: Panel) -> list[Line]:
        found: list[Line] = []
        for query in panel.queries:
            expr = query.expr
            for variable, value in CHOSEN.items():
                expr = expr.replace(variable, value)
            series = (
                self.prometheus.range(expr, *self.span, step=0.5)
                if panel.kind == "lines"
                else self.prometheus.query(expr)
            )
            found += [Line(named(query.legend, dict(one.labels)), one.points) for one in series]
        return found


async def drawn() -> dict[str, str]:
    """The pictures, by the names of their files."""
    with tempfile.TemporaryDirectory() as work:
        # Warm enough that not all edits are alike.
        sampling = "teacher.proposer.sampling={temperature: 0.95, top_p: 1.0, max_new_tokens: 700}"
        async with monitored(Path(work), "--candidates", "3", "--rounds", "2", changed=[sampling]) as watched:
            span = (watched.started, watched.ended)
            overview = sheet(DASHBOARDS["overview"], Asked(watched.prometheus, span), span, CAPTION)
            return {"overview.svg": overview, "report.svg": report(watched).replace(f"{work}/", "")}


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in asyncio.run(drawn()).items():
        (folder / name).write_text(picture, encoding="utf-8")


def report(watched: Watched) -> str:
    """What `seal show` says of the newest accepted edit, as it stands in a terminal."""
    accepted = next(edit for edit in watched.edits if edit["state"] == "EDIT_STATE_ACCEPTED")
    name = accepted["edit"]["sha256"][:12]
    printed = in_terminal([sys.executable, "-m", "cli.main", "show", name, *watched.options])
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    console.print(Text.from_ansi(printed))
    return console.export_svg(title=f"seal show {name}")


def in_terminal(command: Sequence[str]) -> str:
    """What a command prints when it believes that a person looks on."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    with subprocess.Popen(command, stdout=theirs, stdin=subprocess.DEVNULL, env=environment) as process:
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 65_536):
                said += part
        except OSError:
            pass  # its end closes the terminal, which Linux reports as an error
    os.close(ours)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return said.decode().replace("\r\n", "\n")


if __name__ == "__main__":
    main()
