"""Versions: the lineage of the live model, and the way back."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import DEFAULT_AUDITOR, AuditorOption, JsonOption, LimitOption, ReasonOption, TlsOption


def register(app: typer.Typer) -> None:
    app.command("versions")(list_versions)
    app.command()(rollback)
    app.command()(promote)


def list_versions(
    limit: LimitOption = 50,
    matrix: Annotated[bool, typer.Option("--matrix", help="Tasks x versions: what was learned and forgotten.")] = False,
    auditor: AuditorOption = DEFAULT_AUDITOR,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the versions that were judged for promotion, newest first, and which of them is live.

    \b
    Examples:
      seal versions
      seal versions --matrix
    """
    from cli import asking
    from cli.execute import execute

    execute(asking.versions(auditor, limit, matrix=matrix, as_json=as_json))


def rollback(
    version: Annotated[
        str, typer.Argument(metavar="[VERSION]", help="Left out: the one before the live one. base: no edit at all.")
    ] = "",
    reason: ReasonOption = "",
    auditor: AuditorOption = DEFAULT_AUDITOR,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make an earlier version live again. Takes effect at once.

    \b
    Examples:
      seal rollback --reason "wrong refund period"
      seal rollback base
    """
    from cli import asking
    from cli.execute import execute

    execute(asking.rollback(auditor, version, reason, as_json=as_json))


def promote(
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="Digest, as `seal show` and `seal versions` name it.")
    ],
    reason: ReasonOption = "",
    auditor: AuditorOption = DEFAULT_AUDITOR,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version live by your own decision, which is recorded.

    For instance the adapter of an edit that you approved, or a version that was rolled back.

    \b
    Example:
      seal promote 81c0d2 --reason "reviewed by the support team"
    """
    from cli import asking
    from cli.execute import execute

    execute(asking.promote(auditor, version, reason, as_json=as_json))
