"""Documents change: what a new revision teaches anew is neither replayed nor retained; nor is what was rolled back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from common.contract.seal.v1 import auditor_pb2 as pb
from common.edits import make_edit
from common.types import SelfEdit
from tests.auditor.plays import at_desk, of_kind, start_run, student, task, teacher, teaching
from tests.support.scripted_services import on_stage


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
    assert of_kind(events, "update_judged")[0].retention_after.questions == 15
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
