"""The split of tau and the ReST^EM filter keep their promises for any input."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from auditor.evidence.filter import Reward, rest_em
from auditor.evidence.splits import split
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
    marks = st.lists(st.sampled_from([0.0, 1.0]), min_size=questions, max_size=questions).map(tuple)
    before = draw(marks)
    runs = draw(st.integers(1, 3))
    return [
        Reward(
            edit=Digest(sha256=f"{name:064x}"),
            before=before,
            runs=tuple(draw(st.lists(marks, min_size=runs, max_size=runs))),
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
    assert all(v.undecided == (by_edit[v.edit].questions < math.log2(len(measured) / 0.05)) for v in verdicts)
    if mode is FilterMode.SOLVED:
        assert all(by_edit[v.edit].solved for v in kept)
        return
    assert all(v.gain > threshold for v in kept)
    passed_over = [v for v in verdicts if not v.kept and not by_edit[v.edit].barred and v.gain > threshold]
    assert not passed_over or len(kept) == (min(cap, top_k) if mode is FilterMode.TOP_K else cap)
    assert all(k.gain >= p.gain for k in kept for p in passed_over)


def reward(name: int, *correct: int, before: int = 0, questions: int = 5, examples: int = 1) -> Reward:
    """Of each run the first `correct` questions are right."""

    def marks(right: int) -> tuple[float, ...]:
        return tuple(float(place < right) for place in range(questions))

    runs = tuple(map(marks, correct))
    return Reward(edit=Digest(sha256=f"{name:064x}"), before=marks(before), runs=runs, examples=examples)


def test_no_change_over_three_seeds_is_exactly_no_gain() -> None:
    assert reward(1, 1, 1, 1, before=1, questions=3).gain == 0.0
    assert reward(1, 0, 1, 2, before=1, questions=3).gain == 0.0


def best(*measured: Reward) -> str:
    return rest_em(measured, mode=FilterMode.TOP_K, top_k=1, threshold=0, cap=10)[0].edit.sha256[-1]


def test_of_equal_gains_the_one_with_more_evidence_is_kept() -> None:
    """The test first, then the worst run, then what was broken, then the size; the digest never."""
    assert reward(1, 3, 3).gain == reward(2, 5, 1).gain
    assert best(reward(1, 3, 3), reward(2, 5, 1)) == "2"
    uneven = Reward(edit=Digest(sha256=f"{1:064x}"), before=(0,) * 4, runs=((1, 1, 1, 1), (1, 1, 0, 0)))
    even = Reward(edit=Digest(sha256=f"{2:064x}"), before=(0,) * 4, runs=((1, 1, 1, 0), (1, 1, 0, 1)))
    assert uneven.gains == even.gains
    assert best(uneven, even) == "2"
    assert best(reward(1, 3, examples=9), reward(2, 3, examples=4)) == "2"
    broken = Reward(edit=Digest(sha256=f"{1:064x}"), before=(1, 0, 0, 0), runs=((0, 1, 1, 0),))
    sound = Reward(edit=Digest(sha256=f"{2:064x}"), before=(1, 0, 0, 0), runs=((1, 1, 0, 0),))
    assert broken.gain == sound.gain
    assert best(broken, sound) == "2"


def test_what_no_evidence_tells_apart_is_said() -> None:
    verdicts = rest_em([reward(2, 3), reward(1, 3), reward(3, 1)], mode=FilterMode.TOP_K, top_k=1, threshold=0, cap=10)
    assert [v.kept for v in verdicts] == [True, False, False]
    assert verdicts[1].reason == "equal to the last one kept in all that was measured"
    assert verdicts[2].reason == "others have more evidence"


def test_lower_bound_keeps_only_what_chance_does_not_explain() -> None:
    """At a level shared by five candidates ten questions are enough for a bound; five are not, and the mean counts."""
    sure, lucky = reward(1, 9, questions=10), reward(2, 2, questions=10)
    others = [reward(name, 0, questions=10) for name in (3, 4, 5)]
    for by_lower_bound, kept in ((True, {"1"}), (False, {"1", "2"})):
        verdicts = rest_em(
            [sure, lucky, *others],
            mode=FilterMode.POSITIVE,
            top_k=1,
            threshold=0,
            cap=10,
            by_lower_bound=by_lower_bound,
        )
        assert {v.edit.sha256[-1] for v in verdicts if v.kept} == kept


def test_what_the_parent_solves_already_is_not_solved_by_an_edit() -> None:
    verdict = rest_em([reward(1, 5, before=5)], mode=FilterMode.SOLVED, top_k=1, threshold=0, cap=10)[0]
    assert not verdict.kept
