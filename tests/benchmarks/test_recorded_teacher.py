"""The recorded teacher over real gRPC, with a tiny model that rehearses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.recorded_teacher import SERVICE, RecordedTeacher, RecordedTeacherConfig
from common.contract.seal.v1 import teacher_pb2, teacher_pb2_grpc, types_pb2
from common.convert import from_proto
from common.edits import check_edit
from common.rpc.client import open_channel
from common.rpc.server import running
from common.types import SelfEdit
from tests.support.tiny_model import make_tiny_model, tiny_config

TEXT = "The library was founded in 1902 by Ada Holm. It holds 4,000 maps of the northern coast."
COMPLETIONS = [
    "1. The library was founded in 1902.\n2. Ada Holm founded the library.",
    "1. The library holds 4,000 maps.\n2. The library was founded in 1777.",
    "1. Nobody in Paris knows 99 of these.",
]


@asynccontextmanager
async def serving(tmp_path: Path, completions: int = 1) -> AsyncIterator[Any]:
    edits = tmp_path / "edits.json"
    edits.write_text(json.dumps([{"title": "Library", "context": TEXT, "completions": COMPLETIONS}]))
    questions = tmp_path / "questions.txt"
    questions.write_text("What is one?\nWhat is two?\n")
    config = RecordedTeacherConfig.model_validate(
        {
            "listen": "127.0.0.1:0",
            "grace_seconds": 0,
            "store": tmp_path / "store",
            "edits": edits,
            "model": tiny_config(make_tiny_model(tmp_path / "model")).model_dump(),
            "rehearsal": {"examples": 2, "questions": questions, "answer_tokens": 4},
            "recipe": {"epochs": 7},
            "completions": completions,
        }
    )
    teacher = RecordedTeacher(config)
    async with running(
        config,
        service=SERVICE,
        add=lambda server: teacher_pb2_grpc.add_TeacherServiceServicer_to_server(teacher, server),
        start=teacher.start,
        stop=teacher.close,
    ) as server:
        channel = open_channel(server.target)
        yield teacher_pb2_grpc.TeacherServiceStub(channel)
        await channel.close()


def request(count: int, *, seed: int = 0, text: str = TEXT, name: str = "one") -> teacher_pb2.ProposeEditsRequest:
    return teacher_pb2.ProposeEditsRequest(
        request_id=name,
        kind=types_pb2.TASK_KIND_KNOWLEDGE,
        context=types_pb2.Context(document_id="library", revision="1", title="Library", text=text),
        count=count,
        seed=seed,
        recipe=types_pb2.Recipe(learning_rate=0.002),
    )


async def test_edits_are_recorded_completions_screened_against_the_document(tmp_path: Path) -> None:
    async with serving(tmp_path) as stub:
        status = await stub.GetStatus(teacher_pb2.TeacherServiceGetStatusRequest())
        events = [event async for event in stub.ProposeEdits(request(5))]
        again = [event async for event in stub.ProposeEdits(request(5, name="two"))]
        other = [event async for event in stub.ProposeEdits(request(1, seed=3, name="three"))]
    assert not status.can_learn
    edits = [check_edit(from_proto(SelfEdit, event.edit.edit)) for event in events if event.HasField("edit")]
    failures = sorted(event.failure.reason for event in events if event.HasField("failure"))
    assert failures == ["EMPTY_EDIT", "NOT_RECORDED", "NOT_RECORDED"]
    assert events == again
    assert len(other) == 1
    said = "\n".join(text for edit in edits for example in edit.examples for text in example.texts)
    assert "1902" in said
    assert "1777" not in said, "what the document does not say is not taught"
    assert {(edit.recipe.epochs, edit.recipe.learning_rate) for edit in edits} == {(7, 0.002)}
    dropped = {reason for event in events for reason in event.edit.origin.screened_out}
    assert dropped == {"number_not_in_context"}


async def test_an_edit_is_made_of_as_many_completions_as_set(tmp_path: Path) -> None:
    async with serving(tmp_path, completions=2) as stub:
        events = [event async for event in stub.ProposeEdits(request(3))]
    made = [event.edit for event in events if event.HasField("edit")]
    assert [event.failure.reason for event in events if event.HasField("failure")] == ["NOT_RECORDED"]
    assert [edit.origin.completions for edit in made] == [2, 2]
    # Three completions for two edits of two: one of them stands in both, and each of the two usable ones in some edit.
    said = [{text for example in from_proto(SelfEdit, edit.edit).examples for text in example.texts} for edit in made]
    assert any("1902" in text for texts in said for text in texts)
    assert any("4,000 maps" in text for texts in said for text in texts)


async def test_a_document_without_recorded_edits_and_learning_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as stub:
        with pytest.raises(grpc.RpcError) as unknown:
            [event async for event in stub.ProposeEdits(request(1, text="Another document."))]
        with pytest.raises(grpc.RpcError) as learning:
            [event async for event in stub.Learn(teacher_pb2.LearnRequest(request_id="l"))]
    assert unknown.value.code() == learning.value.code() == grpc.StatusCode.FAILED_PRECONDITION
