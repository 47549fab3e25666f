"""The ledger's tables. Portable SQL alone: SQLite by default, PostgreSQL by URL.

Times are ISO 8601 text in UTC and payloads canonical JSON text, so that what was hashed is what every database gives
back. migrations/ creates these tables, and the triggers that keep events from being changed.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Float, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Number = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Declarative base."""


class EventRow(Base):
    """One link of the chain. `hash` covers every other column."""

    __tablename__ = "events"

    seq: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False)
    time: Mapped[str] = mapped_column(String(40))
    type: Mapped[str] = mapped_column(String(64))
    run_id: Mapped[str] = mapped_column(String(128))
    # Name of the step that it completes; no step of a run is ever completed twice. None: not a step.
    step: Mapped[str | None] = mapped_column(String(300))
    payload: Mapped[str] = mapped_column(Text)
    # Digests of the payloads it names, a JSON list.
    payload_refs: Mapped[str] = mapped_column(Text)
    prev_hash: Mapped[str] = mapped_column(String(64), unique=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)

    __table_args__ = (
        UniqueConstraint("run_id", "step", name="uq_events_step"),
        Index("ix_events_run", "run_id", "seq"),
    )


class PayloadRow(Base):
    """Bytes by digest. Erased: no content, and the number of the tombstone event."""

    __tablename__ = "payloads"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(Number)
    content: Mapped[bytes | None] = mapped_column(LargeBinary)
    erased_seq: Mapped[int | None] = mapped_column(Number)


class AnswerRow(Base):
    """A version's answer to a prompt, once. `key` is the digest of version, prompt, model, template and sampling."""

    __tablename__ = "answers"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(64))
    liveness: Mapped[str] = mapped_column(String(32))
    answer: Mapped[str] = mapped_column(String(64), index=True)
    # Why it ended, a FinishReason; empty where it was cached before that was noted.
    finish: Mapped[str] = mapped_column(String(32), default="")


class GradeRow(Base):
    """A grader's mark of an answer, once. `key` is the digest of question, answer and grader."""

    __tablename__ = "grades"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    score: Mapped[float] = mapped_column(Float)
    # Digest of the answer that it marks.
    answer: Mapped[str] = mapped_column(String(64), index=True)
