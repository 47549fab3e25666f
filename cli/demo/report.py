"""What the demo tells a person, section by section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape

from cli.demo.questions import Chosen, by_task, verdict
from cli.render.figures import clip, count, percent, plural, short
from cli.render.tables import edits, table
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import task_pb2

SHOWN_FORGOTTEN = 10
SHORT_ANSWER = 60
LONG_ANSWER = 240


def heading(console: Console, text: str) -> None:
    console.print(f"\n[bold underline]{escape(text)}[/]")


def documents(console: Console, tasks: Sequence[task_pb2.Task]) -> None:
    heading(console, f"Documents to learn: {len(tasks)}")
    for task in tasks:
        console.print(f"  {task.context.title}: {plural(len(task.tau), 'question')} ({task.task_id})", markup=False)


def learned(console: Console, run: pb.Run, results: Sequence[pb.QuestionResult], titles: Mapping[str, str]) -> None:
    """Base against live on the questions that decided nothing but promotion."""
    heading(console, "What was learned: holdout questions answered right, without the document")
    made = table("document", "base", "live", ">base", ">live")
    for task_id, (before, after) in by_task(results).items():
        title = escape(titles.get(task_id, task_id))
        made.add_row(title, count(before), count(after), percent(before), percent(after))
    made.add_section()
    base, live = run.base_holdout, run.live_holdout
    made.add_row("[bold]all[/]", count(base), count(live), percent(base), percent(live))
    console.print(made)
    if not results:
        console.print("The auditor sent no results by question, so there is no test of them.")
        return
    found = verdict(results)
    console.print(
        f"{plural(found.better, 'question')} turned right, {found.worse} turned wrong: "
        f"one-sided exact sign test p = {found.p:.3g}"
    )
    console.print(
        "Neither the filter nor the teacher ever saw these questions, but they decided which updates were promoted: "
        "of several updates judged on them, p flatters the live one.",
        style="dim",
    )


def decisions(console: Console, entries: Sequence[pb.EditSummary], run: pb.Run) -> None:
    heading(console, f"Edits: {run.edits_accepted} accepted, {run.edits_rejected} rejected, and why")
    console.print(edits(entries))


def forgotten(console: Console, run: pb.Run, results: Sequence[pb.QuestionResult]) -> None:
    """What the updates cost."""
    before, after = run.retention_before, run.retention_after
    heading(console, f"What was forgotten: retention {count(before)} before, {count(after)} after")
    if not results:
        console.print("  No retention question that was answered right is answered wrong now.")
    for result in results[:SHOWN_FORGOTTEN]:
        was, now = clip(result.answer_before, SHORT_ANSWER), clip(result.answer_after, SHORT_ANSWER)
        console.print(f"  {result.question}\n    {was}  →  {now}", markup=False)
    if len(results) > SHOWN_FORGOTTEN:
        console.print(f"  ... and {len(results) - SHOWN_FORGOTTEN} more")


def answers(console: Console, chosen: Chosen, versions: Mapping[str, Sequence[str]]) -> None:
    """Each chosen question with every version's answer, under the version's name."""
    width = max(len(label) for label in versions)
    for position, question in enumerate(chosen.questions):
        console.print(f"  [bold]{escape(question.question)}[/]")
        console.print(f"    {'key':{width}}  {' / '.join(question.accepted_answers)}", markup=False, style="dim")
        for label, said in versions.items():
            console.print(f"    {label:{width}}  {clip(said[position], LONG_ANSWER)}", markup=False)


def rolled_back(console: Console, promoted: pb.VersionPromoted, before: Sequence[str], again: Sequence[str]) -> None:
    same = sum(old == new for old, new in zip(before, again, strict=True))
    console.print(f"  Live now: {short(promoted.version)}. {same} of {len(before)} answers are the old ones again.")
