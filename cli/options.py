"""Options that several commands have, in one form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.connection import choose_tls

# The contract's numbers are signed and have 64 bits.
LARGEST = 2**63 - 1
LARGEST_SEED = 2**31 - 1  # of a training

DEFAULT_AUDITOR = "127.0.0.1:50053"

AuditorOption = Annotated[
    str,
    typer.Option("--auditor", metavar="HOST:PORT", envvar="SEAL_AUDITOR", help="Where the auditor listens."),
]
TlsOption = Annotated[
    Path | None,
    typer.Option(
        "--tls",
        metavar="FOLDER",
        envvar="SEAL_TLS",
        callback=choose_tls,
        help="Your certificate: tls.crt, tls.key, ca.crt. Left out: plain text.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on standard output, one value a line, nothing else.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=100_000, metavar="N", help="At most N lines.")]
ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Recorded in the ledger, at most 1,024 characters.")
]
EditArgument = Annotated[str, typer.Argument(metavar="EDIT", help="Its digest, or at least the first 6 characters.")]
