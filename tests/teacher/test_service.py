"""The teacher over gRPC, on a real tiny model: proposals, their replay, Learn, policies, refusals."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from common.contract.seal.v1 import teacher_pb2, types_pb2
from common.convert import from_proto, to_proto
from common.edits import check_edit
from common.errors import Conflict, InvalidRequest, NotFound, NotPossible, StaleGeneration
from common.lora.engine import LoraEngine
from common.lora.proof import Liveness
from common.models.loading import load_model
from common.rpc.client import remote_errors
from common.types import Sampling, SelfEdit
from teacher.generator import BASE, Draw
from tests.support.writing_model import TEXT, context
from tests.teacher.conftest import SAMPLING, Served, serve, teacher_config

PROPOSED = "edit"
FAILED = "failure"


def request(request_id: str = "r1", **fields: Any) -> teacher_pb2.ProposeEditsRequest:
    values: dict[str, Any] = {
        "kind": types_pb2.TASK_KIND_KNOWLEDGE,
        "context": to_proto(types_pb2.Context, context()),
        "count": 3,
        "seed": 5,
        **fields,
    }
    return teacher_pb2.ProposeEditsRequest(request_id=request_id, **values)


async def proposals(served: Served, asked: teacher_pb2.ProposeEditsRequest) -> list[teacher_pb2.ProposeEditsResponse]:
    """All events but progress, by index."""
    with remote_errors():
        events = [event async for event in served.stub.ProposeEdits(asked) if event.WhichOneof("event") != "progress"]
    return sorted(events, key=lambda event: event.edit.index or event.failure.index)


async def learn(served: Served, asked: teacher_pb2.LearnRequest) -> tuple[teacher_pb2.Policy, set[str]]:
    """The policy, and the phases that were reported on the way."""
    phases: set[str] = set()
    policy = teacher_pb2.Policy()
    with remote_errors():
        async for event in served.stub.Learn(asked):
            if event.WhichOneof("event") == "progress":
                phases.add(event.progress.phase)
            else:
                policy = event.policy
    return policy, phases


def kept(events: Sequence[teacher_pb2.ProposeEditsResponse]) -> list[teacher_pb2.KeptEdit]:
    digests = {event.edit.edit.digest.sha256: event.edit.edit.digest for event in events}
    return [teacher_pb2.KeptEdit(edit=digest, reward=0.5) for digest in digests.values()]


async def test_status_says_what_the_teacher_can_do(served: Served) -> None:
    status = await served.stub.GetStatus(teacher_pb2.TeacherServiceGetStatusRequest())
    assert status.backend == "transformers"
    assert list(status.kinds) == [types_pb2.TASK_KIND_KNOWLEDGE]
    assert status.can_learn
    lists = {"implications", "implications-long", "implications-very-long"}
    assert lists | {"rewrite", "self-qa", "self-qa-sentences", "none"} == set(status.prompt_variants)
    assert (status.policy_version, status.policy_generation) == (BASE, 0)
    assert len(status.model_digest.sha256) == 64
    assert "torch" in status.software.versions


async def test_each_edit_streams_with_its_origin_and_a_digest_that_fits(served: Served) -> None:
    events = await proposals(served, request(prompt_variants=["implications", "none"]))
    assert [event.WhichOneof("event") for event in events] == [PROPOSED] * 3
    assert [event.edit.index for event in events] == [0, 1, 2]
    written, bare, again = (event.edit for event in events)
    for proposed in (written, bare, again):
        check_edit(from_proto(SelfEdit, proposed.edit))
        assert proposed.edit.document_id == "plan"
    assert [written.origin.prompt_variant, bare.origin.prompt_variant] == ["implications", "none"]
    asked = written.edit.examples
    assert asked
    assert all(example.HasField("conversation") for example in asked), "statements are taught in the form of questions"
    assert all(example.grounding in TEXT for example in asked)
    assert not any("77" in part.text for e in asked for turn in e.conversation.messages for part in turn.content)
    assert f"By rule: {len(asked)} questions" in written.origin.rationale
    assert len(bare.edit.examples) == 1
    assert bare.origin.completions == 0
    origin = written.origin
    assert origin.completions == 1
    assert origin.screened_out["number_not_in_context"] >= 1
    assert origin.prompts[0].startswith("<|im_start|>")
    assert TEXT in origin.prompts[0]
    assert origin.sampling.temperature == pytest.approx(SAMPLING.temperature)
    assert origin.sampling.seed != again.origin.sampling.seed
    assert origin.rationale
    assert origin.policy_version == BASE


async def test_progress_counts_the_edits(served: Served) -> None:
    progress = [
        event.progress async for event in served.stub.ProposeEdits(request()) if event.WhichOneof("event") == "progress"
    ]
    assert (progress[-1].done, progress[-1].total, progress[-1].phase) == (3, 3, "generating")


async def test_the_same_request_replays_the_same_edits_even_after_a_restart(
    writing_model: Path, tmp_path: Path
) -> None:
    config = teacher_config(writing_model, tmp_path / "store")
    async for served in serve(config):
        call = served.stub.ProposeEdits(request())
        first = await anext(aiter(call))
        call.cancel()
        once = await proposals(served, request())
        assert first.WhichOneof("event") == "progress" or first in once
        assert await proposals(served, request()) == once
        with pytest.raises(Conflict):
            await proposals(served, request(seed=6))
    async for served in serve(config):
        assert await proposals(served, request()) == once
        with pytest.raises(Conflict):
            await proposals(served, request(count=2))


async def test_the_same_seed_gives_the_same_edits_under_another_id(served: Served) -> None:
    once = await proposals(served, request("r1"))
    assert await proposals(served, request("r2")) == once
    other = await proposals(served, request("r3", seed=6))
    assert [e.edit.origin.sampling.seed for e in other] != [e.edit.origin.sampling.seed for e in once]


async def test_an_empty_edit_fails_alone(served: Served) -> None:
    events = await proposals(
        served,
        request(prompt_variants=["self-qa", "implications"], count=2, sampling=types_pb2.Sampling(max_new_tokens=160)),
    )
    assert [event.WhichOneof("event") for event in events] == [FAILED, PROPOSED]
    assert (events[0].failure.index, events[0].failure.reason) == (0, "EMPTY_EDIT")


async def test_a_prompt_that_does_not_fit_fails_alone(served: Served) -> None:
    long = to_proto(types_pb2.Context, context("The box holds five dozen liquor jugs. " * 100))
    events = await proposals(served, request(context=long, prompt_variants=["implications", "none"], count=2))
    assert [event.WhichOneof("event") for event in events] == [FAILED, PROPOSED]
    assert events[0].failure.reason == "PROMPT_TOO_LONG"


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"count": 65}, "count"),
        ({"kind": types_pb2.TASK_KIND_UNSPECIFIED}, "kind"),
        ({"prompt_variants": ["none", "poem"]}, "prompt_variants[1]"),
        ({"context": types_pb2.Context(document_id="a b", title="t", text="x", revision="1")}, "context.document_id"),
        ({"context": types_pb2.Context(document_id="d", title="t", revision="1")}, "context"),
        ({"sampling": types_pb2.Sampling(temperature=3)}, "sampling.temperature"),
        ({"recipe": types_pb2.Recipe(rank=1_000)}, "recipe.rank"),
        ({"policy_version": "newest"}, "policy_version"),
    ],
)
async def test_a_bad_request_is_refused_by_field(served: Served, fields: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await proposals(served, request(**fields))
    assert [violation.path for violation in refused.value.violations] == [path]


async def test_what_the_teacher_cannot_do_is_refused_and_named(served: Served) -> None:
    shown = types_pb2.DemonstrationSet(demonstrations=[types_pb2.Demonstration(input_text="a", output_text="b")])
    few_shot = types_pb2.Context(document_id="d", revision="1", title="t", demonstrations=shown)
    with pytest.raises(NotPossible, match="kind") as refused:
        await proposals(served, request(kind=types_pb2.TASK_KIND_FEW_SHOT, context=few_shot))
    assert refused.value.reason == "KIND_NOT_SUPPORTED"
    reference = types_pb2.ContextReference(uri="doc://1", digest=types_pb2.Digest(sha256="0" * 64))
    by_reference = types_pb2.Context(document_id="d", revision="1", title="t", reference=reference)
    with pytest.raises(NotPossible, match=r"context\.reference") as refused:
        await proposals(served, request(context=by_reference))
    assert refused.value.reason == "REFERENCE_NOT_SUPPORTED"
    with pytest.raises(NotFound):
        await proposals(served, request(policy_version="0" * 64))


async def test_learn_makes_a_policy_that_writes_otherwise_and_can_be_taken_back(served: Served) -> None:
    events = await proposals(served, request())
    asked = teacher_pb2.LearnRequest(request_id="l1", kept=kept(events), seed=1, activate=True)
    policy, phases = await learn(served, asked)
    assert "learning" in phases
    assert policy.policy_version == policy.adapter.sha256
    assert policy.adapter.size_bytes > 0
    assert policy.parent == BASE
    assert policy.pairs >= 1
    assert policy.loaded
    assert policy.last_loss < policy.first_loss
    assert await served.generator.loaded() == {policy.policy_version}
    engine = LoraEngine(load_model(served.config.model), load=served.teacher.policies.folders.get)
    assert engine.prove(policy.policy_version).liveness is Liveness.LIVE
    assert await ramblings(served, policy.policy_version) != await ramblings(served, BASE)

    under_policy = await proposals(served, request("r2"))
    assert {e.edit.origin.policy_version for e in under_policy if e.WhichOneof("event") == PROPOSED} <= {
        policy.policy_version
    }
    listed = await served.stub.ListPolicies(teacher_pb2.ListPoliciesRequest())
    assert [p.policy_version for p in listed.policies] == [BASE, policy.policy_version]
    assert (listed.active, listed.policy_generation) == (policy.policy_version, 1)

    back = teacher_pb2.SetPolicyRequest(request_id="s1", policy_version=BASE, expected_generation=1)
    assert (await served.stub.SetPolicy(back)).policy_generation == 2
    same = await proposals(served, request("r3"))
    assert [e.edit.edit.digest for e in same] == [e.edit.edit.digest for e in events]


async def ramblings(served: Served, version: str) -> list[str]:
    """What a version writes at a high temperature: other probabilities show in other words."""
    draws = [Draw(tuple(range(40 + i, 60 + i)), Sampling(temperature=2, max_new_tokens=60, seed=i)) for i in range(8)]
    return [completion.text for completion in await served.generator.generate(draws, version)]


async def test_learning_again_with_the_same_id_makes_no_second_policy(writing_model: Path, tmp_path: Path) -> None:
    config = teacher_config(writing_model, tmp_path / "store")
    async for served in serve(config):
        events = await proposals(served, request())
        asked = teacher_pb2.LearnRequest(request_id="l1", kept=kept(events), seed=1)
        policy, _ = await learn(served, asked)
        again, phases = await learn(served, asked)
        assert (again.policy_version, phases) == (policy.policy_version, set())
        with pytest.raises(Conflict):
            await learn(served, teacher_pb2.LearnRequest(request_id="l1", kept=kept(events), seed=2))
    async for served in serve(config):
        again, phases = await learn(served, asked)
        assert (again.policy_version, phases) == (policy.policy_version, set())
        # As after a crash between the policy and its record: the M-step runs again and finds the same policy.
        for result in (config.store / "learning").glob("*/result.json"):
            result.unlink()
    shutil.rmtree(config.store / "policies" / policy.policy_version)
    async for served in serve(config):
        again, phases = await learn(served, asked)
        assert "learning" in phases
        assert again.policy_version == policy.policy_version
        listed = await served.stub.ListPolicies(teacher_pb2.ListPoliciesRequest())
        assert len(listed.policies) == 2


async def test_learning_may_go_on_from_the_policy_in_use(served: Served) -> None:
    events = await proposals(served, request())
    first, _ = await learn(served, teacher_pb2.LearnRequest(request_id="l1", kept=kept(events), seed=1, activate=True))
    second, _ = await learn(
        served,
        teacher_pb2.LearnRequest(
            request_id="l2", kept=kept(events), seed=2, learn_from=teacher_pb2.LEARN_FROM_POLICY, activate=True
        ),
    )
    assert second.parent == first.policy_version
    assert await served.generator.loaded() == {first.policy_version, second.policy_version}
    status = await served.stub.GetStatus(teacher_pb2.TeacherServiceGetStatusRequest())
    assert (status.policy_version, status.policy_generation) == (second.policy_version, 2)


async def test_learn_names_what_it_does_not_know(served: Served) -> None:
    unknown = teacher_pb2.KeptEdit(edit=types_pb2.Digest(sha256="0" * 64))
    with pytest.raises(InvalidRequest) as refused:
        await learn(served, teacher_pb2.LearnRequest(request_id="l1", kept=[unknown]))
    assert [violation.path for violation in refused.value.violations] == ["kept[0].edit"]
    with pytest.raises(InvalidRequest, match="kept"):
        await learn(served, teacher_pb2.LearnRequest(request_id="l2"))
    bare = await proposals(served, request(prompt_variants=["none"], count=1))
    with pytest.raises(NotPossible) as impossible:
        await learn(served, teacher_pb2.LearnRequest(request_id="l3", kept=kept(bare)))
    assert impossible.value.reason == "NOTHING_TO_LEARN"


async def test_the_policy_in_use_moves_by_compare_and_swap(writing_model: Path, tmp_path: Path) -> None:
    config = teacher_config(writing_model, tmp_path / "store")

    async def choose(served: Served, request_id: str, version: str, generation: int) -> int:
        with remote_errors():
            response = await served.stub.SetPolicy(
                teacher_pb2.SetPolicyRequest(
                    request_id=request_id, policy_version=version, expected_generation=generation
                )
            )
        return int(response.policy_generation)

    async for served in serve(config):
        assert await choose(served, "s1", BASE, 0) == 1
        assert await choose(served, "s1", BASE, 0) == 1
        with pytest.raises(StaleGeneration):
            await choose(served, "s2", BASE, 0)
        with pytest.raises(Conflict):
            await choose(served, "s1", "1" * 64, 1)
        with pytest.raises(NotFound):
            await choose(served, "s3", "1" * 64, 1)
        with pytest.raises(InvalidRequest, match="policy_version"):
            await choose(served, "s4", "newest", 1)
    async for served in serve(config):
        assert served.teacher.policies.active().policy_generation == 1
        assert await choose(served, "s5", BASE, 1) == 2
