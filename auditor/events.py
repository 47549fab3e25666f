"""The events of a run: mirrors of auditor.proto's RunEvent messages, and what the ledger alone keeps beside them.

An event's `record` is written into the ledger and never sent to a watcher. Payloads (questions, keys, edits, answers)
are named there by digest; none stands in an event itself.
"""

from __future__ import annotations

from typing import ClassVar

from auditor.findings import Comparison, EditVerdict, Gate, Mark, NamedPayload, ProtectedAnswer, Run, Score
from auditor.peers import Policy
from auditor.tasks import Settings, Split
from common.lora.proof import Liveness, LivenessProof
from common.types import Digest, Domain, Progress, Sha256, Software
from common.versions import Replay, TrainLimits, Version


class Event(Domain):
    """Base of all events; `kind` is the field of RunEvent that carries it."""

    kind: ClassVar[str]


class RunRequested(Event):
    """A run was ordered. Not for watchers."""

    kind: ClassVar[str] = "run_requested"
    settings: Settings
    content: Sha256
    tasks: tuple[NamedPayload, ...]
    suites: tuple[NamedPayload, ...] = ()
    # Empty in ledgers from before callers had identities.
    ordered_by: str = ""


class PayloadErased(Event):
    """The tombstone of a payload. Not for watchers."""

    kind: ClassVar[str] = "payload_erased"
    payload: Sha256
    decided_by: str
    reason: str


class EditDecided(Event):
    """An operator approved or rejected an edit. Not for watchers."""

    kind: ClassVar[str] = "edit_decided"
    edit: Sha256
    run: str
    approved: bool
    decided_by: str
    reason: str
    content: Sha256


class RunStarted(Event):
    class Record(Domain):
        student: str
        limits: TrainLimits
        can_learn: bool
        # Digest of the rules in force; ledgers from before rules had a file say what was forbidden.
        rules: str = ""
        forbidden: tuple[str, ...] = ()
        # PolicyModel.identity; empty: none.
        policy_model: str = ""
        max_kept_per_context: int = 10
        reward_levels: int = 0
        teacher_software: Software = Software()
        student_software: Software = Software()
        auditor_software: Software = Software()

    kind: ClassVar[str] = "run_started"
    tasks: int
    rounds: int
    candidates: int
    seeds: int
    config_sha256: str
    start_version: str
    policy_version: str
    reward_questions: int
    holdout_questions: int
    record: Record


class RunResumed(Event):
    kind: ClassVar[str] = "run_resumed"
    from_seq: int


class RoundStarted(Event):
    kind: ClassVar[str] = "round_started"
    round: int
    parent_version: str
    policy_version: str


class VersionScored(Event):
    class Record(Domain):
        marks: tuple[Mark, ...]
        proof: LivenessProof | None = None

    kind: ClassVar[str] = "version_scored"
    version: str
    task_id: str = ""
    suite_id: str = ""
    split: Split
    score: Score
    cached: bool = False
    purpose: str
    record: Record


class EditProposed(Event):
    class Record(Domain):
        origin: str
        context: Digest
        title: str
        seed: int

    kind: ClassVar[str] = "edit_proposed"
    round: int
    task_id: str
    edit: Digest
    index: int
    examples: int
    prompt_variant: str
    policy_version: str
    record: Record


class ProposalFailed(Event):
    kind: ClassVar[str] = "proposal_failed"
    round: int
    task_id: str
    index: int
    reason: str


class EditScreened(Event):
    """An edit that a gate before training turned away, or one that a policy model read and let through."""

    class Record(Domain):
        # What the policy model gave as its reason, if it read the edit.
        said: str = ""

    kind: ClassVar[str] = "edit_screened"
    round: int
    task_id: str
    edit: Digest
    gate: Gate
    record: Record = Record()


class PolicyJudged(Event):
    """What the policy model said of an edit, once a run. Not for watchers, who get it as a gate.

    Its reason may quote the edit: a payload, so that it can be erased. Older ledgers have it in the event.
    """

    class Record(Domain):
        said: str = ""

    kind: ClassVar[str] = "policy_judged"
    edit: Sha256
    model: str
    allowed: bool
    reason: str = ""
    record: Record = Record()


class CandidateTrained(Event):
    kind: ClassVar[str] = "candidate_trained"
    round: int
    task_id: str
    edit: Digest
    seed: int
    version: Version
    reused: bool = False


class CandidateFailed(Event):
    kind: ClassVar[str] = "candidate_failed"
    round: int
    task_id: str
    edit: Digest
    seed: int
    reason: str


class CandidateScored(Event):
    class Record(Domain):
        comparisons: tuple[Comparison, ...]
        parent_version: str
        proof: LivenessProof | None = None

    kind: ClassVar[str] = "candidate_scored"
    round: int
    task_id: str
    edit: Digest
    seed: int
    version: str
    liveness: Liveness
    before: Score
    after: Score
    record: Record


class FilterDecided(Event):
    kind: ClassVar[str] = "filter_decided"
    round: int
    task_id: str
    verdicts: tuple[EditVerdict, ...] = ()


class CandidatesRaced(Event):
    kind: ClassVar[str] = "candidates_raced"
    round: int
    task_id: str
    seeds_done: int
    stopped: tuple[Digest, ...] = ()
    trainings_saved: int = 0


class AnchorsMeasured(Event):
    class Record(Domain):
        marks: tuple[Mark, ...] = ()
        repeated: tuple[Mark, ...] = ()

    kind: ClassVar[str] = "anchors_measured"
    first: Score
    now: Score
    repeated: Score
    changed: int = 0
    unstable: int = 0
    drifted: bool = False
    accepted: bool = False
    record: Record = Record()


class SplitsSwapped(Event):
    class Record(Domain):
        comparisons: tuple[Comparison, ...] = ()

    kind: ClassVar[str] = "splits_swapped"
    round: int
    version: str
    task_ids: tuple[str, ...]
    gain_on_reward: float = 0.0
    gain_on_holdout: float = 0.0
    reward: float = 0.0
    confirmation: float = 0.0
    record: Record = Record()


class WinnersPooled(Event):
    class Record(Domain):
        comparisons: tuple[Comparison, ...] = ()
        versions: tuple[Version, ...] = ()

    kind: ClassVar[str] = "winners_pooled"
    round: int
    edits: tuple[Digest, ...]
    task_ids: tuple[str, ...]
    before: Score = Score()
    after: Score = Score()
    gain: float = 0.0
    lower: float = -1.0
    p_value: float = 1.0
    level: float
    passed: bool = False
    record: Record = Record()


class UpdateTrained(Event):
    class Record(Domain):
        live_generation: int
        # The other fresh trainings that confirmation rests on.
        repeats: tuple[Version, ...] = ()
        replay: Replay | None = None
        left_out: tuple[Digest, ...] = ()
        examples: int = 0

    kind: ClassVar[str] = "update_trained"
    round: int
    edits: tuple[Digest, ...]
    trained_edit: Digest
    seed: int
    version: Version
    task_ids: tuple[str, ...]
    record: Record


class UpdateJudged(Event):
    class Record(Domain):
        holdout: tuple[Comparison, ...] = ()
        retention: tuple[Comparison, ...] = ()
        parent_version: str = ""
        retention_version: str = ""
        seed: int = 0
        task_ids: tuple[str, ...] = ()
        proof: LivenessProof | None = None
        protected: tuple[ProtectedAnswer, ...] = ()

    kind: ClassVar[str] = "update_judged"
    round: int
    version: str
    edits: tuple[Digest, ...]
    gates: tuple[Gate, ...]
    accepted: bool = False
    holdout_before: Score = Score()
    holdout_after: Score = Score()
    retention_before: Score = Score()
    retention_after: Score = Score()
    scale: float = 1.0
    next_scale: float = 0.0
    record: Record = Record()

    @property
    def final(self) -> bool:
        """Whether this judgement decides: no smaller scale is tried after it."""
        return self.next_scale == 0


class VersionPromoted(Event):
    class Record(Domain):
        content: str = ""
        request_id: str = ""

    kind: ClassVar[str] = "version_promoted"
    version: str
    previous_version: str
    generation: int
    edits: tuple[Digest, ...] = ()
    decided_by: str
    reason: str = ""
    rollback: bool = False
    record: Record = Record()


class MoveIntended(Event):
    """A move of live, before it is made: repeated after a kill it is the same move. Not for watchers.

    made: what is recorded once it is made, and step: what that completes. Older ledgers do not say.
    """

    kind: ClassVar[str] = "move_intended"
    version: str
    previous_version: str
    generation: int
    content: str
    step: str = ""
    made: VersionPromoted | None = None


class LiveFound(Event):
    """The student's live is where no recorded move leads. Not for watchers."""

    kind: ClassVar[str] = "live_found"
    version: str
    previous_version: str
    generation: int
    reason: str


class PolicyLearned(Event):
    """What the teacher was told of the round, and what it made of it."""

    class Record(Domain):
        # Most that this round's message, sent or not, can tell the teacher of tau; older ledgers do not say.
        feedback_bits: float | None = None
        # As they were sent, in the order of `edits`.
        rewards: tuple[float, ...] = ()

    kind: ClassVar[str] = "policy_learned"
    round: int
    policy: Policy | None = None
    edits: tuple[Digest, ...] = ()
    skipped: str = ""
    record: Record = Record()


class RoundFinished(Event):
    kind: ClassVar[str] = "round_finished"
    round: int
    live_version: str
    edits_proposed: int
    edits_kept: int
    mean_reward: float
    mean_confirmation: float
    trainings_saved: int = 0
    trainings_planned: int = 0
    confirmed: int = 0


class RunFinished(Event):
    kind: ClassVar[str] = "run_finished"
    run: Run


class RunFailed(Event):
    kind: ClassVar[str] = "run_failed"
    reason: str
    detail: str


class RunCancelled(Event):
    kind: ClassVar[str] = "run_cancelled"
    decided_by: str


class RunProgress(Event):
    """Never in the ledger."""

    kind: ClassVar[str] = "progress"
    phase: str
    round: int = 0
    task_id: str = ""
    progress: Progress | None = None


WATCHED: tuple[type[Event], ...] = (
    RunStarted,
    RoundStarted,
    VersionScored,
    EditProposed,
    EditScreened,
    CandidateTrained,
    CandidateFailed,
    CandidateScored,
    FilterDecided,
    UpdateTrained,
    UpdateJudged,
    VersionPromoted,
    PolicyLearned,
    RoundFinished,
    RunFinished,
    RunFailed,
    RunCancelled,
    RunResumed,
    ProposalFailed,
    CandidatesRaced,
    AnchorsMeasured,
    SplitsSwapped,
    WinnersPooled,
)
ALL: tuple[type[Event], ...] = (
    *WATCHED,
    RunRequested,
    PayloadErased,
    EditDecided,
    PolicyJudged,
    MoveIntended,
    LiveFound,
)
EVENTS: dict[str, type[Event]] = {cls.kind: cls for cls in ALL}
TERMINAL = frozenset({"run_finished", "run_failed", "run_cancelled"})
