"""What training says of a job: how far it is, and what it came to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from common.lora.update import TrainedAdapter, TrainJob

NON_FINITE = "NON_FINITE_LOSS"
OUT_OF_MEMORY = "OUT_OF_MEMORY"
SMALLER = "a smaller rank, batch size, max_tokens or train_tokens takes less, and so does gradient checkpointing"


@dataclass(frozen=True)
class FailedJob:
    """Why a job has no adapter: a constant for machines and a sentence without any content of the examples."""

    job_id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class TrainProgress:
    """How far a job is; `job` of `jobs` have ended, `loss` is the last step's, the speed that of all jobs together.

    padding_share: of what attention has computed so far, for all jobs.
    """

    job_id: str
    job: int
    jobs: int
    step: int
    steps: int
    loss: float
    tokens_per_second: float
    padding_share: float = 0.0


Outcome = TrainedAdapter | FailedJob
Report = Callable[[TrainProgress], None]


def unless_no_memory(error: RuntimeError) -> None:
    """Raises the error again unless it says that memory has run out (the CPU's allocator has no type of its own)."""
    if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
        raise error


def too_large(job: TrainJob, problem: str) -> FailedJob:
    return FailedJob(job.job_id, OUT_OF_MEMORY, f"{problem}; {SMALLER}")
