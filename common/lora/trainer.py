"""Trains adapters by supervised fine-tuning on one frozen base (SEAL's inner update, and the teacher's M-step).

Every job has its own result or failure; one that fails never touches the others. The same (parent, examples, recipe,
seed, kind of device, threads) gives the same bytes: initial factors and the order of examples come from generators of
the job's own, and nothing depends on what ran before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from common.canonical import derive_seed
from common.errors import Cancelled, InvalidRequest, SealError
from common.lora.adapter_format import Adapter, AdapterSpec
from common.lora.attachment import AttachedModel
from common.lora.config import EngineConfig
from common.lora.forward import Batch, LogitModel, chosen_positions, passes
from common.lora.render import ExampleRefused, Rendered, Renderer, checked
from common.lora.schedule import learning_rate_factor, shuffled_batches
from common.types import Example, Recipe, Schedule

ADAPTER_NAME = "candidate"
NON_FINITE = "NON_FINITE_LOSS"
T = TypeVar("T")


@dataclass(frozen=True)
class TrainJob:
    """One adapter to train. Every field of `recipe` is set; on a parent, rank, alpha and targets are the parent's.

    Examples that are rendered already (the teacher's own prompts and completions) are trained on token for token.
    """

    job_id: str
    examples: Sequence[Example | Rendered]
    recipe: Recipe
    seed: int
    parent: Adapter | None = None


@dataclass(frozen=True)
class TrainedAdapter:
    """What a job became. Losses are means over counted tokens, in nats, of the first and the last epoch.

    `alone` says that no other job shared its forward passes, so that the adapter's bytes can be reproduced.
    """

    job_id: str
    adapter: Adapter
    steps: int
    tokens: int
    first_loss: float
    last_loss: float
    seconds: float
    alone: bool = True


@dataclass(frozen=True)
class FailedJob:
    """Why a job has no adapter: a constant for machines and a sentence without any content of the examples."""

    job_id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class TrainProgress:
    """How far a job is; `job` of `jobs` counts from 0, `loss` is the last step's."""

    job_id: str
    job: int
    jobs: int
    step: int
    steps: int
    loss: float
    tokens_per_second: float


Outcome = TrainedAdapter | FailedJob
Report = Callable[[TrainProgress], None]


class _LossNotFinite(Exception):
    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"the {what} was not finite at step {step}")


class Trainer:
    """Runs jobs on an attached model. Used by LoraEngine."""

    def __init__(self, attached: AttachedModel, logits: LogitModel, renderer: Renderer, config: EngineConfig) -> None:
        self._attached = attached
        self._logits = logits
        self._renderer = renderer
        self._config = config
        self._device = attached.base.device

    def train(
        self,
        jobs: Sequence[TrainJob],
        report: Report = lambda _: None,
        cancelled: Callable[[], bool] = lambda: False,
        ended: Callable[[Outcome], None] = lambda _: None,
    ) -> list[Outcome]:
        """One result or failure a job, in order. Raises Cancelled at the next step once `cancelled()` says so."""
        outcomes = []
        for index, job in enumerate(jobs):
            outcomes.append(self._one(job, index, len(jobs), report, cancelled))
            ended(outcomes[-1])
        return outcomes

    def _one(self, job: TrainJob, index: int, jobs: int, report: Report, cancelled: Callable[[], bool]) -> Outcome:
        try:
            limit = min(_set(job.recipe.max_tokens), self._attached.base.max_positions)
            examples = [
                checked(example, max_tokens=limit)
                if isinstance(example, Rendered)
                else self._renderer.example(example, max_tokens=limit)
                for example in job.examples
            ]
            self._prepare(job)
            return self._update(job, examples, _Watch(job.job_id, index, jobs, report, cancelled))
        except (ExampleRefused, InvalidRequest) as error:
            return FailedJob(job.job_id, error.reason, error.message)
        except _LossNotFinite as error:
            return FailedJob(job.job_id, NON_FINITE, str(error))
        except torch.OutOfMemoryError:
            return FailedJob(job.job_id, "OUT_OF_MEMORY", "the device has not enough memory for this update")
        finally:
            self._attached.detach(ADAPTER_NAME)

    def _prepare(self, job: TrainJob) -> None:
        """Attaches the adapter to train: the parent's factors, or fresh ones drawn from the job's seed."""
        if job.parent is not None:
            self._attached.check_fit(job.job_id, job.parent)
        spec = job.parent.spec if job.parent is not None else fresh_spec(job.recipe, self._attached.base.digest.sha256)
        self._attached.attach(ADAPTER_NAME, spec, dropout=_set(job.recipe.dropout))
        factors = job.parent.tensors if job.parent is not None else self._fresh_factors(spec, job.seed)
        self._attached.copy_in(ADAPTER_NAME, factors)
        self._attached.activate(ADAPTER_NAME, train=True)

    def _fresh_factors(self, spec: AdapterSpec, seed: int) -> dict[str, torch.Tensor]:
        """LoRA's usual start: A uniform within 1/sqrt(inputs), B zero, so that the update starts at nothing."""
        generator = torch.Generator().manual_seed(derive_seed("lora-init", seed))
        factors = {}
        for name, shape in self._attached.shapes(spec).items():
            bound = 1.0 / math.sqrt(shape[1])
            is_a = name.endswith("lora_A.weight")
            factors[name] = (
                torch.empty(shape).uniform_(-bound, bound, generator=generator) if is_a else torch.zeros(shape)
            )
        return factors

    def _update(self, job: TrainJob, examples: list[Rendered], watch: _Watch) -> TrainedAdapter:
        recipe = job.recipe
        parameters = list(self._attached.factors(ADAPTER_NAME).values())
        optimizer = torch.optim.AdamW(
            parameters, lr=_set(recipe.learning_rate), weight_decay=_set(recipe.weight_decay), foreach=True
        )
        order = torch.Generator().manual_seed(derive_seed("example-order", job.seed))
        plan = shuffled_batches(len(examples), _set(recipe.batch_size), _set(recipe.epochs), order)
        steps = sum(map(len, plan))
        epoch_losses = []
        with torch.random.fork_rng(), torch.enable_grad():
            torch.manual_seed(derive_seed("dropout", job.seed))
            step = 0
            for epoch in plan:
                summed = counted = 0.0
                for batch in epoch:
                    factor = learning_rate_factor(
                        recipe.schedule or Schedule.LINEAR, step, steps, _set(recipe.warmup_steps)
                    )
                    optimizer.param_groups[0]["lr"] = _set(recipe.learning_rate) * factor
                    chosen = [examples[i] for i in batch]
                    targets = sum(example.targets for example in chosen)
                    loss = self._gradients(chosen, targets, step)
                    self._clip(parameters, _set(recipe.max_grad_norm), step)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                    summed += loss * targets
                    counted += targets
                    step += 1
                    watch.stepped(step, steps, loss, sum(len(example.tokens) for example in chosen))
                epoch_losses.append(summed / counted)
        adapter = self._attached.export(ADAPTER_NAME)
        if not all(bool(tensor.isfinite().all()) for tensor in adapter.tensors.values()):
            raise _LossNotFinite("last update", steps)
        return TrainedAdapter(
            job_id=job.job_id,
            adapter=adapter,
            steps=steps,
            tokens=watch.tokens,
            first_loss=epoch_losses[0],
            last_loss=epoch_losses[-1],
            seconds=watch.seconds,
        )

    def _gradients(self, examples: list[Rendered], targets: int, step: int) -> float:
        """Adds up the gradients of one step over as few padded passes as pay; returns the mean loss a counted token."""
        lengths = [len(example.tokens) for example in examples]
        total = 0.0
        for cut in passes(lengths, budget=self._config.train_tokens, max_padding=self._config.max_padding):
            loss = self.summed_loss([examples[i] for i in cut]) / targets
            value = float(loss.detach())
            if not math.isfinite(value):
                raise _LossNotFinite("loss", step)
            loss.backward()  # type: ignore[no-untyped-call]
            total += value
        return total

    def summed_loss(self, examples: Sequence[Rendered]) -> torch.Tensor:
        """Cross-entropy in nats, summed over the counted tokens of the examples; padding is not among them."""
        batch = Batch.of([example.tokens for example in examples], self._device)
        # Position t predicts token t + 1.
        rows = [[t for t, counts in enumerate(example.counted[1:]) if counts] for example in examples]
        chosen_N = chosen_positions(rows, batch.tokens_BT.shape[1]).to(self._device)
        targets_N = batch.tokens_BT.flatten().index_select(0, chosen_N + 1)
        return torch.nn.functional.cross_entropy(self._logits.logits(batch, chosen_N), targets_N, reduction="sum")

    @staticmethod
    def _clip(parameters: list[torch.nn.Parameter], limit: float, step: int) -> None:
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit, foreach=True)
        if not bool(torch.isfinite(norm)):
            raise _LossNotFinite("gradient", step)


class _Watch:
    """Time, tokens, progress and cancellation of one job."""

    def __init__(self, job_id: str, index: int, jobs: int, report: Report, cancelled: Callable[[], bool]) -> None:
        self._job = (job_id, index, jobs)
        self._report = report
        self._cancelled = cancelled
        self._started = time.monotonic()
        self.tokens = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def stepped(self, step: int, steps: int, loss: float, tokens: int) -> None:
        self.tokens += tokens
        self._report(TrainProgress(*self._job, step, steps, loss, self.tokens / max(self.seconds, 1e-9)))
        if self._cancelled():
            raise Cancelled("training was called off")


def fresh_spec(recipe: Recipe, base: str) -> AdapterSpec:
    """The spec of an adapter that starts on the bare base with digest `base`."""
    return AdapterSpec(
        rank=_set(recipe.rank),
        alpha=_set(recipe.alpha),
        target_modules=tuple(sorted(set(recipe.target_modules))),
        base=base,
    )


def effective_recipe(recipe: Recipe, parent: AdapterSpec | None) -> Recipe:
    """The recipe as it will be trained: on a parent, the lineage's rank, alpha and targets stand."""
    if parent is None:
        return recipe.model_copy(update={"target_modules": tuple(sorted(set(recipe.target_modules)))})
    return recipe.model_copy(
        update={"rank": parent.rank, "alpha": parent.alpha, "target_modules": parent.target_modules}
    )


def _set(value: T | None) -> T:
    if value is None:
        raise SealError("a recipe with missing fields reached the trainer")
    return value
