"""Starts runs and follows them to their end. Called by `seal run`, `seal watch` and `seal demo`."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rich.console import Console

from cli.client import Auditor, Refused, auditor
from cli.failure import Failure
from cli.render import tables
from cli.render.console import output
from cli.render.figures import state_of_run
from cli.render.live import LiveRun
from cli.render.plain import emit, event_object, plain
from cli.watcher import watch
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import task_pb2

TASK_PATH = re.compile(r"\btasks\[(\d+)\]\.")


def new_run_id() -> str:
    """A name that says when, and that no other run has."""
    return f"run-{datetime.now(tz=UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@dataclass(frozen=True)
class RunRequest:
    """What is to be run. Everything has been checked."""

    tasks: Sequence[task_pb2.Task]
    settings: pb.RunSettings
    suites: Sequence[task_pb2.Suite] = ()
    run_id: str | None = None
    name: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.run_id or new_run_id())

    def message(self) -> pb.StartRunRequest:
        return pb.StartRunRequest(run_id=self.name, tasks=self.tasks, settings=self.settings, suites=self.suites)


async def run_and_follow(target: str, request: RunRequest, *, detach: bool, as_json: bool) -> None:
    """`seal run`. Raises Failure if the run fails or is cancelled."""
    async with auditor(target) as service:
        run = await start(service, request)
        if detach:
            if as_json:
                emit(plain(run))
            else:
                output().print(f"Started {run.run_id}. Follow it with `seal watch {run.run_id}`.", markup=False)
            return
        await follow_and_sum_up(service, request.name, 0, as_json)


async def follow_command(target: str, run_id: str | None, *, after_seq: int, as_json: bool) -> None:
    """`seal watch`. Raises Failure if the run fails, is cancelled or does not exist."""
    async with auditor(target) as service:
        if run_id is None:
            newest = await service.runs(1)
            if not newest:
                raise Failure("there is no run yet", "Start one with `seal run TASKS`.", reason="NOT_FOUND")
            run_id = newest[0].run_id
        await follow_and_sum_up(service, run_id, after_seq, as_json)


async def start(service: Auditor, request: RunRequest) -> pb.Run:
    """Starts the run. A refusal speaks of tasks by their names, not by their place in the request."""
    try:
        return await service.start_run(request.message())
    except Failure as failure:
        failure.what = TASK_PATH.sub(lambda match: _task_name(request, int(match[1])), failure.what)
        raise


async def follow(service: Auditor, run_id: str, console: Console, *, after_seq: int = 0) -> pb.Run:
    """Shows a run until it ends and returns what it came to."""
    with LiveRun(console) as live:
        async for event in watch(service, run_id, after_seq=after_seq, broken=live.broken):
            live.show(event)
    return await service.run(run_id)


async def follow_and_sum_up(service: Auditor, run_id: str, after_seq: int, as_json: bool) -> None:
    """Shows a run to its end. Raises Failure if the run fails or is cancelled."""
    if as_json:
        async for event in watch(service, run_id, after_seq=after_seq):
            emit(event_object(event))
        finished = await service.run(run_id)
    else:
        console = output()
        console.print(f"Run {run_id}", markup=False, style="bold")
        finished = await follow(service, run_id, console, after_seq=after_seq)
        tables.print_all(console, "", tables.run_summary(finished))
        await _list_edits(service, run_id, console)
    check_finished(finished)


async def _list_edits(service: Auditor, run_id: str, console: Console) -> None:
    """Whoever may start runs may not always read edits: a scheduler does without."""
    try:
        edits = await service.edits(run_id=run_id)
    except Refused:
        console.print(f"Its edits are an operator's to read: seal edits --run {run_id}", markup=False, style="dim")
        return
    tables.print_all(console, tables.edits(edits))
    console.print("More about an edit: seal show EDIT", style="dim")


def _task_name(request: RunRequest, position: int) -> str:
    return f"task {request.tasks[position].task_id}: " if position < len(request.tasks) else f"tasks[{position}]."


def check_finished(run: pb.Run) -> None:
    """Raises Failure unless the run went through to its end."""
    if run.state != pb.RUN_STATE_FINISHED:
        reason = f": {run.error}" if run.error else ""
        raise Failure(f"run {run.run_id} {state_of_run(run.state)}{reason}", "The auditor's log says more.")
