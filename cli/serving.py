"""`seal up`: starts the services, says where they listen, and keeps them until it is told to stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table

from cli.launcher.plan import Plan
from cli.launcher.services import Report, services_up
from cli.render.console import output
from cli.render.figures import seconds

READY = "ready"


async def keep_running(plan: Plan) -> None:
    """Runs until cancelled. Raises Failure when a service dies; the others are stopped then."""
    console = output()
    console.print(f"Starting teacher, student and auditor; data in {plan.data}", markup=False)
    with starting(console) as report:
        async with services_up(plan, report) as services:
            _say_ready(console, plan)
            raise await services.died()


@contextmanager
def starting(console: Console) -> Iterator[Report]:
    """Shows what each service is doing until all are ready; in a pipe a line whenever one becomes ready."""
    begun = time.monotonic()
    if not console.is_terminal:
        known: set[str] = set()

        def say(doing: dict[str, str]) -> None:
            for name in sorted(name for name, what in doing.items() if what == READY and name not in known):
                known.add(name)
                console.print(f"  {name} ready after {seconds(time.monotonic() - begun)}")

        yield say
        return
    with Live(console=console, transient=True, refresh_per_second=4) as live:

        def show(doing: dict[str, str]) -> None:
            if all(what == READY for what in doing.values()):
                live.stop()
                return
            grid = Table.grid(padding=(0, 2))
            for name, what in doing.items():
                grid.add_row(f"  {name}", f"[green]{READY}[/]" if what == READY else what.replace("[", r"\["))
            grid.add_row("", f"[dim]{seconds(time.monotonic() - begun)}[/]")
            live.update(grid)

        yield show


def _say_ready(console: Console, plan: Plan) -> None:
    console.print("[bold green]Ready.[/] Press Ctrl-C to stop.")
    for service in plan.services:
        metrics = f", metrics at http://{service.metrics.dialled}/metrics" if service.metrics else ""
        console.print(f"  {service.name:8} {service.address.dialled}{metrics}", markup=False)
    console.print(f"  logs     {plan.data / 'logs'}", markup=False)
    auditor = plan.service("auditor").address.dialled
    if auditor != "127.0.0.1:50053":
        console.print(f"Other commands find it with:  export SEAL_AUDITOR={auditor}", markup=False)
    if (tls := plan.service("auditor").tls) is not None:
        folder = tls.certificate.parent.parent / "operator"
        console.print(f"It asks for a certificate:    export SEAL_TLS={folder}", markup=False)
