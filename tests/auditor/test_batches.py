"""Pieces of what is sent to a peer hold everything, in order, and fit a request."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from auditor.batches import batches


@given(sizes=st.lists(st.integers(0, 40), max_size=30), most=st.integers(1, 5), room=st.integers(0, 30))
def test_pieces_hold_everything_in_order_and_fit(sizes: list[int], most: int, room: int) -> None:
    pieces = list(batches(sizes, most, size=lambda size: size, room=room))
    assert [size for piece in pieces for size in piece] == sizes
    for piece in pieces:
        assert 0 < len(piece) <= most
        # One that is too large by itself stands alone.
        assert sum(piece) <= room or len(piece) == 1


@given(sizes=st.lists(st.integers(0, 40), max_size=30), most=st.integers(1, 5))
def test_a_piece_is_cut_only_where_the_next_one_does_not_fit(sizes: list[int], most: int) -> None:
    room = 40
    pieces = list(batches(sizes, most, size=lambda size: size, room=room))
    for piece, after in pairwise(pieces):
        assert len(piece) == most or sum(piece) + after[0] > room


def test_without_sizes_only_the_number_counts() -> None:
    assert list(batches("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
