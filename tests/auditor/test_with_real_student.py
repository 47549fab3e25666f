"""The auditor and the real student: a tiny model really learns, is measured, promoted, and rolled back."""

from __future__ import annotations

from pathlib import Path

from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import student_pb2
from tests.auditor.plays import at_desk, facts, of_kind, start_run, task, teacher
from tests.support.examples import BY_HEART
from tests.support.real_student import on_stage_with_real_student
from tests.support.scripted_services import edit_about
from tests.support.tiny_model import make_tiny_model, tiny_config


async def test_a_real_adapter_earns_its_place_and_can_be_taken_back(tmp_path: Path) -> None:
    good = edit_about("doc-a", "About a", list(facts("a").items()), recipe=BY_HEART)
    useless = edit_about("doc-a", "About a", [], recipe=BY_HEART)
    model = tiny_config(make_tiny_model(tmp_path / "model"))
    question = pb.AskRequest(topic="About a", question="a question 3?")
    async with (
        on_stage_with_real_student(teacher(a=[useless, good]), tmp_path, model) as stage,
        at_desk(stage, tmp_path) as desk,
    ):
        # A model that has learned by heart is far from what it was: the gate's figure is what matters here.
        changes = {"max_answer_tokens": 8, "health": {"max_drift": 1_000.0, "max_degenerate": 1.0}}
        events = await desk.run(start_run("run", [task("a")], candidates=2, **changes))
        live = await desk.stub.Ask(question)
        await desk.stub.Rollback(pb.RollbackRequest(request_id="back", reason="only a test"))
        base = await desk.stub.Ask(question)
    promoted = of_kind(events, "version_promoted")[0]
    run = of_kind(events, "run_finished")[0].run
    assert [edit.sha256 for edit in promoted.edits] == [good.digest.sha256]
    assert (run.base_holdout.correct, run.live_holdout.correct) == (0, 5)
    assert {scored.liveness for scored in of_kind(events, "candidate_scored")} == {student_pb2.LIVENESS_LIVE}
    drift = next(g for j in of_kind(events, "update_judged") for g in j.gates if g.kind == pb.GATE_KIND_DRIFT)
    assert drift.figures["prompts"] == 10
    assert 0.01 < drift.figures["kl_per_token"] < drift.figures["highest"]
    assert (live.answer, live.version, live.alias_generation) == ("a3", promoted.version, 1)
    assert base.version == "base"
    assert base.answer != live.answer
