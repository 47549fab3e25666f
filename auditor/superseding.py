"""Does an update still say what an earlier revision of a document said? auditor/judging.py asks after confirmation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from auditor import events as e
from auditor.crew import Work
from auditor.findings import Gate
from auditor.gates.superseded import superseded_gate
from auditor.history import Superseded
from auditor.ledger.store import texts
from auditor.papers import Group, Paper, of_task


def group_of(fact: Superseded) -> Group:
    return of_task(fact.task, fact.split, (fact.item,))


async def still_said(work: Work, trained: e.UpdateTrained, facts: Sequence[Superseded]) -> Gate | None:
    """The gate's finding over all superseded answers; None where there are none."""
    if not facts:
        return None
    groups = merged(facts)
    progress = work.journal.progress("answering", trained.round, "")
    version, parent = trained.version.version, trained.version.parent_version
    papers = await work.examiner.examine([parent, version], groups, progress)
    before, after = await given(work, papers[parent], groups), await given(work, papers[version], groups)
    changing, settled = (
        tuple(count(facts, answers, changing=side) for answers in (before, after)) for side in (True, False)
    )
    return superseded_gate((changing[0], changing[1]), (settled[0], settled[1]), len(facts))


def count(facts: Sequence[Superseded], answers: Mapping[tuple[str, str], str], *, changing: bool) -> int:
    """How many of the facts are still given as they were."""
    return sum(
        fact.said_in(answers[fact.task.task_id, fact.item.item_id]) for fact in facts if fact.changing is changing
    )


def merged(facts: Sequence[Superseded]) -> list[Group]:
    """One group a task and side of the split."""
    items: dict[str, list[Superseded]] = {}
    for fact in facts:
        items.setdefault(group_of(fact).name, []).append(fact)
    return [of_task(own[0].task, own[0].split, tuple(fact.item for fact in own)) for own in items.values()]


async def given(work: Work, paper: Paper, groups: Sequence[Group]) -> Mapping[tuple[str, str], str]:
    """A version's answers as texts, by task and item."""
    marks = {(group.task_id, mark.item_id): mark.answer for group in groups for mark in paper.result(group).marks}
    recorder = work.crew.recorder
    content = await recorder.run(texts, recorder.ledger, list(marks.values()))
    return {name: content[answer] for name, answer in marks.items()}
