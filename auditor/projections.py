"""Runs, edits and lineage as the ledger tells them. Nothing here is stored: it is recomputed from events at start.

Events are applied once and in order, when a reader asks for Views.current. Which edits are accepted follows from one
thing alone: the ancestry of the version that was promoted last.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import suppress

from auditor import events as e
from auditor import metrics
from auditor.findings import Comparison, EditVerdict, Gate, GateKind, Run, RunState, Score
from auditor.forgetting import forgetting
from auditor.ledger.chain import Link
from auditor.observer import Observer
from auditor.peers import BASE
from auditor.recorder import Recorder
from auditor.requests import EditState
from auditor.tasks import Split
from auditor.views import EditView, Forgetting, LedgerReference, OpenMove, RunView, VersionView
from auditor.watch import Watchers
from common.errors import NotFound, Unavailable
from common.types import Digest


class Projections:
    """The state that the ledger's events add up to."""

    def __init__(self) -> None:
        self.seq = 0
        self.head = ""
        self.runs: dict[str, RunView] = {}
        self.edits: list[EditView] = []
        self.composed: list[EditView] = []
        self.versions: dict[str, VersionView] = {}
        self.live = BASE
        self.previous = ""
        self.generation = 0
        # The run that last began to measure anew; empty if none did.
        self.epoch = ""
        # Holdout scores by version and task: the forgetting matrix.
        self.task_scores: dict[str, dict[str, Score]] = defaultdict(dict)
        # By the version and generation of live that each would lead to.
        self.open_moves: dict[tuple[str, int], OpenMove] = {}
        self.rejected_by: dict[tuple[str, str], str] = {}
        self._by_round: dict[tuple[str, int, str], list[EditView]] = defaultdict(list)
        self._known_decisions: dict[str, Link] = {}
        self._scores: dict[Score, Score] = {}
        self._observer = Observer()

    def run(self, run_id: str) -> RunView:
        try:
            return self.runs[run_id]
        except KeyError:
            raise NotFound("no such run", ids={"run_id": run_id}) from None

    def decision(self, step: str) -> Link | None:
        """The event of an operator's decision, by its step."""
        return self._known_decisions.get(step)

    def ancestry(self, version: str) -> Iterator[VersionView]:
        """A version, its parent, and so on; the base is not listed."""
        while (view := self.versions.get(version)) is not None:
            yield view
            version = view.parent

    def forgetting(self) -> Forgetting:
        """What the live lineage has forgotten."""
        return forgetting(list(self.ancestry(self.live)), self.task_scores)

    def run_as_event(self, run_id: str) -> Run:
        """The run as callers see it: while it goes on, as far as it is; then as it ended."""
        view = self.run(run_id)
        own = [edit for edit in self.edits if edit.run_id == run_id]
        if view.finished is not None:
            return view.finished.model_copy(update={"last_seq": view.last_seq, "ordered_by": view.ordered_by})
        return Run(
            run_id=run_id,
            state=view.state,
            start_time=view.start_time,
            end_time=view.end_time,
            rounds_done=view.rounds_done,
            settings=view.settings,
            task_ids=tuple(task.name for task in view.tasks),
            edits_proposed=len(own),
            edits_accepted=sum(bool(edit.accepted_version) for edit in own),
            edits_rejected=sum(edit.state is EditState.REJECTED for edit in own),
            error=view.error,
            last_seq=view.last_seq,
            start_version=view.start_version,
            live_version=view.live_version,
            ordered_by=view.ordered_by,
        )

    def apply(self, link: Link) -> None:
        """The next event. Types it has no use for still count."""
        self.seq, self.head = link.seq, link.hash
        event = e.EVENTS[link.type].model_validate(link.payload)
        self._observer.observe(link, event)
        if isinstance(event, e.RunRequested):
            self.runs[link.run_id] = RunView(
                link.run_id, link.seq, event.content, event.settings, event.tasks, event.suites, event.ordered_by
            )
        if link.run_id in self.runs:
            self.runs[link.run_id].last_seq = link.seq
            self._apply_to_run(self.runs[link.run_id], event, link)
        if link.step is not None and link.run_id == "":
            self._known_decisions[link.step] = link
        if isinstance(event, e.AnchorsMeasured) and event.accepted:
            self.epoch = link.run_id
        self._apply_to_edits(event, link)
        self._apply_to_versions(event, link)
        self._apply_to_scores(event)

    def _apply_to_run(self, run: RunView, event: e.Event, link: Link) -> None:
        match event:
            case e.RunStarted():
                run.state, run.start_time = RunState.RUNNING, link.time
                run.start_version = run.live_version = event.start_version
                run.config_sha256, run.software = event.config_sha256, event.record.auditor_software
                if not self.versions:
                    self.live = event.start_version
            case e.RoundFinished():
                run.rounds_done, run.live_version = event.round, event.live_version
            case e.RunFinished():
                run.state, run.finished = RunState.FINISHED, event.run
            case e.RunFailed():
                run.state, run.error = RunState.FAILED, f"{event.reason}: {event.detail}"
            case e.RunCancelled():
                run.state, run.error = RunState.CANCELLED, f"cancelled by {event.decided_by}"
        if run.ended:
            run.end_time = link.time

    def _apply_to_edits(self, event: e.Event, link: Link) -> None:
        match event:
            case e.EditProposed():
                view = EditView(event, link.run_id, link.seq, link.time)
                self.edits.append(view)
                self._by_round[link.run_id, event.round, event.edit.sha256].append(view)
                view.references.append(_reference(link))
            case e.EditScreened():
                self._screened(event, link)
            case e.CandidateTrained():
                for view in self._noted(link, event.round, [event.edit]):
                    view.versions.append((event.version.version, link.seq))
            case e.CandidateFailed():
                for view in self._noted(link, event.round, [event.edit]):
                    view.reject(GateKind.LIVENESS, event.reason)
            case e.CandidateScored():
                for view in self._noted(link, event.round, [event.edit]):
                    view.scored.append(link.seq)
            case e.FilterDecided():
                for verdict in event.verdicts:
                    for view in self._noted(link, event.round, [verdict.edit]):
                        self._filtered(view, verdict)

    def _screened(self, event: e.EditScreened, link: Link) -> None:
        """Of several equal edits the first went on, the later ones were turned away."""
        views = [v for v in self._about(link, event.round, [event.edit]) if v.state is EditState.PROPOSED]
        views = [v for v in views if v.proposed.task_id == event.task_id]
        for view in views[:1] if event.gate.passed else views[-1:]:
            view.gates.append(event.gate)
            view.said = event.record.said
            view.references.append(_reference(link))
            if not event.gate.passed:
                view.reject(event.gate.kind, event.gate.reason)

    def _apply_to_versions(self, event: e.Event, link: Link) -> None:
        match event:
            case e.CandidateTrained():
                self._know(event, link.run_id)
            case e.UpdateTrained():
                self._updated(event, link)
            case e.UpdateJudged():
                self._judged(event, link)
            case e.MoveIntended() if event.made is not None and event.version != event.previous_version:
                move = OpenMove(link.run_id, event.step, event.made)
                self.open_moves[event.made.version, event.made.generation] = move
            case e.VersionPromoted() | e.LiveFound():
                self._moved(event, link)
            case e.EditDecided():
                self._decided(event, link)

    def _apply_to_scores(self, event: e.Event) -> None:
        """Which version answers how much of which task; the newest measurement counts."""
        match event:
            case e.VersionScored() if event.split is Split.HOLDOUT and event.task_id:
                self.task_scores[event.version][event.task_id] = self._one(event.score)
            case e.UpdateJudged() if event.version:
                for after, version in ((False, event.record.parent_version), (True, event.version)):
                    comparisons = (*event.record.holdout, *event.record.retention)
                    found = holdout_scores(comparisons, after=after)
                    self.task_scores[version] |= {task: self._one(score) for task, score in found.items()}
            case e.VersionPromoted() | e.LiveFound():
                metrics.FORGETTING.set(self.forgetting().average_forgetting)

    def _one(self, score: Score) -> Score:
        """Equal scores as one object: there is one for every version and task, and few of them differ."""
        return self._scores.setdefault(score, score)

    def _filtered(self, view: EditView, verdict: EditVerdict) -> None:
        view.verdict, view.gain = verdict, verdict.gain
        gate = Gate(
            kind=GateKind.REWARD,
            passed=verdict.kept,
            reason=verdict.reason,
            figures={"gain": verdict.gain, "undecided": float(verdict.undecided)},
        )
        view.gates.append(gate)
        if verdict.kept:
            view.state, view.reason = EditState.KEPT, verdict.reason
        else:
            view.reject(gate.kind, verdict.reason)

    def _updated(self, event: e.UpdateTrained, link: Link) -> None:
        version, trained = event.version, (event.version.version, link.seq)
        self.versions[version.version] = VersionView(
            version.version, version.parent_version, link.run_id, event.trained_edit, event.edits, event.task_ids
        )
        for view in self._noted(link, event.round, event.edits):
            view.versions.append(trained)
        for view in self._noted(link, event.round, event.record.left_out):
            view.reason = "kept, but the union of the winners had no more room"
        known = [
            view for view in self.composed if (view.run_id, view.sha256) == (link.run_id, event.trained_edit.sha256)
        ]
        for view in known:
            view.versions.append(trained)
            view.references.append(_reference(link))
        if event.trained_edit not in event.edits and not known:
            shown = e.EditProposed(
                round=event.round,
                task_id="",
                edit=event.trained_edit,
                index=0,
                examples=event.record.examples,
                prompt_variant="consolidated",
                policy_version="",
                record=e.EditProposed.Record(
                    origin="", context=event.trained_edit, title=f"union of {len(event.edits)} edits", seed=event.seed
                ),
            )
            view = EditView(shown, link.run_id, link.seq, link.time, state=EditState.KEPT, composed_of=event.edits)
            view.versions.append(trained)
            view.references.append(_reference(link))
            self.composed.append(view)
            self._by_round[link.run_id, event.round, event.trained_edit.sha256].append(view)

    def _judged(self, event: e.UpdateJudged, link: Link) -> None:
        # Its answers are as many as all that was ever accepted has questions: who wants them reads the ledger.
        event = event.model_copy(update={"record": e.UpdateJudged.Record()})
        known = self.versions.get(event.version)
        if known is not None:
            known.judged = event
            known.number = known.number or 1 + max(view.number for view in self.versions.values())
        composed = [v for v in self.composed if v.run_id == link.run_id and v.proposed.round == event.round]
        for view in [*self._noted(link, event.round, event.edits), *composed]:
            if view.judged is not None and view.judged.version != event.version:
                # Judged again at a smaller scale: of the larger one only what it failed is worth reading.
                view.gates = [gate for gate in view.gates if gate not in view.judged.gates or not gate.passed]
            if view.judged is None or event.version:
                view.judged, view.judged_seq = event, link.seq
            view.gates.extend(event.gates)
            if not event.final:
                continue
            failed = next((gate for gate in event.gates if not gate.passed), None)
            if failed is not None:
                view.reject(failed.kind, failed.reason)

    def _moved(self, event: e.VersionPromoted | e.LiveFound, link: Link) -> None:
        self.previous, self.live, self.generation = event.previous_version, event.version, event.generation
        # Live is past these: they were made or lost their compare-and-swap.
        self.open_moves = {to: move for to, move in self.open_moves.items() if move.made.generation > event.generation}
        known = self.versions.get(event.version)
        if known is not None:
            known.promote_time = link.time
            known.number = known.number or 1 + max(view.number for view in self.versions.values())
            if isinstance(event, e.VersionPromoted) and not event.rollback:
                self._accepted(known, event)
        lineage = {view.version for view in self.ancestry(self.live)}
        for view in (*self.edits, *self.composed):
            if not view.accepted_version:
                continue
            stays = view.accepted_version in lineage
            state = EditState.ACCEPTED if stays else EditState.ROLLED_BACK
            if state is not view.state:
                view.state, view.reason = state, event.reason
                view.references.append(_reference(link))

    def _accepted(self, version: VersionView, event: e.VersionPromoted) -> None:
        if event.previous_version != event.version:
            version.replaced = event.previous_version
        for view in (*self._latest(version.run_id, version.edits), *self._composed_as(version)):
            view.accepted_version, view.decided_by = event.version, event.decided_by

    def _decided(self, event: e.EditDecided, link: Link) -> None:
        for view in self._latest(event.run, [Digest(sha256=event.edit)]):
            view.references.append(_reference(link))
            view.state = EditState.KEPT if event.approved else EditState.REJECTED
            view.reason, view.decided_by = event.reason, event.decided_by
        if event.approved:
            self.rejected_by.pop((event.run, event.edit), None)
        else:
            self.rejected_by[event.run, event.edit] = event.decided_by

    def _know(self, event: e.CandidateTrained, run_id: str) -> None:
        name, parent = event.version.version, event.version.parent_version
        if name not in self.versions:
            self.versions[name] = VersionView(name, parent, run_id, event.edit, (event.edit,), (event.task_id,))

    def _about(self, link: Link, round_: int, edits: Iterable[Digest]) -> list[EditView]:
        return [view for edit in edits for view in self._by_round[link.run_id, round_, edit.sha256]]

    def _noted(self, link: Link, round_: int, edits: Iterable[Digest]) -> list[EditView]:
        """Views of what went on after screening, with the event noted on each."""
        screened = {GateKind.FORMAT, GateKind.POLICY}
        views = [
            view
            for view in self._about(link, round_, edits)
            if all(gate.passed for gate in view.gates if gate.kind in screened)
        ]
        for view in views:
            view.references.append(_reference(link))
        return views

    def _latest(self, run_id: str, edits: Iterable[Digest]) -> list[EditView]:
        found = []
        for edit in edits:
            own = [v for v in self.edits if v.run_id == run_id and v.sha256 == edit.sha256]
            found += sorted(own, key=lambda v: (v.verdict is not None and v.verdict.kept, v.seq))[-1:]
        return found

    def _composed_as(self, version: VersionView) -> list[EditView]:
        return [
            v
            for v in self.composed
            if v.run_id == version.run_id and version.version in {made for made, _ in v.versions}
        ]


class Views:
    """Projections that are caught up with the ledger when asked for."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._projections = Projections()

    async def keep_current(self, watchers: Watchers) -> None:
        """Catches up after every append, so that metrics never wait for a reader. Runs until it is cancelled."""
        async for _ in watchers.appends():
            # An unreadable ledger is for those to report who need it; metrics catch up later.
            with suppress(Unavailable):
                await self.current()

    async def current(self) -> Projections:
        """The projections, up to the newest event. Valid until the next await."""
        while links := await self._recorder.run(self._recorder.ledger.events, after=self._projections.seq):
            for link in links:
                # Another task may have applied it while this one waited for the page.
                if link.seq == self._projections.seq + 1:
                    self._projections.apply(link)
        return self._projections


def holdout_scores(comparisons: Iterable[Comparison], *, after: bool) -> dict[str, Score]:
    """Scores on tasks' holdout questions, by task."""
    found: dict[str, Score] = {}
    for c in comparisons:
        if c.split is Split.HOLDOUT and c.task_id:
            one = Score(questions=1, correct=c.score_after if after else c.score_before)
            found[c.task_id] = found.get(c.task_id, Score()) + one
    return found


def _reference(link: Link) -> LedgerReference:
    return LedgerReference(seq=link.seq, time=link.time, type=link.type, hash=link.hash)
