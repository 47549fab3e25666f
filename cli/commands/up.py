"""Start all three services on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA = Path(".seal")


def register(app: typer.Typer) -> None:
    app.command()(up)


def up(  # noqa: PLR0917 - a command's options are its parameters
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="Settings, in sections teacher, student, auditor [seal.yaml]."),
    ] = None,
    data: Annotated[Path, typer.Option("--data", metavar="FOLDER", help="Where everything is kept.")] = DEFAULT_DATA,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, as student.listen=127.0.0.1:6000; repeatable."),
    ] = None,
    free_ports: Annotated[bool, typer.Option("--free-ports", help="Listen on ports that are free.")] = False,
    tls: Annotated[
        Path | None,
        typer.Option("--tls", metavar="FOLDER", help="Mutual TLS, with what `seal certificates FOLDER` made."),
    ] = None,
    wait: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="How long starting may take.")] = 900.0,
) -> None:
    """Start teacher, student and auditor here, and keep them running.

    Ready when all three say so. Ctrl-C stops them. Logs are in FOLDER/logs, the settings in use in FOLDER/config.

    \b
    Examples:
      seal up
      seal up --config seal.yaml --data /var/lib/seal
      seal up --set teacher.log_level=debug
      seal certificates .seal/tls && seal up --tls .seal/tls
    """
    from cli.execute import execute
    from cli.launcher.plan import make_plan
    from cli.serving import keep_running

    plan = make_plan(
        data=data, config=config, settings=settings or [], free_ports=free_ports, wait_seconds=wait, tls=tls
    )
    execute(keep_running(plan), interrupted="stopped")
