"""What Prometheus sees of the teacher. Labels are variants, outcomes and reasons, never ids."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

EDITS = Counter("seal_teacher_edits", "Edits written or failed.", ["variant", "outcome"])
EXAMPLES = Histogram(
    "seal_teacher_edit_examples",
    "Training examples of an edit.",
    buckets=(1, 2, 5, 10, 20, 30, 50, 100, 200, 500, 1_000),
)
SCREENED_OUT = Counter("seal_teacher_screened_out", "Pieces of completions that may not teach.", ["reason"])
COMPLETION_TOKENS = Counter("seal_teacher_completion_tokens", "Tokens that the model wrote.")
PROPOSE_SECONDS = Histogram(
    "seal_teacher_propose_seconds",
    "Time from the start of generation to an edit.",
    buckets=(1, 2, 5, 10, 20, 30, 60, 120, 300, 900),
)
LEARN_SECONDS = Histogram(
    "seal_teacher_learn_seconds", "Time of an M-step.", buckets=(5, 15, 30, 60, 120, 300, 900, 3600, 14400)
)
LEARN_LOSS = Gauge("seal_teacher_learn_loss", "Mean loss per completion token of the last M-step.", ["epoch"])
POLICIES = Gauge("seal_teacher_policies", "Policy versions in the store.")
POLICY_GENERATION = Gauge("seal_teacher_policy_generation", "How often the policy in use was changed.")
POLICY = Gauge("seal_teacher_policy_info", "1; the policy in use.", ["policy"])
QUEUE = Gauge("seal_teacher_queue", "Proposals and M-steps that wait for their turn.")
