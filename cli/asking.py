"""The commands that are one question to the auditor: asks it, and shows the answer to a person or to a machine."""

from __future__ import annotations

from rich.console import RenderableType

from cli.client import auditor, default_reason
from cli.failure import Failure
from cli.render import status as status_view
from cli.render import tables
from cli.render.console import output, remarks
from cli.render.edit import edit_record
from cli.render.figures import short, state_of_edit, state_of_run
from cli.render.plain import emit, plain
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import student_pb2


async def runs(target: str, limit: int, *, as_json: bool) -> None:
    async with auditor(target) as service:
        found = await service.runs(limit)
    _show_list([plain(run) for run in found] if as_json else None, tables.runs(found))


async def edits(target: str, run_id: str, state: str | None, limit: int, *, as_json: bool) -> None:
    wanted = pb.EditState.Value(f"EDIT_STATE_{state.upper().replace('-', '_')}") if state else pb.EDIT_STATE_UNSPECIFIED
    async with auditor(target) as service:
        found = await service.edits(run_id=run_id, state=wanted, limit=limit)
    _show_list([plain(edit) for edit in found] if as_json else None, tables.edits(found))


async def versions(target: str, limit: int, *, matrix: bool, as_json: bool) -> None:
    async with auditor(target) as service:
        found = await service.versions(limit)
        summary = await service.forgetting() if matrix else None
    view = tables.forgetting(found, summary) if summary is not None else tables.versions(found)
    _show_list([plain(entry) for entry in found] if as_json else None, view)
    if as_json and summary is not None:
        emit(plain(summary))


async def show(target: str, edit: str, *, all_examples: bool, as_json: bool) -> None:
    async with auditor(target) as service:
        record = await service.edit(edit)
    if as_json:
        emit(plain(record))
    else:
        output().print(edit_record(record, all_examples=all_examples))


async def cancel(target: str, run_id: str, *, as_json: bool) -> None:
    async with auditor(target) as service:
        run = await service.cancel(run_id)
    if as_json:
        emit(plain(run))
    else:
        output().print(f"{run.run_id}: {state_of_run(run.state)}", markup=False)


async def ask(target: str, request: pb.AskRequest, *, as_json: bool) -> None:
    async with auditor(target) as service:
        response = await service.ask(request)
    if as_json:
        emit(plain(response))
        return
    output().print(response.answer.strip() or "(no answer)", markup=False)
    liveness = student_pb2.Liveness.Name(response.proof.liveness).removeprefix("LIVENESS_").lower()
    said = f"version {short(response.answered_by or response.version)}, liveness {liveness}"
    if response.answered_by not in {"", response.version}:
        said = f"version {short(response.version)} gave no answer; this is the answer of {said}"
    remarks().print(said, markup=False, style="dim")


async def approve(target: str, edit: str, reason: str, *, as_json: bool) -> None:
    async with auditor(target) as service:
        _decided(await service.approve(edit, reason or default_reason("approved")), as_json=as_json)


async def reject(target: str, edit: str, reason: str, *, as_json: bool) -> None:
    async with auditor(target) as service:
        _decided(await service.reject(edit, reason or default_reason("rejected")), as_json=as_json)


async def promote(target: str, version: str, reason: str, *, as_json: bool) -> None:
    async with auditor(target) as service:
        _moved(await service.promote(version, reason or default_reason("promoted")), as_json=as_json)


async def rollback(target: str, version: str, reason: str, *, as_json: bool) -> None:
    async with auditor(target) as service:
        _moved(await service.rollback(version, reason or default_reason("rolled back")), as_json=as_json)


async def verify(target: str, expected_seq: int, expected_hash: str, *, as_json: bool) -> None:
    """Raises Failure if the chain is broken."""
    async with auditor(target) as service:
        found = await service.verify(expected_seq, expected_hash)
    if as_json:
        emit(plain(found))
    if not found.intact:
        where = f" at event {found.broken_at}" if found.broken_at else ""
        next_step = "Keep the database as it is, and compare it with a backup."
        raise Failure(f"the ledger is broken{where}: {found.detail}", next_step, reason="DATA_CORRUPT")
    if not as_json:
        erased = f", {found.erased} payloads erased on record" if found.erased else ""
        output().print(f"The ledger is intact: {found.events:,} events{erased}; head {found.head}", markup=False)


async def status(target: str, *, as_json: bool) -> None:
    async with auditor(target) as service:
        found = await service.status()
    if as_json:
        emit(plain(found))
    else:
        output().print(status_view.status(found, target))


def _show_list(objects: list[dict[str, object]] | None, view: RenderableType) -> None:
    if objects is None:
        output().print(view)
        return
    for item in objects:
        emit(item)


def _decided(edit: pb.EditSummary, *, as_json: bool) -> None:
    if as_json:
        emit(plain(edit))
    else:
        output().print(f"{short(edit.edit.sha256)}: {state_of_edit(edit.state)}", markup=False)


def _moved(promoted: pb.VersionPromoted, *, as_json: bool) -> None:
    if as_json:
        emit(plain(promoted))
    else:
        before = short(promoted.previous_version)
        output().print(f"Live now: {short(promoted.version)} (before: {before})", markup=False)
