"""Services as child processes that say where they answer, and that end with the process that started them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
START_SECONDS = 120.0
MIB = 1 << 20


class Child:
    """One process. `targets` are the addresses it said, by service; its log is a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, targets: dict[str, str], log: Path) -> None:
        self.name = name
        self.targets = targets
        self.log = log
        self._process = process
        self._resources = psutil.Process(process.pid)

    @classmethod
    async def start(cls, name: str, arguments: Sequence[str], log: Path) -> Child:
        """Starts `python ARGUMENTS` and waits for its first line. Raises RuntimeError that names its log."""
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *arguments,
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        if not line:
            raise RuntimeError(f"{name} did not start; its log is {log}")
        return cls(name, process, json.loads(line), log)

    @property
    def crashed(self) -> bool:
        """Whether it ended by itself: it was never told to."""
        return self._process.returncode is not None

    async def ended(self) -> int:
        return await self._process.wait()

    def rss_mib(self) -> float:
        """Memory that it holds now."""
        return float(self._resources.memory_info().rss) / MIB

    def open_files(self) -> int:
        """File descriptors, sockets included."""
        return int(self._resources.num_fds())

    async def stop(self) -> None:
        """Ends it in order; by force if it does not."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 30)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
