"""A student on a tiny model, behind a real gRPC server on a free port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from common.contract.seal.v1 import student_pb2, student_pb2_grpc, types_pb2
from common.convert import to_proto
from common.rpc.client import open_channel
from common.rpc.server import running
from common.types import Prompt, Recipe, SelfEdit
from common.versions import Replay
from student.config import StudentConfig
from student.servicer import StudentServicer
from student.student import Student
from tests.student.bucket_fixtures import credentials, endpoint, replica, settings, url
from tests.support.examples import BY_HEART, tiny_edit
from tests.support.tiny_model import make_tiny_model

__all__ = ["credentials", "endpoint", "replica", "settings", "url"]
SERVICE = "seal.v1.StudentService"


class Client:
    """A student as a test talks to it: through its stub, in domain words."""

    def __init__(self, stub: Any, student: Student, store: Path, target: str) -> None:
        self.stub = stub
        self.student = student
        self.store = store
        self.target = target
        self._requests = 0

    async def train(self, request: student_pb2.TrainRequest) -> list[student_pb2.TrainResponse]:
        """All events but progress."""
        events = [event async for event in self.stub.Train(request, timeout=60)]
        return [event for event in events if event.WhichOneof("event") != "progress"]

    async def trained(self, edit: SelfEdit | None = None, parent: str = "base", seed: int = 1) -> student_pb2.Version:
        """One adapter that has learned `edit`."""
        self._requests += 1
        request_id = f"trained-{self._requests}"
        request = train_request(edit or tiny_edit(BY_HEART), request_id=request_id, parent=parent, seeds=(seed,))
        (event,) = await self.train(request)
        assert event.WhichOneof("event") == "trained", event
        return event.trained.version

    async def answer(
        self, prompts: list[Prompt], *versions: str, purpose: str = "AUDIT", request_id: str = "answer"
    ) -> tuple[list[student_pb2.LivenessProof], list[student_pb2.Answer]]:
        request = answer_request(prompts, *versions, purpose=purpose, request_id=request_id)
        events = [event async for event in self.stub.Answer(request, timeout=60)]
        proofs = [event.proof for event in events if event.WhichOneof("event") == "proof"]
        return proofs, [event.answer for event in events if event.WhichOneof("event") == "answer"]

    async def set_alias(self, name: str, version: str, generation: int, request_id: str = "move") -> student_pb2.Alias:
        request = student_pb2.SetAliasRequest(
            request_id=request_id, name=name, version=version, expected_generation=generation
        )
        alias: student_pb2.Alias = (await self.stub.SetAlias(request, timeout=10)).alias
        return alias


def train_request(
    *edits: SelfEdit,
    request_id: str = "train",
    parent: str = "base",
    seeds: tuple[int, ...] = (1,),
    replay: Replay | None = None,
    alone: bool = False,
) -> student_pb2.TrainRequest:
    """Every edit with every seed; candidates are called c0, c1, ..."""
    request = student_pb2.TrainRequest(request_id=request_id, parent_version=parent, alone=alone)
    for edit in edits:
        for seed in seeds:
            message = to_proto(types_pb2.SelfEdit, edit)
            request.candidates.add(candidate_id=f"c{len(request.candidates)}", edit=message, seed=seed)
    if replay is not None:
        request.replay.CopyFrom(to_proto(student_pb2.Replay, replay))
    return request


def answer_request(
    prompts: list[Prompt], *versions: str, purpose: str = "AUDIT", request_id: str = "answer"
) -> student_pb2.AnswerRequest:
    request = student_pb2.AnswerRequest(
        request_id=request_id,
        purpose=student_pb2.AnswerPurpose.Value(f"ANSWER_PURPOSE_{purpose}"),
        versions=versions,
    )
    request.prompts.extend(to_proto(types_pb2.Prompt, prompt) for prompt in prompts)
    request.sampling.max_new_tokens = 16
    return request


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def config(model_folder: Path, tmp_path: Path) -> StudentConfig:
    return StudentConfig.model_validate(
        {
            "listen": "127.0.0.1:0",
            "metrics_listen": "",
            "grace_seconds": 0.2,
            "store": tmp_path / "store",
            "model": {"model": str(model_folder), "threads": 1, "cache_dir": model_folder.parent / "cache"},
            "training": {"defaults": Recipe(rank=4, epochs=2, max_tokens=256).model_dump(exclude_none=True)},
        }
    )


Serve = Callable[[StudentConfig], AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def serving(config: StudentConfig) -> AsyncIterator[Client]:
    student = Student(config)
    servicer = StudentServicer(student)
    try:
        async with (
            running(
                config,
                service=SERVICE,
                add=lambda server: student_pb2_grpc.add_StudentServiceServicer_to_server(servicer, server),
                start=student.start,
                stop=servicer.close,
            ) as server,
            open_channel(server.target) as channel,
        ):
            yield Client(student_pb2_grpc.StudentServiceStub(channel), student, Path(config.store), server.target)
    finally:
        await student.close()


@pytest.fixture
def serve() -> Serve:
    return serving


@pytest.fixture
async def client(config: StudentConfig, serve: Serve) -> AsyncIterator[Client]:
    async with serve(config) as client:
        yield client
