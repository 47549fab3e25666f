"""`python -m tests.soak [--runs N] [--folder DIR]`: the last line is the result as JSON.

Leaves with status 1 when something grew.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.run import RUNS_A_DAY, Samples, soak

EVERY = 12


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS_A_DAY, help="96 are a day's: one each quarter of an hour")
    parser.add_argument("--folder", type=Path, help="keeps ledger and stores there; otherwise they go")
    arguments = parser.parse_args()
    started = time.monotonic()

    def tell(number: int, samples: Samples) -> None:
        if (number + 1) % EVERY == 0:
            now = {name: round(values[-1]) for name, values in samples.rss_mib.items()}
            print(f"{number + 1} runs in {time.monotonic() - started:.0f} s, MiB now: {json.dumps(now)}", flush=True)

    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        folder = arguments.folder or Path(temporary) / "day"
        folder.mkdir(parents=True)
        day = asyncio.run(soak(folder, arguments.runs, tell))
    print(json.dumps(day.result))
    return int(not day.result["flat"] or day.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
