"""Training: reproducible, exact under padding, and each candidate by itself."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from common.canonical import digest_bytes
from common.errors import Cancelled
from common.lora.adapter_format import Adapter
from common.lora.config import EngineConfig
from common.lora.engine import LoraEngine
from common.lora.trainer import ADAPTER_NAME, FailedJob, TrainedAdapter, Trainer, TrainJob, TrainProgress
from common.models.loading import BaseModel
from common.types import Example, Recipe
from tests.support.examples import EXAMPLES, RECIPE


def trained(engine: LoraEngine, *jobs: TrainJob) -> list[TrainedAdapter]:
    outcomes = engine.train(jobs)
    assert all(isinstance(outcome, TrainedAdapter) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, TrainedAdapter)]


def digest(adapter: Adapter) -> str:
    return digest_bytes(adapter.to_bytes()).sha256


def job(name: str = "a", seed: int = 1, recipe: Recipe = RECIPE, **more: object) -> TrainJob:
    return dataclasses.replace(TrainJob(name, EXAMPLES, recipe, seed), **more)  # type: ignore[arg-type]


def test_the_same_job_gives_the_same_bytes_whatever_ran_before(tiny_base: BaseModel) -> None:
    engine = LoraEngine(tiny_base)
    (first,) = trained(engine, job())
    torch.rand(7)
    _, again = trained(engine, job("other", seed=2), job())
    assert digest(first.adapter) == digest(again.adapter)
    assert first.last_loss < first.first_loss


def test_dropout_is_seeded_too(tiny_base: BaseModel) -> None:
    engine = LoraEngine(tiny_base)
    dropped = RECIPE.model_copy(update={"dropout": 0.3})
    first, again, without = trained(engine, job(recipe=dropped), job(recipe=dropped), job())
    assert digest(first.adapter) == digest(again.adapter) != digest(without.adapter)


def test_seed_recipe_and_examples_change_the_adapter(tiny_base: BaseModel) -> None:
    engine = LoraEngine(tiny_base)
    adapters = trained(
        engine,
        job(),
        job(seed=2),
        job(recipe=RECIPE.model_copy(update={"learning_rate": 2e-2})),
        job(examples=EXAMPLES[:3]),
    )
    assert len({digest(outcome.adapter) for outcome in adapters}) == 4


def gradients(
    engine: LoraEngine, trainer: Trainer, examples: list[Example], together: bool
) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of one step over `examples`, in one padded pass or one pass each."""
    rendered = [engine.renderer.example(example, max_tokens=256) for example in examples]
    trainer._prepare(job())
    parameters = engine.attached.factors(ADAPTER_NAME)
    with torch.no_grad():
        for index, parameter in enumerate(parameters.values()):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)) * 0.1)
    batches = [rendered] if together else [[example] for example in rendered]
    loss = sum((trainer.summed_loss(batch) for batch in batches), torch.zeros(()))
    loss.backward()  # type: ignore[no-untyped-call]
    found = [parameter.grad.clone() for parameter in parameters.values() if parameter.grad is not None]
    engine.attached.detach(ADAPTER_NAME)
    return float(loss.detach()), found


def test_padding_changes_neither_loss_nor_gradients(tiny_base: BaseModel) -> None:
    engine = LoraEngine(tiny_base)
    examples = [EXAMPLES[2], EXAMPLES[0], EXAMPLES[1]]
    padded_loss, padded = gradients(engine, engine._trainer, examples, together=True)
    alone_loss, alone = gradients(engine, engine._trainer, examples, together=False)
    assert padded_loss == pytest.approx(alone_loss, rel=1e-5)
    assert len(padded) == len(alone) == 2 * 2 * 3
    for one, other in zip(padded, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_cutting_a_step_into_passes_changes_only_the_last_bits(tiny_base: BaseModel) -> None:
    (whole,) = trained(LoraEngine(tiny_base, EngineConfig(max_padding=0.99)), job())
    (cut,) = trained(LoraEngine(tiny_base, EngineConfig(train_tokens=16)), job())
    for name, tensor in whole.adapter.tensors.items():
        torch.testing.assert_close(tensor, cut.adapter.tensors[name], rtol=1e-2, atol=1e-4)


def test_one_failing_candidate_fails_alone(tiny_base: BaseModel) -> None:
    engine = LoraEngine(tiny_base)
    too_long = (*EXAMPLES, Example(text="word " * 400))
    (start,) = trained(engine, job())
    wild = Adapter(start.adapter.spec, {name: tensor * 1e30 for name, tensor in start.adapter.tensors.items()})
    outcomes = engine.train(
        [
            job("long", examples=too_long),
            job("good"),
            job("wild", parent=wild),
            job("foreign", recipe=RECIPE.model_copy(update={"target_modules": ("no_proj",)})),
            job("also-good"),
        ]
    )
    reasons = [outcome.reason if isinstance(outcome, FailedJob) else "" for outcome in outcomes]
    assert reasons == ["EXAMPLE_TOO_LONG", "", "NON_FINITE_LOSS", "INVALID_REQUEST", ""]
    good, also_good = (outcome for outcome in outcomes if isinstance(outcome, TrainedAdapter))
    assert digest(good.adapter) == digest(also_good.adapter)
    assert engine.attached.attached == ()


def test_an_update_starts_at_its_parent_and_keeps_its_rank_and_targets(tiny_base: BaseModel) -> None:
    engine = LoraEngine(tiny_base)
    (parent,) = trained(engine, job())
    still = RECIPE.model_copy(update={"rank": 16, "target_modules": ("o_proj",), "learning_rate": 1e-12})
    (child,) = trained(engine, job(recipe=still, parent=parent.adapter))
    assert child.adapter.spec == parent.adapter.spec
    for name, tensor in parent.adapter.tensors.items():
        torch.testing.assert_close(tensor, child.adapter.tensors[name], rtol=0, atol=1e-9)
    assert child.first_loss < parent.first_loss


def test_progress_is_reported_and_cancelling_stops_at_the_next_step(tiny_base: BaseModel) -> None:
    engine = LoraEngine(tiny_base)
    seen: list[TrainProgress] = []
    with pytest.raises(Cancelled):
        engine.train([job(), job("b")], report=seen.append, cancelled=lambda: len(seen) == 2)
    assert [(p.job_id, p.step, p.steps) for p in seen] == [("a", 1, 4), ("a", 2, 4)]
    assert all(p.loss > 0 and p.tokens_per_second > 0 for p in seen)
    assert engine.attached.attached == ()
