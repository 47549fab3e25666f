"""Answering: the same texts alone and in a batch, stops where it should, holds few adapters."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from common.errors import Cancelled, InvalidRequest
from common.lora.adapter_folder import AdapterFolders
from common.lora.answering import GeneratedText
from common.lora.config import EngineConfig
from common.lora.engine import LoraEngine
from common.lora.layers import Factors
from common.lora.likelihood import Continuation
from common.lora.update import TrainedAdapter, TrainJob
from common.models.loading import BaseModel
from common.prompting import ask
from common.types import Prompt, Sampling
from common.versions import FinishReason
from tests.support.examples import BY_HEART, EXAMPLES, RECIPE, prompts


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> AdapterFolders:
    return AdapterFolders(tmp_path_factory.mktemp("store") / "adapters")


@pytest.fixture(scope="module")
def versions(tiny_base: BaseModel, folders: AdapterFolders) -> list[str]:
    """Three versions; the first has learned its examples by heart."""
    jobs = [
        TrainJob("a", EXAMPLES, BY_HEART, 1),
        TrainJob("b", EXAMPLES, RECIPE, 2),
        TrainJob("c", EXAMPLES, RECIPE, 3),
    ]
    outcomes = LoraEngine(tiny_base).train(jobs)
    return [folders.put(o.adapter, base_model="tiny").sha256 for o in outcomes if isinstance(o, TrainedAdapter)]


def answers(engine: LoraEngine, version: str, asked: list[Prompt], sampling: Sampling) -> list[GeneratedText]:
    return sorted((text for _, text in engine.answer([version], asked, sampling)), key=lambda text: text.index)


def test_a_learned_answer_comes_back_and_stops(
    tiny_base: BaseModel, folders: AdapterFolders, versions: list[str]
) -> None:
    engine = LoraEngine(tiny_base, load=folders.get)
    (learned, *_) = answers(engine, versions[0], prompts(1), Sampling(max_new_tokens=20))
    assert learned.text == "Thirty days."
    assert learned.finish_reason is FinishReason.STOP
    assert learned.tokens == len(tiny_base.tokenizer("Thirty days.")["input_ids"])


@pytest.mark.parametrize(
    "sampling", [Sampling(max_new_tokens=12), Sampling(max_new_tokens=12, temperature=0.9, top_p=0.9, seed=3)]
)
def test_alone_and_in_a_batch_a_prompt_gets_the_same_text(
    tiny_base: BaseModel, folders: AdapterFolders, versions: list[str], sampling: Sampling
) -> None:
    engine = LoraEngine(tiny_base, load=folders.get)
    together = answers(engine, versions[0], prompts(7), sampling)
    alone = [answers(engine, versions[0], [prompt], sampling)[0] for prompt in prompts(7)]
    small = LoraEngine(tiny_base, EngineConfig(answer_tokens=64), load=folders.get)
    assert [t.text for t in together] == [t.text for t in alone]
    assert [t.text for t in together] == [t.text for t in answers(small, versions[0], prompts(7), sampling)]


def test_sampling_depends_on_seed_and_prompt(tiny_base: BaseModel) -> None:
    engine = LoraEngine(tiny_base)
    hot = Sampling(max_new_tokens=10, temperature=1.5)
    first, second = answers(engine, "base", [prompts(1)[0], prompts(1)[0].model_copy(update={"prompt_id": "x"})], hot)
    other = answers(engine, "base", prompts(1), hot.model_copy(update={"seed": 5}))[0]
    assert len({first.text, second.text, other.text}) == 3


def test_it_stops_at_a_stop_string_and_at_the_limit(
    tiny_base: BaseModel, folders: AdapterFolders, versions: list[str]
) -> None:
    engine = LoraEngine(tiny_base, load=folders.get)
    (cut,) = answers(engine, versions[0], prompts(1), Sampling(max_new_tokens=20, stop=("days",)))
    assert (cut.text, cut.finish_reason) == ("Thirty ", FinishReason.STOP)
    (short,) = answers(engine, versions[0], prompts(1), Sampling(max_new_tokens=2))
    assert (short.tokens, short.finish_reason) == (2, FinishReason.LENGTH)


def test_a_prompt_without_room_for_its_answer_is_refused_by_name(tiny_base: BaseModel) -> None:
    long = Prompt(prompt_id="long", conversation=ask("", "word " * 400))
    with pytest.raises(InvalidRequest, match=r"prompts\[1\].conversation"):
        answers(LoraEngine(tiny_base), "base", [*prompts(1), long], Sampling())


def test_answering_can_be_called_off(tiny_base: BaseModel) -> None:
    with pytest.raises(Cancelled):
        list(LoraEngine(tiny_base).answer(["base"], prompts(1), Sampling(), cancelled=lambda: True))


def test_fifty_loads_and_unloads_leave_nothing_behind(
    tiny_base: BaseModel, folders: AdapterFolders, versions: list[str]
) -> None:
    engine = LoraEngine(tiny_base, EngineConfig(resident_adapters=2), load=folders.get)
    sampling = Sampling(max_new_tokens=2)

    def held() -> tuple[int, int]:
        gc.collect()
        factors = [o for o in gc.get_objects() if isinstance(o, Factors)]
        return len(factors), sum(factor.a_RI.numel() + factor.b_OR.numel() for factor in factors)

    for version in versions:
        list(engine.answer([version], prompts(1), sampling))
    before = held()
    assert before > (0, 0)
    for cycle in range(50):
        version = versions[cycle % 3]
        list(engine.answer([version], prompts(1), sampling))
        assert len(engine.attached.attached) <= 2
    list(engine.answer([versions[2]], prompts(1), sampling))
    assert held() == before
    for version in versions:
        engine.release(version)
    assert engine.attached.attached == ()


def test_the_base_answers_as_before_once_adapters_were_there(
    tiny_base: BaseModel, engine: LoraEngine, folders: AdapterFolders, versions: list[str]
) -> None:
    used = LoraEngine(tiny_base, load=folders.get)
    list(used.answer(versions, prompts(1), Sampling(max_new_tokens=2)))
    sampling = Sampling(max_new_tokens=12)
    assert answers(used, "base", prompts(3), sampling) == answers(engine, "base", prompts(3), sampling)


def test_likelihoods_fit_what_greedy_decoding_says(
    tiny_base: BaseModel, folders: AdapterFolders, versions: list[str]
) -> None:
    engine = LoraEngine(tiny_base, load=folders.get)
    asked = prompts(1)[0].conversation
    options = [Continuation(asked, "Thirty days."), Continuation(asked, "Five dozen jugs.")]
    ((_, (right, wrong)),) = engine.score([versions[0]], options)
    assert right.greedy
    assert not wrong.greedy
    assert 0 > right.log_likelihood > wrong.log_likelihood
    ((_, (alone,)),) = engine.score([versions[0]], options[1:])
    assert alone.log_likelihood == pytest.approx(wrong.log_likelihood, rel=1e-4)


def test_drift_is_zero_for_the_base_and_grows_with_training(
    tiny_base: BaseModel, folders: AdapterFolders, versions: list[str]
) -> None:
    engine = LoraEngine(tiny_base, load=folders.get)
    drift = {
        (v, place): kl for v, place, kl in engine.drift(["base", *versions[:2]], [p.conversation for p in prompts(2)])
    }
    assert drift["base", 0] == drift["base", 1] == 0
    assert drift[versions[0], 0] > drift[versions[1], 0] > 0


def test_a_missing_store_is_no_reason_to_answer_as_the_base(tiny_base: BaseModel, tmp_path: Path) -> None:
    engine = LoraEngine(tiny_base, load=AdapterFolders(tmp_path / "empty").get)
    with pytest.raises(Exception, match="is not in the store"):
        list(engine.answer(["b" * 64], prompts(1), Sampling()))
