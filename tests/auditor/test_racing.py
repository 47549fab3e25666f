"""Racing and ties, without a model: who is measured again, and who can still get a place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from auditor.evidence.filter import Reward, ranked
from auditor.evidence.racing import behind, rungs, survivors, tied_for_a_place
from auditor.tasks import FilterMode
from common.types import Digest


def reward(name: int, *right: int, questions: int = 5, barred: str = "") -> Reward:
    """An edit that the parent knew nothing of; right: how many questions each run answers."""
    runs = tuple(tuple(float(place < count) for place in range(questions)) for count in right)
    return Reward(edit=Digest(sha256=f"{name:064x}"), before=(0.0,) * questions, runs=runs, barred=barred)


def names(rewards: list[Reward]) -> list[int]:
    return sorted(int(reward.edit.sha256, 16) for reward in rewards)


BEFORE = [reward(1, 2), reward(2, 2), reward(3, 1)]


def test_who_gained_less_than_a_tie_does_not_win_by_having_been_measured_less() -> None:
    """Both that tied fall behind the third by their second run, and still are worth a place."""
    tied = tied_for_a_place(BEFORE, 1, 0.0)
    assert names(tied) == [1, 2]
    after = [reward(1, 2, 0, 0), reward(2, 2, 0, 0), reward(3, 1)]
    assert ranked(after)[0].edit == after[2].edit
    assert names(behind(BEFORE, after, tied, places=1, threshold=0.0)) == [3]


def test_a_place_that_those_who_tied_are_not_worth_stays_open() -> None:
    before = [reward(1, 3), reward(2, 3), reward(3, 2)]
    tied = tied_for_a_place(before, 1, 0.3)
    after = [reward(1, 3, 0), reward(2, 3, 0), reward(3, 2)]
    assert behind(before, after, tied, places=1, threshold=0.3) == []
    failed = [reward(1, 3, 3, barred="not alive"), reward(2, 3, 0), reward(3, 2)]
    assert behind(before, failed, tied, places=1, threshold=0.3) == []


def test_of_several_places_those_ahead_of_the_tie_count() -> None:
    before = [reward(1, 5), reward(2, 3), reward(3, 3), reward(4, 1)]
    tied = tied_for_a_place(before, 2, 0.0)
    assert names(tied) == [2, 3]
    after = [reward(1, 5), reward(2, 3, 1), reward(3, 3, 2), reward(4, 1)]
    assert names(behind(before, after, tied, places=2, threshold=0.0)) == [4]


def test_no_tie_where_all_get_a_place_or_none_gains() -> None:
    assert tied_for_a_place(BEFORE, 3, 0.0) == []
    assert tied_for_a_place([reward(1, 0), reward(2, 0)], 1, 0.0) == []
    assert behind(BEFORE, BEFORE, [], places=1, threshold=0.0) == []


@given(
    right=st.lists(st.integers(0, 5), min_size=1, max_size=8),
    places=st.integers(1, 4),
    left=st.integers(1, 4),
)
def test_racing_never_stops_the_best_nor_leaves_fewer_than_places(right: list[int], places: int, left: int) -> None:
    rewards = [reward(name, count) for name, count in enumerate(right)]
    stay = survivors(rewards, mode=FilterMode.TOP_K, places=places, threshold=0.0, seeds_left=left)
    assert {one.edit for one in ranked(rewards)[:places]} <= {one.edit for one in stay}


@given(seeds=st.integers(1, 40))
def test_rungs_end_with_all_seeds(seeds: int) -> None:
    found = rungs(seeds)
    assert found[-1] == seeds
    assert found == sorted(set(found))
