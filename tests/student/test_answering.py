"""Answers through a real server: proven first, never by the base in another's name."""

from __future__ import annotations

import shutil

import pytest

from common.contract.seal.v1 import student_pb2, types_pb2
from common.convert import to_proto
from common.errors import Conflict, Corrupt, InvalidRequest, NotFound
from common.lora.config import EngineConfig
from common.rpc.client import remote_errors
from common.types import Prompt
from student.config import StudentConfig
from student.servicer import StudentServicer
from tests.student.conftest import Client, Serve, answer_request
from tests.support.examples import prompts, tiny_edit

PB = student_pb2


async def test_a_version_says_what_it_learned_and_the_base_does_not(client: Client) -> None:
    version = await client.trained()
    proofs, answers = await client.answer(prompts(3), "base", version.version)
    assert [(proof.version, proof.liveness) for proof in proofs] == [
        ("base", PB.LIVENESS_BASE),
        (version.version, PB.LIVENESS_LIVE),
    ]
    assert proofs[1].tensors_bound == proofs[1].tensors_in_file == version.tensors
    texts = {(answer.version, answer.prompt_id): answer for answer in answers}
    assert len(texts) == 6
    assert texts[version.version, "q0"].text == "Thirty days."
    assert texts[version.version, "q0"].finish_reason == PB.FINISH_REASON_STOP
    assert texts["base", "q0"].text != "Thirty days."


async def test_more_versions_than_fit_are_proven_and_answer_in_turns(config: StudentConfig, serve: Serve) -> None:
    narrow = config.model_copy(update={"engine": EngineConfig(resident_adapters=1)})
    async with serve(narrow) as client:
        versions = [(await client.trained(seed=seed)).version for seed in (1, 2)]
        request = answer_request(prompts(2), *versions)
        events = [event async for event in client.stub.Answer(request, timeout=60)]
    said = [getattr(event, kind) for event in events if (kind := event.WhichOneof("event")) != "progress"]
    assert [entry.version for entry in said] == [versions[0]] * 3 + [versions[1]] * 3
    assert [type(entry) for entry in said] == [PB.LivenessProof, PB.Answer, PB.Answer] * 2


async def test_asked_again_the_same_request_is_answered_from_its_job(client: Client) -> None:
    first = await client.answer(prompts(2), "base")
    assert await client.answer(prompts(2), "base") == first
    with pytest.raises(Conflict), remote_errors():
        await client.answer(prompts(1), "base")


async def test_an_alias_tells_which_version_and_generation_answered(client: Client) -> None:
    version = await client.trained()
    await client.set_alias("live", version.version, 0)
    _, answers = await client.answer(prompts(1), "live", purpose="LIVE")
    assert (answers[0].version, answers[0].alias_generation, answers[0].text) == (version.version, 1, "Thirty days.")


async def test_users_may_ask_live_alone_and_nothing_of_it_is_kept(client: Client) -> None:
    for versions in (("base",), ("shadow",), ("live", "base")):
        with pytest.raises(InvalidRequest, match=r"versions: users are answered by the alias live"), remote_errors():
            await client.answer(prompts(1), *versions, purpose="LIVE")
    before = sorted(path for path in client.store.rglob("*") if path.is_file())
    await client.answer(prompts(1), "live", purpose="LIVE", request_id="u")
    # The same id with another question is no conflict: the first one is forgotten.
    await client.answer(prompts(3)[2:], "live", purpose="LIVE", request_id="u")
    assert sorted(path for path in client.store.rglob("*") if path.is_file()) == before


async def test_users_questions_leave_no_trace_in_the_service(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    servicer = StudentServicer(client.student)
    request = answer_request(prompts(1), "live", purpose="LIVE")
    events = [event async for event in servicer.Answer(request, None)]  # type: ignore[arg-type]
    assert events[-1].answer.text
    assert not servicer._answering._jobs


async def test_a_swapped_adapter_is_reported_to_auditors_and_refused_to_users(client: Client) -> None:
    good, other = await client.trained(), await client.trained(tiny_edit(document="other"))
    await client.set_alias("live", good.version, 0)
    adapters = client.store / "adapters"
    shutil.copy(
        adapters / other.version / "adapter_model.safetensors", adapters / good.version / "adapter_model.safetensors"
    )
    proofs, answers = await client.answer(prompts(1), good.version, "base")
    assert proofs[0].liveness == PB.LIVENESS_INVALID
    assert good.version in proofs[0].detail
    assert {answer.version for answer in answers} == {"base"}
    with pytest.raises(Corrupt, match=good.version) as refused, remote_errors():
        await client.answer(prompts(1), "live", purpose="LIVE")
    assert refused.value.reason == "VERSION_INVALID"
    assert (await client.answer(prompts(1), "base", request_id="after"))[1]


async def test_an_unknown_version_is_not_found_by_name(client: Client) -> None:
    with pytest.raises(NotFound, match="d" * 64), remote_errors():
        await client.answer(prompts(1), "base", "d" * 64)


async def test_bad_requests_name_their_fields(client: Client) -> None:
    request = answer_request(prompts(1) * 2, "base")
    request.ClearField("purpose")
    with pytest.raises(InvalidRequest) as refused, remote_errors():
        [event async for event in client.stub.Answer(request)]
    assert {v.path for v in refused.value.violations} == {"purpose", "prompts"}


async def test_a_prompt_that_is_too_long_is_refused_by_place(client: Client) -> None:
    long = Prompt(prompt_id="long", conversation=prompts(1)[0].conversation.of(("ROLE_USER", "word " * 600)))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match=r"prompts\[1\].conversation"), remote_errors():
        await client.answer([*prompts(1), long], "base")


async def test_options_are_scored_and_drift_measured(client: Client) -> None:
    version = await client.trained()
    request = PB.LogLikelihoodRequest(request_id="score", versions=["base", version.version])
    asked = to_proto(types_pb2.Conversation, prompts(1)[0].conversation)
    request.continuations.add(continuation_id="k", conversation=asked, options=["Five dozen.", "Thirty days."])
    request.kl_prompts.append(to_proto(types_pb2.Prompt, prompts(1)[0]))
    events = [event async for event in client.stub.LogLikelihood(request)]
    scored = {e.scored.version: e.scored.options for e in events if e.WhichOneof("event") == "scored"}
    drift = {e.kl.version: e.kl.kl_per_token for e in events if e.WhichOneof("event") == "kl"}
    assert scored[version.version][1].log_likelihood > scored[version.version][0].log_likelihood
    assert scored[version.version][1].greedy
    assert scored["base"][1].log_likelihood < scored[version.version][1].log_likelihood
    assert scored["base"][1].tokens == scored[version.version][1].tokens > 1
    assert drift["base"] == 0 < drift[version.version]
    assert sum(e.WhichOneof("event") == "proof" for e in events) == 2
