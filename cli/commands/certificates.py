"""Certificates for mutual TLS on machines of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import JsonOption


def register(app: typer.Typer) -> None:
    app.command()(certificates)


def certificates(  # noqa: PLR0917 - typer reads options from parameters
    folder: Annotated[Path, typer.Argument(metavar="FOLDER")],
    operator: Annotated[
        list[str] | None,
        typer.Option("--operator", metavar="NAME", help="One more person, as operator/NAME; repeatable."),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option("--host", metavar="HOST", help="A name or address beside localhost; repeatable."),
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=825, metavar="N", help="How long certificates hold.")] = 90,
    trust_domain: Annotated[str, typer.Option(metavar="NAME", help="Of a new authority.")] = "seal.internal",
    as_json: JsonOption = False,
) -> None:
    """Make an authority and a certificate for every identity, or renew them.

    An authority that lies in FOLDER/ca already is used again. Running services take renewed certificates by themselves.
    For development and small set-ups: in a cluster the cluster's own issuer does this.

    \b
    Examples:
      seal certificates .seal/tls
      seal certificates .seal/tls --operator alice --operator bob
    """
    from cli.identities import make_certificates

    made = make_certificates(folder, operators=operator or (), hosts=host or (), days=days, trust_domain=trust_domain)
    made.show(as_json=as_json)
