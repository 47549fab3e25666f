"""A training under way on disk, so that a long one survives an interruption: one safetensors file, removed at its end.

What goes on from it gives the same bytes as what was never interrupted. The workshop makes one for each training.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from common.errors import Corrupt
from common.files import write_atomically
from common.lora.resuming import State

KEEP_SECONDS = 120.0


class Partial:
    """A checkpoint (common/lora/resuming.py) in `file`, written at most every `keep_seconds`."""

    def __init__(self, file: Path, keep_seconds: float = KEEP_SECONDS) -> None:
        self._file = file
        self._keep_seconds = keep_seconds
        self._started = self._kept = time.monotonic()
        self._before = 0.0

    @property
    def seconds(self) -> float:
        """Time spent so far, before an interruption too."""
        return self._before + time.monotonic() - self._started

    def load(self) -> State | None:
        """What was last kept. Raises Corrupt."""
        if not self._file.exists():
            return None
        try:
            with safe_open(self._file, framework="pt") as file:
                self._before = float(file.metadata()["seconds"])
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise Corrupt(f"{self._file} cannot be read ({error}): remove it, and the training begins anew") from error

    def keep(self, state: Callable[[], State]) -> None:
        """Writes the state if that is due."""
        if time.monotonic() - self._kept < self._keep_seconds:
            return
        write_atomically(self._file, save(state(), {"seconds": str(self.seconds)}))
        self._kept = time.monotonic()

    def remove(self) -> None:
        self._file.unlink(missing_ok=True)
