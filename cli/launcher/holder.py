"""One launcher a data folder: the lock, and who holds it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from cli.failure import Failure


@contextmanager
def held(data: Path) -> Iterator[None]:
    """Holds the data folder. Raises Failure that names the process which has it already."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = FileLock(data / "up.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise Failure(
            f"{data} is in use by another `seal up` ({_holder(data)})",
            "Stop that one, or choose another folder with --data.",
            reason="FOLDER_IN_USE",
        ) from None
    except OSError as error:
        raise Failure(f"{data}: cannot be used: {error.strerror}", "Choose another folder with --data.") from None
    try:
        (data / "up.pid").write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield
    finally:
        (data / "up.pid").unlink(missing_ok=True)
        lock.release()


def _holder(data: Path) -> str:
    try:
        return f"process {int((data / 'up.pid').read_text(encoding='utf-8'))}"
    except (OSError, ValueError):
        return "process unknown"
