"""From self-edits to rewards: trials of one task's edits on the round's parent.

The student trains an adapter for each (edit, seed), all in one batch, and each adapter that is proven to answer is
scored on tau's reward questions. With racing, seeds are spent in rungs: who can no longer win gets no more of them, and
who ties for the last place gets one more. auditor/loop.py calls `try_out` once a task and round.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from auditor import events as e
from auditor.batches import batches
from auditor.crew import Work, answers_of
from auditor.evidence.filter import Reward
from auditor.evidence.racing import behind, rungs, survivors, tied_for_a_place
from auditor.papers import Marked, compare
from auditor.peers import TrainCandidate, TrainOrder
from auditor.tasks import FilterMode, Task
from common.canonical import derive_seed
from common.lora.proof import Liveness
from common.metrics import timed
from common.tracing import note, span
from common.types import Digest, SelfEdit
from common.versions import FailedCandidate, TrainedCandidate

MAX_REQUEST_BYTES = 16 << 20  # half of what a message may have, for JSON and protobuf differ in size


@dataclass(frozen=True)
class Trials:
    """What the trials of one task found: rewards of all edits, and what racing saved of how many trainings."""

    rewards: list[Reward]
    planned: int
    saved: int


async def try_out(
    work: Work, opened: e.RoundStarted, task: Task, self_edits: Sequence[SelfEdit], baseline: Marked
) -> Trials:
    """theta' = SFT(theta, self_edit) and its reward, for every edit and as many seeds as it is worth."""
    settings = work.order.settings
    planned = len(self_edits) * settings.seeds
    if not settings.racing:
        adapters = await train(work, opened, task, self_edits, range(settings.seeds))
        return Trials(await score(work, opened.round, self_edits, adapters, baseline), planned, 0)
    adapters, rewards, saved, done = [], [], 0, 0
    alive: Sequence[SelfEdit] = self_edits
    for rung in rungs(settings.seeds):
        adapters += await train(work, opened, task, alive, range(done, rung))
        rewards = await score(work, opened.round, self_edits, adapters, baseline)
        done, left = rung, settings.seeds - rung
        if left and alive:
            stopped = await stop(work, opened, task, alive, rewards, done=done)
            saved += len(stopped) * left
            alive = [edit for edit in alive if edit.digest not in stopped]
    if settings.filter is FilterMode.TOP_K:
        before = contenders(rewards, alive)
        tied = tied_for_a_place(before, places(work), settings.threshold)
        if tied:
            names = {reward.edit for reward in tied}
            again = [edit for edit in alive if edit.digest in names]
            saved -= len(again)
            adapters += await train(work, opened, task, again, range(done, done + 1))
            rewards = await score(work, opened.round, self_edits, adapters, baseline)
            after = contenders(rewards, alive)
            less = behind(before, after, tied, places=places(work), threshold=settings.threshold)
            rewards = barred(rewards, {reward.edit for reward in less}, "behind those that tied for the last place")
    return Trials(raced(rewards, alive), planned, saved)


async def stop(
    work: Work, opened: e.RoundStarted, task: Task, alive: Sequence[SelfEdit], rewards: Sequence[Reward], *, done: int
) -> tuple[Digest, ...]:
    """Who gets no further seeds, written down."""
    settings = work.order.settings

    async def decide() -> e.CandidatesRaced:
        left = settings.seeds - done
        running = contenders(rewards, alive)
        stay = {
            reward.edit
            for reward in survivors(
                running, mode=settings.filter, places=places(work), threshold=settings.threshold, seeds_left=left
            )
        }
        stopped = tuple(edit.digest for edit in alive if edit.digest not in stay)
        return e.CandidatesRaced(
            round=opened.round,
            task_id=task.task_id,
            seeds_done=done,
            stopped=stopped,
            trainings_saved=len(stopped) * left,
        )

    return (await work.journal.step(f"{opened.round}/{task.task_id}/race/{done}", decide)).stopped


def places(work: Work) -> int:
    return min(work.order.settings.top_k, work.start.record.max_kept_per_context)


def contenders(rewards: Sequence[Reward], alive: Sequence[SelfEdit]) -> list[Reward]:
    running = {edit.digest for edit in alive}
    return [reward for reward in rewards if reward.edit in running]


def raced(rewards: Sequence[Reward], alive: Sequence[SelfEdit]) -> list[Reward]:
    """The rewards, in which those who were stopped cannot be kept."""
    running = {edit.digest for edit in alive}
    for reward in rewards:
        if reward.edit not in running:
            rewards = barred(rewards, {reward.edit}, f"could no longer win after {len(reward.runs)} of its seeds")
    return list(rewards)


def barred(rewards: Sequence[Reward], edits: Collection[Digest], why: str) -> list[Reward]:
    """The rewards, in which these edits cannot be kept. Who was barred before keeps that reason."""
    return [
        reward.model_copy(update={"barred": why}) if reward.edit in edits and not reward.barred else reward
        for reward in rewards
    ]


async def train(
    work: Work, opened: e.RoundStarted, task: Task, self_edits: Sequence[SelfEdit], turns: Iterable[int]
) -> list[e.CandidateTrained]:
    """theta' = SFT(theta, self_edit) for every edit and the seeds of `turns`, all candidates in one batch."""
    journal, round_ = work.journal, opened.round
    # The same seeds for every edit: edits differ by what they say, not by luck.
    seeds = [derive_seed(work.order.settings.seed, "train", turn) for turn in turns]
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
        edits = list(dict.fromkeys(candidate.edit.digest.sha256 for candidate in batch))
        with timed("training"), span("train", candidates=len(batch), edits=edits, parent=opened.parent_version):
            progress = journal.progress("training", round_, task.task_id)
            async for answer in work.crew.student.train(order, progress):
                if answer.candidate_id in candidates and journal.done(f"{base}/{answer.candidate_id}") is None:
                    event = trained(round_, task, candidates[answer.candidate_id], answer)
                    await journal.record(f"{base}/{answer.candidate_id}", event)
                    sound = isinstance(event, e.CandidateTrained)
                    note("trained", edit=event.edit.sha256, seed=event.seed, sound=sound)
        for candidate in batch:
            if journal.done(f"{base}/{candidate.candidate_id}") is None:
                lost = FailedCandidate(candidate_id=candidate.candidate_id, reason="NOT_ANSWERED")
                await journal.record(f"{base}/{candidate.candidate_id}", trained(round_, task, candidate, lost))
    done = [journal.done(f"{base}/{name}") for name in candidates]
    return [event for event in done if isinstance(event, e.CandidateTrained)]


def requests(candidates: Sequence[TrainCandidate], max_candidates: int) -> Iterator[list[TrainCandidate]]:
    """As few requests as the student's limit and the size of a message allow; almost always one."""
    return batches(candidates, max_candidates, size=lambda one: one.edit.digest.size_bytes, room=MAX_REQUEST_BYTES)


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
        versions = list(dict.fromkeys(adapter.version.version for adapter in todo.values()))
        with timed("answering"), span("score", versions=versions):
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
            note("scored", edit=adapter.edit.sha256, version=paper.version, gain=after.score.mean - baseline.score.mean)
    done = [journal.done(step) for step in steps]
    results = [result for result in done if isinstance(result, e.CandidateScored)]
    return [reward_of(self_edit, results, baseline) for self_edit in self_edits]


def about(adapter: e.CandidateTrained) -> dict[str, object]:
    return {"round": adapter.round, "task_id": adapter.task_id, "edit": adapter.edit, "seed": adapter.seed}


def reward_of(self_edit: SelfEdit, results: Sequence[e.CandidateScored], baseline: Marked) -> Reward:
    """What an edit's inner runs scored; runs that failed are left out, not counted as 0."""
    own = [result for result in results if result.edit == self_edit.digest]
    barred = "" if own else "no candidate could be trained and proven live"
    if any(result.liveness is not Liveness.LIVE for result in own):
        barred = "INERT: an adapter of this edit answers like its parent"
    return Reward(
        edit=self_edit.digest,
        before=tuple(mark.score for mark in baseline.marks),
        runs=tuple(tuple(c.score_after for c in result.record.comparisons) for result in own),
        barred=barred,
        examples=len(self_edit.examples),
    )
