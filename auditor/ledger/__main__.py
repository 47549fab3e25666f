"""python -m auditor.ledger: what an operator does to a ledger by hand: check it, note its head, erase a payload.

`verify` and `head` may run beside the auditor. `erase` writes, so the auditor must be stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from auditor.config import AuditorConfig
from auditor.ledger.store import Ledger
from common.errors import SealError
from common.operator import user_name


def main(argv: Sequence[str] | None = None) -> int:
    """Prints one JSON object. Exit status 1: the chain is broken, or the command was refused."""
    arguments = _parser().parse_args(argv)
    try:
        writer = arguments.command == "erase"
        with Ledger.open(arguments.database, writer=writer, password_file=arguments.password_file) as ledger:
            return _carry_out(ledger, arguments)
    except SealError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m auditor.ledger", description="Checks and tends a ledger.")
    default = AuditorConfig.model_fields["database"].default
    parser.add_argument("--database", default=default, help=f"SQLAlchemy URL (default: {default})")
    parser.add_argument("--password-file", type=Path, help="holds the password of a PostgreSQL database")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("head", help="number and hash of the newest event")
    verify = commands.add_parser("verify", help="recompute the chain")
    verify.add_argument("--expected-seq", type=int, default=0)
    verify.add_argument("--expected-hash", default="")
    erase = commands.add_parser("erase", help="erase a payload; a tombstone event stays")
    erase.add_argument("sha256", help="the payload's digest")
    erase.add_argument("--reason", required=True)
    return parser


def _carry_out(ledger: Ledger, arguments: argparse.Namespace) -> int:
    ok = True
    if arguments.command == "verify":
        verdict = ledger.verify(arguments.expected_seq, arguments.expected_hash)
        ok = verdict.intact
        found: dict[str, object] = {
            "intact": ok,
            "events": verdict.events,
            "head": verdict.head,
            "erased": verdict.erased,
            "broken_at": verdict.broken_at,
            "detail": verdict.detail,
        }
    elif arguments.command == "erase":
        link = ledger.erase(arguments.sha256, decided_by=user_name(), reason=arguments.reason)
        found = {"erased": arguments.sha256, "tombstone": link.seq, "head": link.hash}
    else:
        seq, head = ledger.head()
        found = {"seq": seq, "head": head}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
