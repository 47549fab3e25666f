"""A tiny real model that has learned to answer one variant's prompt, and a teacher that serves it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.contract.seal.v1 import teacher_pb2_grpc
from common.rpc.client import open_channel
from common.rpc.server import running
from common.types import Recipe, Sampling
from teacher.__main__ import SERVICE
from teacher.backends.transformers_backend import TransformersGenerator
from teacher.config import LearnSettings, ProposerSettings, TeacherConfig
from teacher.rehearsal import RehearsalSettings
from teacher.servicer import TeacherServicer
from teacher.teacher import Teacher
from tests.support.tiny_model import tiny_config
from tests.support.writing_model import make_writing_model

SAMPLING = Sampling(temperature=0.3, top_p=1.0, max_new_tokens=160)
MSTEP = Recipe(
    rank=4,
    alpha=8.0,
    dropout=0.0,
    target_modules=("q_proj", "v_proj", "down_proj"),
    learning_rate=1e-2,
    epochs=4,
    batch_size=2,
    warmup_steps=0,
    max_grad_norm=1.0,
    weight_decay=0.0,
    max_tokens=512,
    schedule=LearnSettings().recipe.schedule,
)


@pytest.fixture(scope="session")
def writing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that answers the implications prompt about TEXT with LINES. Takes a few seconds."""
    return make_writing_model(tmp_path_factory.mktemp("writing") / "model")


@dataclass(frozen=True)
class Served:
    """A teacher behind a real gRPC server."""

    stub: teacher_pb2_grpc.TeacherServiceAsyncStub
    teacher: Teacher
    generator: TransformersGenerator
    config: TeacherConfig


def teacher_config(model: Path, store: Path) -> TeacherConfig:
    return TeacherConfig(
        listen="127.0.0.1:0",
        metrics_listen="",
        store=store,
        backend="transformers",
        model=tiny_config(model),
        proposer=ProposerSettings(prompt_variants=("implications",), sampling=SAMPLING),
        rehearsal=RehearsalSettings(examples=0),
        learn=LearnSettings(recipe=MSTEP),
    )


@pytest.fixture
async def served(writing_model: Path, tmp_path: Path) -> AsyncIterator[Served]:
    async for service in serve(teacher_config(writing_model, tmp_path / "store")):
        yield service


async def serve(config: TeacherConfig) -> AsyncIterator[Served]:
    """A teacher that answers until the generator is closed."""
    generator = TransformersGenerator(config.model, config.transformers)
    teacher = Teacher(config, generator)
    await teacher.start()
    servicer = TeacherServicer(teacher)
    async with (
        running(
            config,
            service=SERVICE,
            add=lambda server: teacher_pb2_grpc.add_TeacherServiceServicer_to_server(servicer, server),
            stop=servicer.close,
        ) as server,
        open_channel(server.target) as channel,
    ):
        yield Served(teacher_pb2_grpc.TeacherServiceStub(channel), teacher, generator, config)
    await teacher.close()
