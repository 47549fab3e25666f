"""Promotion: a winner (or the union of the winners) is trained alone, confirmed, gated, and becomes live.

The adapter that is promoted is the one that was confirmed: trained by itself with a fresh seed on the version live at
that moment, so its digest can be reproduced. One that fails retention or drift alone is scaled down towards its parent,
step by step, and judged again from the first gate on: less of it is learned, and less forgotten. Live moves by
compare-and-swap from exactly that version, in its turn (auditor/moves.py); if somebody else moved it meanwhile, the
update is rejected with that reason. auditor/loop.py calls `promote` once a round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from auditor import events as e
from auditor.compose import union
from auditor.crew import Winner, Work
from auditor.findings import Gate, GateKind
from auditor.gates.update import approval_gate
from auditor.history import replayable
from auditor.journal import Kept
from auditor.judging import judge, rejected_by
from auditor.moves import name_previous, uninterrupted
from auditor.peers import LIVE, AliasOrder, TrainCandidate, TrainOrder
from auditor.ports import Student
from auditor.tasks import PromotionMode, Task
from common.canonical import derive_seed
from common.edits import edit_bytes
from common.errors import StaleGeneration
from common.metrics import timed
from common.types import SelfEdit
from common.versions import FailedCandidate, Replay

DECIDED_BY = "loop"

WHOLE = 1.0
# Largest first, and the first that passes stands: what is learned shrinks with the scale as well. Of an
# update that needs still less, little is left worth having.
SCALES = (WHOLE, 0.9, 0.75, 0.6)


@dataclass(frozen=True)
class Update:
    """What is to be promoted: an edit, the winners that it consists of, and the tasks of all winners of the round."""

    round: int
    edit: SelfEdit
    winners: tuple[Winner, ...]
    pool: tuple[Task, ...]
    left_out: tuple[Winner, ...] = ()


async def promote(work: Work, round_: int, winners: Sequence[Winner]) -> list[float]:
    """Promotes what holds up; returns each update's mean gain on its holdout questions.

    Sequential: winner by winner, best first, each on the version live at that moment. Consolidated: one update on the
    union of the winners, on the version live now (which holds what earlier rounds taught), with replay.
    """
    judged = [await carry_out(work, update) for update in updates(work, round_, winners)]
    # Of the whole update, as the reward was: the gap between the two says nothing of scales.
    return [j.holdout_after.mean - j.holdout_before.mean for j in judged if j.holdout_after.questions]


def updates(work: Work, round_: int, winners: Sequence[Winner]) -> list[Update]:
    """The round's updates, by the mode of promotion."""
    pool = tuple({winner.task.task_id: winner.task for winner in winners}.values())
    match work.order.settings.promotion:
        case PromotionMode.SEQUENTIAL:
            return [Update(round_, winner.edit, (winner,), pool) for winner in winners]
        case PromotionMode.CONSOLIDATED if winners:
            edit, parts = union([winner.edit for winner in winners], work.start.record.limits.max_examples)
            chosen = tuple(winner for winner in winners if winner.edit in parts)
            left_out = tuple(winner for winner in winners if winner.edit not in parts)
            return [Update(round_, edit, chosen, pool, left_out)]
    return []


async def carry_out(work: Work, update: Update) -> e.UpdateJudged:
    """Trains one update alone and judges it, at smaller scales if it forgets too much; live moves to what passed.

    Returns the judgement of the whole update.
    """
    whole = judged = await try_out(work, update, WHOLE)
    while not judged.final:
        judged = await try_out(work, update, judged.next_scale)
    return whole


async def try_out(work: Work, update: Update, scale: float) -> e.UpdateJudged:
    """The update at one scale: made, judged and, if it passed, live."""
    journal, name = work.journal, f"{update.round}/update/{update.edit.digest.sha256}"
    name = name if scale == WHOLE else f"{name}/scale/{scale:g}"
    trained = await journal.step(f"{name}/train", partial(train_alone, work, update, scale))
    if isinstance(trained, e.UpdateJudged):
        return trained
    assert isinstance(trained, e.UpdateTrained)
    smaller = max((other for other in SCALES if other < scale), default=0.0)
    judged = await journal.step(f"{name}/judge", partial(judge, work, trained, update.winners, update.pool, smaller))
    if judged.accepted:
        moved = await go_live(work, name, trained, judged)
        if isinstance(moved, e.UpdateJudged):
            return moved
    return judged


async def train_alone(work: Work, update: Update, scale: float) -> Kept[e.Event]:
    """One adapter, by itself, with a seed that no candidate had: an UpdateTrained, or an UpdateJudged if it failed.

    Below scale 1 the student interpolates what it has trained already; it trains again only where that was lost.
    """
    edit, edits = update.edit, tuple(winner.edit.digest for winner in update.winners)
    task_ids = tuple(dict.fromkeys(winner.task.task_id for winner in update.winners))
    live = (await work.crew.student.status()).live
    order = await training_order(work, update, live.version, scale)
    candidate = order.candidates[0]
    reason = "NOT_ANSWERED"
    with timed("training"):
        async for answer in work.crew.student.train(order, work.journal.progress("training", update.round, "")):
            if isinstance(answer, FailedCandidate):
                reason = answer.reason
                continue
            event = e.UpdateTrained(
                round=update.round,
                edits=edits,
                trained_edit=edit.digest,
                seed=candidate.seed,
                version=answer.version,
                task_ids=task_ids,
                record=e.UpdateTrained.Record(
                    live_generation=live.generation,
                    replay=order.replay,
                    left_out=tuple(winner.edit.digest for winner in update.left_out),
                    examples=len(edit.examples),
                ),
            )
            return Kept(event, (edit_bytes(edit),))
    gate = Gate(kind=GateKind.LIVENESS, reason=f"training failed: {reason}")
    record = e.UpdateJudged.Record(parent_version=live.version, seed=candidate.seed, task_ids=task_ids)
    return Kept(e.UpdateJudged(round=update.round, version="", edits=edits, gates=(gate,), record=record), ())


async def training_order(work: Work, update: Update, live: str, scale: float) -> TrainOrder:
    """Trains on `live`, replaying what its ancestry was taught and is still true."""
    settings, edit = work.order.settings, update.edit
    views = await work.crew.views.current()
    replayed = replayable(views, live, [winner.task.context for winner in update.winners])
    replay = Replay(edits=replayed, share=settings.replay_share) if replayed and settings.replay_share else None
    seed = derive_seed(settings.seed, "confirm", update.round, edit.digest.sha256)
    candidate = TrainCandidate(candidate_id=f"{edit.digest.sha256}:{seed}", edit=edit, seed=seed, scale=scale)
    content = [update.round, live, candidate.candidate_id, replay.model_dump(mode="json") if replay else None, scale]
    return TrainOrder(
        request_id=work.journal.request_id("update", content),
        parent_version=live,
        candidates=(candidate,),
        replay=replay,
        alone=True,
    )


async def go_live(work: Work, name: str, trained: e.UpdateTrained, judged: e.UpdateJudged) -> e.Event:
    """The move and its event in one turn: no other move comes between, and no cancelling.

    Until then the run can be cancelled and the update rejected.
    """

    async def in_turn(student: Student) -> e.Event:
        # An earlier try whose answer was lost has been recorded meanwhile.
        await work.journal.read_again()
        moving = partial(move_live, work, student, name, trained, judged)
        return await uninterrupted(work.journal.step(f"{name}/promote", moving))

    return await work.crew.moves.when_possible(work.crew.student, in_turn)


async def move_live(
    work: Work, student: Student, name: str, trained: e.UpdateTrained, judged: e.UpdateJudged
) -> Kept[e.Event]:
    """live moves from the parent to the update, if the parent is still live; previous then names the parent."""
    journal = work.journal
    version, generation = trained.version.version, trained.record.live_generation
    if by := rejected_by(await work.crew.views.current(), work.order.run_id, judged.edits):
        return Kept(judged.model_copy(update={"accepted": False, "gates": (approval_gate(by),)}), ())
    order = AliasOrder(
        request_id=journal.request_id("live", [version, generation]),
        name=LIVE,
        version=version,
        expected_generation=generation,
    )
    promoted = promotion_of(trained, judged)
    intent = e.MoveIntended(
        version=version,
        previous_version=promoted.previous_version,
        generation=generation,
        content=order.request_id,
        step=f"{name}/promote",
        made=promoted,
    )
    if journal.done(f"{name}/intent") is None:
        await journal.record(f"{name}/intent", intent)
    try:
        await student.set_alias(order)
    except StaleGeneration:
        reason = "somebody else moved live while this update was confirmed"
        lost = Gate(kind=GateKind.CONFIRMATION, reason=reason, figures={"expected_generation": float(generation)})
        return Kept(judged.model_copy(update={"accepted": False, "gates": (lost,)}), ())
    await name_previous(student, promoted.previous_version)
    return Kept(promoted, ())


def promotion_of(trained: e.UpdateTrained, judged: e.UpdateJudged) -> e.VersionPromoted:
    """What is recorded of the move once it is made; compare-and-swap says which generation that is."""
    return e.VersionPromoted(
        version=trained.version.version,
        previous_version=trained.version.parent_version,
        generation=trained.record.live_generation + 1,
        edits=trained.edits,
        decided_by=DECIDED_BY,
        reason=next(gate.reason for gate in judged.gates if gate.kind is GateKind.CONFIRMATION),
    )
