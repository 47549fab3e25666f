"""The ledger's one door. Appends are atomic: an event, its payloads and nothing else, or none of it.

One process writes (held by a lock from open to close); any may read. auditor/recorder.py calls this from one thread;
`verify` may run on another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import Engine, delete, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from auditor.events import Event, PayloadErased
from auditor.ledger import chain, database
from auditor.ledger.chain import GENESIS, Link, Verdict, link_of
from auditor.ledger.models import AnswerRow, EventRow, GradeRow, PayloadRow
from common.canonical import digest_bytes
from common.errors import Conflict, Corrupt, NotFound, NotPossible
from common.lora.proof import Liveness


@dataclass(frozen=True)
class CachedAnswer:
    """An answer that was given before, by digest."""

    key: str
    version: str
    liveness: Liveness
    answer: str
    finish: str = ""


@dataclass(frozen=True)
class GivenAnswer:
    """An answer to be cached. finish: a FinishReason, or empty."""

    key: str
    version: str
    liveness: Liveness
    text: str
    finish: str = ""


class Ledger:
    """Open one with `Ledger.open`."""

    def __init__(self, engine: Engine, *, writer: bool) -> None:
        self._engine = engine
        self._release = database.hold(engine) if writer else None

    @classmethod
    def open(cls, url: str, *, writer: bool = True, password_file: Path | None = None) -> Self:
        """Opens (and, as a writer, migrates) the ledger at a database URL, with the password in a file if one is named.

        Raises InvalidConfig, or NotPossible(LEDGER_HELD) when another process writes to it.
        """
        ledger = cls(database.open_engine(url, password_file), writer=writer)
        if writer:
            database.migrate(ledger._engine)
        return ledger

    def close(self) -> None:
        if self._release is not None:
            self._release()
            self._release = None
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def append(
        self, event: Event, *, run_id: str = "", step: str | None = None, payloads: Iterable[bytes | str] = ()
    ) -> Link:
        """Adds one event and stores its payloads (bytes), or names stored ones (digests).

        Raises NotPossible when this process is not the writer, Conflict when the step is completed already.
        """
        with self._writing() as session:
            row = self._next(session, event, run_id, step, tuple(payloads))
            link = link_of(row)
            self._commit(session, run_id, step)
        return link

    def erase(self, sha256: str, *, decided_by: str, reason: str) -> Link:
        """Erases a payload's content, and cached answers that point at it; a tombstone event says who and why."""
        with self._writing() as session:
            row = session.get(PayloadRow, sha256)
            if row is None or row.content is None:
                raise NotFound("no such payload", ids={"sha256": sha256})
            event = PayloadErased(payload=sha256, decided_by=decided_by, reason=reason)
            tombstone = self._next(session, event, "", None, ())
            row.content, row.erased_seq = None, tombstone.seq
            session.execute(delete(AnswerRow).where(AnswerRow.answer == sha256))
            session.execute(delete(GradeRow).where(GradeRow.answer == sha256))
            link = link_of(tombstone)
            self._commit(session, "", None)
        return link

    def remember(self, answers: Iterable[GivenAnswer]) -> None:
        """Caches answers, all or none."""
        with self._writing() as session:
            for given in answers:
                sha256 = self._put(session, given.text.encode())
                row = AnswerRow(
                    key=given.key, version=given.version, liveness=given.liveness, answer=sha256, finish=given.finish
                )
                session.merge(row)
            self._commit(session, "", None)

    def remember_grades(self, grades: Iterable[tuple[str, str, float]]) -> None:
        """Caches (key, digest of the answer, mark), all or none."""
        with self._writing() as session:
            for key, answer, score in grades:
                session.merge(GradeRow(key=key, answer=answer, score=score))
            self._commit(session, "", None)

    def recall_grades(self, keys: Sequence[str]) -> dict[str, float]:
        """Those of `keys` that were marked before."""
        found: dict[str, float] = {}
        with Session(self._engine) as session:
            for start in range(0, len(keys), 500):
                query = select(GradeRow).where(GradeRow.key.in_(keys[start : start + 500]))
                found |= {row.key: row.score for row in session.scalars(query)}
        return found

    def recall(self, keys: Sequence[str]) -> dict[str, CachedAnswer]:
        """Those of `keys` that were answered before."""
        found: dict[str, CachedAnswer] = {}
        with Session(self._engine) as session:
            for start in range(0, len(keys), 500):
                wanted = keys[start : start + 500]
                for row in session.scalars(select(AnswerRow).where(AnswerRow.key.in_(wanted))):
                    found[row.key] = CachedAnswer(row.key, row.version, Liveness(row.liveness), row.answer, row.finish)
        return found

    def payload(self, sha256: str) -> bytes | None:
        """A payload's bytes, None if it was erased. Raises NotFound, or Corrupt when bytes and digest disagree."""
        with Session(self._engine) as session:
            row = session.get(PayloadRow, sha256)
            if row is None:
                raise NotFound("no such payload", ids={"sha256": sha256})
            if row.content is not None and digest_bytes(row.content).sha256 != sha256:
                raise Corrupt("a payload does not match its digest", ids={"sha256": sha256})
            return row.content

    def events(self, *, after: int = 0, run_id: str | None = None, limit: int = 1_000) -> list[Link]:
        """Up to `limit` events with a number above `after`, in order."""
        query = select(EventRow).where(EventRow.seq > after).order_by(EventRow.seq).limit(limit)
        if run_id is not None:
            query = query.where(EventRow.run_id == run_id)
        with Session(self._engine) as session:
            return [link_of(row) for row in session.scalars(query)]

    def at(self, numbers: Iterable[int]) -> dict[int, Link]:
        """The events of these numbers, by number."""
        wanted = sorted(set(numbers))
        found: dict[int, Link] = {}
        with Session(self._engine) as session:
            for start in range(0, len(wanted), 500):
                query = select(EventRow).where(EventRow.seq.in_(wanted[start : start + 500]))
                found |= {row.seq: link_of(row) for row in session.scalars(query)}
        return found

    def every_event(self, *, after: int = 0, run_id: str | None = None) -> Iterator[Link]:
        """All events above `after`, read in pieces."""
        while page := self.events(after=after, run_id=run_id):
            yield from page
            after = page[-1].seq

    def head(self) -> tuple[int, str]:
        """Number and hash of the newest event; (0, zeros) of an empty ledger."""
        with Session(self._engine) as session:
            return _head(session)

    def verify(self, expected_seq: int = 0, expected_hash: str = "") -> Verdict:
        with Session(self._engine) as session:
            return chain.verify(session, expected_seq, expected_hash)

    def _writing(self) -> Session:
        if self._release is None:
            raise NotPossible("this process does not hold the ledger", reason="LEDGER_HELD")
        return Session(self._engine, expire_on_commit=False)

    def _next(
        self, session: Session, event: Event, run_id: str, step: str | None, payloads: Sequence[bytes | str]
    ) -> EventRow:
        names = [self._put(session, item) if isinstance(item, bytes) else item for item in payloads]
        seq, prev_hash = _head(session)
        row = chain.make_row(
            seq + 1,
            prev_hash,
            type=event.kind,
            run_id=run_id,
            step=step,
            payload=event.model_dump(mode="json", exclude_none=True),
            payloads=tuple(dict.fromkeys(names)),
        )
        session.add(row)
        return row

    def _put(self, session: Session, data: bytes) -> str:
        digest = digest_bytes(data)
        row = session.get(PayloadRow, digest.sha256)
        if row is None:
            session.add(PayloadRow(sha256=digest.sha256, size_bytes=digest.size_bytes, content=data))
            session.flush()
        elif row.content is None:
            # Erased before, and said again since: it is kept anew, for a new reason.
            row.content, row.erased_seq = data, None
        return digest.sha256

    def _commit(self, session: Session, run_id: str, step: str | None) -> None:
        try:
            session.commit()
        except IntegrityError:
            session.rollback()
            if step is not None and _completed(session, run_id, step):
                raise Conflict(f"step {step} is completed already", ids={"run_id": run_id}) from None
            raise NotPossible("another process appended to the ledger", reason="LEDGER_HELD") from None


def _head(session: Session) -> tuple[int, str]:
    row = session.scalar(select(EventRow).order_by(EventRow.seq.desc()).limit(1))
    return (row.seq, row.hash) if row is not None else (0, GENESIS)


def _completed(session: Session, run_id: str, step: str) -> bool:
    query = select(func.count()).select_from(EventRow).where(EventRow.run_id == run_id, EventRow.step == step)
    return bool(session.scalar(query))


def texts(ledger: Ledger, names: Iterable[str]) -> Mapping[str, str]:
    """Payloads as text; an erased one is the empty text."""
    return {name: (ledger.payload(name) or b"").decode() for name in set(names)}
