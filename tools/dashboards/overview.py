"""The first dashboard to look at: is the model learning, what does it forget, is anything stuck, what does it cost?"""

from __future__ import annotations

from tools.dashboards.panels import RATE, WINDOW, Bad, Board, Panel, Query, Row, Unit, m, quantile

NOW = Row(
    "Now",
    [
        Panel(
            "Live version",
            "First digits of the version that answers users; base is the model as it came.",
            Unit.NUMBER,
            [Query(f"max by (version) ({m('seal_live_version_info')})", "{{version}}")],
            kind="stat",
            named=True,
            width=4,
        ),
        Panel(
            "Teacher's policy",
            "First digits of the policy that writes edits; base has learned from none.",
            Unit.NUMBER,
            [Query(f"max by (policy) ({m('seal_teacher_policy_info')})", "{{policy}}")],
            kind="stat",
            named=True,
            width=4,
        ),
        Panel(
            "Edits accepted",
            "Edits that became part of the live model, in all.",
            Unit.NUMBER,
            [Query(f"sum({m('seal_edits_total', verdict='accepted')})", "accepted")],
            kind="stat",
            width=4,
        ),
        Panel(
            "Forgetting",
            "Holdout questions that some version of the live lineage answered best, and the live one answers worse:"
            " mean loss, as a share.",
            Unit.SHARE,
            [Query(f"max({m('seal_forgetting')})", "forgetting")],
            kind="stat",
            bad=Bad(0.1, 0.25),
            width=4,
        ),
        Panel(
            "Services ready",
            "Processes that answer their calls. Each of the three services has one at least.",
            Unit.NUMBER,
            [Query(f"sum({m('seal_ready')})", "ready")],
            kind="stat",
            bad=Bad(3, 2, below=True),
            width=4,
        ),
        Panel(
            "Run under way",
            "Whether the auditor works on a run.",
            Unit.BOOLEAN,
            [Query(f"max({m('seal_run_active')})", "run under way")],
            kind="stat",
            width=4,
        ),
    ],
)
REWARD = Row(
    "Reward: does an edit teach what it should?",
    [
        Panel(
            "Reward and confirmation",
            "Gain of edits on the questions that choose between them (reward), and of updates on questions that chose"
            " nothing (confirmation): medians and best tenths over the window.",
            Unit.SHARE,
            [
                Query(quantile(0.5, "seal_reward"), "reward, median"),
                Query(quantile(0.9, "seal_reward"), "reward, best tenth"),
                Query(quantile(0.5, "seal_confirmation"), "confirmation, median"),
            ],
        ),
        Panel(
            "Confirmation gap",
            "Mean reward minus mean confirmation of the newest round. When it grows, the reward is being gamed.",
            Unit.SHARE,
            [
                Query(f"max({m('seal_reward_gap')})", "reward minus confirmation"),
                Query(f"max({m('seal_cross_split_gap')})", "audited: halves swapped"),
            ],
            bad=Bad(0.2, 0.4),
        ),
        Panel(
            "Edits by verdict and gate",
            "Edits accepted, and rejected by the gate that decided, in all.",
            Unit.NUMBER,
            [Query(f"sum by (verdict, gate) ({m('seal_edits_total')}) > 0", "{{verdict}}: {{gate}}")],
            kind="bars",
        ),
    ],
)
FORGETTING = Row(
    "Forgetting: what does it cost the model?",
    [
        Panel(
            "Retention by suite",
            "Share of each suite that the live version answered when it was last asked.",
            Unit.SHARE,
            [Query(f"max by (suite) ({m('seal_retention')})", "{{suite}}")],
            least=0,
            most=1,
        ),
        Panel(
            "Forgetting",
            "Average forgetting of the live lineage on earlier holdout questions.",
            Unit.SHARE,
            [Query(f"max({m('seal_forgetting')})", "forgetting")],
            bad=Bad(0.1, 0.25),
            least=0,
        ),
        Panel(
            "Questions forgotten",
            "Retention questions that were right before and wrong after a judged update, within the window; also of"
            " updates that were rejected for it.",
            Unit.NUMBER,
            [Query(f"sum(increase({m('seal_forgotten_total')}{WINDOW}))", "forgotten")],
            least=0,
        ),
        Panel(
            "Drift from the base",
            "KL of the newest judged update from the bare base on anchor prompts, per token.",
            Unit.NATS,
            [Query(f"max({m('seal_drift')})", "drift")],
            least=0,
        ),
        Panel(
            "Empty answers",
            "Share of answers without a word: of the newest judged update, and of all that were given lately.",
            Unit.SHARE,
            [
                Query(f"max({m('seal_empty_answer_share')})", "newest update"),
                Query(
                    f"sum(increase({m('seal_student_empty_answers_total')}{WINDOW}))"
                    f" / sum(increase({m('seal_student_answers_total')}{WINDOW}))",
                    "all answers",
                ),
            ],
            bad=Bad(0.02, 0.1),
            least=0,
        ),
        Panel(
            "Anchors changed",
            "Questions that the bare base answers otherwise than at first. Above 0 the measuring itself has moved.",
            Unit.NUMBER,
            [Query(f"max({m('seal_anchors_changed')})", "anchors changed")],
            bad=Bad(1, 3),
            least=0,
        ),
    ],
)
OPERATION = Row(
    "Operation: is anything stuck, unsafe or expensive?",
    [
        Panel(
            "Queues",
            "What waits for its turn: runs at the auditor, proposals and M-steps at the teacher, model work at the"
            " student.",
            Unit.NUMBER,
            [
                Query(f"sum({m('seal_queue')})", "auditor: runs"),
                Query(f"sum({m('seal_teacher_queue')})", "teacher: proposals, M-steps"),
                Query(f"sum({m('seal_student_queue')})", "student: model work"),
            ],
            least=0,
        ),
        Panel(
            "What the time goes to",
            "Seconds spent in heavy phases since the services started. A phase counts when it ends.",
            Unit.SECONDS,
            [Query(f"sum by (phase) ({m('seal_phase_seconds_total')}) > 0", "{{phase}}")],
            kind="bars",
        ),
        Panel(
            "Calls that did not succeed",
            "Calls a second by the status that their callers got, over all services; none: all succeeded.",
            Unit.PER_SECOND,
            [
                Query(
                    f"(sum by (grpc_code) (rate({m('grpc_server_handled_total', grpc_code='!OK')}{RATE})) > 0)"
                    f" or label_replace(0 * sum(rate({m('grpc_server_handled_total')}{RATE})),"
                    " 'grpc_code', 'none', '', '')",
                    "{{grpc_code}}",
                )
            ],
            least=0,
        ),
        Panel(
            "Ledger intact",
            "What the newest check of the whole hash chain found.",
            Unit.BOOLEAN,
            [Query(f"min({m('seal_ledger_intact')})", "intact")],
            kind="stat",
            bad=Bad(1, 1, below=True),
            width=4,
        ),
        Panel(
            "Ledger's newest event",
            "Its number grows by one an event, and never falls.",
            Unit.NUMBER,
            [Query(f"max({m('seal_ledger_seq')})", "events")],
            kind="stat",
            width=4,
        ),
        Panel(
            "Certificates valid for",
            "The certificate that runs out first, by service: its own, or its authority's.",
            Unit.SECONDS,
            [Query(f"min by (job) ({m('seal_certificate_expiry_timestamp_seconds')}) - time()", "{{job}}")],
            kind="stat",
            bad=Bad(7 * 86400, 86400, below=True),
            width=8,
        ),
        Panel(
            "Judges' cost",
            "What judges cost within the window, at the prices in the settings.",
            Unit.COST,
            [Query(f"sum by (judge) (increase({m('seal_judge_cost_total')}{WINDOW}))", "{{judge}}")],
            kind="stat",
            width=4,
        ),
        Panel(
            "Told to the teacher",
            "What the kept edits of the newest round may have told the teacher about its questions, at most.",
            Unit.BITS,
            [Query(f"max({m('seal_feedback_bits')})", "bits")],
            kind="stat",
            width=4,
        ),
    ],
)
DASHBOARD = Board(
    "seal-overview",
    "SEAL: overview",
    "Reward and forgetting of a model that keeps itself up to date, and how the three services fare.",
    [NOW, REWARD, FORGETTING, OPERATION],
)
