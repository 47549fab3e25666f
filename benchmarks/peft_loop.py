"""Plain PEFT, one adapter after another: what the engine's numbers are compared with."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from common.canonical import derive_seed
from common.lora.attachment import FILE_PREFIX
from common.lora.engine import LoraEngine
from common.lora.render import Rendered
from common.lora.schedule import learning_rate_factor, shuffled_batches
from common.lora.update import TrainJob, Update, set_
from common.types import Schedule


def train_with_peft(
    model: Any, job: TrainJob, examples: Sequence[Rendered], *, width: int = 0
) -> dict[str, torch.Tensor]:
    """The job's adapter by transformers' and PEFT's own means: padded batches, torch's cross-entropy over whole logits.

    `model` is a causal LM on which no adapter was ever attached; it is not changed. Factors are drawn as the engine
    draws them: sorted by name, from the job's seed. width: tokens that every batch is padded to at least.
    """
    return PeftLoop(copy.deepcopy(model), job).train(examples, width)


class PeftLoop:
    """One job on a model that PEFT has changed; made apart from its training, so that training alone can be timed."""

    def __init__(self, model: Any, job: TrainJob) -> None:
        self._job = job
        self._device = model.device
        self._peft, self._factors = _with_adapter(model, job)

    def train(self, examples: Sequence[Rendered], width: int = 0) -> dict[str, torch.Tensor]:
        """Plain steps of AdamW over the job's batches; the factors by their PEFT names."""
        recipe, factors = self._job.recipe, self._factors
        optimizer = torch.optim.AdamW(factors.values(), lr=1.0, weight_decay=set_(recipe.weight_decay))
        order = torch.Generator().manual_seed(derive_seed("example-order", self._job.seed))
        plan = shuffled_batches(len(examples), set_(recipe.batch_size), set_(recipe.epochs), order)
        steps = [batch for epoch in plan for batch in epoch]
        schedule, warmup = recipe.schedule or Schedule.LINEAR, set_(recipe.warmup_steps)
        for step, batch in enumerate(steps):
            factor = learning_rate_factor(schedule, step, len(steps), warmup)
            optimizer.param_groups[0]["lr"] = set_(recipe.learning_rate) * factor
            _loss(self._peft, [examples[i] for i in batch], width, self._device).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(factors.values(), set_(recipe.max_grad_norm))
            optimizer.step()
            optimizer.zero_grad()
        return {name: parameter.detach().cpu() for name, parameter in factors.items()}


def start_of(engine: LoraEngine, job: TrainJob) -> dict[str, torch.Tensor]:
    """The factors that the engine starts a job from."""
    update = Update(job, [], engine.attached, "start")
    start = engine.attached.export(update.slot).tensors
    engine.attached.detach(update.slot)
    return dict(start)


def _with_adapter(model: Any, job: TrainJob) -> tuple[Any, dict[str, torch.nn.Parameter]]:
    recipe = job.recipe
    config = LoraConfig(
        r=set_(recipe.rank),
        lora_alpha=set_(recipe.alpha),
        target_modules=list(recipe.target_modules),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    peft: Any = get_peft_model(model, config)
    factors = {
        name.replace(".default", ""): parameter
        for name, parameter in peft.named_parameters()
        if parameter.requires_grad
    }
    assert all(name.startswith(FILE_PREFIX) for name in factors)
    _draw(factors, job)
    return peft, factors


def _draw(factors: dict[str, torch.nn.Parameter], job: TrainJob) -> None:
    if job.parent is not None:
        drawn = dict(job.parent.tensors)
    else:
        generator = torch.Generator().manual_seed(derive_seed("lora-init", job.seed))
        drawn = {}
        for name in sorted(factors):
            shape = factors[name].shape
            bound = 1.0 / math.sqrt(shape[1])
            is_a = name.endswith("lora_A.weight")
            drawn[name] = (
                torch.empty(shape).uniform_(-bound, bound, generator=generator) if is_a else torch.zeros(shape)
            )
    with torch.no_grad():
        for name, parameter in factors.items():
            parameter.data = drawn[name].to(parameter.device, parameter.dtype)


def _loss(model: Any, examples: Sequence[Rendered], width: int, device: torch.device) -> torch.Tensor:
    """Mean over the batch's counted tokens."""
    width = max(width, *(len(example.tokens) for example in examples))
    tokens = torch.zeros((len(examples), width), dtype=torch.long)
    seen = torch.zeros_like(tokens)
    labels = torch.full_like(tokens, -100)
    for row, example in enumerate(examples):
        length = len(example.tokens)
        tokens[row, :length] = torch.tensor(example.tokens)
        seen[row, :length] = 1
        labels[row, :length] = torch.where(torch.tensor(example.counted), tokens[row, :length], -100)
    tokens, seen, labels = (part.to(device) for part in (tokens, seen, labels))
    logits = model(input_ids=tokens, attention_mask=seen, use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


def distance(
    update: Mapping[str, torch.Tensor], reference: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor]
) -> float:
    """Relative norm of the difference of two updates that began at `start`."""
    difference = sum(float((update[name].double() - reference[name].double()).square().sum()) for name in reference)
    moved = sum(float((reference[name].double() - start[name].double()).square().sum()) for name in reference)
    return math.sqrt(difference / moved)
