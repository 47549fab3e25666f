"""A run while it runs: a line for everything that is recorded, and below them what is going on now.

On a terminal the last line moves; in a pipe progress becomes a plain line every half a minute.
"""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cli.render.events import lines
from cli.render.figures import number
from common.contract.seal.v1 import auditor_pb2 as pb

PIPE_SECONDS = 30.0


class LiveRun:
    """Shows events in the order in which they come. Use it as a context manager round a watcher."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._moving = console.is_terminal
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not self._moving,
        )
        self._now = self._bar.add_task("waiting", total=None)
        self._phase = ""
        self._said = time.monotonic()

    def __enter__(self) -> LiveRun:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def show(self, event: pb.RunEvent) -> None:
        """Prints what is recorded, and moves the last line for progress."""
        if event.WhichOneof("event") == "progress":
            self._progress(event.progress)
            return
        for line in lines(event):
            self._console.print(line)
            self._said = time.monotonic()

    def broken(self) -> None:
        """The connection broke; the watcher opens it again by itself."""
        self._bar.update(self._now, description="the connection broke; trying again", total=None, completed=0)
        if not self._moving:
            self._console.print("  the connection broke; trying again")

    def _progress(self, event: pb.RunProgress) -> None:
        progress = event.progress
        phase = event.phase or progress.phase or "working"
        if progress.phase and progress.phase != phase:
            phase += f" ({progress.phase})"
        where = f" {event.task_id}" if event.task_id else ""
        figures = "".join(
            f", {key.replace('_', ' ')} {number(progress.figures[key])}" for key in sorted(progress.figures)
        )
        text = f"{phase}{where}{figures}"
        if self._moving:
            if f"{phase}{where}" != self._phase:
                self._bar.reset(self._now)
            total = progress.total or None
            self._bar.update(self._now, description=text.replace("[", r"\["), total=total, completed=progress.done)
        elif time.monotonic() - self._said > PIPE_SECONDS:
            counted = f"; {progress.done} of {progress.total} done" if progress.total else ""
            self._console.print(f"  ... {text}{counted}", markup=False)
            self._said = time.monotonic()
        self._phase = f"{phase}{where}"
