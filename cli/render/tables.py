"""Tables of runs, edits and versions, and the summary of one run."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table

from cli.render.figures import (
    NOTHING,
    change,
    count,
    elapsed,
    moment,
    percent,
    plural,
    short,
    signed,
    state_of_edit,
    state_of_run,
)
from common.contract.seal.v1 import auditor_pb2 as pb

EDIT_COLOURS = {
    pb.EDIT_STATE_ACCEPTED: "green",
    pb.EDIT_STATE_KEPT: "cyan",
    pb.EDIT_STATE_REJECTED: "red",
    pb.EDIT_STATE_ROLLED_BACK: "yellow",
}
RUN_COLOURS = {
    pb.RUN_STATE_FINISHED: "green",
    pb.RUN_STATE_FAILED: "red",
    pb.RUN_STATE_CANCELLED: "yellow",
    pb.RUN_STATE_RUNNING: "cyan",
}


def table(*columns: str, title: str = "") -> Table:
    """An empty table in the one look that all have."""
    made = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return made


def runs(entries: Sequence[pb.Run]) -> RenderableType:
    if not entries:
        return "No run yet. Start one with `seal run TASKS`."
    made = table("run", "state", "started", ">took", ">tasks", ">rounds", "edits accepted", "holdout", "live")
    for run in entries:
        made.add_row(
            escape(run.run_id),
            run_state(run.state),
            moment(run.start_time),
            elapsed(run),
            str(len(run.task_ids)),
            str(run.rounds_done),
            f"{run.edits_accepted} of {run.edits_proposed}",
            change(run.base_holdout, run.live_holdout),
            short(run.live_version),
        )
    return made


def run_summary(run: pb.Run) -> RenderableType:
    """What a run came to: counts first, then shares."""
    made = table("", "before", "after", ">before", ">after")
    for label, before, after in (
        ("holdout questions right", run.base_holdout, run.live_holdout),
        ("retention questions right", run.retention_before, run.retention_after),
    ):
        made.add_row(label, count(before), count(after), percent(before), percent(after))
    head = (
        f"[bold]{escape(run.run_id)}[/] {run_state(run.state)} after {elapsed(run)}, "
        f"{plural(run.rounds_done, 'round')}; live version {short(run.start_version)} → {short(run.live_version)}"
    )
    edits = f"Edits: {run.edits_proposed} proposed, {run.edits_accepted} accepted, {run.edits_rejected} rejected"
    parts: list[RenderableType] = [head, made, edits]
    moved = run.live_version != run.start_version
    if moved and run.live_holdout.questions and run.live_holdout.correct <= run.base_holdout.correct:
        parts.append(
            "[yellow]Over all holdout questions of these tasks the live version is no better than the base.[/] "
            "`seal rollback` goes back."
        )
    if run.error:
        parts.append(f"[red]{escape(run.error)}[/]")
    return Group(*parts)


def edits(entries: Sequence[pb.EditSummary]) -> RenderableType:
    if not entries:
        return "No edit fits."
    made = table("edit", "state", "task", ">round", ">gain", ">examples", "variant", "policy", "why")
    for edit in entries:
        made.add_row(
            short(edit.edit.sha256),
            edit_state(edit.state),
            escape(edit.task_id),
            str(edit.round),
            signed(edit.gain),
            str(edit.examples),
            escape(edit.prompt_variant or NOTHING),
            short(edit.policy_version),
            escape(edit.reason),
        )
    return made


def versions(entries: Sequence[pb.LineageEntry]) -> RenderableType:
    """The lineage, newest first."""
    made = table(">no.", "version", "", "parent", "became live", ">edits", "tasks", "holdout", "retention", "run")
    for entry in entries:
        made.add_row(
            str(entry.number),
            short(entry.version),
            _mark(entry),
            short(entry.parent_version),
            moment(entry.promote_time),
            str(len(entry.edits)),
            escape(", ".join(entry.task_ids)) or NOTHING,
            count(entry.holdout),
            count(entry.retention),
            escape(entry.run_id) or NOTHING,
        )
    return made


def forgetting(entries: Sequence[pb.LineageEntry], summary: pb.Forgetting) -> RenderableType:
    """The forgetting matrix, tasks x versions from the oldest on, and what it comes to for the live version."""
    shown = [entry for entry in reversed(entries) if entry.task_scores]
    scores = [{score.task_id: score.score for score in entry.task_scores} for entry in shown]
    tasks = dict.fromkeys(task_id for row in scores for task_id in row)
    made = table("holdout questions of", *(f">{short(entry.version)}{_live(entry)}" for entry in shown))
    for task_id in tasks:
        made.add_row(escape(task_id), *(count(row.get(task_id)) for row in scores))
    if not summary.tasks:
        return Group(made, "No task that the live version was taught has been asked again since.")
    return Group(
        made,
        f"Of {plural(summary.tasks, 'task')} asked again since it was learned: average forgetting "
        f"{signed(summary.average_forgetting)}, backward transfer {signed(summary.backward_transfer)}",
    )


def _live(entry: pb.LineageEntry) -> str:
    return " (live)" if entry.live else ""


def run_state(state: pb.RunState.ValueType) -> str:
    return f"[{RUN_COLOURS.get(state, 'default')}]{state_of_run(state)}[/]"


def edit_state(state: pb.EditState.ValueType) -> str:
    return f"[{EDIT_COLOURS.get(state, 'default')}]{state_of_edit(state)}[/]"


def print_all(console: Console, *parts: RenderableType) -> None:
    for part in parts:
        console.print(part)


def _mark(entry: pb.LineageEntry) -> str:
    if entry.live:
        return "[bold green]live[/]"
    if entry.previous:
        return "[cyan]previous[/]"
    if entry.rolled_back:
        return "[yellow]rolled back[/]"
    return "[red]not promoted[/]" if entry.number and not entry.HasField("promote_time") else ""
