"""Moves the ledger's metrics (auditor/metrics.py), event by event.

`observe` is given every event once, in order, also those from before a restart: auditor/projections.py calls it. What
an event alone does not say (which version is live, what it answered, how other trainings were marked) is kept here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from auditor import events as e
from auditor import metrics as m
from auditor.findings import Comparison, Gate, GateKind, Score
from auditor.ledger.chain import Link
from auditor.peers import BASE
from auditor.tasks import Split
from common.metrics import Bounded, show_only, shown

# Suites come with runs; of more than these none has a series of its own.
MAX_SUITES = 50
SuiteScores = dict[str, Score]


class Observer:
    """One per reading of the ledger."""

    def __init__(self) -> None:
        self._live = BASE
        self._moved = False
        self._suite = Bounded(MAX_SUITES)
        # What versions answered of suites, so that a move of live shows what is known of where it leads.
        self._retained: dict[str, SuiteScores] = defaultdict(dict)
        # Marks of each training of an edit, by run, round, task; forgotten once the task is filtered.
        self._trials: dict[tuple[str, int, str], dict[str, list[tuple[Comparison, ...]]]] = {}
        show_only(m.LIVE_VERSION, BASE)

    def observe(self, link: Link, event: e.Event) -> None:
        """Moves the metrics by one event."""
        m.LEDGER_SEQ.set(link.seq)
        m.LEDGER_HEAD.set(int(link.hash[:12], 16))
        if link.run_id:
            m.RUN_PROGRESS.set(link.time.timestamp())
        self._tried(link, event)
        self._moves(event)
        match event:
            case e.VersionScored() if event.split is Split.RETENTION and event.suite_id:
                self._answers(event.version, {event.suite_id: event.score})
            # Beside a move that was not made stands a copy of the judgement that led to it.
            case e.UpdateJudged() if not (link.step or "").endswith("/promote"):
                self._judged(event)
            case e.AnchorsMeasured():
                m.ANCHORS_CHANGED.set(event.changed)
            case e.SplitsSwapped():
                m.CROSS_SPLIT_GAP.set(event.gain_on_reward - event.reward)
            case e.PolicyLearned() if event.record.feedback_bits is not None:
                m.FEEDBACK_BITS.set(event.record.feedback_bits)
            case e.RoundFinished():
                if event.confirmed:
                    m.REWARD_GAP.set(event.mean_reward - event.mean_confirmation)
            case e.RunFinished() | e.RunFailed() | e.RunCancelled():
                m.RUNS.labels(event.kind.removeprefix("run_")).inc()
                self._trials = {place: marks for place, marks in self._trials.items() if place[0] != link.run_id}

    def _tried(self, link: Link, event: e.Event) -> None:
        """From proposal to filter."""
        match event:
            case e.EditScreened() if not event.gate.passed:
                _rejected(event.gate.kind)
            case e.CandidateFailed():
                m.CANDIDATES_FAILED.inc()
            case e.CandidateScored():
                trials = self._trials.setdefault((link.run_id, event.round, event.task_id), defaultdict(list))
                trials[event.edit.sha256].append(event.record.comparisons)
            case e.CandidatesRaced():
                m.TRAININGS_SAVED.inc(event.trainings_saved)
            case e.FilterDecided():
                for verdict in event.verdicts:
                    m.REWARD.observe(verdict.gain)
                    if not verdict.kept:
                        _rejected(GateKind.REWARD)
                trials = self._trials.pop((link.run_id, event.round, event.task_id), {})
                if (agreement := agreement_of(trials.values())) is not None:
                    m.REWARD_AGREEMENT.set(agreement)

    def _moves(self, event: e.Event) -> None:
        """Where live is, and how it came there."""
        match event:
            case e.RunStarted() if not self._moved:
                self._lives(event.start_version)
            case e.VersionPromoted():
                m.LIVE.set(event.generation)
                m.PROMOTIONS.labels(m.ROLLBACK if event.rollback else m.PROMOTION).inc()
                m.EDITS.labels(m.ACCEPTED, m.NO_GATE).inc(0 if event.rollback else len(event.edits))
                self._lives(event.version)
                self._moved = True
            case e.LiveFound():
                m.LIVE.set(event.generation)
                m.PROMOTIONS.labels(m.FOUND).inc()
                self._lives(event.version)
                self._moved = True

    def _lives(self, version: str) -> None:
        if version == self._live:
            return
        self._live = version
        show_only(m.LIVE_VERSION, shown(version))
        m.RETENTION.clear()
        self._show(self._retained[version])

    def _answers(self, version: str, scores: SuiteScores) -> None:
        self._retained[version] |= scores
        if version == self._live:
            self._show(scores)

    def _show(self, scores: SuiteScores) -> None:
        for suite, score in scores.items():
            m.RETENTION.labels(self._suite(suite)).set(score.mean)

    def _judged(self, event: e.UpdateJudged) -> None:
        """The reward is compared with the confirmation of the whole update; the rest counts once it is decided."""
        if event.holdout_after.questions and event.scale == 1:
            m.CONFIRMATION.observe(event.holdout_after.mean - event.holdout_before.mean)
        for gate in event.gates:
            _measured(gate)
        if not event.final:
            return
        m.FORGOTTEN.inc(sum(item.score_before > item.score_after for item in event.record.retention))
        self._answers(event.record.retention_version, suite_scores(event.record.retention, after=False))
        self._answers(event.version, suite_scores(event.record.retention, after=True))
        failed = next((gate for gate in event.gates if not gate.passed), None)
        for _ in event.edits if failed else ():
            _rejected(failed.kind if failed else GateKind.REWARD)


def _measured(gate: Gate) -> None:
    """What the gates on a version as a whole found, passed or not."""
    match gate.kind:
        case GateKind.DRIFT if "kl_per_token" in gate.figures:
            m.DRIFT.set(gate.figures["kl_per_token"])
            m.DRIFT_BOUND.set(gate.figures["max_drift"])
        case GateKind.DEGENERATE if gate.figures.get("answers"):
            m.EMPTY_ANSWER_SHARE.set(gate.figures["empty_after"] / gate.figures["answers"])


def suite_scores(comparisons: tuple[Comparison, ...], *, after: bool) -> SuiteScores:
    """Scores by suite, before or after an update."""
    found: SuiteScores = {}
    for item in comparisons:
        if item.suite_id:
            one = Score(questions=1, correct=item.score_after if after else item.score_before)
            found[item.suite_id] = found.get(item.suite_id, Score()) + one
    return found


def agreement_of(edits: Iterable[list[tuple[Comparison, ...]]]) -> float | None:
    """Of all pairs of trainings of one edit and all questions: the share marked alike. None without a pair."""
    alike = pairs = 0
    for trainings in edits:
        marks: dict[str, Counter[float]] = defaultdict(Counter)
        for comparisons in trainings:
            for item in comparisons:
                marks[item.item_id][item.score_after] += 1
        for counts in marks.values():
            pairs += _pairs(counts.total())
            alike += sum(_pairs(count) for count in counts.values())
    return alike / pairs if pairs else None


def _pairs(count: int) -> int:
    return count * (count - 1) // 2


def _rejected(kind: GateKind) -> None:
    m.EDITS.labels(m.REJECTED, m.gate_label(kind)).inc()
