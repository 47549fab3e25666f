"""Decisions of a person about an edit."""

from __future__ import annotations

import typer

from cli.options import DEFAULT_AUDITOR, AuditorOption, EditArgument, JsonOption, ReasonOption, TlsOption


def register(app: typer.Typer) -> None:
    app.command()(approve)
    app.command()(reject)


def approve(
    edit: EditArgument,
    reason: ReasonOption = "",
    auditor: AuditorOption = DEFAULT_AUDITOR,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Approve an edit, which then counts as kept. Make it live with `seal promote`.

    \b
    Example:
      seal approve 3fa9c1 --reason "figures checked against the policy"
    """
    from cli import asking
    from cli.execute import execute

    execute(asking.approve(auditor, edit, reason, as_json=as_json))


def reject(
    edit: EditArgument,
    reason: ReasonOption = "",
    auditor: AuditorOption = DEFAULT_AUDITOR,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Reject an edit, so that no run promotes it. The decision is recorded.

    \b
    Example:
      seal reject 3fa9c1 --reason "teaches an outdated price"
    """
    from cli import asking
    from cli.execute import execute

    execute(asking.reject(auditor, edit, reason, as_json=as_json))
