"""Cuts what is sent to a peer into pieces that one request holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def batches(
    items: Iterable[T], most: int, *, size: Callable[[T], int] = lambda _: 0, room: int = 0
) -> Iterator[list[T]]:
    """Consecutive pieces of at most `most` items (0: any number) whose sizes add up to at most `room`.

    An item that is larger by itself is a piece of its own.
    """
    piece: list[T] = []
    left = room
    for item in items:
        if piece and (len(piece) == most or size(item) > left):
            yield piece
            piece, left = [], room
        piece.append(item)
        left -= size(item)
    if piece:
        yield piece
