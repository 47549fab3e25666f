"""What an operator decides: approve or reject an edit, promote a version, roll back. Recorded with who and why.

Each decision is idempotent by its request id: made again it answers what was recorded, and with other content it is
refused. A move of live is written down as intended, then a compare-and-swap at the student, then an event: a decision
that was cut off in between is finished by making it again.
"""

from __future__ import annotations

import asyncio

from auditor.events import EditDecided, MoveIntended, VersionPromoted
from auditor.ledger.chain import Link
from auditor.lineage import resolve_version
from auditor.peers import BASE, LIVE, PREVIOUS, AliasOrder, StudentStatus
from auditor.ports import Student
from auditor.projections import Projections, Views
from auditor.provenance import find_edit
from auditor.recorder import Recorder
from auditor.requests import DecideEdit, EditState, Promote, Rollback
from auditor.views import EditSummary
from common.canonical import digest_of
from common.errors import Conflict, NotPossible


class Decisions:
    """The operator's desk. One decision at a time."""

    def __init__(self, student: Student, recorder: Recorder, views: Views) -> None:
        self._student = student
        self._recorder = recorder
        self._views = views
        self._lock = asyncio.Lock()

    async def on_edit(self, request: DecideEdit, *, approved: bool, decided_by: str) -> EditSummary:
        """Approves or rejects. Raises NotPossible when the edit's state does not allow it.

        An approved edit counts as kept; it becomes live by Promote. A rejected one is not promoted by a run under way.
        """
        async with self._lock:
            views = await self._views.current()
            view = find_edit(views, request.edit)
            content = digest_of([request.model_dump(mode="json"), approved]).sha256
            step = f"decision:{request.request_id}"
            if not _repeated(views.decision(step), content):
                allowed = {EditState.KEPT, EditState.REJECTED if approved else EditState.PROPOSED}
                if view.state not in allowed or not (view.versions or not approved):
                    raise NotPossible(
                        f"an edit in state {view.state.value} cannot be {'approved' if approved else 'rejected'}",
                        ids={"edit": view.sha256},
                    )
                event = EditDecided(
                    edit=view.sha256,
                    run=view.run_id,
                    approved=approved,
                    decided_by=decided_by,
                    reason=request.reason,
                    content=content,
                )
                await self._recorder.append(event, step=step)
            views = await self._views.current()
            return find_edit(views, view.sha256).summary

    async def promote(self, request: Promote, decided_by: str) -> VersionPromoted:
        """Makes a known version live. Raises NotFound, NotPossible, StaleGeneration."""
        return await self._move(request, decided_by, rollback=False)

    async def roll_back(self, request: Rollback, decided_by: str) -> VersionPromoted:
        """Makes an earlier version live again: the named one, or the one that the live version replaced."""
        return await self._move(request, decided_by, rollback=True)

    async def _move(self, request: Promote | Rollback, decided_by: str, *, rollback: bool) -> VersionPromoted:
        async with self._lock:
            views = await self._views.current()
            content = digest_of([request.model_dump(mode="json"), rollback]).sha256
            step = f"decision:{request.request_id}"
            link = views.decision(step)
            if link is not None and _repeated(link, content):
                return VersionPromoted.model_validate(link.payload)
            intent = await self._intended(request, content)
            generation = await self._move_live(intent)
            known = views.versions.get(intent.version)
            event = VersionPromoted(
                version=intent.version,
                previous_version=intent.previous_version,
                generation=generation,
                edits=known.edits if known else (),
                decided_by=decided_by,
                reason=request.reason,
                rollback=rollback,
                record=VersionPromoted.Record(content=content, request_id=request.request_id),
            )
            await self._recorder.append(event, step=step)
            return event

    async def _intended(self, request: Promote | Rollback, content: str) -> MoveIntended:
        """Where live is to go from where it is, written down before it moves."""
        views = await self._views.current()
        step = f"intent:{request.request_id}"
        link = views.decision(step)
        if link is not None and _repeated(link, content):
            return MoveIntended.model_validate(link.payload)
        status = await self._student.status()
        named = request.version
        intent = MoveIntended(
            version=resolve_version(views, status, named) if named else before_live(views, status),
            previous_version=status.live.version,
            generation=status.live.generation,
            content=content,
        )
        await self._recorder.append(intent, step=step)
        return intent

    async def _move_live(self, intent: MoveIntended) -> int:
        """Live to where it is to go, then previous to what was live; returns live's generation."""
        if intent.version == intent.previous_version:
            return intent.generation
        moved = await self._student.set_alias(
            AliasOrder(
                request_id=f"live-{digest_of([intent.content, intent.generation]).sha256}",
                name=LIVE,
                version=intent.version,
                expected_generation=intent.generation,
            )
        )
        previous = (await self._student.status()).alias(PREVIOUS)
        if previous is None or previous.version != intent.previous_version:
            seen = previous.generation if previous else 0
            await self._student.set_alias(
                AliasOrder(
                    request_id=f"previous-{digest_of([intent.content, intent.previous_version, seen]).sha256}",
                    name=PREVIOUS,
                    version=intent.previous_version,
                    expected_generation=seen,
                )
            )
        return moved.generation


def before_live(views: Projections, status: StudentStatus) -> str:
    """The version that the live one replaced. Raises NotPossible when nothing stands before it."""
    live = status.live.version
    if live == BASE:
        raise NotPossible("the base is live; there is nothing before it", reason="NOTHING_BEFORE")
    known = views.versions.get(live)
    if known is not None and known.replaced:
        return known.replaced
    previous = status.alias(PREVIOUS)
    if previous is None or previous.version == live:
        raise NotPossible("no version before the live one is known; name one", reason="NOTHING_BEFORE")
    return previous.version


def _repeated(link: Link | None, content: str) -> bool:
    """Whether a decision was made before. Raises Conflict when it was another one."""
    if link is None:
        return False
    found = link.payload.get("content") or link.payload.get("record", {}).get("content")
    if found != content:
        raise Conflict("this request_id was used for another decision")
    return True
