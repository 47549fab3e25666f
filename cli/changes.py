"""Runs over what changed: `seal run --changed-since STATE`, for a schedule.

The state file holds a digest of each document with its questions and keys, as it was when a run over it finished, and
that run's id; no text and no answer. It is replaced, whole, after a run has finished and never before: whatever is
killed in between leaves the documents to the next start. The run's id derives from what is sent and from the run before
it, so a start that was cut off finds its own run again instead of starting a second one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from filelock import FileLock
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cli.client import Auditor, auditor
from cli.failure import BadInput, Failure
from cli.following import RunRequest, follow_and_sum_up, start
from cli.render.console import output, remarks
from common.canonical import canonical_json
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import task_pb2
from common.files import write_atomically

PREFIX = "changed-"
GIVEN_UP = frozenset({pb.RUN_STATE_FAILED, pb.RUN_STATE_CANCELLED})


class State(BaseModel):
    """What the file holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    last_run: str = Field(default="", max_length=128)
    # By task id.
    documents: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> State:
        """Nothing was run yet where there is no file. Raises BadInput."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValidationError) as error:
            what = error.strerror if isinstance(error, OSError) else "it holds something else"
            next_step = "Name another file, or remove this one: every document then counts as changed."
            raise BadInput(f"{path}: no state of earlier runs: {what}", next_step) from None

    def after(self, run_id: str, tasks: Sequence[task_pb2.Task]) -> State:
        """The state once a run over these tasks has finished."""
        return State(last_run=run_id, documents={**self.documents, **{task.task_id: digest(task) for task in tasks}})


def note(path: Path, run_id: str = "", tasks: Sequence[task_pb2.Task] = ()) -> None:
    """Adds a finished run to the file as it is now: another command may have noted others since it was read.

    Without a run it only finds out whether the file can be written. Raises Failure.
    """
    try:
        with FileLock(f"{path}.lock"):
            state = State.read(path)
            state = state.after(run_id, tasks) if run_id else state
            write_atomically(path, state.model_dump_json(indent=1).encode() + b"\n")
    except OSError as error:
        raise Failure(f"{path}: cannot be written: {error.strerror}", "Name a file in a folder of yours.") from None


def usable_together(changed_since: Path | None, *, run_id: str | None, detach: bool) -> None:
    """Raises BadInput for options that --changed-since excludes."""
    if changed_since is None:
        return
    if detach:
        raise BadInput("--detach: --changed-since notes documents when their run has finished, so it must stay")
    if run_id is not None:
        raise BadInput("--run-id: --changed-since derives the run's id from what changed")


def digest(message: Message) -> str:
    """Of a message's content, independent of how protobuf writes it."""
    return hashlib.sha256(canonical_json(MessageToDict(message, preserving_proto_field_name=True))).hexdigest()


async def run_changed(target: str, request: RunRequest, path: Path, *, limit: int | None, as_json: bool) -> None:
    """`seal run --changed-since`. Raises Failure if a run is needed and does not finish."""
    async with auditor(target) as service:
        await run_what_changed(service, request, path, limit=limit, as_json=as_json)


async def run_what_changed(
    service: Auditor, request: RunRequest, path: Path, *, limit: int | None = None, as_json: bool = False
) -> None:
    """Runs the first `limit` changed documents, if any, and notes them."""
    state = State.read(path)
    changed = [task for task in request.tasks if state.documents.get(task.task_id) != digest(task)][:limit]
    if not changed:
        remarks().print(f"Nothing changed: {len(request.tasks)} documents are as {path} has them.", markup=False)
        return
    note(path)  # a folder that cannot be written is found before hours of work
    run = await _open_run(service, replace(request, tasks=changed), state.last_run)
    console = remarks() if as_json else output()
    console.print(f"{len(changed)} of {len(request.tasks)} documents changed: run {run.run_id}", markup=False)
    if run.state == pb.RUN_STATE_FINISHED:
        console.print("It was finished before, and only not noted yet.", markup=False)
    await follow_and_sum_up(service, run.run_id, 0, as_json)
    note(path, run.run_id, changed)


async def _open_run(service: Auditor, request: RunRequest, last_run: str) -> pb.Run:
    """The run of this content after `last_run`: found again, or started; anew where an earlier one came to nothing."""
    unnamed = pb.StartRunRequest(tasks=request.tasks, settings=request.settings, suites=request.suites)
    content = hashlib.sha256(canonical_json([last_run, digest(unnamed)])).hexdigest()[:24]
    attempt = 1
    while True:
        name = f"{PREFIX}{content}-{attempt}"
        known = await _find(service, name)
        if known is None or known.state not in GIVEN_UP:
            return await start(service, replace(request, run_id=name))
        attempt += 1


async def _find(service: Auditor, run_id: str) -> pb.Run | None:
    try:
        return await service.run(run_id)
    except Failure as failure:
        if failure.reason != "NOT_FOUND":
            raise
        return None
