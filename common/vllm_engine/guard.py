"""Ends processes whose owner is gone: `python -m common.vllm_engine.guard PID...`.

Workers of an engine do not notice when the process that spawned them is killed, and would hold memory and cores for
ever. The guard holds the other end of a pipe to that process: when it closes, whatever is still there is killed.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]

# The folder that holds the package: this process may have been started from anywhere.
ROOT = Path(__file__).resolve().parents[2]


class Guard:
    """Watches over the processes that this one has started so far."""

    def __init__(self) -> None:
        children = psutil.Process().children(recursive=True)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "common.vllm_engine.guard", *(str(child.pid) for child in children)],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), *filter(None, sys.path)))},
        )

    def close(self) -> None:
        """Ends the guard, and what it watches if that is still there."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def main(arguments: list[str]) -> None:
    watched = []
    for pid in arguments:
        # Held as objects from now on: they know a process from a later one with the same number.
        with contextlib.suppress(psutil.NoSuchProcess):
            watched.append(psutil.Process(int(pid)))
    while os.read(0, 1):
        pass
    for process in watched:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


if __name__ == "__main__":
    main(sys.argv[1:])
