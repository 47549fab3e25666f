"""`python -m tests.fuzz [--requests N] [--seed S] [--folder DIR]`: the last line is the result as JSON.

Leaves with status 1 when anything was found.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.run import SERVICES, Outcome, fuzz

EVERY = 5_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--services", nargs="+", default=list(SERVICES), choices=SERVICES)
    parser.add_argument("--folder", type=Path, help="keeps stores, logs and findings there; otherwise they go")
    arguments = parser.parse_args()
    started = time.monotonic()

    def tell(number: int) -> None:
        if number and number % EVERY == 0:
            print(f"{number:,} requests in {time.monotonic() - started:.0f} s", flush=True)

    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        outcome = asyncio.run(
            fuzz(folder, arguments.requests, seed=arguments.seed, services=tuple(arguments.services), tell=tell)
        )
    _report(outcome, time.monotonic() - started)
    found = outcome.findings.result()
    print(json.dumps(found))
    return int(any(found[kind] for kind in ("internal", "hangs", "crashes")))


def _report(outcome: Outcome, seconds: float) -> None:
    findings = outcome.findings
    by_code: dict[str, int] = {}
    for (_, code), count in findings.codes.items():
        by_code[code] = by_code.get(code, 0) + count
    print(f"seconds {seconds:.0f}, slowest answer {findings.slowest:.1f} s")
    print("by status", json.dumps(dict(sorted(by_code.items()))))
    full = {rpc: count for (rpc, code), count in findings.codes.items() if code == "RESOURCE_EXHAUSTED"}
    print("RESOURCE_EXHAUSTED by RPC", json.dumps(full))
    print("memory grown by (MiB)", json.dumps(outcome.growth_mib))
    for line in findings.noted:
        print(line)


if __name__ == "__main__":
    sys.exit(main())
