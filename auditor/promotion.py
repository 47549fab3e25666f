"""Promotion: a winner (or the union of the winners) is trained alone, confirmed, gated, and becomes live.

The adapter that is promoted is the one that was confirmed: trained by itself with a fresh seed on the version live at
that moment, so its digest can be reproduced. One that fails retention or drift alone is scaled down towards its parent,
step by step, and judged again from the first gate on: less of it is learned, and less forgotten. Live moves by
compare-and-swap from exactly that version, in its turn (auditor/moves.py); if somebody else moved it meanwhile, the
update is rejected with that reason. auditor/loop.py calls `promote` once a round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from auditor import events as e
from auditor.compose import union
from auditor.crew import Winner, Work
from auditor.cross_split import audit
from auditor.evidence.scaling import WHOLE, Outcome
from auditor.findings import Gate, GateKind
from auditor.gates.update import approval_gate
from auditor.history import replayable
from auditor.journal import Kept
from auditor.judging import Case, judge, outcome_of, rejected_by
from auditor.moves import name_previous, uninterrupted
from auditor.peers import LIVE, AliasOrder, TrainCandidate, TrainOrder
from auditor.pooling import pool, tests_of, undecided
from auditor.ports import Student
from auditor.tasks import PromotionMode
from auditor.traces import note_gates, winners_span
from common.canonical import derive_seed
from common.edits import edit_bytes
from common.errors import StaleGeneration
from common.metrics import timed
from common.tracing import span
from common.types import SelfEdit
from common.versions import FailedCandidate, Replay, Version

DECIDED_BY = "loop"


@dataclass(frozen=True)
class Update:
    """What is to be promoted: an edit, and the winners that it consists of.

    tested: how many updates of the round are confirmed on the same holdout questions; pooled: the round's pooled
    verdict, where it needs one.
    """

    round: int
    edit: SelfEdit
    winners: tuple[Winner, ...]
    left_out: tuple[Winner, ...] = ()
    tested: int = 1
    pooled: e.WinnersPooled | None = None


async def promote(work: Work, opened: e.RoundStarted, winners: Sequence[Winner]) -> list[float]:
    """Promotes what holds up; returns each update's mean gain on its holdout questions.

    Sequential: winner by winner, in the order of the tasks, each on the version live at that moment. Consolidated: one
    update on the union of the winners, on the version live now (which holds what earlier rounds taught), with replay.
    """
    judged = [await carry_out(work, update) for update in await updates(work, opened, winners)]
    # Of the whole update, as the reward was: the gap between the two says nothing of scales.
    return [j.holdout_after.mean - j.holdout_before.mean for j in judged if j.holdout_after.questions]


async def updates(work: Work, opened: e.RoundStarted, winners: Sequence[Winner]) -> list[Update]:
    """The round's updates, by the mode of promotion."""
    round_ = opened.round
    match work.order.settings.promotion:
        case PromotionMode.SEQUENTIAL:
            pooled = await pool(work, round_, opened.parent_version, winners)
            tests, small = tests_of(winners), undecided(winners, work.order.settings.level)
            return [
                Update(
                    round_,
                    winner.edit,
                    (winner,),
                    tested=tests[winner.task.task_id],
                    pooled=pooled if winner in small else None,
                )
                for winner in winners
            ]
        case PromotionMode.CONSOLIDATED if winners:
            edit, parts = union([winner.edit for winner in winners], work.start.record.limits.max_examples)
            chosen = tuple(winner for winner in winners if winner.edit in parts)
            left_out = tuple(winner for winner in winners if winner.edit not in parts)
            return [Update(round_, edit, chosen, left_out)]
    return []


async def carry_out(work: Work, update: Update) -> e.UpdateJudged:
    """Trains one update alone and judges it, at smaller scales if it forgets too much; live moves to what passed.

    Returns the judgement of the whole update.
    """
    tried: dict[float, Outcome] = {}
    with winners_span("update", work, update.round, update.winners, edit=update.edit.digest):
        whole = judged = await try_out(work, update, WHOLE, tried)
        while not judged.final:
            tried[judged.scale] = outcome_of(judged.gates)
            judged = await try_out(work, update, judged.next_scale, tried)
        await audit(work, name_of(update), whole, update.winners)
    return whole


def name_of(update: Update) -> str:
    """Of the update's steps."""
    return f"{update.round}/update/{update.edit.digest.sha256}"


async def try_out(work: Work, update: Update, scale: float, tried: Mapping[float, Outcome]) -> e.UpdateJudged:
    """The update at one scale: made, judged and, if that decides, live."""
    journal, name = work.journal, name_of(update)
    name = name if scale == WHOLE else f"{name}/scale/{scale:g}"
    trained = await journal.step(f"{name}/train", partial(train_alone, work, update, scale))
    if isinstance(trained, e.UpdateJudged):
        return trained
    assert isinstance(trained, e.UpdateTrained)
    case = Case(trained, update.winners, update.tested, update.pooled, tried)
    name = f"{name}/again" if scale in tried else name
    with span("judge", version=trained.version.version, scale=scale):
        judged = await journal.step(f"{name}/judge", partial(judge, work, case))
        note_gates(judged.gates)
    if judged.accepted:
        with span("promote", version=trained.version.version):
            moved = await go_live(work, name, trained, judged)
        if isinstance(moved, e.UpdateJudged):
            return moved
    return judged


async def train_alone(work: Work, update: Update, scale: float) -> Kept[e.Event]:
    """Fresh trainings, each by itself, with seeds that no trial had: an UpdateTrained, or an UpdateJudged if it failed.

    The first is the one that is to be promoted. Below scale 1 the student interpolates what it has trained already; it
    trains again only where that was lost.
    """
    edit, edits = update.edit, tuple(winner.edit.digest for winner in update.winners)
    task_ids = tuple(dict.fromkeys(winner.task.task_id for winner in update.winners))
    live = (await work.crew.student.status()).live
    order = await training_order(work, update, live.version, scale)
    first = order.candidates[0]
    made: dict[str, Version] = {}
    reasons: dict[str, str] = {}
    with timed("training"), span("train alone", candidates=len(order.candidates), parent=live.version, scale=scale):
        async for answer in work.crew.student.train(order, work.journal.progress("training", update.round, "")):
            if isinstance(answer, FailedCandidate):
                reasons[answer.candidate_id] = answer.reason
            else:
                made[answer.candidate_id] = answer.version
    if first.candidate_id not in made:
        reason = reasons.get(first.candidate_id, "NOT_ANSWERED")
        gate = Gate(kind=GateKind.LIVENESS, reason=f"training failed: {reason}")
        record = e.UpdateJudged.Record(parent_version=live.version, seed=first.seed, task_ids=task_ids)
        return Kept(e.UpdateJudged(round=update.round, version="", edits=edits, gates=(gate,), record=record), ())
    event = e.UpdateTrained(
        round=update.round,
        edits=edits,
        trained_edit=edit.digest,
        seed=first.seed,
        version=made[first.candidate_id],
        task_ids=task_ids,
        record=e.UpdateTrained.Record(
            live_generation=live.generation,
            repeats=tuple(made[c.candidate_id] for c in order.candidates[1:] if c.candidate_id in made),
            replay=order.replay,
            left_out=tuple(winner.edit.digest for winner in update.left_out),
            examples=len(edit.examples),
        ),
    )
    return Kept(event, (edit_bytes(edit),))


async def training_order(work: Work, update: Update, live: str, scale: float) -> TrainOrder:
    """Trains on `live`, replaying what its ancestry was taught and is still true."""
    settings, edit = work.order.settings, update.edit
    views = await work.crew.views.current()
    replayed = replayable(views, live, [winner.task.context for winner in update.winners])
    replay = Replay(edits=replayed, share=settings.replay_share) if replayed and settings.replay_share else None
    seeds = [
        derive_seed(settings.seed, "confirm", update.round, edit.digest.sha256, *([place] if place else []))
        # Where the round's winners are pooled, the pool has the repeats.
        for place in range(1 if update.pooled else settings.confirmation_seeds)
    ]
    candidates = tuple(
        TrainCandidate(candidate_id=f"{edit.digest.sha256}:{seed}", edit=edit, seed=seed, scale=scale) for seed in seeds
    )
    names = [candidate.candidate_id for candidate in candidates]
    content = [update.round, live, names, replay.model_dump(mode="json") if replay else None, scale]
    return TrainOrder(
        request_id=work.journal.request_id("update", content),
        parent_version=live,
        candidates=candidates,
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
