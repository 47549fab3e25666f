"""Gates say what decided, and in which figures; composition and history know what belongs together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.compose import union
from auditor.events import WinnersPooled
from auditor.evidence.scaling import Outcome, next_scale
from auditor.evidence.sign_flip import decidable, holm, lost_share, lower_bound, p_value, upper_bound
from auditor.evidence.verdict import verdict
from auditor.findings import Gate, Mark, Score
from auditor.gates.update import Confirmation, confirmation_gate, retention_gate
from auditor.papers import Group, Marked
from auditor.tasks import Split
from common.canonical import digest_of
from common.types import Recipe
from tests.auditor.plays import teaching
from tests.support.scripted_services import edit_about


def confirmed(gains: Sequence[float], pooled: Sequence[float] | None = None, level: float = 0.05) -> Gate:
    before = Score(questions=len(gains))
    own = Confirmation(verdict(gains, level), before, Score(questions=len(gains), correct=sum(gains)))
    if pooled is None:
        return confirmation_gate(own, None)
    found = verdict(pooled, level)
    event = WinnersPooled(round=1, edits=(), task_ids=(), p_value=found.p_value, level=level, passed=found.gained)
    return confirmation_gate(own, event)


@pytest.mark.parametrize(
    ("own", "pooled", "passed"),
    [
        ([1, 1, 1, 1, 1], None, True),
        ([1, 1, 1, 1, 0], None, False),
        ([1, 1, 1, 1, 1, -1], None, False),
        ([1] * 7 + [-1], None, True),
        ([1, 0], [1] * 5, True),
        ([0, 0], [1] * 5, True),
        ([0, 0], [1] * 4, False),
        ([-1, 0], [1] * 9, False),
        ([1, -1], [1] * 9, True),
        ([1, 1], None, False),
        ([], [1] * 9, False),
    ],
)
def test_confirmation_rule(own: list[float], pooled: list[float] | None, passed: bool) -> None:
    """From five own questions on they must gain beyond chance; fewer must not lose while the pool gains."""
    gate = confirmed(own, pooled)
    assert gate.passed is passed
    assert gate.reason.startswith("UNDECIDED") is (len(own) < 5)
    assert gate.figures["questions"] == len(own)


def test_two_updates_tested_on_the_same_questions_share_the_level() -> None:
    """Five of five is significant at 0.05 and not at half of it: with two winners of a task it is UNDECIDED."""
    assert verdict([1] * 5, 0.05).gained
    assert verdict([1] * 5, 0.05, tests=2).undecided
    assert verdict([1] * 6, 0.05, tests=2).gained


def marked(name: str, correct: int, questions: int) -> Marked:
    marks = tuple(Mark(item_id=f"i{i}", answer="0" * 64, score=float(i < correct)) for i in range(questions))
    return Marked(Group(Split.RETENTION, (), suite_id=name), marks, Score(questions=questions, correct=correct))


def judged(*groups: tuple[str, int, int, int], max_drop: float = 0.1) -> Gate:
    return retention_gate([(n, marked(n, b, q), marked(n, a, q)) for n, b, a, q in groups], max_drop)


def test_retention_allows_no_drop_that_is_likely_to_be_over_the_bound() -> None:
    """Two of forty lost could as well be 15 %; of a hundred, ten lost are hardly more than seventeen."""
    assert judged(("general", 40, 40, 40)).passed
    two = judged(("general", 40, 38, 40))
    assert not two.passed
    assert two.figures["upper:general"] == pytest.approx(0.15, abs=0.01)
    assert two.reason.startswith("general fell from 40 to 38 of 40: a drop of up to 0.15 cannot be ruled out")
    assert judged(("general", 100, 90, 100), max_drop=0.17).passed
    assert not judged(("general", 100, 85, 100), max_drop=0.17).passed
    assert judged().reason == "nothing to retain"


def test_retention_of_too_few_items_for_any_bound_goes_by_their_mean() -> None:
    """Of ten items not even none lost rules out a drop of a tenth."""
    assert judged(("general", 10, 9, 10)).passed
    assert not judged(("general", 10, 8, 10)).passed
    assert judged(("general", 10, 8, 10), max_drop=0.2).passed
    assert not judged(("general", 10, 9, 10), max_drop=0.3).passed, "here a bound is possible, and 0.39 is over it"


def test_one_earlier_task_may_not_be_wiped_out_among_the_others() -> None:
    kept = [(f"earlier tasks/t{i}", 10, 10, 10) for i in range(20)]
    assert judged(*kept).passed
    gate = judged(*kept, ("earlier tasks/lost", 10, 0, 10))
    assert not gate.passed
    assert gate.reason == "earlier tasks/lost fell from 10 to 0 of 10: 0.2 is allowed of so few"
    assert gate.figures["drop:earlier tasks"] == pytest.approx(10 / 210)


def test_the_training_to_be_promoted_must_not_lose_though_its_repeats_gain() -> None:
    gains = [0.5] * 10 + [0.0] * 10
    own = Confirmation(verdict(gains, 0.05), Score(questions=20, correct=5), Score(questions=20, correct=3), runs=3)
    assert own.verdict.gained
    assert not confirmation_gate(own, None).passed


def test_pooled_evidence_of_whole_updates_says_nothing_of_one_scaled_to_no_gain() -> None:
    pooled = WinnersPooled(round=1, edits=(), task_ids=(), p_value=0.01, level=0.05, passed=True)
    for gain, scale, passed in ((0.0, 1.0, True), (0.0, 0.5, False), (1.0, 0.5, True)):
        own = Confirmation(verdict([gain], 0.05), Score(questions=1), Score(questions=1, correct=gain), scale=scale)
        assert confirmation_gate(own, pooled).passed is passed


@given(st.integers(1, 60), st.data(), st.sampled_from([0.05, 0.1]))
def test_bound_of_what_is_lost_holds_at_its_level(of: int, data: st.DataObject, level: float) -> None:
    """At the bound itself so few losses have exactly the probability `level`."""
    lost = data.draw(st.integers(0, of - 1))
    share = lost_share(lost, of, level)
    chance = sum(math.comb(of, k) * share**k * (1 - share) ** (of - k) for k in range(lost + 1))
    assert chance == pytest.approx(level, rel=1e-3)
    assert lost_share(of, of, level) == 1.0


def test_one_suite_cannot_pay_for_another() -> None:
    gate = judged(("general", 100, 100, 100), ("safety", 5, 2, 5))
    assert not gate.passed
    assert gate.reason.startswith("safety fell from 5 to 2 of 5")


def test_small_groups_count_in_the_total_alone() -> None:
    assert judged(("general", 60, 60, 60), ("tiny", 2, 1, 2)).passed
    assert not judged(("tiny", 2, 0, 2), ("small", 2, 2, 2)).passed


@given(
    st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=9), st.sampled_from([0.05, 0.1, 0.3])
)
def test_sign_flips_are_counted_exactly(gains: list[float], level: float) -> None:
    """Against every one of the 2^n sign vectors; and the bound is where the test stops rejecting."""
    signs = list(itertools.product((1, -1), repeat=len(gains)))
    hits = sum(sum(s * g for s, g in zip(each, gains, strict=True)) >= sum(gains) - 1e-9 for each in signs)
    assert p_value(gains) == hits / len(signs)
    lower, mean = lower_bound(gains, level), sum(gains) / len(gains)
    if decidable(len(gains), level):
        assert lower <= mean
        assert upper_bound(gains, level) >= mean
        assert p_value([gain - lower + 0.02 for gain in gains]) <= level or lower == -1
        assert p_value([gain - lower - 0.02 for gain in gains]) > level or lower == min(gains)
    else:
        assert (lower, upper_bound(gains, level)) == (-1.0, 1.0)


def test_many_gains_take_the_normal_limit_where_counting_ends() -> None:
    gains = [1.0] * 112 + [-1.0] * 88
    assert p_value([*gains, 1.0, -1.0]) == pytest.approx(p_value(gains), abs=0.01)
    assert lower_bound([*gains, 1.0, -1.0], 0.05) == pytest.approx(lower_bound(gains, 0.05), abs=0.02)


def test_questions_that_did_not_move_never_make_a_gain_significant() -> None:
    assert p_value([1.0] * 3 + [0.0] * 400) == 0.125


def test_gains_of_any_fineness_are_bounded_in_no_time() -> None:
    """Three thousand different marks would take hours to count one by one; they are rounded to the safe side."""
    fine = [((37 * place) % 101) / 101 - 0.3 for place in range(100)]
    coarse = [math.floor(gain * 100) / 100 for gain in fine]
    assert lower_bound(fine, 0.05) == lower_bound(coarse, 0.05)
    assert p_value(fine) <= p_value(coarse)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_makes_a_p_value_smaller_and_keeps_their_order(values: list[float]) -> None:
    adjusted = holm(values)
    assert all(new >= old for old, new in zip(values, adjusted, strict=True))
    assert min(adjusted) == min(1.0, len(values) * min(values))
    for a, b in itertools.combinations(range(len(values)), 2):
        if values[a] < values[b]:
            assert adjusted[a] <= adjusted[b]


def found_at(*tries: tuple[float, Outcome], smallest: float = 0.5) -> float:
    return next_scale(dict(tries), tries[-1][0], smallest)


def test_bisection_closes_in_on_the_largest_scale_that_passes() -> None:
    whole = (1.0, Outcome.FORGETS)
    assert found_at(whole) == 0.75
    assert found_at(whole, (0.75, Outcome.PASSED)) == 0.875
    assert found_at(whole, (0.75, Outcome.PASSED), (0.875, Outcome.PASSED)) == 0
    # What passed is asked for again, for its judgement to be the last.
    assert found_at(whole, (0.75, Outcome.PASSED), (0.875, Outcome.FORGETS)) == 0.75
    assert found_at(whole, (0.75, Outcome.FORGETS), (0.625, Outcome.FORGETS)) == 0.5
    assert found_at(whole, (0.75, Outcome.LEARNS_TOO_LITTLE), (0.875, Outcome.FORGETS)) == 0
    # What fails otherwise is no reason to throw away what passed.
    assert found_at(whole, (0.75, Outcome.PASSED), (0.875, Outcome.FAILED)) == 0.75
    assert found_at(whole, (0.75, Outcome.FAILED)) == 0


@given(st.dictionaries(st.integers(0, 64), st.sampled_from(list(Outcome))), st.sampled_from([0.1, 0.25, 0.5, 1.0]))
def test_bisection_ends_with_something_that_passed_or_nothing(world: dict[int, Outcome], smallest: float) -> None:
    """Whatever the scales turn out to be, and however unevenly retention falls between them."""
    tried: dict[float, Outcome] = {}
    scale = last = 1.0
    while scale:
        repeated = scale in tried
        tried[scale] = world.get(round(scale * 64), Outcome.FORGETS)
        last, scale = scale, next_scale(tried, scale, smallest)
        assert not (repeated and scale)
        assert scale == 0 or smallest <= scale < 1
        assert len(tried) < 10
    assert tried[last] is Outcome.PASSED or Outcome.PASSED not in tried.values()


def test_union_has_each_example_once_and_the_first_winners_recipe() -> None:
    shared = ("What is shared?", "This.")
    first = edit_about("doc-a", "About a", [("a question 0?", "a0"), shared], recipe=Recipe(rank=16))
    second = edit_about("doc-a", "About a", [shared, ("a question 1?", "a1")])
    edit, parts = union([first, second], 100)
    assert [digest_of(e) for e in edit.examples] == [digest_of(e) for e in (*first.examples, second.examples[1])]
    assert edit.recipe == first.recipe
    assert parts == (first, second)
    assert union([first, second], 100)[0].digest == edit.digest
    assert union([second, first], 100)[0].digest != edit.digest


def test_union_leaves_out_whole_winners_that_do_not_fit() -> None:
    a, b, c = teaching("a", 6), teaching("b", 6), teaching("c", 3)
    edit, parts = union([a, b, c], 10)
    assert parts == (a, c)
    assert len(edit.examples) == 9


def test_union_of_one_is_the_winner_itself() -> None:
    a = teaching("a", 6)
    assert union([a], 10) == (a, (a,))
