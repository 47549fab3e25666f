"""The three real services as processes of their own, on tiny random models, each with a folder that is its alone.

A service's folder holds its settings, its certificate, its log (log.txt), its store, its home and its temporary files:
whatever it writes lies there. The models lie outside; nobody writes to them. tests/boundary and tests/network use this.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from common.tls.settings import TlsSettings
from tests.support.tiny_model import make_tiny_model
from tests.support.writing_model import make_writing_model

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("teacher", "student", "auditor")
# At the start a model library is read, which a busy machine takes its time for.
READY_SECONDS = 120.0
STOP_SECONDS = 30.0
READY = '"event": "serving"'
RECIPE = {"rank": 4, "alpha": 8.0, "target_modules": ["q_proj", "v_proj"], "learning_rate": 0.01, "epochs": 2}
LEARNING = {**RECIPE, "dropout": 0.0, "batch_size": 2, "warmup_steps": 0, "max_grad_norm": 1.0, "weight_decay": 0.0}


@dataclass(frozen=True)
class Models:
    """Folders of the two models."""

    teacher: Path
    student: Path

    @classmethod
    def make(cls, folder: Path) -> Models:
        """The teacher's has learned to write about one passage (tests/support/writing_model.py); a few seconds."""
        return cls(make_writing_model(folder / "teacher"), make_tiny_model(folder / "student"))


@dataclass(frozen=True)
class Start:
    """How one service is started. command: what stands before python; module: what python runs, with arguments."""

    name: str
    folder: Path
    settings: Mapping[str, Any]
    module: Sequence[str] = ()
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"


def settings_of(name: str, folder: Path, models: Models, listen: str, metrics: str) -> dict[str, Any]:
    """Settings of a service that keeps everything in `folder` and has its certificate in `folder`/tls."""
    model = {"threads": 1, "cache_dir": str(folder / "model-cache")}
    own: dict[str, dict[str, Any]] = {
        "teacher": {
            "store": str(folder / "store"),
            "backend": "transformers",
            "model": {"model": str(models.teacher), **model},
            "proposer": {
                "prompt_variants": ["implications"],
                "sampling": {"temperature": 0.3, "top_p": 1.0, "max_new_tokens": 160},
            },
            "rehearsal": {"examples": 0},
            "learn": {"max_pairs": 2, "recipe": {**LEARNING, "max_tokens": 512, "schedule": "SCHEDULE_LINEAR"}},
        },
        "student": {
            "store": str(folder / "store"),
            "model": {"model": str(models.student), **model},
            "training": {"defaults": {**RECIPE, "max_tokens": 256}},
        },
        "auditor": {"database": f"sqlite:///{folder / 'ledger.db'}"},
    }
    tls = TlsSettings.of_folder(folder / "tls").model_dump(mode="json")
    return {"listen": listen, "metrics_listen": metrics, "tls": tls, **own[name]}


@asynccontextmanager
async def services_started(starts: Sequence[Start]) -> AsyncIterator[None]:
    """All of them, ready; afterwards none is left. Raises RuntimeError with the log of one that ended or was silent."""
    async with AsyncExitStack() as stack:
        running = [await stack.enter_async_context(_process(start)) for start in starts]
        await asyncio.gather(*(_ready(start, process) for start, process in zip(starts, running, strict=True)))
        yield


@asynccontextmanager
async def _process(start: Start) -> AsyncIterator[asyncio.subprocess.Process]:
    for part in ("home", "tmp"):
        (start.folder / part).mkdir(parents=True, exist_ok=True)
    config = start.folder / "config.yaml"
    config.write_text(yaml.safe_dump(dict(start.settings)))
    module = start.module or (start.name,)
    guarded = (sys.executable, "-P", "-m", "cli.launcher.guard", str(os.getpid()), *module, "--config", str(config))
    with start.log.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *start.command,
            *guarded,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=start.folder,
            env={**_environment(start.folder), **start.environment},
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _environment(folder: Path) -> dict[str, str]:
    """The caller's, without settings of services, with everything that a library may write to in `folder`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SEAL_")}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "home"),
        "HF_HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
    }


async def _ready(start: Start, process: asyncio.subprocess.Process) -> None:
    """Its log says so; other tests look at health checks."""
    deadline = asyncio.get_running_loop().time() + READY_SECONDS
    while READY not in start.log.read_text(errors="replace"):
        if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
            raise RuntimeError(f"{start.name} is not ready:\n{start.log.read_text(errors='replace')[-4_000:]}")
        await asyncio.sleep(0.1)
