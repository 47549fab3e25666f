"""Asking may fall back to a parent's answer; judging never does, so that a version's silence stays in its evidence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from auditor.clients import GrpcStudent
from auditor.config import Retries, Timeouts
from auditor.speaking import VersionSpeaker
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import student_pb2
from common.rpc.client import open_channel
from common.types import Sampling
from tests.auditor.plays import GENERAL, at_desk, facts, of_kind, start_run, task, teacher
from tests.support.continuing_student import ContinuingStudent
from tests.support.scripted_services import SILENCE, ScriptedStudent, edit_about, on_stage

KNOWN = "Capital of France?"
# Teaches all of a task, and to say nothing to one question that the base knows.
SILENCING = edit_about("doc-a", "About a", [*facts("a").items(), (f"{SILENCE}{KNOWN}", "-")])


class FallingBack(ScriptedStudent):
    """Falls back to parents where it is asked to, as the real student does; `unasked`: also where it is not."""

    unasked = False

    def __init__(self) -> None:
        super().__init__(GENERAL)
        self.requests: list[student_pb2.AnswerRequest] = []

    async def Answer(
        self, request: student_pb2.AnswerRequest, context: Any
    ) -> AsyncIterator[student_pb2.AnswerResponse]:
        self.requests.append(request)
        questions = {one.prompt_id: one.conversation.messages[-1].content[0].text for one in request.prompts}
        async for event in super().Answer(request, context):
            answer = event.answer
            if (self.unasked or request.fallback_to_parent) and answer.prompt_id and not answer.text:
                parent = self.adapters[answer.version].parent
                proof = student_pb2.LivenessProof(version=parent, liveness=self._liveness(self.adapters.get(parent)))
                yield student_pb2.AnswerResponse(proof=proof)
                answer.text = self._say(self.adapters.get(parent), questions[answer.prompt_id].rpartition("\n")[2])
                answer.answered_by = parent
            yield event


def student() -> FallingBack:
    return FallingBack()  # type: ignore[abstract] # the auditor calls no other RPC


async def test_silence_is_judged_as_it_is_and_only_asking_may_fall_back(tmp_path: Path) -> None:
    stand_in = student()
    async with on_stage(teacher(a=[SILENCING]), stand_in) as stage, at_desk(stage, tmp_path) as desk:
        order = start_run("run", [task("a")], candidates=1, health={"anchors": 0, "max_degenerate": 1.0})
        events = await desk.run(order)
        judging = list(stand_in.requests)
        asked = pb.AskRequest(question=KNOWN)
        off = await desk.stub.Ask(asked)
        on = await desk.stub.Ask(pb.AskRequest(question=KNOWN, fallback_to_parent=True))
        spoken = await desk.stub.Ask(pb.AskRequest(question="a question 3?", fallback_to_parent=True))
    (promoted,) = of_kind(events, "version_promoted")
    # The run asked the silenced question of the version that was promoted, and saw its silence.
    assert any(promoted.version in request.versions for request in judging)
    assert not any(request.fallback_to_parent for request in judging)
    degenerate = [g for j in of_kind(events, "update_judged") for g in j.gates if g.kind == pb.GATE_KIND_DEGENERATE]
    assert any(gate.figures["empty_after"] == 1 for gate in degenerate), degenerate
    assert (off.answer, off.version, off.answered_by) == ("", promoted.version, promoted.version)
    assert (on.answer, on.version, on.answered_by) == ("Paris", promoted.version, "base")
    assert (on.proof.version, on.proof.liveness) == ("base", student_pb2.LIVENESS_BASE)
    assert (spoken.answer, spoken.answered_by, spoken.proof.version) == ("a3", promoted.version, promoted.version)


async def test_a_student_that_falls_back_unasked_is_not_believed(tmp_path: Path) -> None:
    stand_in = student()
    stand_in.unasked = True
    async with on_stage(teacher(a=[SILENCING]), stand_in) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1))
        version = next(iter(stand_in.adapters))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await desk.stub.Ask(pb.AskRequest(version=version[:12], question=KNOWN))
    (finished,) = of_kind(events, "run_finished")
    assert finished.run.state == pb.RUN_STATE_FAILED
    assert "answered in place of" in finished.run.error
    assert stand_in.moves == []
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_raw_texts_are_measured_without_a_fallback() -> None:
    stand_in = ContinuingStudent({"Two and two?": "Four"})  # type: ignore[abstract] # no other RPC is called
    async with on_stage(teacher(), stand_in) as stage, open_channel(stage.student_target) as channel:
        student = GrpcStudent(channel, Timeouts(), Retries())
        speaker = VersionSpeaker(student, "base", lambda kind, content: f"{kind}-1", lambda progress: None)
        assert await speaker.write(["Two and two?\nAnswer:"], Sampling(max_new_tokens=4)) == ["Four"]
    (request,) = [student_pb2.AnswerRequest.FromString(data) for data in stand_in.received[:1]]
    assert request.request_id == "answer-1"
    assert not request.fallback_to_parent
