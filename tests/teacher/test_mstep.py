"""The M-step's process: it reports, it fails with a reason, and it never outlives the one who started it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import Expired, NotPossible
from common.types import Progress
from teacher.mstep import JOB_FILE, MStepJob, TrainingPair
from teacher.mstep_process import ROOT, MStepProcess
from teacher.store import write_record
from tests.support.tiny_model import make_tiny_model, tiny_config
from tests.teacher.conftest import MSTEP


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("mstep") / "model")


def write_job(folder: Path, model: Path, *, epochs: int = 2, rate: float = 1e-2) -> Path:
    pairs = tuple(TrainingPair(prompt_ids=tuple(range(30, 60)), completion_ids=(65 + i, 66, 2)) for i in range(4))
    job = MStepJob(
        model=tiny_config(model),
        policies=folder / "policies",
        parent="base",
        recipe=MSTEP.model_copy(update={"epochs": epochs, "learning_rate": rate}),
        seed=1,
        train_tokens=512,
        kept_edits=1,
        pairs=pairs,
    )
    write_record(folder / "job" / JOB_FILE, job)
    return folder / "job"


async def test_progress_comes_first_and_the_policy_is_in_the_store(tiny: Path, tmp_path: Path) -> None:
    reports: list[Progress] = []
    folder = write_job(tmp_path, tiny)
    result = await MStepProcess(folder, timeout_seconds=280).run(reports.append)
    assert (tmp_path / "policies" / result.policy_version / "adapter_model.safetensors").is_file()
    assert (reports[-1].done, reports[-1].total) == (4, 4)
    assert {"loss", "tokens_per_second"} == set(reports[-1].figures)


async def test_a_job_that_cannot_be_done_says_why(tiny: Path, tmp_path: Path) -> None:
    folder = write_job(tmp_path, tiny)
    job = MStepJob.model_validate_json((folder / JOB_FILE).read_bytes())
    write_record(folder / JOB_FILE, job.model_copy(update={"recipe": MSTEP.model_copy(update={"max_tokens": 16})}))
    with pytest.raises(NotPossible) as failed:
        await MStepProcess(folder, timeout_seconds=280).run(lambda _: None)
    assert failed.value.reason == "EXAMPLE_TOO_LONG"
    assert not (tmp_path / "policies").exists() or not list((tmp_path / "policies").iterdir())


async def test_a_job_that_takes_too_long_is_ended(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(Expired):
        await MStepProcess(write_job(tmp_path, tiny, epochs=100), timeout_seconds=0.5).run(lambda _: None)


async def test_it_ends_when_its_parent_does(tiny: Path, tmp_path: Path) -> None:
    folder = write_job(tmp_path, tiny, epochs=100)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "teacher.mstep",
        str(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    await process.stdout.readline()
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 60) == 1
