"""The model class that speaks to a student gives what lm_eval's Hugging Face model class gives, request by request."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from auditor.clients import GrpcStudent
from auditor.config import Retries, Timeouts
from auditor.harness.threads import VoiceOnThread
from auditor.peers import TrainCandidate, TrainOrder
from auditor.speaking import VersionSpeaker
from common.rpc.client import open_channel
from common.versions import TrainedCandidate
from tests.support.examples import BY_HEART, tiny_edit
from tests.support.real_student import serving_student
from tests.support.tiny_model import make_tiny_model, tiny_config

pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

PAIRS = [
    ("The quick brown fox", " jumps over the lazy dog."),
    ("The quick brown fox", " jumps"),
    ("The refund period is ", "thirty days"),  # a space at the end belongs to the continuation
    ("Pack my box\n\n", "with five dozen"),
    ("", "Customers may return an order"),
    ("Who", "may"),  # tokenized as one
    ("dog " * 600 + "What is the", " refund period?"),  # longer than the model
]
WRITTEN: list[tuple[str, dict[str, Any]]] = [
    ("The quick brown fox", {"until": ["\n"], "max_gen_toks": 12}),
    ("What is the refund period", {"until": ["e", "da"], "max_gen_toks": 12, "do_sample": False, "temperature": 1.0}),
    ("Pack my box with", {"until": list("bcdfghjkmnq"), "max_gen_toks": 12}),
    ("dog " * 600, {"until": [], "max_gen_toks": 8}),
]


@dataclass(frozen=True)
class Both:
    """A version behind gRPC, and lm_eval's own model on the same files."""

    speaker: VersionSpeaker
    theirs: Any


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    from lm_eval.models.huggingface import HFLM

    folder = make_tiny_model(tmp_path / "model")
    async with serving_student(tmp_path, tiny_config(folder)) as target:
        channel = open_channel(target)
        student = GrpcStudent(channel, Timeouts(), Retries())
        candidate = TrainCandidate(candidate_id="c", edit=tiny_edit(BY_HEART), seed=1)
        order = TrainOrder(request_id="train", parent_version="base", candidates=(candidate,))
        (trained,) = [event async for event in student.train(order, lambda _: None)]
        assert isinstance(trained, TrainedCandidate)
        version = trained.version.version
        theirs = HFLM(
            pretrained=str(folder),
            peft=str(tmp_path / "store" / "adapters" / version),
            dtype="float32",
            device="cpu",
            batch_size=2,
        )
        speaker = VersionSpeaker(student, version, lambda kind, _: f"{kind}-{uuid.uuid4().hex}", lambda _: None)
        yield Both(speaker, theirs)
        await channel.close()


async def asked(both: Both, kind: str, arguments: list[Any]) -> tuple[list[Any], list[Any]]:
    """What the student says, and what lm_eval's own class says."""
    from lm_eval.api.instance import Instance

    from auditor.harness.model import StudentModel

    def requests() -> list[Any]:
        return [
            Instance(request_type=kind, doc={}, arguments=given, idx=0, metadata=("t", i, 1))
            for i, given in enumerate(arguments)
        ]

    voice = VoiceOnThread(both.speaker)
    ours = await voice.run(lambda: getattr(StudentModel(voice), kind)(requests()))
    return ours, await asyncio.to_thread(getattr(both.theirs, kind), requests())


async def test_continuations_score_the_same(both: Both) -> None:
    ours, theirs = await asked(both, "loglikelihood", PAIRS)
    for (mine, greedy), (other, other_greedy), (_, continuation) in zip(ours, theirs, PAIRS, strict=True):
        assert mine == pytest.approx(other, abs=1e-3), continuation
        assert greedy == other_greedy


async def test_whole_texts_score_the_same(both: Both) -> None:
    ours, theirs = await asked(both, "loglikelihood_rolling", [("Customers may return an order.",), ("Who?",)])
    assert ours == pytest.approx(theirs, abs=1e-3)


async def test_texts_are_written_and_cut_the_same(both: Both) -> None:
    ours, theirs = await asked(both, "generate_until", WRITTEN)
    assert ours == theirs
    assert len(set(ours)) > 1
