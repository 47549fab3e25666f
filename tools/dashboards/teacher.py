"""The teacher: what it writes, how fast, what its own screen turns away, and what it learns."""

from __future__ import annotations

from tools.dashboards.calls import calls
from tools.dashboards.panels import RATE, WINDOW, Board, Panel, Query, Row, Unit, m, mean, quantile

WRITING = Row(
    "Writing edits",
    [
        Panel(
            "Edits written and failed",
            "Within the window, by prompt variant and outcome.",
            Unit.NUMBER,
            [
                Query(
                    f"sum by (variant, outcome) (increase({m('seal_teacher_edits_total')}{WINDOW}))",
                    "{{variant}}: {{outcome}}",
                )
            ],
            least=0,
        ),
        Panel(
            "Time to an edit",
            "From the start of generation, half and 95 of 100 of the edits within the window.",
            Unit.SECONDS,
            [
                Query(quantile(0.5, "seal_teacher_propose_seconds"), "median"),
                Query(quantile(0.95, "seal_teacher_propose_seconds"), "95 of 100"),
            ],
            least=0,
        ),
        Panel(
            "Examples of an edit",
            "Mean number of training examples of the edits within the window.",
            Unit.NUMBER,
            [Query(mean("seal_teacher_edit_examples"), "examples")],
            least=0,
        ),
        Panel(
            "Tokens written",
            "A second. A backend that stands still shows 0 while edits wait.",
            Unit.TOKENS_PER_SECOND,
            [Query(f"sum(rate({m('seal_teacher_completion_tokens_total')}{RATE}))", "tokens a second")],
            least=0,
        ),
        Panel(
            "Turned away by the teacher's own screen",
            "Pieces of completions that may not teach, since the teacher started, by reason.",
            Unit.NUMBER,
            [Query(f"sum by (reason) ({m('seal_teacher_screened_out_total')}) > 0", "{{reason}}")],
            kind="bars",
        ),
        Panel(
            "Waiting",
            "Proposals and M-steps that wait for their turn at the model.",
            Unit.NUMBER,
            [Query(f"sum({m('seal_teacher_queue')})", "waiting")],
            least=0,
        ),
    ],
)
LEARNING = Row(
    "Learning from kept edits",
    [
        Panel(
            "Policy in use",
            "First digits of the policy; base has learned nothing.",
            Unit.NUMBER,
            [Query(f"max by (policy) ({m('seal_teacher_policy_info')})", "{{policy}}")],
            kind="stat",
            named=True,
        ),
        Panel(
            "Policies in the store",
            "All can be gone back to.",
            Unit.NUMBER,
            [Query(f"max({m('seal_teacher_policies')})", "policies")],
            kind="stat",
        ),
        Panel(
            "Changes of the policy",
            "How often the policy in use was changed.",
            Unit.NUMBER,
            [Query(f"max({m('seal_teacher_policy_generation')})", "changes")],
            kind="stat",
        ),
        Panel(
            "Loss of the last M-step",
            "Mean loss per completion token, of its first and its last epoch.",
            Unit.NUMBER,
            [Query(f"max by (epoch) ({m('seal_teacher_learn_loss')})", "{{epoch}} epoch")],
            width=12,
            least=0,
        ),
        Panel(
            "Time of M-steps",
            "Median of those within the window.",
            Unit.SECONDS,
            [Query(quantile(0.5, "seal_teacher_learn_seconds"), "median")],
            width=12,
            least=0,
        ),
    ],
)
DASHBOARD = Board(
    "seal-teacher",
    "SEAL: teacher",
    "What the teacher writes, how fast, and what it learns.",
    [WRITING, LEARNING, calls("seal.v1.TeacherService")],
)
