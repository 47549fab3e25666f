"""How an order to the student is cut into pieces, and what of a piece is left when its replica went away.

A piece is an order of its own. Its id follows from the order's and from what is in it, so that the same piece asked
again attaches to the same work.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from auditor.batches import batches
from auditor.peers import AnswerOrder, ScoreOrder, TrainOrder
from common.canonical import digest_of
from common.lora.proof import Liveness, LivenessProof
from common.versions import Answer, FailedCandidate, KlFromBase, ScoredContinuation, TrainedCandidate

Event = TrainedCandidate | FailedCandidate | LivenessProof | Answer | ScoredContinuation | KlFromBase
Seen = Mapping[Hashable, Event]
OrderT = TypeVar("OrderT", TrainOrder, AnswerOrder, ScoreOrder)
T = TypeVar("T")


@dataclass(frozen=True)
class Cut(Generic[OrderT]):
    """split: an order in about so many pieces; left: what of an order is not among these events, or None."""

    split: Callable[[OrderT, int], list[OrderT]]
    left: Callable[[OrderT, Seen], OrderT | None]


def key_of(event: Event) -> Hashable:
    """What tells an event of one order from the others; the same event from another replica has the same key."""
    match event:
        case TrainedCandidate() | FailedCandidate():
            return event.candidate_id
        case LivenessProof():
            return "proof", event.version
        case ScoredContinuation():
            return "scored", event.version, event.continuation_id
        case Answer() | KlFromBase():
            return type(event).__name__, event.version, event.prompt_id


def trainings(batch: int) -> Cut[TrainOrder]:
    """Train by candidates; `batch` in a piece, or 0 for equal shares."""

    def split(order: TrainOrder, parts: int) -> list[TrainOrder]:
        pieces = _shares(order.candidates, parts, batch)
        return [_piece(order, "candidates", piece, [one.candidate_id for one in piece]) for piece in pieces]

    def left(order: TrainOrder, seen: Seen) -> TrainOrder | None:
        missing = [one for one in order.candidates if one.candidate_id not in seen]
        return _piece(order, "candidates", missing, [one.candidate_id for one in missing]) if missing else None

    return Cut(split, left)


def answers() -> Cut[AnswerOrder]:
    """Answer by versions: the answers of one are written together by one replica."""
    return Cut(_by_version, lambda order, seen: _versions_left(order, len(order.prompts), seen))


def scores() -> Cut[ScoreOrder]:
    """LogLikelihood by versions."""
    return Cut(
        _by_version,
        lambda order, seen: _versions_left(order, len(order.continuations) + len(order.kl_prompts), seen),
    )


OrderByVersionT = TypeVar("OrderByVersionT", AnswerOrder, ScoreOrder)


def _by_version(order: OrderByVersionT, parts: int) -> list[OrderByVersionT]:
    return [_piece(order, "versions", piece, piece) for piece in _shares(order.versions, parts, 0)]


def _versions_left(order: OrderByVersionT, each: int, seen: Seen) -> OrderByVersionT | None:
    """`each`: events of a version beside its proof. An alias is never known to be done: events name what it led to."""
    said: dict[str, int] = {}
    for event in seen.values():
        if isinstance(event, LivenessProof):
            invalid = event.liveness is Liveness.INVALID
            said[event.version] = said.get(event.version, 0) + (each if invalid else 0)
        elif isinstance(event, Answer | ScoredContinuation | KlFromBase):
            said[event.version] = said.get(event.version, 0) + 1
    missing = [version for version in order.versions if said.get(version, -1) < each]
    return _piece(order, "versions", missing, missing) if missing else None


def _shares(items: Sequence[T], parts: int, size: int) -> list[list[T]]:
    return list(batches(items, size or math.ceil(len(items) / max(1, parts))))


def _piece(order: OrderT, field: str, items: Sequence[Any], names: Sequence[str]) -> OrderT:
    if len(items) == len(getattr(order, field)):
        return order
    request_id = digest_of([order.request_id, list(names)]).sha256
    return order.model_copy(update={"request_id": request_id, field: tuple(items)})
