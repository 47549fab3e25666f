"""The split of tau and the ReST^EM filter keep their promises for any input."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from auditor.filter import Reward, rest_em
from auditor.splits import split
from auditor.tasks import EvaluationItem, FilterMode
from common.types import Digest


def items(questions: list[str]) -> list[EvaluationItem]:
    return [
        EvaluationItem(item_id=f"q{i}", question=f"{question}?", answers=("yes",))
        for i, question in enumerate(questions)
    ]


QUESTIONS = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=40)


@given(QUESTIONS, st.randoms())
def test_split_is_a_partition_that_order_does_not_change(questions: list[str], rng: random.Random) -> None:
    tau = items(questions)
    first = split(tau)
    rng.shuffle(tau)
    assert split(tau) == first
    assert sorted(i.item_id for i in (*first.reward, *first.holdout)) == sorted(i.item_id for i in tau)


@given(st.sets(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=40))
def test_split_of_different_questions_is_even(questions: set[str]) -> None:
    tau = split(items(sorted(questions)))
    assert len(tau.reward) - len(tau.holdout) in (0, 1)


@given(QUESTIONS)
def test_a_question_asked_twice_stays_on_one_side(questions: list[str]) -> None:
    tau = split(items(questions))
    assert not {i.content_hash for i in tau.reward} & {i.content_hash for i in tau.holdout}


@st.composite
def rewards(draw: st.DrawFn) -> list[Reward]:
    questions = draw(st.integers(1, 12))
    before = draw(st.integers(0, questions))
    runs = draw(st.integers(1, 3))
    return [
        Reward(
            edit=Digest(sha256=f"{name:064x}"),
            questions=questions,
            before=before,
            correct=tuple(draw(st.lists(st.integers(0, questions), min_size=runs, max_size=runs))),
            barred=draw(st.sampled_from(["", "", "", "INERT"])),
        )
        for name in draw(st.sets(st.integers(1, 50), max_size=12))
    ]


MODES = st.sampled_from(list(FilterMode))


SIZES = st.tuples(st.integers(1, 5), st.integers(1, 5))


@given(rewards(), MODES, SIZES, st.sampled_from([-0.1, 0.0, 0.2]), st.randoms())
def test_filter_keeps_its_promises(
    measured: list[Reward], mode: FilterMode, sizes: tuple[int, int], threshold: float, rng: random.Random
) -> None:
    top_k, cap = sizes
    verdicts = rest_em(measured, mode=mode, top_k=top_k, threshold=threshold, cap=cap)
    shuffled = list(measured)
    rng.shuffle(shuffled)
    by_edit = {reward.edit: reward for reward in measured}
    kept = [v for v in verdicts if v.kept]

    assert rest_em(shuffled, mode=mode, top_k=top_k, threshold=threshold, cap=cap) == verdicts
    assert {v.edit for v in verdicts} == set(by_edit)
    assert len(kept) <= (min(cap, top_k) if mode is FilterMode.TOP_K else cap)
    assert all(v.reason for v in verdicts)
    assert not any(by_edit[v.edit].barred for v in kept)
    assert all(v.undecided == (by_edit[v.edit].questions < 5) for v in verdicts)
    if mode is FilterMode.SOLVED:
        assert all(by_edit[v.edit].solved for v in kept)
        return
    assert all(v.gain > threshold for v in kept)
    passed_over = [v for v in verdicts if not v.kept and not by_edit[v.edit].barred and v.gain > threshold]
    assert not passed_over or len(kept) == (min(cap, top_k) if mode is FilterMode.TOP_K else cap)
    assert all(k.gain >= p.gain for k in kept for p in passed_over)


def reward(name: int, *correct: float, before: float = 0, questions: int = 5) -> Reward:
    return Reward(edit=Digest(sha256=f"{name:064x}"), questions=questions, before=before, correct=correct)


def test_no_change_over_three_seeds_is_exactly_no_gain() -> None:
    assert reward(1, 1, 1, 1, before=1, questions=3).gain == 0.0
    assert reward(1, 0, 1, 2, before=1, questions=3).gain == 0.0


def test_ties_go_to_the_smaller_digest_and_are_said() -> None:
    verdicts = rest_em([reward(2, 3), reward(1, 3), reward(3, 1)], mode=FilterMode.TOP_K, top_k=1, threshold=0, cap=10)
    assert [v.kept for v in verdicts] == [True, False, False]
    assert verdicts[0].edit.sha256.endswith("1")
    assert verdicts[1].reason == "tied with the last place; digest order decides"
    assert verdicts[2].reason == "others gained more"


def test_what_the_parent_solves_already_is_not_solved_by_an_edit() -> None:
    verdict = rest_em([reward(1, 5, before=5)], mode=FilterMode.SOLVED, top_k=1, threshold=0, cap=10)[0]
    assert not verdict.kept
