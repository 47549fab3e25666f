"""Starts an M-step process and listens to it. The learner is the caller.

The process ends with this one: it watches its standard input. When the caller is cancelled it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from common.errors import Expired, NotPossible, SealError
from common.types import Progress
from teacher.mstep import MStepLine, MStepResult

HEARTBEAT_SECONDS = 3.0
# The folder that holds the package: a service may have been started from anywhere.
ROOT = Path(__file__).resolve().parent.parent


class MStepProcess:
    """One run of `python -m teacher.mstep FOLDER`."""

    def __init__(self, folder: Path, *, timeout_seconds: float) -> None:
        self._folder = folder
        self._timeout = timeout_seconds

    async def run(self, report: Callable[[Progress], None]) -> MStepResult:
        """Waits for the result; calls `report` at least every few seconds. Raises SealError when there is none."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "teacher.mstep",
            str(self._folder),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false"},
        )
        try:
            async with asyncio.timeout(self._timeout):
                result = await self._follow(process, report)
        except TimeoutError:
            raise Expired(f"the M-step took more than {self._timeout:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            await process.wait()
        return result

    async def _follow(self, process: asyncio.subprocess.Process, report: Callable[[Progress], None]) -> MStepResult:
        assert process.stdout is not None
        progress = Progress(phase="starting")
        result: MStepResult | None = None
        reading = asyncio.create_task(process.stdout.readline())
        try:
            while True:
                done, _ = await asyncio.wait({reading}, timeout=HEARTBEAT_SECONDS)
                if done:
                    line = _parsed(reading.result())
                    if line is None:
                        break
                    result = line.result or result
                    progress = _progress(line) if line.steps else progress
                    reading = asyncio.create_task(process.stdout.readline())
                report(progress)
        finally:
            reading.cancel()
        status = await process.wait()
        if result is None or status != 0:
            raise SealError(f"the M-step's process ended with status {status}", reason="MSTEP_FAILED")
        return result


def _parsed(data: bytes) -> MStepLine | None:
    """One line, or None at the end. Raises NotPossible when the line says why there is no policy."""
    if not data:
        return None
    try:
        line = MStepLine.model_validate_json(data)
    except ValidationError:
        raise SealError("the M-step's process said something that is no report", reason="MSTEP_FAILED") from None
    if line.error_reason:
        raise NotPossible(f"the M-step failed: {line.error}", reason=line.error_reason)
    return line


def _progress(line: MStepLine) -> Progress:
    return Progress(
        phase="learning",
        done=line.step,
        total=line.steps,
        figures={"loss": line.loss, "tokens_per_second": line.tokens_per_second},
    )
