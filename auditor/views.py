"""What the projections of the ledger hold: one object a run, an edit, a version.

Only auditor/projections.py changes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from auditor.events import EditProposed, UpdateJudged, VersionPromoted
from auditor.findings import EditVerdict, Gate, GateKind, NamedPayload, Run, RunState, Score
from auditor.requests import EditState
from auditor.tasks import Settings
from common.types import Digest, Domain, Software


class LedgerReference(Domain):
    """A line of the ledger."""

    seq: int
    time: datetime
    type: str
    hash: str


class EditSummary(Domain):
    edit: Digest
    run_id: str
    round: int
    task_id: str
    state: EditState
    reason: str = ""
    gain: float = 0.0
    examples: int = 0
    prompt_variant: str = ""
    policy_version: str = ""
    create_time: datetime


class TaskScore(Domain):
    task_id: str
    score: Score


class Forgetting(Domain):
    """Of the live lineage. Means over `tasks`: those that were asked again after they had been learned."""

    tasks: int = 0
    average_forgetting: float = 0.0
    backward_transfer: float = 0.0


class LineageEntry(Domain):
    version: str
    parent_version: str = ""
    number: int = 0
    promote_time: datetime | None = None
    live: bool = False
    previous: bool = False
    edits: tuple[Digest, ...] = ()
    task_ids: tuple[str, ...] = ()
    holdout: Score | None = None
    retention: Score | None = None
    run_id: str = ""
    rolled_back: bool = False
    task_scores: tuple[TaskScore, ...] = ()


@dataclass
class RunView:
    """A run so far."""

    run_id: str
    seq: int
    content: str
    settings: Settings
    tasks: tuple[NamedPayload, ...]
    suites: tuple[NamedPayload, ...]
    ordered_by: str = ""
    state: RunState = RunState.QUEUED
    start_time: datetime | None = None
    end_time: datetime | None = None
    rounds_done: int = 0
    error: str = ""
    last_seq: int = 0
    start_version: str = ""
    live_version: str = ""
    config_sha256: str = ""
    software: Software = field(default_factory=Software)
    finished: Run | None = None

    @property
    def ended(self) -> bool:
        return self.state in (RunState.FINISHED, RunState.FAILED, RunState.CANCELLED)


@dataclass
class EditView:
    """An edit of a round: what was proposed, and everything that was found out about it."""

    proposed: EditProposed
    run_id: str
    seq: int
    time: datetime
    state: EditState = EditState.PROPOSED
    reason: str = ""
    gain: float = 0.0
    composed_of: tuple[Digest, ...] = ()
    # Of what is long, numbers of the events that hold it; provenance.py reads them.
    versions: list[tuple[str, int]] = field(default_factory=list)
    scored: list[int] = field(default_factory=list)
    verdict: EditVerdict | None = None
    gates: list[Gate] = field(default_factory=list)
    # Digest of what the policy model said, if it read the edit.
    said: str = ""
    judged: UpdateJudged | None = None
    judged_seq: int = 0
    accepted_version: str = ""
    decided_by: str = ""
    references: list[LedgerReference] = field(default_factory=list)

    @property
    def sha256(self) -> str:
        return self.proposed.edit.sha256

    @property
    def summary(self) -> EditSummary:
        proposed = self.proposed
        return EditSummary(
            edit=proposed.edit,
            run_id=self.run_id,
            round=proposed.round,
            task_id=proposed.task_id,
            state=self.state,
            reason=self.reason,
            gain=self.gain,
            examples=proposed.examples,
            prompt_variant=proposed.prompt_variant,
            policy_version=proposed.policy_version,
            create_time=self.time,
        )

    def reject(self, kind: GateKind, reason: str) -> None:
        self.state = EditState.REJECTED
        self.reason = f"{kind.value.removeprefix('GATE_KIND_').lower()}: {reason}"


@dataclass(frozen=True)
class OpenMove:
    """A move of live that was intended, and the event that is missing if it was made."""

    run_id: str
    step: str
    made: VersionPromoted


@dataclass
class VersionView:
    """An adapter that the ledger knows: what it came from, and whether it was ever live."""

    version: str
    parent: str
    run_id: str
    trained_edit: Digest | None
    edits: tuple[Digest, ...]
    task_ids: tuple[str, ...]
    judged: UpdateJudged | None = None
    number: int = 0
    promote_time: datetime | None = None
    replaced: str = ""
