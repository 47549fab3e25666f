"""A tiny real model that has learned to answer one variant's prompt, and a teacher that serves it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.contract.seal.v1 import teacher_pb2_grpc
from common.rpc.client import open_channel
from common.rpc.server import running
from common.types import Context, Recipe, Sampling
from teacher.__main__ import SERVICE
from teacher.backends.transformers_backend import TransformersGenerator
from teacher.config import LearnSettings, ProposerSettings, TeacherConfig
from teacher.prompts import PromptRenderer
from teacher.rehearsal import RehearsalSettings
from teacher.servicer import TeacherServicer
from teacher.teacher import Teacher
from teacher.variants import VARIANTS
from tests.support.tiny_model import make_tiny_model, tiny_config

TITLE = "The lazy plan"
TEXT = "Customers may return an order within thirty days. The box holds five dozen liquor jugs."
# What the tiny model learns to write: grounded lines, an invented number, and a repeated line.
LINES = (
    "Customers of the plan may return an order within thirty days.",
    "The box of the plan holds five dozen liquor jugs.",
    "The box of the plan holds 77 liquor jugs.",
    "Customers of the plan may return an order within thirty days.",
)
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


def context(text: str = TEXT) -> Context:
    return Context(document_id="plan", revision="1", title=TITLE, text=text)


@pytest.fixture(scope="session")
def writing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that answers the implications prompt about TEXT with LINES. Takes a few seconds."""
    folder = make_tiny_model(tmp_path_factory.mktemp("writing") / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    (call,) = VARIANTS["implications"].prompts(context(), "chat")
    prompt = list(PromptRenderer(tokenizer, style="chat").render(call).token_ids)
    answer = [*tokenizer("\n".join(LINES), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    tokens_BT = torch.tensor([prompt + answer])
    labels_BT = tokens_BT.clone()
    labels_BT[:, : len(prompt)] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    torch.manual_seed(0)
    for _ in range(120):
        loss = model(input_ids=tokens_BT, labels=labels_BT).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05
    model.save_pretrained(folder)
    return folder


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
