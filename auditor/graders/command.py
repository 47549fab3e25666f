"""The command grader: a program of the operator's marks an answer, shut in (auditor/graders/confine.py).

The program finds the answer in ./answer.txt and reads {item_id, question, answers} as JSON from its standard input,
which is empty once read: the keys lie in no file that code of the answer could open later. Exit status 0 is right; any
other, a signal, and a limit that was reached are wrong. A program or sandbox that cannot be started is an error, never
a 0, and so are 126 and 127, by which shells say that they could not start something. What the program
prints is thrown away. The sandbox starts by exec from this process (vfork, no Python between), so that gRPC's threads
are never forked.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path

import structlog
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
NOT_STARTED = (126, 127)
# For a sandbox that is told to end, before it is killed.
ENDING_SECONDS = 1.0
CONFINE = (sys.executable, "-I", "-S", str(confine.__file__))


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
        self._find_program()
        folder = new_folder()
        try:
            spec = self._spec(folder, ("true",))
            done = subprocess.run(
                CONFINE, input=spec, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=False
            )
            found = outcome_of(done.stdout)
        except subprocess.TimeoutExpired:
            found = Outcome(outcome="broken", why="it did not end")
        finally:
            remove(folder)
        if (found.outcome, found.status) != ("exit", 0):
            raise InvalidConfig(f"commands.{self._name}.sandbox: {self._config.sandbox}: {found.why or found.outcome}")

    def _find_program(self) -> None:
        program = self._config.argv[0]
        # It starts in an empty folder, so that no relative path leads anywhere.
        relative = "/" in program and not program.startswith("/")
        if relative or shutil.which(program, path=self._config.environment.get("PATH", confine.PATH)) is None:
            raise InvalidConfig(f"commands.{self._name}.argv: {program}: no such program")

    async def mark(self, submissions: Sequence[Submission]) -> AsyncGenerator[tuple[int, float], None]:
        async with aclosing(pooled(self._run, submissions, self._config.concurrency)) as marks:
            async for place, mark in marks:
                yield place, mark

    async def _run(self, submission: Submission) -> float:
        """Raises NotPossible(COMMAND_BROKEN)."""
        item = submission.item
        asked = canonical_json({"item_id": item.item_id, "question": item.question, "answers": item.answers})
        folder = new_folder()
        try:
            (folder / "answer.txt").write_text(submission.answer, encoding="utf-8")
            found = await self._confined(folder, asked)
        finally:
            await asyncio.to_thread(remove, folder)
        if found.outcome == "exit" and found.status in NOT_STARTED:
            found = Outcome(outcome="broken", why=f"exit status {found.status}: a program could not be started")
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
            *CONFINE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            limit = self._config.timeout_seconds + SANDBOX_SECONDS
            output, _ = await asyncio.wait_for(
                process.communicate(self._spec(folder, self._config.argv) + stdin), limit
            )
            return outcome_of(output)
        except TimeoutError:
            return Outcome(outcome="broken", why="the sandbox did not end")
        finally:
            if process.returncode is None:
                await ended(process)

    def _spec(self, folder: Path, command: Sequence[str]) -> bytes:
        """What confine.py reads. Not its arguments: every user of the machine may see those."""
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
        written = json.dumps(spec).encode()
        return len(written).to_bytes(4, "big") + written

    async def close(self) -> None:
        """Every run ends with its mark."""


async def ended(process: asyncio.subprocess.Process) -> None:
    """Ends a sandbox: asked to, it ends all that is inside; killed, only "namespaces" surely does."""
    try:
        process.terminate()
        await asyncio.wait_for(process.wait(), ENDING_SECONDS)
    except TimeoutError:
        pass
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def outcome_of(output: bytes) -> Outcome:
    try:
        return Outcome.model_validate_json(output)
    except ValidationError:
        return Outcome(outcome="broken", why="the sandbox ended without a word")


def new_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="seal-command-"))


def remove(folder: Path) -> None:
    """Deletes a folder, however deep and whatever its modes. May take long."""
    for tool in (("chmod", "-R", "u+rwx"), ("rm", "-rf")):
        subprocess.run([*tool, "--", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    if folder.exists():
        structlog.get_logger("auditor").warning("a command's folder could not be deleted", folder=str(folder))
