"""One line, or a few, for each recorded event of a run. Progress has no line; cli/render/live.py shows it.

Everything that came from a service is escaped: an answer or a title cannot colour or break the screen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.markup import escape

from cli.render.figures import (
    NOTHING,
    change,
    count,
    gate_kind,
    number,
    plural,
    seconds,
    short,
    signed,
)
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import student_pb2

SPLITS = {pb.SPLIT_REWARD: "reward", pb.SPLIT_HOLDOUT: "holdout", pb.SPLIT_RETENTION: "retention"}
SUSPECT = {student_pb2.LIVENESS_INERT: " [yellow](inert)[/]", student_pb2.LIVENESS_INVALID: " [red](not live)[/]"}


def lines(event: pb.RunEvent) -> list[str]:
    """The event in rich markup; no line for progress and for events of a later release."""
    kind = event.WhichOneof("event")
    writer = WRITERS.get(kind or "")
    return writer(getattr(event, str(kind))) if writer else []


def gate_line(gate: pb.Gate) -> str:
    """A gate's finding with its figures."""
    figures = ", ".join(f"{key.replace('_', ' ')} {number(gate.figures[key])}" for key in sorted(gate.figures))
    verdict = "[green]passed[/]" if gate.passed else "[red]failed[/]"
    text = f"{gate_kind(gate.kind)} {verdict}"
    if gate.reason:
        text += f": {escape(gate.reason)}"
    return f"{text} [dim]({escape(figures)})[/]" if figures else text


def _run_started(event: pb.RunStarted) -> list[str]:
    return [
        f"[bold]{plural(event.tasks, 'task')}, {plural(event.rounds, 'round')}, "
        f"{plural(event.candidates, 'candidate')} a task, {plural(event.seeds, 'seed')} a candidate[/]",
        f"  {plural(event.reward_questions, 'reward question')}, "
        f"{plural(event.holdout_questions, 'holdout question')}; live version {short(event.start_version)}, "
        f"teacher's policy {short(event.policy_version)}",
    ]


def _run_resumed(event: pb.RunResumed) -> list[str]:
    return [f"[yellow]The auditor took the run up again behind event {event.from_seq}[/]"]


def _round_started(event: pb.RoundStarted) -> list[str]:
    return [
        f"[bold]Round {event.round}[/] on version {short(event.parent_version)}, "
        f"proposed by policy {short(event.policy_version)}"
    ]


def _version_scored(event: pb.VersionScored) -> list[str]:
    what = escape(event.task_id or event.suite_id or "all tasks")
    split = SPLITS.get(event.split, "")
    purpose = f"{escape(event.purpose)}: " if event.purpose else ""
    cached = " [dim](asked before)[/]" if event.cached else ""
    return [f"  {purpose}{short(event.version)} answers {count(event.score)} {split} questions of {what}{cached}"]


def _edit_proposed(event: pb.EditProposed) -> list[str]:
    return [
        f"  {short(event.edit.sha256)} proposed for {escape(event.task_id)}: "
        f"{plural(event.examples, 'example')}, {escape(event.prompt_variant or NOTHING)}"
    ]


def _proposal_failed(event: pb.ProposalFailed) -> list[str]:
    return [f"  [yellow]proposal {event.index + 1} for {escape(event.task_id)} failed[/]: {escape(event.reason)}"]


def _edit_screened(event: pb.EditScreened) -> list[str]:
    said = "[green]let through[/]" if event.gate.passed else "[yellow]turned away[/]"
    return [f"  {short(event.edit.sha256)} {said}: {gate_line(event.gate)}"]


def _candidate_trained(event: pb.CandidateTrained) -> list[str]:
    version = event.version
    if event.reused:
        return [f"  {short(event.edit.sha256)} trained earlier as {short(version.version)} [dim](reused)[/]"]
    return [
        f"  {short(event.edit.sha256)} trained as {short(version.version)} in {seconds(version.seconds)}, "
        f"loss {number(version.first_loss)} → {number(version.last_loss)}"
    ]


def _candidate_failed(event: pb.CandidateFailed) -> list[str]:
    return [f"  [red]{short(event.edit.sha256)} could not be trained[/]: {escape(event.reason)}"]


def _candidate_scored(event: pb.CandidateScored) -> list[str]:
    return [
        f"  {short(event.edit.sha256)} on reward questions of {escape(event.task_id)}: "
        f"{change(event.before, event.after)}{SUSPECT.get(event.liveness, '')}"
    ]


def _candidates_raced(event: pb.CandidatesRaced) -> list[str]:
    if not event.stopped:
        return []
    who = ", ".join(short(edit.sha256) for edit in event.stopped)
    return [
        f"  [dim]{who} can no longer win after {plural(event.seeds_done, 'seed')}: "
        f"{plural(event.trainings_saved, 'training')} saved[/]"
    ]


def _anchors_measured(event: pb.AnchorsMeasured) -> list[str]:
    said = f"the base answers {count(event.now)} anchor questions, {count(event.first)} when it was first asked"
    if not event.drifted:
        return [f"  {said}"]
    what = "measured anew from here" if event.accepted else "evaluation itself has drifted"
    return [f"  [bold red]{said}[/]: {what}"]


def _winners_pooled(event: pb.WinnersPooled) -> list[str]:
    said = "[green]gain[/]" if event.passed else "[yellow]show no gain that chance does not explain[/]"
    return [
        f"  {plural(len(event.edits), 'winner')} with few questions together {said}: holdout "
        f"{change(event.before, event.after)}, p = {event.p_value:.3g}, level {event.level:.3g}"
    ]


def _splits_swapped(event: pb.SplitsSwapped) -> list[str]:
    return [
        f"  [dim]splits swapped, for the record: {short(event.version)} gains {signed(event.gain_on_reward)} on reward "
        f"questions (trials {signed(event.reward)}), its trials {signed(event.gain_on_holdout)} on holdout questions "
        f"(confirmation {signed(event.confirmation)})[/]"
    ]


def _filter_decided(event: pb.FilterDecided) -> list[str]:
    return [_verdict(verdict) for verdict in event.verdicts]


def _verdict(verdict: pb.EditVerdict) -> str:
    said = "[green]kept[/]" if verdict.kept else "[dim]not kept[/]"
    undecided = ", undecided" if verdict.undecided else ""
    reason = f": {escape(verdict.reason)}" if verdict.reason else ""
    bounds = f" [dim](p = {verdict.p_value:.2g}, {signed(verdict.lower)} to {signed(verdict.upper)})[/]"
    tested = "" if verdict.undecided or not verdict.questions else bounds
    return f"  {said} {short(verdict.edit.sha256)}, gain {signed(verdict.gain)}{tested}{undecided}{reason}"


def _update_trained(event: pb.UpdateTrained) -> list[str]:
    of = ", ".join(short(edit.sha256) for edit in event.edits)
    took = seconds(event.version.seconds)
    if 0 < event.version.scale < 1:
        return [f"  scaled down to {event.version.scale:.0%} of it: update {short(event.version.version)}"]
    return [f"  update {short(event.version.version)} trained from {plural(len(event.edits), 'edit')} ({of}) in {took}"]


def _update_judged(event: pb.UpdateJudged) -> list[str]:
    verdict = (
        "[bold green]accepted[/]"
        if event.accepted
        else f"[yellow]{_why_again(event)}, tried again at {event.next_scale:.0%}[/]"
        if event.next_scale
        else "[bold red]rejected[/]"
    )
    return [
        f"  update {short(event.version)} {verdict}: holdout {change(event.holdout_before, event.holdout_after)}, "
        f"retention {change(event.retention_before, event.retention_after)}",
        *(f"    {gate_line(gate)}" for gate in event.gates),
    ]


def _why_again(event: pb.UpdateJudged) -> str:
    failed = {gate.kind for gate in event.gates if not gate.passed}
    if pb.GATE_KIND_DRIFT in failed:
        return "drifts too far"
    if pb.GATE_KIND_RETENTION in failed:
        return "forgets too much"
    return "learns too little" if failed else "passes"


def _version_promoted(event: pb.VersionPromoted) -> list[str]:
    what = "rolled back to" if event.rollback else "live now:"
    by = f" by {escape(event.decided_by)}" if event.decided_by else ""
    return [f"  [bold]{what} {short(event.version)}[/] (before: {short(event.previous_version)}){by}"]


def _policy_learned(event: pb.PolicyLearned) -> list[str]:
    if event.skipped:
        return [f"  the teacher learned nothing: {escape(event.skipped)}"]
    policy = event.policy
    return [
        f"  the teacher learned from {plural(policy.kept_edits or len(event.edits), 'kept edit')}: "
        f"policy {short(policy.policy_version)}, loss {number(policy.first_loss)} → {number(policy.last_loss)}"
    ]


def _round_finished(event: pb.RoundFinished) -> list[str]:
    text = f"  round {event.round}: {event.edits_kept} of {plural(event.edits_proposed, 'edit')} kept"
    if event.edits_kept:
        text += (
            f", mean gain {signed(event.mean_reward)} in the trial, {signed(event.mean_confirmation)} at confirmation"
        )
    if event.trainings_saved > 0:
        text += f"; racing saved {event.trainings_saved} of {plural(event.trainings_planned, 'trial training')}"
    if event.trainings_saved < 0:
        text += f"; ties took {plural(-event.trainings_saved, 'trial training')} more"
    return [f"{text}; live {short(event.live_version)}"]


def _run_finished(event: pb.RunFinished) -> list[str]:
    return [f"[bold green]Finished[/] {escape(event.run.run_id)}"]


def _run_failed(event: pb.RunFailed) -> list[str]:
    return [f"[bold red]Failed[/]: {escape(event.reason)}: {escape(event.detail)}"]


def _run_cancelled(event: pb.RunCancelled) -> list[str]:
    return [f"[bold yellow]Cancelled[/] by {escape(event.decided_by or 'an operator')}"]


WRITERS: dict[str, Callable[[Any], list[str]]] = {
    "run_started": _run_started,
    "run_resumed": _run_resumed,
    "round_started": _round_started,
    "version_scored": _version_scored,
    "edit_proposed": _edit_proposed,
    "proposal_failed": _proposal_failed,
    "edit_screened": _edit_screened,
    "candidate_trained": _candidate_trained,
    "candidate_failed": _candidate_failed,
    "candidate_scored": _candidate_scored,
    "candidates_raced": _candidates_raced,
    "anchors_measured": _anchors_measured,
    "winners_pooled": _winners_pooled,
    "splits_swapped": _splits_swapped,
    "filter_decided": _filter_decided,
    "update_trained": _update_trained,
    "update_judged": _update_judged,
    "version_promoted": _version_promoted,
    "policy_learned": _policy_learned,
    "round_finished": _round_finished,
    "run_finished": _run_finished,
    "run_failed": _run_failed,
    "run_cancelled": _run_cancelled,
}
