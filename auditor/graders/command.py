"""The command grader: a program of the operator's marks an answer, shut in (auditor/graders/confine.py).

The program finds the answer in ./answer.txt and reads {item_id, question, answers} as JSON from its standard input,
which is empty once read: the keys lie in no file that code of the answer could open later. Exit status 0 is right; any
other, a signal, and a limit that was reached are wrong. A program or sandbox that cannot be started is an error, never
a 0. What the program prints is thrown away. The sandbox starts by exec from this process (vfork, no Python between),
so that gRPC's threads are never forked.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path

from prometheus_client import Counter
from pydantic import BaseModel, ValidationError

from auditor.graders import confine
from auditor.graders.config import CommandConfig
from auditor.graders.pool import pooled
from auditor.graders.port import Submission
from common.canonical import canonical_json, digest_of
from common.errors import InvalidConfig, NotPossible

RUNS = Counter("seal_command_runs", "Runs of a command grader, by what came of them.", ["command", "outcome"])
# Beyond the command's own limit: for the sandbox to start, and to end what does not end.
SANDBOX_SECONDS = 10.0


class Outcome(BaseModel):
    """What confine.py reports: exit (status), signal (number), timeout, or broken (why)."""

    outcome: str
    status: int = 0
    why: str = ""


class CommandMarker:
    """One command of the configuration."""

    def __init__(self, name: str, config: CommandConfig) -> None:
        """Raises InvalidConfig when this machine cannot shut the command in as configured."""
        self._name = name
        self._config = config
        self.identity = digest_of(["command", config.model_dump(mode="json", exclude={"concurrency"})]).sha256
        self._try_sandbox()

    def _try_sandbox(self) -> None:
        with fresh_folder() as folder:
            argv = self._argv(folder, ("true",))
            try:
                done = subprocess.run(
                    argv, input=b"", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=False
                )
                found = outcome_of(done.stdout)
            except subprocess.TimeoutExpired:
                found = Outcome(outcome="broken", why="it did not end")
        if (found.outcome, found.status) != ("exit", 0):
            raise InvalidConfig(f"commands.{self._name}.sandbox: {self._config.sandbox}: {found.why or found.outcome}")

    async def mark(self, submissions: Sequence[Submission]) -> AsyncGenerator[tuple[int, float], None]:
        async with aclosing(pooled(self._run, submissions, self._config.concurrency)) as marks:
            async for place, mark in marks:
                yield place, mark

    async def _run(self, submission: Submission) -> float:
        """Raises NotPossible(COMMAND_BROKEN)."""
        item = submission.item
        asked = canonical_json({"item_id": item.item_id, "question": item.question, "answers": item.answers})
        with fresh_folder() as folder:
            (folder / "answer.txt").write_text(submission.answer, encoding="utf-8")
            found = await self._confined(folder, asked)
        RUNS.labels(self._name, found.outcome).inc()
        if found.outcome == "broken":
            raise NotPossible(
                f"command {self._name} could not be run: {found.why}",
                reason="COMMAND_BROKEN",
                ids={"item_id": item.item_id},
            )
        return float((found.outcome, found.status) == ("exit", 0))

    async def _confined(self, folder: Path, stdin: bytes) -> Outcome:
        process = await asyncio.create_subprocess_exec(
            *self._argv(folder, self._config.argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            limit = self._config.timeout_seconds + SANDBOX_SECONDS
            output, _ = await asyncio.wait_for(process.communicate(stdin), limit)
            return outcome_of(output)
        except TimeoutError:
            return Outcome(outcome="broken", why="the sandbox did not end")
        finally:
            if process.returncode is None:
                # What is inside dies with it.
                process.kill()
                await process.wait()

    def _argv(self, folder: Path, command: Sequence[str]) -> list[str]:
        config = self._config
        spec: confine.Spec = {
            "argv": list(command),
            "folder": str(folder),
            "environment": {**config.environment, "HOME": str(folder), "TMPDIR": str(folder)},
            "sandbox": config.sandbox.value,
            "network": config.network,
            "readable": [str(path) for path in config.readable],
            "timeout_seconds": config.timeout_seconds,
            "memory_bytes": config.memory_mib << 20,
            "file_bytes": config.max_file_mib << 20,
            "processes": config.max_processes,
        }
        return [sys.executable, "-I", "-S", str(confine.__file__), json.dumps(spec)]

    async def close(self) -> None:
        """Every run ends with its mark."""


def outcome_of(output: bytes) -> Outcome:
    try:
        return Outcome.model_validate_json(output)
    except ValidationError:
        return Outcome(outcome="broken", why="the sandbox ended without a word")


@contextmanager
def fresh_folder() -> Iterator[Path]:
    """An empty folder that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="seal-command-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
