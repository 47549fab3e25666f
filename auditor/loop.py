"""The SEAL loop, top to bottom: an outer loop of reinforcement over self-edits, an inner loop of weight updates.

    for each round, with one parent version theta fixed for all of it:
        for each (context, tau):
            baseline   = score(theta, tau)
            self_edits ~ policy(context)                 the teacher proposes K
            theta'     = SFT(theta, self_edit), per seed the student trains
            reward     = score(theta', tau) - baseline   on tau's reward half
            kept       = rest_em(rewards)
        promotion of the winners                         confirmed on tau's holdout half
        policy <- SFT(policy, kept)                      the teacher learns

Names are the paper's (arXiv 2506.10943): context is C, tau its evaluation, theta the student, self_edit SE, reward r.
Every step is journaled: run again after a kill, the loop gets the same events from the ledger up to where it was, and
goes on. Keys stay in this process: the teacher gets contexts and kept edits, the student edits and questions.
auditor/runs.py calls `run_loop`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from auditor import events as e
from auditor.anchors import check, identity_in
from auditor.candidates import propose, screen
from auditor.crew import Crew, Winner, Work, expect_same_student, marked_again, scored
from auditor.evidence.filter import Reward, rest_em
from auditor.evidence.splits import split
from auditor.examiner import Examiner
from auditor.feedback import context_bits, reward_values, told
from auditor.finish import finish
from auditor.journal import Journal, Kept
from auditor.measuring import Measuring
from auditor.papers import Group, Marked, of_task
from auditor.peers import KeptEdit, LearnOrder
from auditor.policy.in_force import policy_model_in_force, rules_in_force
from auditor.promotion import promote
from auditor.regrading import expect_graders
from auditor.tasks import FilterMode, Order, PromotionMode, Split, Task
from auditor.traces import task_span, winners_span
from auditor.trials import Trials, try_out
from common.canonical import canonical_json, derive_seed, digest_bytes, digest_of
from common.errors import InvalidRequest, NotPossible
from common.metrics import timed
from common.tracing import note, span


async def run_loop(order: Order, crew: Crew, journal: Journal) -> None:
    """Runs an order from wherever its journal stands to its RunFinished event. Raises SealError when it cannot."""
    work = await begin(order, crew, journal)
    settings = order.settings
    for round_ in range(1, settings.rounds + 1):
        opened = await journal.step(f"{round_}/start", partial(open_round, work, round_))
        theta = opened.parent_version
        winners: list[Winner] = []
        raced: list[Trials] = []
        for task in order.tasks:
            with task_span(work, round_, task):
                tau = split(task.tau)
                reward_questions = of_task(task, Split.REWARD, tau.reward)
                holdout_questions = of_task(task, Split.HOLDOUT, tau.holdout)
                baseline = await score_baseline(work, round_, theta, [reward_questions, holdout_questions])
                proposed = await propose(work, opened, task)
                self_edits = await screen(work, round_, task, proposed)
                trials = await try_out(work, opened, task, self_edits, baseline)
                raced.append(trials)
                name = f"{round_}/{task.task_id}/filter"
                verdicts = await journal.step(name, partial(keep, work, round_, task, trials.rewards))
            kept = {verdict.edit.sha256: verdict.gain for verdict in verdicts.verdicts if verdict.kept}
            by_digest = {self_edit.digest.sha256: self_edit for self_edit in self_edits}
            winners += [Winner(by_digest[name], task, gain) for name, gain in kept.items()]
        if settings.promotion is not PromotionMode.SEQUENTIAL:
            # The union takes the best first; one after another, documents are learned in the order of the tasks.
            winners.sort(key=lambda winner: -winner.gain)
        confirmations = await promote(work, opened, winners)
        await journal.step(f"{round_}/learn", partial(learn, work, round_, winners))
        await journal.step(f"{round_}/finish", partial(close_round, work, round_, winners, confirmations, raced))
    await finish(work)


async def begin(order: Order, crew: Crew, journal: Journal) -> Work:
    """Notes what the run starts from: versions, limits and rules that hold for all of it, also after a restart."""
    status = await crew.student.status()
    start = await journal.step("start", lambda: run_started(order, crew))
    expect_same_student(start, status)
    examiner = await examiner_of(order, crew, journal, start)
    rules = await rules_in_force(crew.recorder, start)
    work = Work(order, crew, journal, start, examiner, rules, policy_model_in_force(start, crew.policy_model))
    await expect_graders(work, status.live.version)
    if await check(work):
        work = replace(work, examiner=await examiner_of(order, crew, journal, start))
    return work


async def examiner_of(order: Order, crew: Crew, journal: Journal, start: e.RunStarted) -> Examiner:
    """Answers are cached for one student, and since evaluation was last found to have drifted."""
    identity = identity_in(start, (await crew.views.current()).epoch)
    return Examiner(
        crew.student,
        crew.recorder,
        journal,
        crew.graders,
        identity=identity,
        max_answer_tokens=order.settings.max_answer_tokens,
        measuring=Measuring(crew.student, crew.recorder, journal, crew.measures, identity=identity),
    )


async def run_started(order: Order, crew: Crew) -> Kept[e.RunStarted]:
    student, teacher = await crew.student.status(), await crew.teacher.status()
    settings, taus = order.settings, [split(task.tau) for task in order.tasks]
    rules = canonical_json(crew.rules)
    event = e.RunStarted(
        tasks=len(order.tasks),
        rounds=settings.rounds,
        candidates=settings.candidates,
        seeds=settings.seeds,
        config_sha256=digest_of([crew.config_sha256, settings.model_dump(mode="json")]).sha256,
        start_version=student.live.version,
        policy_version=teacher.policy_version,
        reward_questions=sum(len(tau.reward) for tau in taus),
        holdout_questions=sum(len(tau.holdout) for tau in taus),
        record=e.RunStarted.Record(
            student=student.identity,
            limits=student.limits,
            can_learn=teacher.can_learn,
            rules=digest_bytes(rules).sha256,
            policy_model=crew.policy_model.identity if crew.policy_model else "",
            max_kept_per_context=crew.max_kept_per_context,
            reward_levels=crew.reward_levels,
            teacher_software=teacher.software,
            student_software=student.software,
            auditor_software=crew.software,
        ),
    )
    return Kept(event, (rules,))


async def open_round(work: Work, round_: int) -> e.RoundStarted:
    """Fixes the parent and the policy that every reward of the round is measured on."""
    student, teacher = await work.crew.student.status(), await work.crew.teacher.status()
    return e.RoundStarted(round=round_, parent_version=student.live.version, policy_version=teacher.policy_version)


async def score_baseline(work: Work, round_: int, theta: str, groups: Sequence[Group]) -> Marked:
    """score(theta, tau), both halves asked at once; returns the reward half's."""
    marked: list[Marked] = []
    for group in groups:
        if not group.items:
            continue
        step = f"{round_}/{group.task_id}/baseline/{group.split.lower()}"

        async def compute(group: Group = group) -> Kept[e.VersionScored]:
            progress = work.journal.progress("answering", round_, group.task_id)
            asked = [group for group in groups if group.items]
            with timed("answering"), span("baseline", version=theta):
                paper = (await work.examiner.examine([theta], asked, progress))[theta]
            return scored(theta, paper.result(group), paper.cached, "baseline")

        marked.append(marked_again(group, await work.journal.step(step, compute)))
    return marked[0]


async def keep(work: Work, round_: int, task: Task, rewards: Sequence[Reward]) -> e.FilterDecided:
    """kept = rest_em(rewards): measured on one parent and one policy, this round's."""
    settings = work.order.settings
    verdicts = rest_em(
        rewards,
        mode=settings.filter,
        top_k=settings.top_k,
        threshold=settings.threshold,
        cap=work.start.record.max_kept_per_context,
        level=settings.level,
        by_lower_bound=settings.filter_by_lower_bound,
    )
    for verdict in verdicts:
        note("verdict", edit=verdict.edit.sha256, kept=verdict.kept, gain=verdict.gain)
    return e.FilterDecided(round=round_, task_id=task.task_id, verdicts=verdicts)


async def learn(work: Work, round_: int, winners: Sequence[Winner]) -> e.PolicyLearned:
    """The M-step: the teacher learns from what was kept, and proposes with it from the next round on."""
    settings = work.order.settings
    skipped = (
        "learning is switched off"
        if not settings.learn
        else "no edit was kept"
        if not winners
        else ""
        if work.start.record.can_learn
        else "the teacher cannot learn"
    )
    hears = settings.learn and work.start.record.can_learn
    record = e.PolicyLearned.Record(feedback_bits=round_bits(work) if hears else 0.0)
    if skipped:
        return e.PolicyLearned(round=round_, skipped=skipped, record=record)
    rejected = (await work.crew.views.current()).rejected_by
    kept = [
        KeptEdit(edit=winner.edit.digest, reward=winner.gain)
        for winner in winners
        if (work.order.run_id, winner.edit.digest.sha256) not in rejected
    ]
    if not kept:
        return e.PolicyLearned(round=round_, skipped="an operator rejected all that was kept", record=record)
    # The call travels in a trace that the first of them names: no order of merit there either.
    in_order = sorted(winners, key=lambda winner: winner.edit.digest.sha256)
    with winners_span("learn", work, round_, in_order):
        return await teach(work, round_, told(kept, work.start.record.reward_levels), record)


async def teach(work: Work, round_: int, kept: tuple[KeptEdit, ...], record: e.PolicyLearned.Record) -> e.PolicyLearned:
    """policy <- SFT(policy, kept), by the teacher."""
    settings = work.order.settings
    order = LearnOrder(
        request_id=work.journal.request_id("learn", [round_, [entry.edit.sha256 for entry in kept]]),
        kept=kept,
        learn_from=settings.learn_from,
        seed=derive_seed(settings.seed, "learn", round_),
    )
    try:
        with timed("learning"):
            policy = await work.crew.teacher.learn(order, work.journal.progress("learning", round_, ""))
    except (NotPossible, InvalidRequest) as error:
        if error.reason == "PEER_BROKE_CONTRACT":
            raise
        # A teacher that wrote nothing of these edits itself has nothing to learn from; the round stands all the same.
        return e.PolicyLearned(round=round_, skipped=f"the teacher cannot: {error.reason}", record=record)
    record = record.model_copy(update={"rewards": tuple(entry.reward for entry in kept)})
    return e.PolicyLearned(round=round_, policy=policy, edits=tuple(entry.edit for entry in kept), record=record)


def round_bits(work: Work) -> float:
    """Upper bound, in bits, of what one round's feedback tells the teacher of all tasks' reward questions."""
    settings, record = work.order.settings, work.start.record
    places = record.max_kept_per_context
    if settings.filter is FilterMode.TOP_K:
        places = min(places, settings.top_k)
    # Who ties for the last place gets one seed more (auditor/trials.py).
    runs = settings.seeds + 1
    return sum(
        context_bits(
            candidates=settings.candidates,
            places=places,
            values=reward_values(record.reward_levels, questions=len(split(task.tau).reward), runs=runs),
        )
        for task in work.order.tasks
    )


async def close_round(
    work: Work, round_: int, winners: Sequence[Winner], confirmations: Sequence[float], raced: Sequence[Trials]
) -> e.RoundFinished:
    """The gap between mean reward and mean confirmation grows when the reward is being gamed."""
    status = await work.crew.student.status()
    proposed = [
        work.journal.done(f"{round_}/{task.task_id}/propose/{i}")
        for task in work.order.tasks
        for i in range(work.order.settings.candidates)
    ]
    return e.RoundFinished(
        round=round_,
        live_version=status.live.version,
        edits_proposed=sum(isinstance(event, e.EditProposed) for event in proposed),
        edits_kept=len(winners),
        mean_reward=sum(winner.gain for winner in winners) / len(winners) if winners else 0.0,
        mean_confirmation=sum(confirmations) / len(confirmations) if confirmations else 0.0,
        confirmed=len(confirmations),
        trainings_saved=sum(trials.saved for trials in raced),
        trainings_planned=sum(trials.planned for trials in raced),
    )
