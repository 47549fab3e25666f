"""Training: reproducible, exact under padding, and each candidate by itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.peft_loop import distance, train_with_peft
from common.canonical import digest_bytes
from common.errors import Cancelled
from common.lora.adapter_format import Adapter
from common.lora.config import EngineConfig
from common.lora.engine import LoraEngine
from common.lora.trainer import FailedJob, TrainProgress
from common.lora.update import TrainedAdapter, TrainJob, Update
from common.models.loading import BaseModel, load_model
from common.types import Example, Recipe
from tests.support.examples import EXAMPLES, RECIPE
from tests.support.tiny_model import tiny_config


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


SHAPES = st.builds(
    lambda rank, epochs, batch, targets, count, scale: (rank, epochs, batch, targets, count, scale),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sets(st.sampled_from(["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]), min_size=1),
    st.integers(1, len(EXAMPLES)),
    st.sampled_from([1e-3, 1e-2, 5e-2]),
)


@pytest.fixture(scope="module")
def exact(tiny_folder: Path) -> LoraEngine:
    """An engine in float64, where equal means equal."""
    base = load_model(tiny_config(tiny_folder))
    base.model.double()
    return LoraEngine(base, EngineConfig(train_tokens=96))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shapes=st.lists(SHAPES, min_size=2, max_size=6))
def test_any_mixture_gives_each_candidate_the_adapter_that_it_gets_alone(exact: LoraEngine, shapes: list[Any]) -> None:
    jobs = [
        job(
            f"j{place}",
            seed=place,
            examples=EXAMPLES[:count],
            recipe=RECIPE.model_copy(
                update={
                    "rank": rank,
                    "epochs": epochs,
                    "batch_size": batch,
                    "target_modules": tuple(sorted(targets)),
                    "learning_rate": rate,
                    "dropout": 0.2 if place % 3 == 2 else 0.0,
                }
            ),
        )
        for place, (rank, epochs, batch, targets, count, rate) in enumerate(shapes)
    ]
    together = trained(exact, *jobs)
    for one, outcome in zip(jobs, together, strict=True):
        (alone,) = trained(exact, one)
        assert alone.alone
        assert distance(outcome.adapter.tensors, alone.adapter.tensors, fresh(exact, one)) <= 1e-10


def fresh(engine: LoraEngine, of: TrainJob) -> dict[str, torch.Tensor]:
    """The factors that a job starts from."""
    update = Update(of, [], engine.attached, "fresh")
    start = {name: tensor.clone() for name, tensor in engine.attached.factors("fresh").items()}
    engine.attached.detach(update.slot)
    return start


@pytest.mark.parametrize("double", [True, False])
def test_the_adapter_is_the_one_that_plain_peft_trains(tiny_folder: Path, double: bool) -> None:
    base, untouched = load_model(tiny_config(tiny_folder)), load_model(tiny_config(tiny_folder)).model
    if double:
        base.model.double()
        untouched.double()
    engine = LoraEngine(base)
    jobs = [
        job(str(rank), seed=rank, recipe=RECIPE.model_copy(update={"rank": rank, "batch_size": rank, "epochs": 3}))
        for rank in (1, 3, 4)
    ]
    for one, outcome in zip(jobs, trained(engine, *jobs), strict=True):
        rendered = [engine.renderer.example(example, max_tokens=256) for example in EXAMPLES]
        reference = train_with_peft(untouched, one, rendered)
        assert distance(outcome.adapter.tensors, reference, fresh(engine, one)) <= (1e-10 if double else 1e-3)


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
    assert [(p.job_id, p.step, p.steps) for p in seen] == [("a", 1, 4), ("b", 1, 4)]
    assert all(p.loss > 0 and p.tokens_per_second > 0 for p in seen)
    assert engine.attached.attached == ()
