"""The side channel of rewards: how much a round's feedback can tell the teacher, counted and sent."""

from __future__ import annotations

from itertools import combinations, product
from math import log2
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from auditor import events as e
from auditor.evidence.filter import Reward
from auditor.feedback import coarsened, context_bits, reward_values, told
from auditor.peers import KeptEdit
from common.canonical import digest_of
from common.contract.seal.v1 import teacher_pb2
from tests.auditor.plays import Desk, at_desk, start_run, student, task, teacher, teaching
from tests.support.scripted_services import Stage, on_stage

EDITS = [digest_of(name) for name in range(5)]
GAINS = st.floats(-1, 1)


@given(st.lists(st.tuples(st.sampled_from(EDITS), GAINS), max_size=5, unique_by=lambda pair: pair[0]), st.randoms())
def test_what_is_told_depends_on_no_order(pairs: list[tuple[Any, float]], random: Any) -> None:
    kept = [KeptEdit(edit=edit, reward=gain) for edit, gain in pairs]
    shuffled = list(kept)
    random.shuffle(shuffled)
    for levels in (0, 1, 4):
        assert told(kept, levels) == told(shuffled, levels)
    assert {entry.edit for entry in told(kept, 4)} == {entry.edit for entry in kept}


@given(GAINS, GAINS, st.integers(1, 1_000))
def test_a_coarse_reward_is_one_of_so_many_levels_keeps_order_and_is_no_further_off(
    gain: float, other: float, levels: int
) -> None:
    coarse = coarsened(gain, levels)
    assert coarse in {level / levels for level in range(1, levels + 1)}
    assert coarsened(coarse, levels) == coarse
    assert gain >= other or coarse <= coarsened(other, levels)
    assert gain < 0 or abs(coarse - gain) <= 1 / levels + 1e-8


@given(GAINS)
def test_one_level_says_kept_and_nothing_else(gain: float) -> None:
    assert coarsened(gain, 1) == 1.0
    assert coarsened(gain, 0) == gain


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 3))
def test_the_bound_counts_every_message_there_can_be(candidates: int, places: int, levels: int) -> None:
    possible = set()
    values = [level / levels for level in range(1, levels + 1)]
    for size in range(min(places, candidates) + 1):
        for edits in combinations(EDITS[:candidates], size):
            for rewards in product(values, repeat=size):
                kept = [KeptEdit(edit=edit, reward=reward) for edit, reward in zip(edits, rewards, strict=True)]
                possible.add(told(kept, levels))
    assert context_bits(candidates=candidates, places=places, values=levels) == pytest.approx(log2(len(possible)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 2))
def test_no_gain_has_more_values_than_are_counted(questions: int, most_runs: int) -> None:
    sides = list(product((0.0, 1.0), repeat=questions))
    gains = {
        Reward(edit=EDITS[0], before=before, runs=runs).gain
        for before in sides
        for count in range(1, most_runs + 1)
        for runs in product(sides, repeat=count)
    }
    assert len(gains) <= reward_values(0, questions=questions, runs=most_runs)


@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 50))
def test_fewer_levels_never_tell_more(candidates: int, places: int, levels: int) -> None:
    coarse = context_bits(candidates=candidates, places=places, values=levels)
    assert coarse <= context_bits(candidates=candidates, places=places, values=levels + 1)


@pytest.mark.parametrize(("levels", "best_of_five", "every_gain"), [(0, 8.3, 29.9), (4, 4.4, 11.6), (1, 2.6, 5.0)])
def test_the_figures_of_the_manual(levels: int, best_of_five: float, every_gain: float) -> None:
    """docs/security.md: ten reward questions, five candidates, one seed."""
    values = reward_values(levels, questions=10, runs=2)
    assert round(context_bits(candidates=5, places=1, values=values), 1) == best_of_five
    assert round(context_bits(candidates=5, places=10, values=values), 1) == every_gain
    table = (Path(__file__).parent.parent.parent / "docs" / "security.md").read_text()
    assert f"{best_of_five:g} bits" in table
    assert f"{every_gain:g} bits" in table


async def learned(desk: Desk) -> e.PolicyLearned:
    ledger = desk.auditor.recorder.ledger
    links = await desk.auditor.recorder.run(lambda: list(ledger.every_event(run_id="run")))
    (found,) = [link.payload for link in links if link.type == "policy_learned"]
    return e.PolicyLearned.model_validate(found)


def heard(stage: Stage) -> list[teacher_pb2.LearnRequest]:
    """What was sent for Learn; requests for proposals have other ids."""
    found = []
    for sent in stage.teacher.received:
        try:
            request = teacher_pb2.LearnRequest.FromString(sent)
        except ValueError:
            continue
        if request.request_id.startswith("learn-"):
            found.append(request)
    return found


@pytest.mark.parametrize(("levels", "rewards"), [(0, {0.6, 1.0}), (2, {1.0}), (4, {0.75, 1.0}), (1, {1.0})])
async def test_the_teacher_hears_rewards_as_coarse_as_was_set(tmp_path: Path, levels: int, rewards: set[float]) -> None:
    """Edits come best first from the filter, and reach the teacher in the order of their digests."""
    edits = [teaching("a", 10), teaching("a", 6)]
    order = start_run("run", [task("a")], candidates=2, filter="FILTER_MODE_POSITIVE")
    async with on_stage(teacher(a=edits), student()) as stage:
        async with at_desk(stage, tmp_path, rewards={"levels": levels}) as desk:
            await desk.run(order)
            event = await learned(desk)
        (request,) = heard(stage)
    assert {kept.reward for kept in request.kept} == rewards
    names = [kept.edit.sha256 for kept in request.kept]
    assert names == sorted(edit.digest.sha256 for edit in edits)
    assert list(event.record.rewards) == [kept.reward for kept in request.kept]
    values = reward_values(levels, questions=5, runs=2)
    bits = context_bits(candidates=2, places=10, values=values)
    assert event.record.feedback_bits == pytest.approx(bits)
    assert REGISTRY.get_sample_value("seal_feedback_bits") == pytest.approx(bits)


async def test_that_nothing_was_kept_is_counted_and_that_nothing_is_learned_is_not(tmp_path: Path) -> None:
    for name, learn in (("kept", True), ("off", False)):
        folder = tmp_path / name
        folder.mkdir()
        async with on_stage(teacher(a=[teaching("a", 0)]), student()) as stage, at_desk(stage, folder) as desk:
            await desk.run(start_run("run", [task("a")], candidates=1, learn=learn))
            event = await learned(desk)
        assert event.policy is None
        assert (event.record.feedback_bits or 0.0) > 0.0 if learn else event.record.feedback_bits == 0.0
