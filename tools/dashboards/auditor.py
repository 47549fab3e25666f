"""The auditor: runs, verdicts, how sure they are, judges, and the ledger."""

from __future__ import annotations

from tools.dashboards.calls import calls
from tools.dashboards.panels import WINDOW, Bad, Board, Panel, Query, Row, Unit, m, quantile

RUNS = Row(
    "Runs",
    [
        Panel(
            "Runs by how they ended",
            "In all.",
            Unit.NUMBER,
            [Query(f"sum by (state) ({m('seal_runs_total')})", "{{state}}")],
            kind="bars",
        ),
        Panel(
            "Waiting and under way",
            "Runs in the queue, and whether one is under way.",
            Unit.NUMBER,
            [
                Query(f"sum({m('seal_queue')})", "waiting"),
                Query(f"max({m('seal_run_active')})", "under way"),
            ],
            least=0,
        ),
        Panel(
            "Since the last progress",
            "Time since a run last got further. It grows while none is under way; with one, it should not.",
            Unit.SECONDS,
            [Query(f"time() - max({m('seal_run_last_progress_timestamp_seconds')})", "since the last progress")],
            least=0,
        ),
        Panel(
            "Moves of live",
            "In all: promotions, rollbacks, and moves that the ledger had not made.",
            Unit.NUMBER,
            [Query(f"sum by (kind) ({m('seal_promotions_total')})", "{{kind}}")],
            kind="bars",
            width=12,
        ),
        Panel(
            "Trainings",
            "Candidates that failed, and trainings that racing did not have to make, within the window.",
            Unit.NUMBER,
            [
                Query(f"sum(increase({m('seal_candidates_failed_total')}{WINDOW}))", "failed"),
                Query(f"sum(increase({m('seal_trainings_saved_total')}{WINDOW}))", "saved by racing"),
            ],
            width=12,
            least=0,
        ),
    ],
)
VERDICTS = Row(
    "Verdicts",
    [
        Panel(
            "Verdicts",
            "Edits within the window, accepted and rejected by gate.",
            Unit.NUMBER,
            [
                Query(
                    f"sum by (verdict, gate) (increase({m('seal_edits_total')}{WINDOW})) > 0",
                    "{{verdict}}: {{gate}}",
                )
            ],
            kind="bars",
        ),
        Panel(
            "Rewards",
            "Gain of edits on their reward questions within the window: worst tenth, median, best tenth.",
            Unit.SHARE,
            [
                Query(quantile(0.1, "seal_reward"), "worst tenth"),
                Query(quantile(0.5, "seal_reward"), "median"),
                Query(quantile(0.9, "seal_reward"), "best tenth"),
            ],
        ),
        Panel(
            "Confirmations",
            "Gain of updates on their holdout questions within the window: worst tenth, median, best tenth.",
            Unit.SHARE,
            [
                Query(quantile(0.1, "seal_confirmation"), "worst tenth"),
                Query(quantile(0.5, "seal_confirmation"), "median"),
                Query(quantile(0.9, "seal_confirmation"), "best tenth"),
            ],
        ),
        Panel(
            "How sure rewards are",
            "Share of reward questions that two trainings of one edit with other seeds mark alike, in the newest task.",
            Unit.SHARE,
            [Query(f"max({m('seal_reward_agreement')})", "agreement")],
            bad=Bad(0.8, 0.6, below=True),
            least=0,
            most=1,
        ),
        Panel(
            "Gap between the halves",
            "Newest audited update: gain on the reward questions minus that of its trials there.",
            Unit.SHARE,
            [Query(f"max({m('seal_cross_split_gap')})", "halves swapped")],
        ),
        Panel(
            "Told to the teacher",
            "What the kept edits of the newest round may have told the teacher about its questions, at most.",
            Unit.BITS,
            [Query(f"max({m('seal_feedback_bits')})", "bits")],
            least=0,
        ),
    ],
)
JUDGES = Row(
    "Judges",
    [
        Panel(
            "Requests to judges",
            "Within the window, by what came of them.",
            Unit.NUMBER,
            [
                Query(
                    f"sum by (judge, outcome) (increase({m('seal_judge_calls_total')}{WINDOW}))",
                    "{{judge}}: {{outcome}}",
                )
            ],
            width=6,
            least=0,
        ),
        Panel(
            "Tokens of judges",
            "Read and written within the window.",
            Unit.NUMBER,
            [Query(f"sum by (judge, kind) (increase({m('seal_judge_tokens_total')}{WINDOW}))", "{{judge}}: {{kind}}")],
            width=6,
            least=0,
        ),
        Panel(
            "Cost of judges",
            "Within the window, at the prices in the settings.",
            Unit.COST,
            [Query(f"sum by (judge) (increase({m('seal_judge_cost_total')}{WINDOW}))", "{{judge}}")],
            width=6,
            least=0,
        ),
        Panel(
            "Judges against the contains grader",
            "New verdicts within the window that a search for the key's words does not share.",
            Unit.NUMBER,
            [
                Query(
                    f"sum by (judge, verdict) (increase({m('seal_judge_disagreements_total')}{WINDOW}))",
                    "{{judge}} says {{verdict}}",
                )
            ],
            width=6,
            least=0,
        ),
    ],
)
LEDGER = Row(
    "Ledger",
    [
        Panel(
            "Intact",
            "What the newest check of the whole hash chain found.",
            Unit.BOOLEAN,
            [Query(f"min({m('seal_ledger_intact')})", "intact")],
            kind="stat",
            bad=Bad(1, 1, below=True),
            width=6,
        ),
        Panel(
            "Since the whole chain was checked",
            "Checked at every start and by every `seal verify`.",
            Unit.SECONDS,
            [Query(f"time() - max({m('seal_ledger_last_verified_timestamp_seconds')})", "since the check")],
            kind="stat",
            width=6,
        ),
        Panel(
            "Newest event",
            "Its number.",
            Unit.NUMBER,
            [Query(f"max({m('seal_ledger_seq')})", "events")],
            kind="stat",
            width=6,
        ),
        Panel(
            "Head",
            "First 48 bits of the newest event's hash, as a number: compare it with a copy kept elsewhere.",
            Unit.NUMBER,
            [Query(f"max({m('seal_ledger_head')})", "head")],
            kind="stat",
            width=6,
        ),
    ],
)
DASHBOARD = Board(
    "seal-auditor",
    "SEAL: auditor",
    "Runs, verdicts, judges and the ledger.",
    [RUNS, VERDICTS, JUDGES, LEDGER, calls("seal.v1.AuditorService")],
)
