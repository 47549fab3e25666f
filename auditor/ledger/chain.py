"""The links of the chain: what is hashed, and how a whole chain is checked.

A link's hash covers its number, time, type, run, step, payload, the payloads it names, and the hash before it.
Changing, removing or inserting a link breaks every later one; a cut-off tail shows only against a head noted elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from auditor.ledger.models import EventRow, PayloadRow
from common.canonical import canonical_json

GENESIS = "0" * 64


@dataclass(frozen=True)
class Link:
    """One event as the ledger holds it."""

    seq: int
    time: datetime
    type: str
    run_id: str
    step: str | None
    payload: dict[str, Any] = field(repr=False)
    payloads: tuple[str, ...]
    prev_hash: str
    hash: str


@dataclass(frozen=True)
class Verdict:
    """What a check of the whole chain found. broken_at 0: nothing."""

    events: int
    head: str
    erased: int = 0
    broken_at: int = 0
    detail: str = ""

    @property
    def intact(self) -> bool:
        return not self.detail


def make_row(
    seq: int,
    prev_hash: str,
    *,
    type: str,
    run_id: str,
    step: str | None,
    payload: dict[str, Any],
    payloads: tuple[str, ...],
) -> EventRow:
    """The next link, hashed."""
    row = EventRow(
        seq=seq,
        time=datetime.now(UTC).isoformat(timespec="microseconds"),
        type=type,
        run_id=run_id,
        step=step,
        payload=canonical_json(payload).decode(),
        payload_refs=json.dumps(list(payloads)),
        prev_hash=prev_hash,
    )
    row.hash = hash_of(row)
    return row


def hash_of(row: EventRow) -> str:
    """SHA-256 of the canonical JSON of everything but the hash."""
    columns = (row.seq, row.time, row.type, row.run_id, row.step, row.payload, row.payload_refs, row.prev_hash)
    names = ("seq", "time", "type", "run_id", "step", "payload", "payload_refs", "prev_hash")
    return hashlib.sha256(canonical_json(dict(zip(names, columns, strict=True)))).hexdigest()


def link_of(row: EventRow) -> Link:
    return Link(
        seq=row.seq,
        time=datetime.fromisoformat(row.time),
        type=row.type,
        run_id=row.run_id,
        step=row.step,
        payload=json.loads(row.payload),
        payloads=tuple(json.loads(row.payload_refs)),
        prev_hash=row.prev_hash,
        hash=row.hash,
    )


def verify(session: Session, expected_seq: int = 0, expected_hash: str = "") -> Verdict:
    """Recomputes every hash and every payload's digest, and compares with a head noted earlier, if given."""
    tombstones, damaged, erased = _check_payloads(session)
    head, seq, seen_expected = GENESIS, 0, False
    for row in session.scalars(select(EventRow).order_by(EventRow.seq).execution_options(yield_per=500)):
        problem = _check_link(row, seq + 1, head) or _check_references(session, row, damaged, tombstones)
        if problem:
            return Verdict(seq, head, erased, seq + 1, problem)
        seq, head = row.seq, row.hash
        if expected_seq == seq and expected_hash and expected_hash != head:
            return Verdict(seq, head, erased, seq, f"event {seq} does not have the expected hash")
        seen_expected |= head == expected_hash
    if expected_seq > seq:
        return Verdict(seq, head, erased, seq + 1, f"the chain ends at {seq}, before the expected {expected_seq}")
    if expected_hash and not expected_seq and not seen_expected:
        return Verdict(seq, head, erased, seq + 1, "no event has the expected hash: the tail was cut off or replaced")
    return Verdict(seq, head, erased)


def _check_link(row: EventRow, seq: int, prev_hash: str) -> str:
    if row.seq != seq:
        return f"event {seq} is missing"
    if row.prev_hash != prev_hash:
        return f"event {seq} does not follow from the one before it"
    return "" if hash_of(row) == row.hash else f"event {seq} was changed: its hash does not fit"


def _check_payloads(session: Session) -> tuple[dict[str, int], dict[str, str], int]:
    """Tombstone numbers by digest; what is wrong by digest; how many are erased."""
    tombstones: dict[str, int] = {}
    damaged: dict[str, str] = {}
    for row in session.scalars(select(PayloadRow).execution_options(yield_per=500)):
        if row.content is None and row.erased_seq is not None:
            tombstones[row.sha256] = row.erased_seq
        elif row.content is None:
            damaged[row.sha256] = "has no content and no tombstone"
        elif hashlib.sha256(row.content).hexdigest() != row.sha256:
            damaged[row.sha256] = "was changed: its digest does not fit"
    return tombstones, damaged, len(tombstones)


def _check_references(session: Session, row: EventRow, damaged: dict[str, str], tombstones: dict[str, int]) -> str:
    for sha256 in json.loads(row.payload_refs):
        if sha256 in damaged:
            return f"payload {sha256} of event {row.seq} {damaged[sha256]}"
        if (erased := tombstones.get(sha256)) is not None:
            stone = session.get(EventRow, erased)
            if stone is None or stone.type != "payload_erased" or json.loads(stone.payload).get("payload") != sha256:
                return f"payload {sha256} of event {row.seq} is erased, but event {erased} is not its tombstone"
        elif session.get(PayloadRow, sha256) is None:
            return f"payload {sha256} of event {row.seq} is missing"
    return ""
