"""One service as a child process, in a session of its own so that it and whatever it starts can be ended together."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import yaml

from cli.launcher.plan import Service

ROOT = Path(__file__).resolve().parent.parent.parent
TAIL_BYTES = 16_384
KILL_SECONDS = 10.0


class Child:
    """Started by `start`; `stop` may be called at any time and more than once."""

    def __init__(self, service: Service, process: asyncio.subprocess.Process, log: Path) -> None:
        self.service = service
        self.name = service.name
        self.log = log
        self._process = process

    @classmethod
    async def start(cls, service: Service, data: Path, environment: Mapping[str, str]) -> Child:
        """Writes the service's configuration and starts it; its output goes to `data`/logs/NAME.log."""
        log = data / "logs" / f"{service.name}.log"
        config = data / "config" / f"{service.name}.yaml"
        for folder in (log.parent, config.parent, data / service.name):
            folder.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump(dict(service.settings), sort_keys=False), encoding="utf-8")
        path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
        command = (sys.executable, "-P", "-m", "cli.launcher.guard", str(os.getpid()), service.module)
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                "--config",
                str(config),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**environment, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path},
            )
        return cls(service, process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    async def wait(self) -> int:
        return await self._process.wait()

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, time to end, SIGKILL; then SIGKILL for whatever the service itself left behind."""
        if self.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace_seconds)
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        await asyncio.wait_for(self._process.wait(), KILL_SECONDS)

    def last_lines(self, count: int) -> list[str]:
        """The end of the log; empty lines are left out."""
        try:
            with self.log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - TAIL_BYTES))
                text = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return []
        return [line for line in text.splitlines() if line.strip()][-count:]

    def doing(self) -> str:
        """What the service said last, in a few words; "starting" before it has said anything."""
        lines = self.last_lines(1)
        if not lines:
            return "starting"
        try:
            event = json.loads(lines[0])
        except ValueError:
            return lines[0].strip()[:60]
        return str(event.get("event", "starting"))[:60] if isinstance(event, dict) else "starting"
