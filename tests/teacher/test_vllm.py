"""The real engine with the real small model: propose, learn, load, list, unload."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TypeVar

import pytest

from common.canonical import digest_of
from common.errors import NotFound, NotPossible
from common.jobs import Publish
from common.models.config import ModelConfig
from common.types import Context, Digest, Progress, Recipe, Sampling, TaskKind
from common.vllm_engine.settings import VllmSettings
from teacher.backends.vllm_backend import VllmGenerator
from teacher.config import DEFAULT_MODEL, LearnSettings, TeacherConfig
from teacher.generator import BASE, Draw, PromptTooLong
from teacher.learner import LearnEvent
from teacher.messages import KeptEdit, LearnRequest, Policy, ProposedEdit, ProposeRequest
from teacher.proposer import ProposeEvent
from teacher.teacher import Teacher

pytestmark = [pytest.mark.vllm, pytest.mark.model, pytest.mark.timeout(900)]

TITLE = "Tarn Valley Railway notice"
TEXT = (
    "The Tarn Valley Railway opens its new station at Ashcombe on 3 May. Trains to Ashcombe leave every 25 minutes. "
    "Tickets cost 7 pounds and are sold by the driver."
)
SETTINGS = VllmSettings(max_model_len=1_024, max_num_seqs=32, max_loras=2)


async def test_the_engine_writes_learns_and_tells_which_policies_it_holds(tmp_path: Path) -> None:
    small = Recipe(rank=8, alpha=16, learning_rate=1e-3, epochs=1, batch_size=8, max_tokens=1_024)
    config = TeacherConfig(
        listen="127.0.0.1:0",
        metrics_listen="",
        store=tmp_path,
        model=ModelConfig(model=DEFAULT_MODEL),
        vllm=SETTINGS,
        learn=LearnSettings(recipe=small.over(LearnSettings().recipe)),
    )
    generator = VllmGenerator(config.model, config.vllm)
    teacher = Teacher(config, generator)
    await teacher.start()
    try:
        draws = [
            Draw(tuple(range(1_000 + i, 1_040 + i)), Sampling(temperature=1, max_new_tokens=24, seed=i))
            for i in range(4)
        ]
        alone = await generator.generate(draws, BASE)
        edits = await propose(teacher, "r1")
        assert len(edits) == 2
        for proposed in edits:
            assert proposed.origin.completions > 0
            assert any(example.conversation is not None for example in proposed.edit.examples)
        # The engine was told not to tell, and does not keep what only its workers need.
        assert os.environ["VLLM_NO_USAGE_STATS"] == "1"
        assert "LD_PRELOAD" not in os.environ

        policy = await learn(teacher, edits)
        assert await generator.loaded() == {policy.policy_version}
        # The base stays the base beside a policy, in a batch of both too.
        base, learned = await asyncio.gather(
            generator.generate(draws, BASE), generator.generate(draws, policy.policy_version)
        )
        assert [c.text for c in base] == [c.text for c in alone]
        assert [c.token_ids for c in learned] != [c.token_ids for c in base]
        assert all(completion.text for completion in base)

        with pytest.raises(PromptTooLong):
            await generator.generate([Draw((1,) * 1_020, draws[0].sampling)], BASE)
        await generator.unload(policy.policy_version)
        assert await generator.loaded() == frozenset()
        with pytest.raises(NotPossible):
            await generator.generate(draws, policy.policy_version)
        with pytest.raises(NotFound):
            await generator.unload(policy.policy_version)
        # A folder without an adapter is refused, and the engine goes on.
        with pytest.raises(NotPossible):
            await generator.load("0" * 64, tmp_path / "nowhere")
        await teacher.policies.ensure_loaded(policy.policy_version)
        assert await generator.generate(draws, policy.policy_version) == learned
    finally:
        await teacher.close()


EventT = TypeVar("EventT")


def into(events: list[EventT]) -> Publish[EventT]:
    """Collects what is published."""

    def publish(event: EventT, *, keep: bool = True) -> None:
        events.append(event)

    return publish


async def propose(teacher: Teacher, request_id: str) -> list[ProposedEdit]:
    """Two edits about a short document, by sentences and about the whole."""
    events: list[ProposeEvent] = []
    request = ProposeRequest(
        request_id=request_id,
        kind=TaskKind.KNOWLEDGE,
        context=Context(document_id="notice", title=TITLE, text=TEXT),
        count=2,
        seed=11,
    )
    await teacher.proposer.propose(request, into(events))
    assert any(isinstance(event, Progress) for event in events)
    return [event for event in events if isinstance(event, ProposedEdit)]


async def learn(teacher: Teacher, edits: list[ProposedEdit]) -> Policy:
    events: list[LearnEvent] = []
    kept = tuple(KeptEdit(edit=Digest(sha256=proposed.edit.digest.sha256)) for proposed in edits)
    request = LearnRequest(request_id=f"learn {digest_of(kept[0]).sha256}", kept=kept, seed=3)
    await teacher.learner.learn(request, into(events))
    (policy,) = [event for event in events if isinstance(event, Policy)]
    assert policy.pairs > 0
    return policy
