"""From context to rewards: the loop's steps for one task of a round.

The teacher proposes self-edits, two gates screen them, the student trains an adapter for each (edit, seed), and each
adapter that is proven to answer is scored on tau's reward questions. auditor/loop.py calls these in that order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import structlog

from auditor import events as e
from auditor.crew import Work, answers_of, load_edit
from auditor.examiner import Marked, compare
from auditor.filter import Reward
from auditor.findings import Gate
from auditor.gates.screening import format_gate, policy_gate
from auditor.peers import FailedProposal, ProposalOrder, ProposedEdit, TrainCandidate, TrainOrder
from auditor.policy.reading import read_by_model
from auditor.tasks import Task
from common.canonical import canonical_json, derive_seed, digest_of
from common.edits import check_edit, edit_bytes
from common.errors import InvalidRequest
from common.lora.proof import Liveness
from common.metrics import timed
from common.types import Digest, SelfEdit
from common.versions import FailedCandidate, TrainedCandidate

log = structlog.get_logger("screening")

MAX_REQUEST_BYTES = 16 << 20  # half of what a message may have, for JSON and protobuf differ in size


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
        with timed("proposing"):
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
    for event in proposed:
        self_edit = await load_edit(work.crew.recorder, event.edit.sha256)
        gate = format_gate(self_edit, task.context, work.start.record.limits, passed)
        if gate.passed:
            gate = policy_gate(self_edit, work.rules.rules)
        if gate.passed:
            passed[self_edit.digest.sha256] = self_edit
        else:
            gates[event.index] = gate
            log.info("edit turned away", run_id=work.order.run_id, edit=event.edit.sha256, reason=gate.reason)
    if work.policy_model is not None:
        read = await read_by_model(work.policy_model, work.journal, list(passed.values()))
        gates |= {event.index: read[event.edit.sha256] for event in proposed if event.index not in gates}
        passed = {sha256: self_edit for sha256, self_edit in passed.items() if read[sha256].passed}
    for event in proposed:
        step = f"{round_}/{task.task_id}/screen/{event.index}"
        if event.index in gates and work.journal.done(step) is None:
            screened = e.EditScreened(round=round_, task_id=task.task_id, edit=event.edit, gate=gates[event.index])
            await work.journal.record(step, screened)
    return list(passed.values())


async def train(
    work: Work, opened: e.RoundStarted, task: Task, self_edits: Sequence[SelfEdit]
) -> list[e.CandidateTrained]:
    """theta' = SFT(theta, self_edit) for every edit and seed, all candidates in one batch."""
    settings, journal, round_ = work.order.settings, work.journal, opened.round
    # The same seeds for every edit: edits differ by what they say, not by luck.
    seeds = [derive_seed(settings.seed, "train", i) for i in range(settings.seeds)]
    candidates = {
        f"{edit.digest.sha256}:{seed}": TrainCandidate(
            candidate_id=f"{edit.digest.sha256}:{seed}", edit=edit, seed=seed
        )
        for edit in self_edits
        for seed in seeds
    }
    base = f"{round_}/{task.task_id}/train"
    for batch in requests(list(candidates.values()), work.start.record.limits.max_candidates):
        if all(journal.done(f"{base}/{candidate.candidate_id}") for candidate in batch):
            continue
        order = TrainOrder(
            request_id=journal.request_id(
                "train", [round_, task.task_id, opened.parent_version, [c.candidate_id for c in batch]]
            ),
            parent_version=opened.parent_version,
            candidates=tuple(batch),
        )
        with timed("training"):
            progress = journal.progress("training", round_, task.task_id)
            async for answer in work.crew.student.train(order, progress):
                if answer.candidate_id in candidates and journal.done(f"{base}/{answer.candidate_id}") is None:
                    event = trained(round_, task, candidates[answer.candidate_id], answer)
                    await journal.record(f"{base}/{answer.candidate_id}", event)
        for candidate in batch:
            if journal.done(f"{base}/{candidate.candidate_id}") is None:
                lost = FailedCandidate(candidate_id=candidate.candidate_id, reason="NOT_ANSWERED")
                await journal.record(f"{base}/{candidate.candidate_id}", trained(round_, task, candidate, lost))
    done = [journal.done(f"{base}/{name}") for name in candidates]
    return [event for event in done if isinstance(event, e.CandidateTrained)]


def requests(candidates: Sequence[TrainCandidate], max_candidates: int) -> Iterator[list[TrainCandidate]]:
    """As few requests as the student's limit and the size of a message allow; almost always one."""
    request: list[TrainCandidate] = []
    size = 0
    for candidate in candidates:
        grown = size + candidate.edit.digest.size_bytes
        if request and (len(request) == max_candidates or grown > MAX_REQUEST_BYTES):
            yield request
            request, grown = [], candidate.edit.digest.size_bytes
        request.append(candidate)
        size = grown
    if request:
        yield request


def trained(
    round_: int, task: Task, candidate: TrainCandidate, answer: TrainedCandidate | FailedCandidate
) -> e.CandidateTrained | e.CandidateFailed:
    digest, seed = candidate.edit.digest, candidate.seed
    if isinstance(answer, FailedCandidate):
        return e.CandidateFailed(
            round=round_, task_id=task.task_id, edit=digest, seed=seed, reason=answer.reason or "UNKNOWN"
        )
    return e.CandidateTrained(
        round=round_, task_id=task.task_id, edit=digest, seed=seed, version=answer.version, reused=answer.reused
    )


async def score(
    work: Work,
    round_: int,
    self_edits: Sequence[SelfEdit],
    adapters: Sequence[e.CandidateTrained],
    baseline: Marked,
) -> list[Reward]:
    """reward = score(theta', tau's reward half) - baseline, once the adapter is proven to answer.

    An adapter whose proof is INVALID has failed: it is never a reward of 0. An INERT one is scored and cannot be kept.
    """
    journal, task_id = work.journal, baseline.group.task_id
    steps = {f"{round_}/{task_id}/score/{adapter.edit.sha256}:{adapter.seed}": adapter for adapter in adapters}
    todo = {step: adapter for step, adapter in steps.items() if journal.done(step) is None}
    if todo:
        with timed("answering"):
            versions = list(dict.fromkeys(adapter.version.version for adapter in todo.values()))
            progress = journal.progress("answering", round_, task_id)
            papers = await work.examiner.examine(versions, [baseline.group], progress)
        for step, adapter in todo.items():
            paper = papers[adapter.version.version]
            if paper.liveness is Liveness.INVALID:
                reason = f"{Liveness.INVALID.value}: {paper.proof.detail if paper.proof else ''}"
                await journal.record(step, e.CandidateFailed(**about(adapter), reason=reason))
                continue
            after = paper.result(baseline.group)
            comparisons = compare(baseline, after)
            event = e.CandidateScored(
                **about(adapter),
                version=paper.version,
                liveness=paper.liveness,
                before=baseline.score,
                after=after.score,
                record=e.CandidateScored.Record(
                    comparisons=comparisons, parent_version=adapter.version.parent_version, proof=paper.proof
                ),
            )
            await journal.record(step, event, answers_of(comparisons))
    done = [journal.done(step) for step in steps]
    results = [result for result in done if isinstance(result, e.CandidateScored)]
    return [reward_of(self_edit.digest, results, baseline) for self_edit in self_edits]


def about(adapter: e.CandidateTrained) -> dict[str, object]:
    return {"round": adapter.round, "task_id": adapter.task_id, "edit": adapter.edit, "seed": adapter.seed}


def reward_of(digest: Digest, results: Sequence[e.CandidateScored], baseline: Marked) -> Reward:
    """What an edit's inner runs scored; runs that failed are left out, not counted as 0."""
    own = [result for result in results if result.edit == digest]
    barred = "" if own else "no candidate could be trained and proven live"
    if any(result.liveness is not Liveness.LIVE for result in own):
        barred = "INERT: an adapter of this edit answers like its parent"
    return Reward(
        edit=digest,
        questions=baseline.score.questions,
        before=baseline.score.correct,
        correct=tuple(result.after.correct for result in own),
        barred=barred,
    )
