"""What operators watch of the auditor: rewards, verdicts, retention, the live version, the ledger's head.

What stands in LEDGER is a projection of the ledger (auditor/observer.py moves it). It is exported only once the ledger
has been read: counters that grow from 0 while history is read again would look as if all of it had happened just now.
The rest is of this process: what waits, what is under way, what was checked.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.registry import Collector

from auditor.findings import GateKind
from auditor.ledger.chain import Verdict
from common.metrics import UNKNOWN

LEDGER = CollectorRegistry()
SHARES = (-1.0, -0.5, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)


def _unknown(name: str, meaning: str) -> Gauge:
    """A gauge of the ledger that says nothing until it was measured."""
    gauge = Gauge(name, meaning, registry=LEDGER)
    gauge.set(UNKNOWN)
    return gauge


REWARD = Histogram(
    "seal_reward", "Gain of edits on their reward questions, mean over seeds.", buckets=SHARES, registry=LEDGER
)
CONFIRMATION = Histogram(
    "seal_confirmation", "Gain of updates on their holdout questions.", buckets=SHARES, registry=LEDGER
)
REWARD_GAP = _unknown(
    "seal_reward_gap", "Mean reward minus mean confirmation of the newest round that confirmed any; grows when gamed."
)
REWARD_AGREEMENT = _unknown(
    "seal_reward_agreement",
    "Share of reward questions that two trainings of one edit with other seeds mark alike, newest filtered task.",
)
CROSS_SPLIT_GAP = _unknown(
    "seal_cross_split_gap", "Newest audited update: gain on the reward questions minus that of its trials there."
)
EDITS = Counter("seal_edits", "Edits by verdict and the gate that decided.", ["verdict", "gate"], registry=LEDGER)
CANDIDATES_FAILED = Counter(
    "seal_candidates_failed", "Candidates that could not be trained or proven live.", registry=LEDGER
)
TRAININGS_SAVED = Counter("seal_trainings_saved", "Trial trainings that racing did not have to make.", registry=LEDGER)
RETENTION = Gauge(
    "seal_retention", "Share of a suite that the live version answered when last asked.", ["suite"], registry=LEDGER
)
FORGOTTEN = Counter(
    "seal_forgotten", "Retention questions right before and wrong after a judged update.", registry=LEDGER
)
FORGETTING = _unknown("seal_forgetting", "Average forgetting of the live lineage, as a share of holdout questions.")
DRIFT = _unknown("seal_drift", "KL of the newest judged update from the base on anchor prompts, nats a token.")
DRIFT_BOUND = _unknown("seal_drift_bound", "What that may be at most, by the settings of its run.")
EMPTY_ANSWER_SHARE = _unknown("seal_empty_answer_share", "Share of empty answers of the newest judged update.")
ANCHORS_CHANGED = _unknown("seal_anchors_changed", "Anchor questions that the base answers otherwise than at first.")
RUNS = Counter("seal_runs", "Runs by how they ended.", ["state"], registry=LEDGER)
RUN_PROGRESS = _unknown("seal_run_last_progress_timestamp_seconds", "When a run last got further.")
LIVE = Gauge("seal_live_generation", "Generation of the live alias when it was last moved or found.", registry=LEDGER)
LIVE_VERSION = Gauge("seal_live_version_info", "1; the live version.", ["version"], registry=LEDGER)
PROMOTIONS = Counter("seal_promotions", "Moves of the live alias, or where it was found.", ["kind"], registry=LEDGER)
FEEDBACK_BITS = _unknown("seal_feedback_bits", "Most that the newest round can tell the teacher of tau, in bits.")
LEDGER_SEQ = Gauge("seal_ledger_seq", "Number of the ledger's newest event.", registry=LEDGER)
# The chain's head is text; its first 48 bits fit a float exactly and betray a cut-off tail as well.
LEDGER_HEAD = Gauge(
    "seal_ledger_head", "First 12 hexadecimal digits of the newest event's hash, as a number.", registry=LEDGER
)

QUEUE = Gauge("seal_queue", "Runs that wait for their turn.")
RUN_ACTIVE = Gauge("seal_run_active", "1 while a run is under way.")
LEDGER_INTACT = Gauge("seal_ledger_intact", "1 when the last check of the whole chain found nothing wrong.")
LEDGER_INTACT.set(UNKNOWN)
LEDGER_VERIFIED = Gauge("seal_ledger_last_verified_timestamp_seconds", "When the whole chain was last checked.")
LEDGER_VERIFIED.set(UNKNOWN)

ACCEPTED, REJECTED = "accepted", "rejected"
NO_GATE = "none"
ENDS = ("finished", "failed", "cancelled")
PROMOTION, ROLLBACK, FOUND = "promotion", "rollback", "found"


def gate_label(kind: GateKind) -> str:
    return kind.value.removeprefix("GATE_KIND_").lower()


def verified(verdict: Verdict) -> None:
    """Notes a check of the whole chain."""
    LEDGER_INTACT.set(verdict.intact)
    LEDGER_VERIFIED.set_to_current_time()


class _OnceRead(Collector):
    """The ledger's metrics among all others, from the moment on when the ledger has been read."""

    def __init__(self) -> None:
        self.read = False

    def collect(self) -> Iterable[Metric]:
        return LEDGER.collect() if self.read else ()


_ledger = _OnceRead()
REGISTRY.register(_ledger)


def ledger_was_read() -> None:
    """From now on the ledger's metrics are exported."""
    _ledger.read = True


def _begin_at_zero() -> None:
    """A counter that appears with its first rejection or failure would show no increase."""
    EDITS.labels(ACCEPTED, NO_GATE)
    for kind in GateKind:
        EDITS.labels(REJECTED, gate_label(kind))
    for state in ENDS:
        RUNS.labels(state)
    for move in (PROMOTION, ROLLBACK, FOUND):
        PROMOTIONS.labels(move)


_begin_at_zero()
