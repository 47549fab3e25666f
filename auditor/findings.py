"""What the auditor found out, as events carry it: scores, gates, verdicts, marks, a run's standing.

Mirrors auditor.proto.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field

from auditor.tasks import Settings, Split
from common.types import Digest, Domain, Sha256


class GateKind(StrEnum):
    FORMAT = "GATE_KIND_FORMAT"
    POLICY = "GATE_KIND_POLICY"
    LIVENESS = "GATE_KIND_LIVENESS"
    REWARD = "GATE_KIND_REWARD"
    CONFIRMATION = "GATE_KIND_CONFIRMATION"
    RETENTION = "GATE_KIND_RETENTION"
    DRIFT = "GATE_KIND_DRIFT"
    DEGENERATE = "GATE_KIND_DEGENERATE"
    PROTECTED = "GATE_KIND_PROTECTED"
    APPROVAL = "GATE_KIND_APPROVAL"
    SUPERSEDED = "GATE_KIND_SUPERSEDED"


class RunState(StrEnum):
    QUEUED = "RUN_STATE_QUEUED"
    RUNNING = "RUN_STATE_RUNNING"
    FINISHED = "RUN_STATE_FINISHED"
    FAILED = "RUN_STATE_FAILED"
    CANCELLED = "RUN_STATE_CANCELLED"


class Score(Domain):
    """Right answers of how many; counts before shares."""

    questions: int = 0
    correct: float = 0.0
    empty: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(
            questions=self.questions + other.questions,
            correct=self.correct + other.correct,
            empty=self.empty + other.empty,
        )

    @property
    def mean(self) -> float:
        """0..1; 0 of nothing is 0."""
        return self.correct / self.questions if self.questions else 0.0


class Gate(Domain):
    kind: GateKind
    passed: bool = False
    reason: str = ""
    figures: dict[str, float] = Field(default_factory=dict)


class EditVerdict(Domain):
    edit: Digest
    kept: bool = False
    gain: float = 0.0
    undecided: bool = False
    reason: str = ""
    lower: float = 0.0
    upper: float = 0.0
    p_value: float = 1.0
    questions: int = 0
    runs: int = 0


class Run(Domain):
    run_id: str
    state: RunState
    start_time: datetime | None = None
    end_time: datetime | None = None
    rounds_done: int = 0
    settings: Settings | None = None
    task_ids: tuple[str, ...] = ()
    edits_proposed: int = 0
    edits_accepted: int = 0
    edits_rejected: int = 0
    error: str = ""
    last_seq: int = 0
    start_version: str = ""
    live_version: str = ""
    base_holdout: Score | None = None
    live_holdout: Score | None = None
    retention_before: Score | None = None
    retention_after: Score | None = None
    ordered_by: str = ""


class Mark(Domain):
    """One item's answer, by digest, and its mark."""

    item_id: str
    answer: Sha256
    score: float


class Comparison(Domain):
    """One item before and after an update."""

    item_id: str
    task_id: str = ""
    suite_id: str = ""
    split: Split
    before: Sha256
    after: Sha256
    score_before: float
    score_after: float


class ProtectedAnswer(Domain):
    """The answers to a protected behaviour's question before and after an update, by digest. question: 1, 2, ..."""

    rule: str
    question: int
    before: Sha256
    after: Sha256
    breach: str = ""


class NamedPayload(Domain):
    """A task or suite of a run, kept as a payload."""

    name: str
    payload: Sha256
    document_id: str = ""
    revision: str = ""
