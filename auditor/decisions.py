"""What an operator decides: approve or reject an edit, promote a version, roll back. Recorded with who and why.

Each decision is idempotent by its request id: made again it answers what was recorded, and with other content it is
refused. A move of live is written down as intended, then a compare-and-swap at the student, then an event: one that was
cut off before live moved is finished by making it again, one that was cut off after is recorded in the next turn
(auditor/moves.py).
"""

from __future__ import annotations

import asyncio

from auditor.events import EditDecided, MoveIntended, VersionPromoted
from auditor.ledger.chain import Link
from auditor.lineage import resolve_version
from auditor.moves import Moves, name_previous, uninterrupted
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
    """The operator's desk. One decision on edits at a time, and one move of live."""

    def __init__(self, recorder: Recorder, views: Views, moves: Moves) -> None:
        self._recorder = recorder
        self._views = views
        self._moves = moves
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
        async with self._moves.turn() as student:
            views = await self._views.current()
            content = digest_of([request.model_dump(mode="json"), rollback]).sha256
            step = f"decision:{request.request_id}"
            link = views.decision(step)
            if link is not None and _repeated(link, content):
                return VersionPromoted.model_validate(link.payload)
            intended = views.decision(f"intent:{request.request_id}")
            if intended is not None and _repeated(intended, content):
                intent = MoveIntended.model_validate(intended.payload)
            else:
                intent = await self._intent(student, views, request, content)
            event = outcome(views, intent, request, decided_by, rollback=rollback)
            if intended is None:
                intent = intent.model_copy(update={"step": step, "made": event})
                await self._recorder.append(intent, step=f"intent:{request.request_id}")
            return await uninterrupted(self._carry_out(student, intent, event, step))

    @staticmethod
    async def _intent(student: Student, views: Projections, request: Promote | Rollback, content: str) -> MoveIntended:
        """Where live is to go from where it is."""
        status = await student.status()
        named = request.version
        return MoveIntended(
            version=resolve_version(views, status, named) if named else before_live(views, status),
            previous_version=status.live.version,
            generation=status.live.generation,
            content=content,
        )

    async def _carry_out(
        self, student: Student, intent: MoveIntended, event: VersionPromoted, step: str
    ) -> VersionPromoted:
        """Live to where it is to go, previous to what was live, and the event."""
        if intent.version != intent.previous_version:
            await student.set_alias(
                AliasOrder(
                    request_id=f"live-{digest_of([intent.content, intent.generation]).sha256}",
                    name=LIVE,
                    version=intent.version,
                    expected_generation=intent.generation,
                )
            )
            await name_previous(student, intent.previous_version)
        await self._recorder.append(event, step=step)
        return event


def outcome(
    views: Projections, intent: MoveIntended, request: Promote | Rollback, decided_by: str, *, rollback: bool
) -> VersionPromoted:
    """What is recorded of a move once it is made."""
    known = views.versions.get(intent.version)
    return VersionPromoted(
        version=intent.version,
        previous_version=intent.previous_version,
        generation=intent.generation + (intent.version != intent.previous_version),
        edits=known.edits if known else (),
        decided_by=decided_by,
        reason=request.reason,
        rollback=rollback,
        record=VersionPromoted.Record(content=intent.content, request_id=request.request_id),
    )


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
