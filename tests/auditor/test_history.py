"""Documents change: what a new revision teaches anew is neither replayed nor retained; nor is what was rolled back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auditor.evidence.splits import split
from auditor.history import History, changed, unchanged
from auditor.regrading import may_be_asked
from auditor.tasks import Task
from common.contract.seal.v1 import auditor_pb2 as pb
from common.edits import make_edit
from common.types import SelfEdit
from tests.auditor.plays import at_desk, facts, of_kind, start_run, student, task, teacher, teaching
from tests.support.scripted_services import edit_about, on_stage


def revised(name: str, edit: SelfEdit) -> tuple[dict[str, Any], SelfEdit]:
    """The second revision of a task and of an edit about it."""
    second = task(name)
    second["task_id"] = f"{name}-2"
    second["context"]["revision"] = "2"
    for item in second["tau"]:
        item["question"] = item["question"].replace("question", "new question")
    examples = [e for e in teaching(name, 10).examples if e.conversation]
    texts = [
        e.model_copy(
            update={
                "conversation": type(e.conversation).model_validate_json(
                    e.conversation.model_dump_json().replace("question", "new question")
                )
            }
        )
        for e in examples
        if e.conversation
    ]
    changed = make_edit(kind=edit.kind, document_id=edit.document_id, revision="2", examples=texts, recipe=edit.recipe)
    return second, changed


async def test_new_revision_is_not_held_back_by_the_old_one(tmp_path: Path) -> None:
    old, other = teaching("a", 10), teaching("b", 10)
    second, new = revised("a", old)
    script = teacher(a=[old], b=[other])
    async with on_stage(script, student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.run(start_run("one", [task("a"), task("b")], candidates=1))
        script.script = {"doc-a": [new]}
        events = await desk.run(start_run("two", [second], candidates=1))
    update = of_kind(events, "update_trained")[0]
    alone = [r for r in stage.student.requests_to_train() if r.alone]
    request = next(r for r in alone if r.candidates[0].edit.digest.sha256 == new.digest.sha256)
    assert [d.sha256 for d in request.replay.edits] == [other.digest.sha256]
    assert of_kind(events, "update_judged")[0].accepted
    # The ten known items and b's holdout questions; none of the old revision's.
    assert of_kind(events, "update_judged")[0].retention_after.questions == 20
    assert update.version.parent_version == of_kind(events, "round_started")[0].parent_version


async def test_rolled_back_edits_are_not_replayed(tmp_path: Path) -> None:
    script = teacher(a=[teaching("a", 10)], b=[teaching("b", 10)])
    async with on_stage(script, student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.run(start_run("one", [task("a")], candidates=1))
        await desk.stub.Rollback(pb.RollbackRequest(request_id="r", reason="wrong"))
        events = await desk.run(start_run("two", [task("b")], candidates=1))
    assert of_kind(events, "update_trained")[0].version.replay_share == 0
    assert of_kind(events, "update_judged")[0].retention_after.questions == 10
    assert of_kind(events, "update_trained")[0].version.parent_version == "base"


def corrected(name: str, count: int, of: int = 10) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Revision 2 of a task under the same id: the first `count` answers are other ones. And what is true now."""
    second = task(name, of)
    second["context"]["revision"] = "2"
    for item in second["tau"][:count]:
        item["answers"] = [f"new {item['answers'][0]} indeed".replace(name, f"{name}x")]
    return second, [(item["question"], item["answers"][0]) for item in second["tau"]]


def edit_of_revision_2(name: str, facts: list[tuple[str, str]]) -> SelfEdit:
    first = edit_about(f"doc-{name}", f"About {name}", facts)
    return make_edit(
        kind=first.kind, document_id=first.document_id, revision="2", examples=first.examples, recipe=first.recipe
    )


async def in_two_revisions(
    folder: Path, count: int, taught: Callable[[list[tuple[str, str]]], list[tuple[str, str]]]
) -> tuple[list[pb.RunEvent], pb.GetEditResponse, str]:
    """Learns a and b, then revision 2 of a with `count` changed answers, from an edit that says what `taught` says."""
    second, now = corrected("a", count)
    new = edit_of_revision_2("a", taught(now))
    script = teacher(a=[teaching("a", 10)], b=[teaching("b", 10)])
    async with on_stage(script, student()) as stage, at_desk(stage, folder) as desk:
        await desk.run(start_run("one", [task("a"), task("b")], candidates=1))
        script.script = {"doc-a": [new]}
        # Revision 2 changes nothing of most questions: of those it cannot gain.
        events = await desk.run(start_run("two", [second], candidates=1, level=0.3))
        record = await desk.stub.GetEdit(pb.GetEditRequest(edit=new.digest.sha256))
        changed = second["tau"][0]["question"]
        said = await desk.stub.Ask(pb.AskRequest(topic="About a", question=changed))
    return events, record, said.answer


def gate_of(record: pb.GetEditResponse, kind: pb.GateKind.ValueType) -> Any:
    return next(gate for gate in record.record.gates if gate.kind == kind)


async def test_new_revision_replaces_the_old_answers_and_keeps_the_rest(tmp_path: Path) -> None:
    events, record, said = await in_two_revisions(tmp_path, 6, lambda now: now)
    gate = gate_of(record, pb.GATE_KIND_SUPERSEDED)
    assert (gate.figures["changing_before"], gate.figures["changing_after"], gate.figures["questions"]) == (6, 0, 6)
    assert of_kind(events, "update_judged")[0].accepted
    assert said == "new ax0 indeed"
    # The ten known items and all of b; what changed in a is asked in its own tau alone.
    assert of_kind(events, "update_judged")[0].retention_after.questions == 20


async def test_update_that_goes_on_saying_what_was_superseded_is_rejected(tmp_path: Path) -> None:
    """It gains, because it says the new answer as well; but to every changed question it still says the old one."""

    def both(now: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [(question, f"{answer}, once a{place}") for place, (question, answer) in enumerate(now)]

    events, record, said = await in_two_revisions(tmp_path, 6, both)
    gate = gate_of(record, pb.GATE_KIND_SUPERSEDED)
    assert not gate.passed
    assert gate.figures["changing_after"] == 6
    assert record.record.summary.reason.startswith("superseded: superseded answers still given: 6 -> 6 of 6")
    assert not of_kind(events, "version_promoted")
    assert said == "a0"


async def test_later_update_must_not_bring_back_what_was_superseded(tmp_path: Path) -> None:
    second, now = corrected("a", 6)
    reviving = edit_about("doc-b", "About b", [*facts("b").items(), ("a question 0?", "a0")])
    script = teacher(a=[teaching("a", 10)], b=[reviving])
    async with on_stage(script, student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.run(start_run("one", [task("a")], candidates=1))
        script.script = {**script.script, "doc-a": [edit_of_revision_2("a", now)]}
        await desk.run(start_run("two", [second], candidates=1, level=0.3))
        events = await desk.run(start_run("three", [task("b")], candidates=1))
        record = await desk.stub.GetEdit(pb.GetEditRequest(edit=reviving.digest.sha256))
    gate = gate_of(record, pb.GATE_KIND_SUPERSEDED)
    assert not gate.passed
    assert (gate.figures["settled_before"], gate.figures["settled_after"]) == (0, 1)
    assert not of_kind(events, "version_promoted")


async def test_forgetting_matrix_has_every_version_and_every_task_that_it_was_asked(tmp_path: Path) -> None:
    """a is learned, then b, whose edit makes the model forget one of a's five holdout questions."""
    lost = split(Task.model_validate(task("a")).tau).holdout[0].question
    harming = edit_about("doc-b", "About b", [*facts("b").items(), (lost, "something else")])
    script = teacher(a=[teaching("a", 10)], b=[harming])
    async with on_stage(script, student()) as stage, at_desk(stage, tmp_path) as desk:
        for name in "ab":
            await desk.run(start_run(name, [task(name)], candidates=1))
        listed = await desk.stub.ListVersions(pb.AuditorServiceListVersionsRequest())
    rows = [{t.task_id: t.score.correct for t in v.task_scores} for v in listed.versions]
    assert rows == [{"a": 4, "b": 5}, {"a": 5, "b": 0}, {"a": 0, "b": 0}]
    assert listed.forgetting.tasks == 1
    assert listed.forgetting.average_forgetting == pytest.approx(0.2)
    assert listed.forgetting.backward_transfer == pytest.approx(-0.2)


async def test_tasks_of_two_documents_may_have_one_id_and_are_both_retained(tmp_path: Path) -> None:
    """Ids are unique in a run only."""
    first, second, third = task("a"), task("b"), task("c")
    second["task_id"] = third["task_id"] = "a"
    script = teacher(a=[teaching("a", 10)], b=[teaching("b", 10)], c=[teaching("c", 10)])
    async with on_stage(script, student()) as stage, at_desk(stage, tmp_path) as desk:
        for number, one in enumerate((first, second, third)):
            events = await desk.run(start_run(f"run-{number}", [one], candidates=1))
    judged = of_kind(events, "update_judged")[0]
    # The ten known items, and all ten questions of each of the other two documents.
    assert (judged.accepted, judged.retention_after.questions) == (True, 30)


async def test_second_task_about_one_revision_leaves_the_first_in_retention(tmp_path: Path) -> None:
    other = task("b")
    other["context"] = task("a")["context"]
    asked = edit_about("doc-a", "About a", list(facts("b").items()))
    script = teacher(a=[teaching("a", 10)])
    async with on_stage(script, student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.run(start_run("one", [task("a")], candidates=1))
        script.script = {"doc-a": [asked]}
        events = await desk.run(start_run("two", [other], candidates=1))
    assert of_kind(events, "update_judged")[0].retention_after.questions == 20


def test_numbers_and_choices_that_differ_in_signs_alone_are_different_answers() -> None:
    def about(answer: str, kind: str) -> Task:
        made = task("a", 4)
        for item in made["tau"]:
            item["answers"], item["grader"] = [answer], {"kind": kind}
        return Task.model_validate(made)

    numeric = "GRADER_KIND_NUMERIC"
    assert unchanged(about("1.5", numeric), about("15", numeric)) is None
    assert unchanged(about("1.5", numeric), about("1.5", numeric)) is not None
    assert len(list(changed(about("15", numeric), [about("1.5", numeric)], changing=True))) == 4
    worded = "GRADER_KIND_CONTAINS"
    assert unchanged(about("The Box", worded), about("box", worded)) is not None


def test_earlier_revision_is_asked_whole_by_the_update_of_another_task() -> None:
    """So its graders are needed, although the run teaches the document anew and asks none of its old questions."""
    old, other = Task.model_validate(task("a")), Task.model_validate(task("b"))
    changed_tau = [{**item, "answers": ["another answer"]} for item in task("a")["tau"]]
    new = Task.model_validate(
        {**task("a"), "task_id": "a2", "tau": changed_tau, "context": {**task("a")["context"], "revision": "2"}}
    )
    history = History({old.context.document_id: [old]})
    assert may_be_asked(history, [new]) == []
    assert may_be_asked(history, [new, other]) == [old]
