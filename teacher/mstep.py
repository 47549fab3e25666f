"""The M-step: supervised fine-tuning of the policy on kept prompts and completions, in a process of its own.

Started by the learner as `python -m teacher.mstep FOLDER`, so that its memory is freed when it ends and a crash hurts
nobody. It reads FOLDER/job.json, writes the new policy into the teacher's store and FOLDER/result.json, and tells its
progress in JSON lines on standard output. It ends when its standard input is closed: its parent is gone then.
The loss counts the completion alone, on the token ids that the generator saw and drew (ReST^EM, arXiv 2312.06585).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from common.errors import NotPossible, SealError
from common.logging import configure_logging
from common.lora.config import EngineConfig
from common.models.config import ModelConfig
from common.types import Domain, Recipe, Sha256
from teacher.generator import BASE
from teacher.store import read_record, write_record

JOB_FILE = "job.json"
RESULT_FILE = "result.json"
REPORT_SECONDS = 1.0
PACKAGES = ("torch", "transformers", "peft", "safetensors")


class TrainingPair(Domain):
    """Token ids of one prompt and its completion."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


class MStepJob(Domain):
    """Everything an M-step depends on. `policies` is the folder of the teacher's policies."""

    model: ModelConfig
    policies: Path
    parent: str
    recipe: Recipe
    seed: int
    train_tokens: int
    kept_edits: int
    pairs: tuple[TrainingPair, ...]


class MStepResult(Domain):
    """The policy that came of a job."""

    policy_version: Sha256


class MStepLine(Domain):
    """One line of standard output: how far, what came out, or why nothing did."""

    step: int = 0
    steps: int = 0
    loss: float = 0.0
    tokens_per_second: float = 0.0
    result: MStepResult | None = None
    error_reason: str = ""
    error: str = ""


def run(folder: Path, output: TextIO) -> MStepResult:
    """Carries out the job in `folder`. Raises SealError."""
    job = read_record(folder / JOB_FILE, MStepJob)
    if job is None:
        raise NotPossible(f"{folder.name} holds no {JOB_FILE}")
    result = MStepResult(policy_version=_train(job, output))
    write_record(folder / RESULT_FILE, result)
    return result


def _train(job: MStepJob, output: TextIO) -> str:
    """Trains and stores the policy; returns its version."""
    from common.lora.adapter_folder import AdapterFolders
    from common.lora.engine import LoraEngine
    from common.lora.outcomes import FailedJob
    from common.lora.render import Rendered
    from common.lora.update import TrainJob, effective_recipe
    from common.models.loading import load_model
    from common.software import software
    from teacher.policies import MANIFEST_FILE, Manifest

    folders = AdapterFolders(job.policies)
    parent = None if job.parent == BASE else folders.get(job.parent)
    base = load_model(job.model)
    engine = LoraEngine(base, EngineConfig(train_tokens=job.train_tokens))
    recipe = effective_recipe(job.recipe, parent.spec if parent else None)
    examples = [
        Rendered(
            tokens=(*pair.prompt_ids, *pair.completion_ids),
            counted=(False,) * len(pair.prompt_ids) + (True,) * len(pair.completion_ids),
        )
        for pair in job.pairs
    ]
    (trained,) = engine.train([TrainJob("policy", examples, recipe, job.seed, parent)], _reporter(output))
    if isinstance(trained, FailedJob):
        raise NotPossible(trained.detail, reason=trained.reason)
    manifest = Manifest(
        parent=job.parent,
        create_time=datetime.now(UTC),
        kept_edits=job.kept_edits,
        pairs=len(job.pairs),
        first_loss=trained.first_loss,
        last_loss=trained.last_loss,
        seed=job.seed,
        recipe=recipe,
        versions=software(PACKAGES).versions,
    )
    stored = folders.put(
        trained.adapter, base_model=job.model.model, files={MANIFEST_FILE: manifest.model_dump_json().encode()}
    )
    return stored.sha256


class _reporter:  # noqa: N801 - called like the function that it stands for
    """Writes progress at most once a second, and the last step always."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._last = 0.0

    def __call__(self, progress: object) -> None:
        from common.lora.outcomes import TrainProgress

        assert isinstance(progress, TrainProgress)
        now = time.monotonic()
        if now - self._last >= REPORT_SECONDS or progress.step == progress.steps:
            self._last = now
            line = MStepLine(
                step=progress.step,
                steps=progress.steps,
                loss=progress.loss,
                tokens_per_second=progress.tokens_per_second,
            )
            _say(line, self._output)


def _say(line: MStepLine, output: TextIO) -> None:
    output.write(f"{line.model_dump_json(exclude_defaults=True)}\n")
    output.flush()


def _end_with_parent() -> None:
    """Leaves as soon as the parent does; no half-written file stays, for policies appear by rename."""
    # Not sys.stdin: its lock, held by this thread, would stop the interpreter from ending in order.
    while os.read(0, 1):
        pass
    os._exit(1)


def main(arguments: list[str]) -> int:
    """Runs one job; returns the exit status."""
    configure_logging("teacher-mstep", "warning")
    # Model libraries may print; standard output belongs to the protocol.
    output, sys.stdout = sys.stdout, sys.stderr
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        _say(MStepLine(result=run(Path(arguments[0]), output)), output)
    except SealError as error:
        _say(MStepLine(error_reason=error.reason, error=error.message), output)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
