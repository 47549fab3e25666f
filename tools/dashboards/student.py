"""The student: what it trains and how fast, what it answers, whether an adapter is what it says it is."""

from __future__ import annotations

from tools.dashboards.calls import calls
from tools.dashboards.panels import RATE, WINDOW, Bad, Board, Panel, Query, Row, Unit, m, quantile

SERVING = Row(
    "What it serves",
    [
        Panel(
            "Live version, by replica",
            "What each replica believes to be live. Replicas agree again within a second of a move.",
            Unit.NUMBER,
            [Query(f"max by (version, instance) ({m('seal_student_live_version_info')})", "{{version}} {{instance}}")],
            kind="stat",
            named=True,
            width=12,
        ),
        Panel(
            "Live versions in use",
            "More than one means that replicas disagree.",
            Unit.NUMBER,
            [Query(f"count(count by (version) ({m('seal_student_live_version_info')}))", "versions")],
            kind="stat",
            bad=Bad(2, 3),
            width=4,
        ),
        Panel(
            "Adapters in memory",
            "Attached to the base of one process.",
            Unit.NUMBER,
            [Query(f"max({m('seal_student_resident_adapters')})", "adapters")],
            kind="stat",
            width=4,
        ),
        Panel(
            "Moves of live",
            "How often the alias was moved.",
            Unit.NUMBER,
            [Query(f"max({m('seal_student_alias_generation', alias='live')})", "moves")],
            kind="stat",
            width=4,
        ),
    ],
)
TRAINING = Row(
    "Training",
    [
        Panel(
            "Candidates",
            "Within the window, by outcome; reused: it was there already.",
            Unit.NUMBER,
            [Query(f"sum by (outcome) (increase({m('seal_student_candidates_total')}{WINDOW}))", "{{outcome}}")],
            least=0,
        ),
        Panel(
            "Time of one update",
            "Half and 95 of 100 of those within the window.",
            Unit.SECONDS,
            [
                Query(quantile(0.5, "seal_student_training_seconds"), "median"),
                Query(quantile(0.95, "seal_student_training_seconds"), "95 of 100"),
            ],
            least=0,
        ),
        Panel(
            "Training speed",
            "Tokens a second of the updates under way, together; the newest figure stays when they end.",
            Unit.TOKENS_PER_SECOND,
            [Query(f"sum({m('seal_student_training_tokens_per_second')})", "tokens a second")],
            least=0,
        ),
        Panel(
            "Loss of the last update",
            "Mean loss of a counted token, of its first and its last epoch.",
            Unit.NUMBER,
            [Query(f"max by (epoch) ({m('seal_student_training_loss')})", "{{epoch}} epoch")],
            least=0,
        ),
        Panel(
            "Padding",
            "Share of padding among what attention computed in the last training: work for nothing.",
            Unit.SHARE,
            [Query(f"max({m('seal_student_padding_share')})", "padding")],
            least=0,
            most=1,
        ),
        Panel(
            "Waiting",
            "Pieces of model work that wait for their turn.",
            Unit.NUMBER,
            [Query(f"sum({m('seal_student_queue')})", "waiting")],
            least=0,
        ),
    ],
)
ANSWERING = Row(
    "Answering",
    [
        Panel(
            "Answers",
            "A second. Purpose live is users', audit is the auditor's.",
            Unit.PER_SECOND,
            [Query(f"sum by (purpose) (rate({m('seal_student_answers_total')}{RATE}))", "{{purpose}}")],
            least=0,
        ),
        Panel(
            "Answers without a word",
            "Share of the answers within the window, by purpose.",
            Unit.SHARE,
            [
                Query(
                    f"sum by (purpose) (increase({m('seal_student_empty_answers_total')}{WINDOW}))"
                    f" / sum by (purpose) (increase({m('seal_student_answers_total')}{WINDOW}))",
                    "{{purpose}}",
                )
            ],
            bad=Bad(0.02, 0.1),
            least=0,
        ),
        Panel(
            "Tokens of answers",
            "A second.",
            Unit.TOKENS_PER_SECOND,
            [Query(f"sum(rate({m('seal_student_answer_tokens_total')}{RATE}))", "tokens a second")],
            least=0,
        ),
        Panel(
            "How answers ended",
            "Within the window: at an end of the text, or at the longest that was allowed.",
            Unit.NUMBER,
            [Query(f"sum by (finish) (increase({m('seal_student_answers_total')}{WINDOW})) > 0", "{{finish}}")],
            kind="bars",
            width=12,
        ),
        Panel(
            "Proofs of liveness",
            "Within the window, by what they found. invalid: an adapter was not what it said; inert: it changed"
            " nothing.",
            Unit.NUMBER,
            [Query(f"sum by (liveness) (increase({m('seal_student_liveness_proofs_total')}{WINDOW}))", "{{liveness}}")],
            kind="bars",
            width=12,
        ),
    ],
)
DASHBOARD = Board(
    "seal-student",
    "SEAL: student",
    "What the student trains, serves and answers.",
    [SERVING, TRAINING, ANSWERING, calls("seal.v1.StudentService")],
)
