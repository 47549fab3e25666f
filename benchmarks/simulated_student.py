"""A student replica whose GPU is simulated: a candidate takes so many seconds, and what it becomes is a real adapter.

`python -m benchmarks.simulated_student`, as `python -m student` with two settings more. Server, store, versions and
training are the student's own; only the engine waits instead of computing, on a model so small that it computes next
to nothing. benchmarks/replicas.py starts several on one store.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field

from common.config import load_config
from common.errors import Cancelled
from common.logging import configure_logging
from common.lora.engine import LoraEngine
from common.lora.outcomes import Outcome, Report
from common.lora.update import TrainJob
from common.models.loading import BaseModel
from student.__main__ import serve_student
from student.config import StudentConfig
from student.student import Student

POLL_SECONDS = 0.02


class SimulatedConfig(StudentConfig):
    seconds: float = Field(gt=0, description="what the simulated GPU takes for a candidate")
    notes: Path = Field(description="file to which every training that begins is added, as candidate key and process")


class SimulatedGpu(LoraEngine):
    """Trains one candidate after another, each in the same time."""

    def __init__(self, base: BaseModel, config: SimulatedConfig, student: Student) -> None:
        super().__init__(base, config.engine, student.store.adapter)
        self._seconds = config.seconds
        self._notes = config.notes

    def train(
        self,
        jobs: Sequence[TrainJob],
        report: Report = lambda _: None,
        cancelled: Callable[[], bool] = lambda: False,
        ended: Callable[[Outcome], None] = lambda _: None,
    ) -> list[Outcome]:
        outcomes = []
        for job in jobs:
            until = time.monotonic() + self._seconds
            with self._notes.open("a", encoding="utf-8") as notes:
                notes.write(f"{job.job_id} {os.getpid()}\n")
            outcomes += super().train([job], report, cancelled)
            while time.monotonic() < until:
                if cancelled():
                    raise Cancelled("training was called off")
                time.sleep(POLL_SECONDS)
            ended(outcomes[-1])
        return outcomes


class SimulatedStudent(Student):
    def __init__(self, config: SimulatedConfig) -> None:
        super().__init__(config)
        self._simulated = config

    def _open_engine(self, base: BaseModel) -> LoraEngine:
        return SimulatedGpu(base, self._simulated, self)


def main() -> None:
    config = load_config(SimulatedConfig, "student")
    configure_logging("student", config.log_level)
    asyncio.run(serve_student(config, SimulatedStudent(config)))


if __name__ == "__main__":
    main()
