"""`seal bench`: starts the benchmark in a process of its own, which may load what the command line never does.

The process gets what was told, as a file, and answers for its sense: it names the flag that it refuses. It works in a
session of its own, so that it ends with whatever it started, however this command ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import typer

from cli.execute import execute
from cli.failure import Failure

ROOT = Path(__file__).resolve().parent.parent
MODULE = "benchmarks.method"
NEEDED = ("benchmarks", "torch", "transformers", "peft", "sqlalchemy")  # found, and not imported
GRACE_SECONDS = 20.0
# A parameter's place among the benchmark's settings, where it has another name there.
KEYS = {
    "procedure": "procedures",
    "model": "model.model",
    "device": "model.device",
    "results": "folder",
    "n": "together",
}
APART = ("context", "settings", "plan", "as_json")
GOES_ON = "The same command goes on where it stopped."


def bench_as_told(context: typer.Context) -> None:
    """Runs the benchmark of the command's name with the command's parameters. Raises Failure."""
    request = asked(context)
    if request["plan"]:
        stopped, then = "plan stopped; nothing was trained", "It reads the files and counts, which takes some seconds."
    else:
        stopped, then = "benchmark stopped; what is finished is kept", GOES_ON
    execute(run_bench(request), interrupted=stopped, next_step=then)


def asked(context: typer.Context) -> dict[str, Any]:
    """What the process is to do; benchmarks/method/asked.py reads it."""
    told = context.params
    return {
        "bench": context.info_name,
        "options": [list(option) for option in _options(context)],
        "settings": list(told["settings"] or ()),
        "plan": told["plan"],
        "json": told["as_json"],
    }


def _options(context: typer.Context) -> Iterator[tuple[str, str, object]]:
    """(flag, key, value) of everything that was told, and nothing of what was left out."""
    for parameter in context.command.params:
        name = str(parameter.name)
        value = context.params.get(name)
        left_out = value is None or value is False or value in ((), [])
        if name in APART or left_out:
            continue
        flag = name.upper() if parameter.param_type_name == "argument" else parameter.opts[0]
        if isinstance(value, list | tuple):
            value = [word.strip() for part in value for word in str(getattr(part, "value", part)).split(",")]
        elif not isinstance(value, int):
            value = str(getattr(value, "value", value))
        yield flag, KEYS.get(name, name), value


async def run_bench(request: dict[str, Any]) -> None:
    """Its progress and its table are this command's. Raises Failure for what it refused, or for how it died."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise Failure(
            f"seal bench needs what is not installed here: {', '.join(missing)}",
            "Install all three services: pip install 'seal-services[teacher,student,auditor]'",
        )
    with TemporaryDirectory(prefix="seal-bench-") as folder:
        told, refusal = Path(folder) / "asked.json", Path(folder) / "refusal.json"
        told.write_text(json.dumps(request), encoding="utf-8")
        code = await _to_its_end(str(told), "--refusal", str(refusal))
        if refusal.exists():
            said = json.loads(refusal.read_text(encoding="utf-8"))
            raise Failure(said["what"], said["next_step"], code=said["code"], reason=said["reason"])
    if code < 0:
        raise Failure(
            f"the benchmark was ended by {signal.Signals(-code).name}",
            f"{GOES_ON} Where memory was short, --workers 1 takes the least.",
        )
    if code:
        raise Failure(f"the benchmark failed (exit code {code}); what it said stands above", GOES_ON)


async def _to_its_end(*arguments: str) -> int:
    """The process's exit code. Cancelled: it is told to stop, and nothing that it started outlives this."""
    path = os.pathsep.join(part for part in (str(ROOT), os.environ.get("PYTHONPATH", "")) if part)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "cli.launcher.guard", str(os.getpid()), MODULE, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path},
    )
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), GRACE_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
