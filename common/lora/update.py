"""One adapter being trained: its plan of steps, its numbers, its optimizer. The trainer gives it gradients.

Everything random derives from the job's seed and nothing from who else is being trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from common.canonical import derive_seed
from common.errors import SealError
from common.lora.adapter_format import Adapter, AdapterSpec
from common.lora.attachment import AttachedModel
from common.lora.render import Rendered
from common.lora.resuming import Checkpoint, State, restore, state_of
from common.lora.schedule import learning_rate_factor, shuffled_batches
from common.types import Example, Recipe, Schedule

T = TypeVar("T")
CLIP_EPSILON = 1e-6  # torch's


@dataclass(frozen=True)
class TrainJob:
    """One adapter to train. Every field of `recipe` is set; on a parent, rank, alpha and targets are the parent's.

    Examples that are rendered already (the teacher's own prompts and completions) are trained on token for token.
    checkpoint: keeps the job under way; one that went on from there gives the same bytes, if it is trained alone.
    """

    job_id: str
    examples: Sequence[Example | Rendered]
    recipe: Recipe
    seed: int
    parent: Adapter | None = None
    checkpoint: Checkpoint | None = None


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


class NotFinite(Exception):
    """A number of the update is none; the adapter is lost."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"the {what} was not finite at step {step}")


class Update:
    """A job under way on an attached model, under the name `slot`. `pending` is what its next step is made of."""

    def __init__(self, job: TrainJob, examples: Sequence[Rendered], attached: AttachedModel, slot: str) -> None:
        recipe = job.recipe
        self.job = job
        self.slot = slot
        self.alone = True
        self.tokens = 0
        # Of the passes' time, as much as this job's tokens are of theirs.
        self.seconds = 0.0
        self.loss = 0.0
        self._examples = examples
        self._attached = attached
        order = torch.Generator().manual_seed(derive_seed("example-order", job.seed))
        plan = shuffled_batches(len(examples), set_(recipe.batch_size), set_(recipe.epochs), order)
        self._steps = [(epoch, batch) for epoch, batches in enumerate(plan) for batch in batches]
        self._losses = [[0.0, 0] for _ in plan]
        self.step = 0
        self._attach()
        self._dropout = torch.Generator(attached.base.device).manual_seed(derive_seed("dropout", job.seed))
        flat_P, grad_P = attached.train(slot, dropout=set_(recipe.dropout), generator=self._dropout)
        self._flat = torch.nn.Parameter(flat_P, requires_grad=True)
        self._flat.grad = grad_P
        self._optimizer = torch.optim.AdamW(
            [self._flat], lr=set_(recipe.learning_rate), weight_decay=set_(recipe.weight_decay), fused=True
        )
        if job.checkpoint is not None and (found := job.checkpoint.load()) is not None:
            self._go_on(found)

    @property
    def steps(self) -> int:
        return len(self._steps)

    @property
    def ended(self) -> bool:
        return self.step >= self.steps

    @property
    def pending(self) -> list[Rendered]:
        """The examples of the next step."""
        return [self._examples[i] for i in self._steps[self.step][1]]

    def forget_gradients(self) -> None:
        """Back to before the step's first pass."""
        self._attached.forget_gradients(self.slot)

    def advance(self, summed_loss: float) -> None:
        """Takes a step with the gradients that have been added up. Raises NotFinite.

        summed_loss: cross-entropy in nats, over the step's counted tokens.
        """
        recipe, pending = self.job.recipe, self.pending
        targets = sum(example.targets for example in pending)
        if not math.isfinite(summed_loss):
            raise NotFinite("loss", self.step)
        self._clip(set_(recipe.max_grad_norm))
        factor = learning_rate_factor(
            recipe.schedule or Schedule.LINEAR, self.step, self.steps, set_(recipe.warmup_steps)
        )
        self._optimizer.param_groups[0]["lr"] = set_(recipe.learning_rate) * factor
        self._optimizer.step()
        self.forget_gradients()
        epoch = self._losses[self._steps[self.step][0]]
        epoch[0] += summed_loss
        epoch[1] += targets
        self.loss = summed_loss / targets
        self.tokens += sum(len(example.tokens) for example in pending)
        self.step += 1
        if self.job.checkpoint is not None and not self.ended:
            self.job.checkpoint.keep(self._state)

    def result(self) -> TrainedAdapter:
        """Raises NotFinite when the last step broke it."""
        adapter = self._attached.export(self.slot)
        low, high = torch.aminmax(self._flat.detach())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise NotFinite("last update", self.steps)
        (first, counted_first), (last, counted_last) = self._losses[0], self._losses[-1]
        return TrainedAdapter(
            job_id=self.job.job_id,
            adapter=adapter,
            steps=self.steps,
            tokens=self.tokens,
            first_loss=first / counted_first,
            last_loss=last / counted_last,
            seconds=self.seconds,
            alone=self.alone,
        )

    def _clip(self, limit: float) -> None:
        """Scales the gradients down to a norm of `limit`, as torch's clip_grad_norm_ does. Raises NotFinite."""
        assert self._flat.grad is not None
        self._attached.settle_gradients(self.slot)
        norm = float(torch.linalg.vector_norm(self._flat.grad))
        if not math.isfinite(norm):
            raise NotFinite("gradient", self.step)
        if (scale := limit / (norm + CLIP_EPSILON)) < 1:
            self._flat.grad.mul_(scale)

    def _state(self) -> State:
        """Everything that the next step depends on, and what is told of those taken."""
        told = [self.step, self.tokens, self.seconds, self.loss, self.alone]
        return {
            **state_of(self._optimizer, {"factors": self._flat}),
            "dropout": self._dropout.get_state(),
            "losses": torch.tensor(self._losses, dtype=torch.float64),
            "told": torch.tensor(told, dtype=torch.float64),
        }

    def _go_on(self, state: State) -> None:
        restore(state, self._optimizer, {"factors": self._flat})
        self._dropout.set_state(state["dropout"])
        self._losses = state["losses"].tolist()
        step, tokens, self.seconds, self.loss, alone = state["told"].tolist()
        self.step, self.tokens, self.alone = int(step), int(tokens), bool(alone)

    def _attach(self) -> None:
        """The parent's factors, or fresh ones drawn from the job's seed."""
        parent = self.job.parent
        if parent is not None:
            self._attached.check_fit(self.job.job_id, parent)
        spec = parent.spec if parent is not None else fresh_spec(self.job.recipe, self._attached.base.digest.sha256)
        generator = torch.Generator().manual_seed(derive_seed("lora-init", self.job.seed))
        self._attached.attach(
            self.slot,
            spec,
            lambda name, shape: parent.tensors[name] if parent is not None else _fresh(name, shape, generator),
        )


def _fresh(name: str, shape: tuple[int, int], generator: torch.Generator) -> torch.Tensor:
    """LoRA's usual start: A uniform within 1/sqrt(inputs), B zero, so that the update starts at nothing."""
    if not name.endswith("lora_A.weight"):
        return torch.zeros(shape)
    bound = 1.0 / math.sqrt(shape[1])
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def fresh_spec(recipe: Recipe, base: str) -> AdapterSpec:
    """The spec of an adapter that starts on the bare base with digest `base`."""
    return AdapterSpec(
        rank=set_(recipe.rank),
        alpha=set_(recipe.alpha),
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


def set_(value: T | None) -> T:
    """A directive that must have been resolved by now."""
    if value is None:
        raise SealError("a recipe with missing fields reached the trainer")
    return value
