"""Edits: list them, and show everything about one."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cli.options import DEFAULT_AUDITOR, AuditorOption, EditArgument, JsonOption, LimitOption, TlsOption


class State(StrEnum):
    proposed = "proposed"
    kept = "kept"
    accepted = "accepted"
    rejected = "rejected"
    rolled_back = "rolled-back"


def register(app: typer.Typer) -> None:
    app.command("edits")(list_edits)
    app.command()(show)


def list_edits(  # noqa: PLR0917 - a command's options are its parameters
    run_id: Annotated[str, typer.Option("--run", metavar="RUN", help="Of one run; left out: of all.")] = "",
    state: Annotated[State | None, typer.Option(help="Only edits in this state.")] = None,
    limit: LimitOption = 50,
    auditor: AuditorOption = DEFAULT_AUDITOR,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List edits with their gain, their state, and why.

    \b
    Examples:
      seal edits --state accepted
      seal edits --run run-20260301-101500-7f3a --json | jq -r .edit.sha256
    """
    from cli import asking
    from cli.execute import execute

    execute(asking.edits(auditor, run_id, state, limit, as_json=as_json))


def show(
    edit: EditArgument,
    examples: Annotated[bool, typer.Option("--examples", help="All training examples, not only the first.")] = False,
    auditor: AuditorOption = DEFAULT_AUDITOR,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show everything about one edit.

    Who proposed it with which prompt and sampling, what was trained, every question before and after, what was
    forgotten, each gate with its figures, and the lines in the ledger.

    \b
    Examples:
      seal show 3fa9c1
      seal show 3fa9c1 --json | jq .gates
    """
    from cli import asking
    from cli.execute import execute

    execute(asking.show(auditor, edit, all_examples=examples, as_json=as_json))
