"""From a context to the self-edits that are worth a trial: the teacher proposes, two gates screen.

auditor/loop.py calls these for each task of a round; auditor/trials.py goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from auditor import events as e
from auditor.crew import Work, load_edit
from auditor.findings import Gate
from auditor.gates.screening import format_gate, policy_gate
from auditor.peers import FailedProposal, ProposalOrder, ProposedEdit
from auditor.policy.reading import Opinion, read_by_model
from auditor.tasks import Task
from auditor.traces import note_gates
from common.canonical import canonical_json, derive_seed, digest_of
from common.edits import check_edit, edit_bytes
from common.errors import InvalidRequest
from common.metrics import timed
from common.tracing import note, span
from common.types import SelfEdit

log = structlog.get_logger("screening")


async def propose(work: Work, opened: e.RoundStarted, task: Task) -> list[e.EditProposed]:
    """K self-edits of the round's policy for the context, in order of their index."""
    settings, journal = work.order.settings, work.journal
    base = f"{opened.round}/{task.task_id}/propose"
    open_indexes = [i for i in range(settings.candidates) if journal.done(f"{base}/{i}") is None]
    if open_indexes:
        order = ProposalOrder(
            request_id=journal.request_id("propose", [opened.round, task.task_id]),
            kind=task.kind,
            context=task.context,
            count=settings.candidates,
            prompt_variants=settings.prompt_variants,
            seed=proposal_seed(work, opened, task),
            policy_version=opened.policy_version,
            recipe=settings.recipe,
        )
        with timed("proposing"), span("propose", candidates=len(open_indexes), policy=opened.policy_version):
            progress = journal.progress("proposing", opened.round, task.task_id)
            async for answer in work.crew.teacher.propose(order, progress):
                if answer.index in open_indexes:
                    open_indexes.remove(answer.index)
                    await record_proposal(work, f"{base}/{answer.index}", opened, task, answer)
        for index in open_indexes:
            missing = FailedProposal(index=index, reason="NOT_ANSWERED")
            await record_proposal(work, f"{base}/{index}", opened, task, missing)
    done = [journal.done(f"{base}/{i}") for i in range(settings.candidates)]
    return [event for event in done if isinstance(event, e.EditProposed)]


async def record_proposal(
    work: Work, step: str, opened: e.RoundStarted, task: Task, answer: ProposedEdit | FailedProposal
) -> None:
    """Writes one of the K down: the edit and how it was made, or why it was not."""
    reason = answer.reason if isinstance(answer, FailedProposal) else wrong_digest(answer.edit)
    if isinstance(answer, FailedProposal) or reason:
        failed = e.ProposalFailed(round=opened.round, task_id=task.task_id, index=answer.index, reason=reason)
        await work.journal.record(step, failed)
        return
    origin = canonical_json(answer.origin)
    context = task.context
    event = e.EditProposed(
        round=opened.round,
        task_id=task.task_id,
        edit=answer.edit.digest,
        index=answer.index,
        examples=len(answer.edit.examples),
        prompt_variant=answer.origin.prompt_variant,
        policy_version=answer.origin.policy_version or opened.policy_version,
        record=e.EditProposed.Record(
            origin=digest_of(answer.origin).sha256,
            context=context.reference.digest if context.reference else digest_of(context),
            title=context.title,
            seed=proposal_seed(work, opened, task),
        ),
    )
    await work.journal.record(step, event, (edit_bytes(answer.edit), origin))
    note("proposed", edit=answer.edit.digest.sha256, examples=event.examples)


def proposal_seed(work: Work, opened: e.RoundStarted, task: Task) -> int:
    return derive_seed(work.order.settings.seed, "propose", opened.round, task.task_id)


def wrong_digest(edit: SelfEdit) -> str:
    try:
        check_edit(edit)
    except InvalidRequest:
        return "WRONG_DIGEST"
    return ""


async def screen(work: Work, round_: int, task: Task, proposed: Sequence[e.EditProposed]) -> list[SelfEdit]:
    """The gates before training: format (size, limits, duplicates), policy rules, the policy model if there is one.

    What is turned away is recorded with its reason; what passes, where a policy model read it.
    """
    passed: dict[str, SelfEdit] = {}
    gates: dict[int, Gate] = {}
    opinions: dict[int, Opinion] = {}
    for event in proposed:
        self_edit = await load_edit(work.crew.recorder, event.edit.sha256)
        gate = format_gate(self_edit, task.context, work.start.record.limits, passed)
        if gate.passed:
            gate = await asyncio.to_thread(policy_gate, self_edit, work.rules.rules)
        if gate.passed:
            passed[self_edit.digest.sha256] = self_edit
        else:
            gates[event.index] = gate
            log.info("edit turned away", run_id=work.order.run_id, edit=event.edit.sha256, reason=gate.reason)
    if work.policy_model is not None:
        read = await read_by_model(work.policy_model, work.journal, list(passed.values()))
        opinions = {event.index: read[event.edit.sha256] for event in proposed if event.index not in gates}
        gates |= {index: opinion.gate for index, opinion in opinions.items()}
        passed = {sha256: self_edit for sha256, self_edit in passed.items() if read[sha256].gate.passed}
    for event in proposed:
        step = f"{round_}/{task.task_id}/screen/{event.index}"
        if event.index in gates and work.journal.done(step) is None:
            said = opinions[event.index].said if event.index in opinions else ""
            screened = e.EditScreened(
                round=round_,
                task_id=task.task_id,
                edit=event.edit,
                gate=gates[event.index],
                record=e.EditScreened.Record(said=said),
            )
            await work.journal.record(step, screened, (said,) if said else ())
            note_gates([gates[event.index]], edit=event.edit.sha256)
    return list(passed.values())
