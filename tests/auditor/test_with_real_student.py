"""The auditor and the real student: a tiny model really learns, is measured, promoted, and rolled back."""

from __future__ import annotations

from pathlib import Path

from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import student_pb2, student_pb2_grpc
from common.rpc.server import running
from student.config import StudentConfig
from student.servicer import StudentServicer
from student.student import Student
from tests.auditor.plays import at_desk, facts, of_kind, start_run, student, task, teacher
from tests.support.examples import BY_HEART
from tests.support.scripted_services import Stage, edit_about, on_stage
from tests.support.tiny_model import make_tiny_model, tiny_config


async def test_a_real_adapter_earns_its_place_and_can_be_taken_back(tmp_path: Path) -> None:
    good = edit_about("doc-a", "About a", list(facts("a").items()), recipe=BY_HEART)
    useless = edit_about("doc-a", "About a", [], recipe=BY_HEART)
    config = StudentConfig.model_validate(
        {
            "listen": "127.0.0.1:0",
            "metrics_listen": "",
            "grace_seconds": 0,
            "store": tmp_path / "store",
            "model": tiny_config(make_tiny_model(tmp_path / "model")).model_dump(),
        }
    )
    real = Student(config)
    servicer = StudentServicer(real)
    question = pb.AskRequest(topic="About a", question="a question 3?")
    try:
        async with (
            on_stage(teacher(a=[useless, good]), student()) as scripted,
            running(
                config,
                service="seal.v1.StudentService",
                add=lambda server: student_pb2_grpc.add_StudentServiceServicer_to_server(servicer, server),
                start=real.start,
                stop=servicer.close,
            ) as serving,
        ):
            stage = Stage(scripted.teacher, scripted.student, scripted.teacher_target, serving.target)
            async with at_desk(stage, tmp_path) as desk:
                # A model that has learned by heart is far from what it was: the gate's figure is what matters here.
                changes = {"max_answer_tokens": 8, "health": {"max_drift": 1_000.0, "max_degenerate": 1.0}}
                events = await desk.run(start_run("run", [task("a")], candidates=2, **changes))
                live = await desk.stub.Ask(question)
                await desk.stub.Rollback(pb.RollbackRequest(request_id="back", reason="only a test"))
                base = await desk.stub.Ask(question)
    finally:
        await real.close()
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
