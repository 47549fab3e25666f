"""A service as it is, but for a recorder.

`python -m tests.boundary.canary.entry SERVICE RECORDINGS MODE --config FILE`: MODE is as-it-is, or leaking (leaks.py).
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from tests.boundary.canary.leaks import plant
from tests.boundary.canary.recording import record

LEAKING, AS_IT_IS = "leaking", "as-it-is"


def main() -> None:
    _, service, recordings, mode, *rest = sys.argv
    record(Path(recordings), service)
    if mode == LEAKING:
        plant(service, Path.cwd())
    sys.argv = [service, *rest]
    import_module(f"{service}.__main__").main()


if __name__ == "__main__":
    main()
