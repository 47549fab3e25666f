"""What operators watch: rewards, verdicts, retention, the live version, the ledger's head. Projections of the ledger.

`observe` is given every event once, in order, also those from before a restart; auditor/projections.py calls it.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from auditor import events as e
from auditor.findings import Score
from auditor.ledger.chain import Link
from auditor.tasks import Split

SHARES = (-1.0, -0.5, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)

REWARD = Histogram("seal_reward", "Gain of edits on their reward questions, mean over seeds.", buckets=SHARES)
CONFIRMATION = Histogram("seal_confirmation", "Gain of updates on their holdout questions.", buckets=SHARES)
REWARD_GAP = Gauge("seal_reward_gap", "Mean reward minus mean confirmation of the newest round; grows when gamed.")
EDITS = Counter("seal_edits", "Edits by verdict and the gate that decided.", ["verdict", "gate"])
CANDIDATES_FAILED = Counter("seal_candidates_failed", "Candidates that could not be trained or proven live.")
RETENTION = Gauge("seal_retention", "Share of a suite that the newest scored version answers.", ["suite"])
FORGOTTEN = Counter("seal_forgotten", "Retention questions right before and wrong after a judged update.")
CROSS_SPLIT_GAP = Gauge(
    "seal_cross_split_gap", "Newest audited update: gain on the reward questions minus that of its trials there."
)
TRAININGS_SAVED = Counter("seal_trainings_saved", "Trial trainings that racing did not have to make.")
ANCHORS_CHANGED = Gauge("seal_anchors_changed", "Anchor questions that the base answers otherwise than at first.")
FORGETTING = Gauge("seal_forgetting", "Average forgetting of the live lineage, as a share of holdout questions.")
RUNS = Counter("seal_runs", "Runs by how they ended.", ["state"])
LIVE = Gauge("seal_live_generation", "Generation of the live alias when it was last moved or found.")
PROMOTIONS = Counter("seal_promotions", "Moves of the live alias.", ["kind"])
FEEDBACK_BITS = Gauge("seal_feedback_bits", "Most that the newest round can tell the teacher of tau, in bits.")
LEDGER_SEQ = Gauge("seal_ledger_seq", "Number of the ledger's newest event.")
# The chain's head is text; its first 48 bits fit a float exactly and betray a cut-off tail as well.
LEDGER_HEAD = Gauge("seal_ledger_head", "First 12 hexadecimal digits of the newest event's hash, as a number.")


def observe(link: Link, event: e.Event) -> None:
    """Moves the metrics by one event."""
    LEDGER_SEQ.set(link.seq)
    LEDGER_HEAD.set(int(link.hash[:12], 16))
    _tried(event)
    match event:
        case e.VersionScored() if event.split is Split.RETENTION and event.suite_id:
            RETENTION.labels(event.suite_id).set(event.score.mean)
        # Beside a move that was not made stands a copy of the judgement that led to it.
        case e.UpdateJudged() if not (link.step or "").endswith("/promote"):
            _judged(event)
        case e.VersionPromoted():
            LIVE.set(event.generation)
            PROMOTIONS.labels("rollback" if event.rollback else "promotion").inc()
            EDITS.labels("accepted", "").inc(0 if event.rollback else len(event.edits))
        case e.LiveFound():
            LIVE.set(event.generation)
        case e.AnchorsMeasured():
            ANCHORS_CHANGED.set(event.changed)
        case e.SplitsSwapped():
            CROSS_SPLIT_GAP.set(event.gain_on_reward - event.reward)
        case e.PolicyLearned() if event.record.feedback_bits is not None:
            FEEDBACK_BITS.set(event.record.feedback_bits)
        case e.RoundFinished():
            if event.confirmed:
                REWARD_GAP.set(event.mean_reward - event.mean_confirmation)
        case e.RunFinished() | e.RunFailed() | e.RunCancelled():
            RUNS.labels(event.kind.removeprefix("run_")).inc()


def _tried(event: e.Event) -> None:
    """From proposal to filter."""
    match event:
        case e.EditScreened() if not event.gate.passed:
            _rejected(event.gate.kind.value)
        case e.CandidateFailed():
            CANDIDATES_FAILED.inc()
        case e.CandidatesRaced():
            TRAININGS_SAVED.inc(event.trainings_saved)
        case e.FilterDecided():
            for verdict in event.verdicts:
                REWARD.observe(verdict.gain)
                if not verdict.kept:
                    _rejected("GATE_KIND_REWARD")


def _judged(event: e.UpdateJudged) -> None:
    """The reward is compared with the confirmation of the whole update; the rest counts once, when it is decided."""
    if event.holdout_after.questions and event.scale == 1:
        CONFIRMATION.observe(event.holdout_after.mean - event.holdout_before.mean)
    if not event.final:
        return
    FORGOTTEN.inc(sum(item.score_before > item.score_after for item in event.record.retention))
    suites: dict[str, Score] = {}
    for item in event.record.retention:
        if item.suite_id:
            one = Score(questions=1, correct=item.score_after)
            suites[item.suite_id] = suites.get(item.suite_id, Score()) + one
    for suite, score in suites.items():
        RETENTION.labels(suite).set(score.mean)
    failed = next((gate for gate in event.gates if not gate.passed), None)
    for _ in event.edits if failed else ():
        _rejected(failed.kind.value if failed else "")


def _rejected(kind: str) -> None:
    EDITS.labels("rejected", kind.removeprefix("GATE_KIND_").lower()).inc()
