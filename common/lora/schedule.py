"""How the learning rate and the examples are laid out over the steps of an update. Pure and seeded."""

from __future__ import annotations

import math

import torch

from common.types import Schedule


def learning_rate_factor(schedule: Schedule, step: int, steps: int, warmup: int) -> float:
    """What the learning rate is multiplied with at `step` (0-based) of `steps`: warm-up first, then the schedule."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    share = (step - warmup) / max(1, steps - warmup)
    if schedule is Schedule.LINEAR:
        return max(0.0, 1.0 - share)
    if schedule is Schedule.COSINE:
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, share)))
    return 1.0


def shuffled_batches(examples: int, batch_size: int, epochs: int, generator: torch.Generator) -> list[list[list[int]]]:
    """For each epoch its steps, each with the indices of its examples, in an order drawn from `generator`."""
    plan = []
    for _ in range(epochs):
        order = torch.randperm(examples, generator=generator).tolist()
        plan.append([order[start : start + batch_size] for start in range(0, examples, batch_size)])
    return plan
