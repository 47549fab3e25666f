"""What Prometheus sees of the student. Labels are outcomes, purposes and alias names, never ids."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from common.lora.proof import Liveness
from common.metrics import UNKNOWN, show_only, shown
from common.versions import Alias

CANDIDATES = Counter("seal_student_candidates", "Candidates trained, reused or failed.", ["outcome"])
TRAINED_TOKENS = Counter("seal_student_trained_tokens", "Tokens of training examples that were trained on.")
PADDING_SHARE = Gauge(
    "seal_student_padding_share", "Share of padding among what attention computed in the last training."
)
TRAINING_SPEED = Gauge("seal_student_training_tokens_per_second", "Tokens a second of the updates under way, together.")
TRAINING_LOSS = Gauge("seal_student_training_loss", "Mean loss a counted token of the last update.", ["epoch"])
TRAINING_SECONDS = Histogram(
    "seal_student_training_seconds", "Time of one candidate's update.", buckets=(1, 3, 10, 30, 60, 120, 300, 900, 3600)
)
ANSWERS = Counter("seal_student_answers", "Answers given.", ["purpose", "finish"])
EMPTY_ANSWERS = Counter("seal_student_empty_answers", "Answers without a word, before any fallback.", ["purpose"])
FALLBACK_ANSWERS = Counter(
    "seal_student_fallback_answers", "Answers with the words of an older version, for empty ones.", ["purpose"]
)
ANSWER_TOKENS = Counter("seal_student_answer_tokens", "Tokens of answers.")
PROOFS = Counter("seal_student_liveness_proofs", "Liveness proofs by what they found.", ["liveness"])
ALIAS_GENERATION = Gauge("seal_student_alias_generation", "How often an alias was moved.", ["alias"])
LIVE_VERSION = Gauge("seal_student_live_version_info", "1; the live version as this replica sees it.", ["version"])
QUEUE = Gauge("seal_student_queue", "Pieces of model work that wait for their turn.")
RESIDENT_ADAPTERS = Gauge("seal_student_resident_adapters", "Adapters attached to the base.")

PADDING_SHARE.set(UNKNOWN)


def saw(alias: Alias) -> None:
    """Notes where an alias points, as this replica finds it."""
    ALIAS_GENERATION.labels(alias.name).set(alias.generation)
    if alias.name == "live":
        show_only(LIVE_VERSION, shown(alias.version))


def begin_at_zero() -> None:
    """A counter that appears with the first bad proof would show no increase."""
    for liveness in Liveness:
        PROOFS.labels(liveness.removeprefix("LIVENESS_").lower())
    for purpose in ("audit", "live"):
        EMPTY_ANSWERS.labels(purpose)
        FALLBACK_ANSWERS.labels(purpose)
    for outcome in ("trained", "scaled", "reused", "failed"):
        CANDIDATES.labels(outcome)


begin_at_zero()
