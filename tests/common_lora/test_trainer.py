"""Training: reproducible, exact in company, within memory, and each candidate by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.peft_loop import distance, start_of, train_with_peft
from common.canonical import digest_bytes
from common.errors import Cancelled
from common.lora.adapter_format import Adapter
from common.lora.config import EngineConfig
from common.lora.engine import LoraEngine
from common.lora.memory import GIB, TrainMemory
from common.lora.outcomes import FailedJob, TrainProgress
from common.lora.trainer import Trainer
from common.lora.update import TrainedAdapter, TrainJob, fresh_spec
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
def exact(tiny_folder: Path) -> BaseModel:
    """A model in float64, where equal means equal."""
    base = load_model(tiny_config(tiny_folder))
    base.model.double()
    return base


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shapes=st.lists(SHAPES, min_size=2, max_size=6),
    # One example at a time, some of a step, or everything in one row.
    budget=st.sampled_from([96, 512, 4_096]),
    checkpointing=st.booleans(),
)
def test_any_mixture_gives_each_candidate_the_adapter_that_it_gets_alone(
    exact: BaseModel, shapes: list[Any], budget: int, checkpointing: bool
) -> None:
    engine = LoraEngine(exact, EngineConfig(train_tokens=budget, checkpointing=checkpointing))
    by_itself = LoraEngine(exact, EngineConfig(train_tokens=budget))
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
    together = trained(engine, *jobs)
    if budget == 4_096:
        assert not any(outcome.alone for outcome in together), "all of them begin in one row"
    for one, outcome in zip(jobs, together, strict=True):
        (alone,) = trained(by_itself, one)
        assert alone.alone
        assert distance(outcome.adapter.tensors, alone.adapter.tensors, start_of(by_itself, one)) <= 1e-10


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
        assert distance(outcome.adapter.tensors, reference, start_of(engine, one)) <= (1e-10 if double else 1e-3)


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
    for outcome in outcomes:
        if isinstance(outcome, TrainedAdapter):
            assert distance(outcome.adapter.tensors, start.adapter.tensors, start_of(engine, job())) <= 1e-4
    assert engine.attached.attached == ()


def no_room_together(monkeypatch: pytest.MonkeyPatch, room: int, error: Exception) -> None:
    """The device runs out of memory in passes of more than `room` tokens."""
    original = Trainer._pass

    def passing(self: Trainer, shares: Sequence[Any]) -> list[float]:
        losses = original(self, shares)
        if sum(share.tokens for share in shares) > room:
            raise error
        return losses

    monkeypatch.setattr(Trainer, "_pass", passing)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("on a GPU"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_what_is_too_large_together_is_trained_by_itself(
    tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    engine = LoraEngine(tiny_base)
    jobs = [job("a"), job("b", seed=2), job("long", examples=[Example(text="word " * 60)])]
    alone = [trained(engine, one)[0] for one in jobs[:2]]
    no_room_together(monkeypatch, room=150, error=error)
    *fitting, long = engine.train(jobs)
    assert isinstance(long, FailedJob)
    assert long.reason == "OUT_OF_MEMORY"
    assert "gradient checkpointing" in long.detail
    for one, outcome, expected in zip(jobs, fitting, alone, strict=False):
        assert isinstance(outcome, TrainedAdapter)
        assert distance(outcome.adapter.tensors, expected.adapter.tensors, start_of(engine, one)) <= 1e-4
    assert engine.attached.attached == ()


def test_what_cannot_fit_is_refused_before_it_begins(tiny_folder: Path) -> None:
    engine = LoraEngine(load_model(tiny_config(tiny_folder)), EngineConfig(train_memory_gib=0.005))
    large = job("large", recipe=RECIPE.model_copy(update={"rank": 256, "target_modules": engine.linear_names}))
    refused, fine = engine.train([large, job("fine")])
    assert isinstance(refused, FailedJob)
    assert (refused.reason, "GiB" in refused.detail) == ("OUT_OF_MEMORY", True)
    assert isinstance(fine, TrainedAdapter)


def test_candidates_wait_until_memory_is_free_and_come_out_the_same(tiny_base: BaseModel) -> None:
    roomy = LoraEngine(tiny_base)
    memory, spec = TrainMemory(roomy.attached, EngineConfig()), fresh_spec(RECIPE, tiny_base.digest.sha256)
    # One job has an example that is much longer than its others: room for it must be left when it does not come next.
    examples = (*EXAMPLES, Example(text="word " * 60))
    longest = max(len(roomy.renderer.example(example, max_tokens=256).tokens) for example in examples)
    for_two = memory.logits() + 2.5 * memory.adapter(spec) + longest * memory.token(spec, 0.0)
    narrow = LoraEngine(tiny_base, EngineConfig(train_memory_gib=for_two / GIB))
    recipe = RECIPE.model_copy(update={"batch_size": 1})
    jobs = [job("long", examples=examples, recipe=recipe)]
    jobs += [job(f"j{seed}", seed=seed, recipe=recipe) for seed in range(1, 5)]
    at_once: set[int] = set()

    def beside_the_long_one(_: TrainProgress) -> None:
        if "training-0" in narrow.attached.attached:
            at_once.add(len(narrow.attached.attached))

    outcomes = narrow.train(jobs, report=beside_the_long_one)
    assert max(at_once) == 2
    for one, outcome, expected in zip(jobs, outcomes, trained(roomy, *jobs), strict=True):
        assert isinstance(outcome, TrainedAdapter)
        assert distance(outcome.adapter.tensors, expected.adapter.tensors, start_of(roomy, one)) <= 1e-4


def test_checkpointing_runs_layers_again_and_trains_the_same(tiny_base: BaseModel) -> None:
    dropped = RECIPE.model_copy(update={"dropout": 0.3})
    plain, frugal = LoraEngine(tiny_base), LoraEngine(tiny_base, EngineConfig(checkpointing=True))
    calls: list[bool] = []
    layer = tiny_base.model.get_decoder().layers[0].mlp
    with layer.register_forward_pre_hook(lambda *_: calls.append(True)):
        (kept,) = trained(plain, job(recipe=dropped))
        once = len(calls)
        (rerun,) = trained(frugal, job(recipe=dropped))
    # Once more in each engine, to see what a token takes.
    assert (once, len(calls) - once) == (1 + kept.steps, 1 + 2 * rerun.steps)
    assert digest(kept.adapter) == digest(rerun.adapter)
    assert not any(layer.training for layer in tiny_base.model.get_decoder().layers)
    spec = kept.adapter.spec
    frugal_memory = TrainMemory(frugal.attached, EngineConfig(checkpointing=True))
    assert frugal_memory.token(spec, 0.3) < TrainMemory(plain.attached, EngineConfig()).token(spec, 0.3)


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
