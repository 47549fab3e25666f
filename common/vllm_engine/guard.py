"""Ends processes whose owner is gone: `python -m common.vllm_engine.guard PID` (the owner's).

Workers of an engine do not notice when the process that spawned them is killed, and would hold memory and cores for
ever. The guard holds the other end of a pipe to that process: when it closes, whatever is still there is killed.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from pathlib import Path

import psutil

# The folder that holds the package: this process may have been started from anywhere.
ROOT = Path(__file__).resolve().parents[2]
LOOK_SECONDS = 0.2
# Python's own: it ends by itself when those whose shared memory it clears away have ended, and must come to that.
TRACKER = "multiprocessing.resource_tracker"


class Guard:
    """Watches over the processes that this one has started, and starts until `settle`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "common.vllm_engine.guard", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), *filter(None, sys.path)))},
        )
        self._watching()

    def settle(self) -> None:
        """All that is to be watched has been started: from now on nothing is looked for."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"s")
        self._process.stdin.flush()
        self._watching()

    def close(self) -> None:
        """Ends the guard, and what it watches if that is still there."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _watching(self) -> None:
        """Waits until the guard has looked."""
        assert self._process.stdout is not None
        if not os.read(self._process.stdout.fileno(), 1):
            raise RuntimeError("the guard of the engine's processes has ended")


def main(arguments: list[str]) -> None:
    owner = psutil.Process(int(arguments[0]))
    watched: set[psutil.Process] = set()
    _look(owner, watched)
    os.write(1, b"w")
    while not select.select([0], [], [], LOOK_SECONDS)[0]:
        _look(owner, watched)
    if os.read(0, 1):
        _look(owner, watched)
        os.write(1, b"w")
        while os.read(0, 1):
            pass
    for process in watched:
        # An object knows its process from a later one with the same number.
        with contextlib.suppress(psutil.NoSuchProcess):
            if TRACKER not in " ".join(process.cmdline()):
                process.kill()


def _look(owner: psutil.Process, watched: set[psutil.Process]) -> None:
    """Adds the processes that the owner, and they, have started. Those whose parent has ended are still known."""
    with contextlib.suppress(psutil.NoSuchProcess):
        watched.update(child for child in owner.children(recursive=True) if child.pid != os.getpid())


if __name__ == "__main__":
    main(sys.argv[1:])
