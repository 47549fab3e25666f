"""The demo from start to end. Every figure comes from the auditor, at the moment at which it is shown.

Called by `seal demo`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from rich.console import Console

from cli.client import Auditor, auditor
from cli.demo import report
from cli.demo.choices import DemoChoices, data_folder
from cli.demo.questions import Chosen, choose, result_object
from cli.failure import Failure
from cli.following import RunRequest, check_finished, follow, start
from cli.launcher.plan import make_plan
from cli.launcher.services import Services, services_up
from cli.render.console import output
from cli.render.figures import seconds
from cli.render.plain import emit
from cli.serving import starting
from cli.settings import run_settings
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import task_pb2, types_pb2


async def demo(choices: DemoChoices) -> None:
    """Raises BadFiles before anything is started, and Failure when something goes wrong; its folder is kept then."""
    console = output()
    tasks = choices.tasks()
    begun = time.monotonic()
    with data_folder(choices) as folder:
        plan = make_plan(data=folder, config=choices.config, settings=choices.settings, fresh=True)
        console.print(f"Starting teacher, student and auditor; data and logs in {folder}", markup=False)
        with starting(console) as said:
            async with services_up(plan, said) as services:
                console.print(f"All three are ready after {seconds(time.monotonic() - begun)}.")
                run = await unless_died(services, show(services.target("auditor"), tasks, choices, console))
    minutes = (time.monotonic() - begun) / 60
    console.print(f"\nDone in {minutes:.1f} minutes.")
    if choices.json_result:
        emit(result_object(run, minutes))


async def unless_died(services: Services, work: Coroutine[Any, Any, pb.Run]) -> pb.Run:
    """The work's result; raises what is to be said about a service that ended meanwhile."""
    task = asyncio.create_task(work)
    death = asyncio.create_task(services.died())
    try:
        await asyncio.wait({task, death}, return_when=asyncio.FIRST_COMPLETED)
        if death.done():
            raise death.result()
        return task.result()
    finally:
        for pending in (task, death):
            pending.cancel()
        await asyncio.gather(task, death, return_exceptions=True)


async def show(target: str, tasks: Sequence[task_pb2.Task], choices: DemoChoices, console: Console) -> pb.Run:
    """The run, its outcome, three questions before and after, and the way back. Returns the run as it ended."""
    request = RunRequest(tasks=tasks, settings=run_settings(choices.run))
    titles = {task.task_id: task.context.title for task in tasks}
    async with auditor(target) as service:
        report.documents(console, tasks)
        report.heading(console, "The run")
        await start(service, request)
        run = await follow(service, request.name, console)
        check_finished(run)
        results = await service.holdout_results(run.run_id)
        entries = await service.edits(run_id=run.run_id)
        report.learned(console, run, results, titles)
        report.decisions(console, entries, run)
        report.forgotten(console, run, await _forgotten(service, entries, run))
        await _before_and_after(service, run, choose(results), titles, console)
    return run


async def _forgotten(service: Auditor, entries: Sequence[pb.EditSummary], run: pb.Run) -> list[pb.QuestionResult]:
    """What the live version has forgotten since the run began, each question once."""
    found: dict[tuple[str, str, str], pb.QuestionResult] = {}
    for entry in entries:
        if entry.state != pb.EDIT_STATE_ACCEPTED:
            continue
        record = await service.edit(entry.edit.sha256)
        # An update that a later one replaced says nothing about the version that is live now.
        if record.accepted_version == run.live_version:
            for result in record.forgotten:
                found.setdefault((result.suite_id, result.task_id, result.item_id), result)
    return list(found.values())


async def _before_and_after(
    service: Auditor, run: pb.Run, chosen: Chosen, titles: dict[str, str], console: Console
) -> None:
    """Asks aloud, rolls back, asks again."""
    if not chosen.questions:
        return
    report.heading(console, f"Asked before and after ({chosen.rule})")
    before = await _ask_all(service, run, chosen, titles, run.start_version)
    after = await _ask_all(service, run, chosen, titles, "")
    report.answers(console, chosen, {"before": before, "after": after})
    if run.live_version == run.start_version:
        console.print("\nNothing was promoted, so there is nothing to roll back.")
        return
    report.heading(console, "Rolled back: the old answers again")
    promoted = await service.rollback(run.start_version, "demonstration of the way back")
    again = await _ask_all(service, run, chosen, titles, "")
    report.answers(console, chosen, {"now": again})
    report.rolled_back(console, promoted, before, again)
    if promoted.version != run.start_version:
        raise Failure(f"the rollback made {promoted.version} live, not {run.start_version}", "See the auditor's log.")


async def _ask_all(service: Auditor, run: pb.Run, chosen: Chosen, titles: dict[str, str], version: str) -> list[str]:
    """Greedy answers, as long as the run's own, from a version or (empty) from the live one."""
    sampling = types_pb2.Sampling(max_new_tokens=run.settings.max_answer_tokens)
    said = []
    for question in chosen.questions:
        topic = titles.get(question.task_id, "")
        request = pb.AskRequest(version=version, topic=topic, question=question.question, sampling=sampling)
        said.append((await service.ask(request)).answer.strip())
    return said
