"""How the services are, and whether the ledger is whole."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import DEFAULT_AUDITOR, AuditorOption, JsonOption, TlsOption


def register(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(verify)


def status(auditor: AuditorOption = DEFAULT_AUDITOR, tls: TlsOption = None, as_json: JsonOption = False) -> None:
    """Show models, versions, the active run and the ledger's head.

    \b
    Example:
      seal status
    """
    from cli import asking
    from cli.execute import execute

    execute(asking.status(auditor, as_json=as_json))


def verify(
    expected_seq: Annotated[int, typer.Option(min=0, metavar="SEQ", help="Number of a head you noted.")] = 0,
    expected_hash: Annotated[str, typer.Option(metavar="HASH", help="Hash of that head.")] = "",
    auditor: AuditorOption = DEFAULT_AUDITOR,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recompute the ledger's hash chain. Exits with 1 if it is broken.

    A chain cannot see its own tail cut off: note the head that `seal status` shows, and give it here later.

    \b
    Examples:
      seal verify
      seal verify --expected-seq 214 --expected-hash 5b1e...
    """
    from cli import asking
    from cli.execute import execute

    execute(asking.verify(auditor, expected_seq, expected_hash, as_json=as_json))
