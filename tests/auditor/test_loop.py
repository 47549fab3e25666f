"""The loop over real gRPC: what is kept, what is promoted, what is refused and why."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import grpc
import pytest

from auditor.evidence.splits import split
from auditor.tasks import Task
from common.contract.seal.v1 import auditor_pb2 as pb
from common.types import Recipe
from tests.auditor.plays import at_desk, harmful, kinds, of_kind, start_run, student, task, teacher, teaching
from tests.support.scripted_services import edit_about, on_stage


async def test_sequential_run_keeps_the_best_edit_and_promotes_it(tmp_path: Path) -> None:
    none, half, full = teaching("a", 0), teaching("a", 5), teaching("a", 10)
    async with on_stage(teacher(a=[none, half, full]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")]))
        promoted = of_kind(events, "version_promoted")
        verdicts = {v.edit.sha256: v for v in of_kind(events, "filter_decided")[0].verdicts}
        run = of_kind(events, "run_finished")[0].run
        accepted = (await desk.stub.ListEdits(pb.ListEditsRequest(state=pb.EDIT_STATE_ACCEPTED))).edits
        rejected = (await desk.stub.ListEdits(pb.ListEditsRequest(state=pb.EDIT_STATE_REJECTED))).edits
        standing = (await desk.stub.GetRun(pb.GetRunRequest(run_id="run"))).holdout_results

    assert [(r.score_before, r.score_after, r.version_before) for r in standing] == [(0, 1, "base")] * 5
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    assert [e.sha256 for p in promoted for e in p.edits] == [full.digest.sha256]
    assert verdicts[full.digest.sha256].kept
    assert verdicts[full.digest.sha256].gain == 1.0
    assert not verdicts[none.digest.sha256].kept
    assert "others have more evidence" in verdicts[half.digest.sha256].reason
    assert (verdicts[full.digest.sha256].questions, verdicts[full.digest.sha256].runs) == (5, 1)
    assert verdicts[full.digest.sha256].p_value == pytest.approx(3 / 32)
    assert stage.student.moves == [("live", promoted[0].version)]
    assert stage.student.adapters[promoted[0].version].message.trained_alone
    assert (run.base_holdout.correct, run.live_holdout.correct, run.live_holdout.questions) == (0, 5, 5)
    assert (run.retention_before.correct, run.retention_after.correct) == (10, 10)
    assert (run.edits_proposed, run.edits_accepted, run.edits_rejected) == (3, 1, 2)
    assert [e.edit.sha256 for e in accepted] == [full.digest.sha256]
    assert {e.edit.sha256 for e in rejected} == {none.digest.sha256, half.digest.sha256}
    assert stage.teacher.learned == [[full.digest.sha256]]


async def test_confirmation_uses_a_seed_that_no_candidate_had(tmp_path: Path) -> None:
    async with on_stage(teacher(a=[teaching("a", 10)]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1, seeds=3))
    trained = of_kind(events, "candidate_trained")
    update = of_kind(events, "update_trained")[0]
    assert len({t.seed for t in trained}) == 3
    assert update.seed not in {t.seed for t in trained}


async def test_holdout_that_does_not_gain_rejects_a_winner(tmp_path: Path) -> None:
    """An edit that knows the reward questions alone is kept by the filter and refused at confirmation."""
    tau = split(Task.model_validate(task("a")).tau)
    gamed = edit_about("doc-a", "About a", [(item.question, item.answers[0]) for item in tau.reward])
    async with on_stage(teacher(a=[gamed]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1))
        record = (await desk.stub.GetEdit(pb.GetEditRequest(edit=gamed.digest.sha256[:8]))).record
    judged = of_kind(events, "update_judged")[0]
    assert not judged.accepted
    assert stage.student.moves == []
    assert record.summary.state == pb.EDIT_STATE_REJECTED
    assert record.summary.reason.startswith("confirmation: 0 -> 0 of 5")
    finished = of_kind(events, "round_finished")[0]
    assert finished.mean_reward == 1.0
    assert finished.mean_confirmation == 0.0


async def test_update_that_forgets_is_rejected_and_says_what_was_forgotten(tmp_path: Path) -> None:
    edit = harmful("a", of=20)
    async with on_stage(teacher(a=[edit]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a", 20)], candidates=1))
        record = (await desk.stub.GetEdit(pb.GetEditRequest(edit=edit.digest.sha256))).record
    judged = of_kind(events, "update_judged")[0]
    assert [(g.kind, g.passed) for g in judged.gates][-1] == (pb.GATE_KIND_RETENTION, False)
    assert (judged.retention_before.correct, judged.retention_after.correct) == (10, 0)
    assert [(j.scale, j.accepted) for j in of_kind(events, "update_judged")] == [
        (1.0, False),
        (0.75, False),
        (0.625, False),
        (0.5, False),
    ]
    assert len(record.forgotten) == 5
    assert record.forgotten[0].answer_before in record.forgotten[0].accepted_answers
    assert stage.student.moves == []


async def test_update_that_forgets_too_much_is_scaled_down_until_it_does_not(tmp_path: Path) -> None:
    """Two of ten forgotten is over the bound, one is not: bisection finds the largest scale that forgets but one."""
    edit = harmful("a", 2, 20)
    async with on_stage(teacher(a=[edit]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a", 20)], candidates=1))
        record = (await desk.stub.GetEdit(pb.GetEditRequest(edit=edit.digest.sha256))).record
    whole, smaller, scaled = of_kind(events, "update_trained")
    judged = of_kind(events, "update_judged")
    assert (whole.version.scale, smaller.version.scale, scaled.version.scale) == (1.0, 0.75, 0.875)
    assert (whole.seed, whole.trained_edit) == (scaled.seed, scaled.trained_edit)
    assert [j.accepted for j in judged] == [False, False, True]
    assert [j.next_scale for j in judged] == [0.75, 0.875, 0]
    assert [j.retention_after.correct for j in judged] == [8, 9, 9]
    assert stage.student.moves == [("live", scaled.version.version)]
    assert record.summary.state == pb.EDIT_STATE_ACCEPTED
    assert record.accepted_version == scaled.version.version
    said = [(gate.passed, gate.figures["scale"]) for gate in record.gates if gate.kind == pb.GATE_KIND_RETENTION]
    assert said == [(False, 1.0), (True, 0.875)]
    assert [gate.kind for gate in record.gates].count(pb.GATE_KIND_CONFIRMATION) == 1


async def test_union_that_is_scaled_down_has_one_record_with_all_its_versions(tmp_path: Path) -> None:
    edits = {"a": [harmful("a", 2, 20)], "b": [teaching("b", 20, 20)]}
    async with on_stage(teacher(**edits), student()) as stage, at_desk(stage, tmp_path) as desk:
        tasks = [task("a", 20), task("b", 20)]
        events = await desk.run(start_run("run", tasks, candidates=1, promotion="PROMOTION_MODE_CONSOLIDATED"))
        whole, smaller, scaled = of_kind(events, "update_trained")
        union = (await desk.stub.GetEdit(pb.GetEditRequest(edit=whole.trained_edit.sha256))).record
        own = (await desk.stub.GetEdit(pb.GetEditRequest(edit=edits["b"][0].digest.sha256))).record
    assert [version.version for version in union.versions] == [
        made.version.version for made in (whole, smaller, scaled)
    ]
    for record in (union, own):
        assert record.accepted_version == scaled.version.version
        said = [(gate.passed, gate.figures["scale"]) for gate in record.gates if gate.kind == pb.GATE_KIND_RETENTION]
        assert said == [(False, 1.0), (True, 0.875)]


async def test_gap_between_reward_and_confirmation_is_that_of_the_whole_update(tmp_path: Path) -> None:
    async with on_stage(teacher(a=[harmful("a", 2)]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1))
    (finished,) = of_kind(events, "round_finished")
    assert finished.mean_reward == finished.mean_confirmation == 1.0


async def test_update_that_gains_nothing_is_not_scaled(tmp_path: Path) -> None:
    tau = split(Task.model_validate(task("a")).tau)
    gamed = edit_about("doc-a", "About a", [(item.question, item.answers[0]) for item in tau.reward])
    async with on_stage(teacher(a=[gamed]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1))
    assert [t.version.scale for t in of_kind(events, "update_trained")] == [1.0]


async def test_consolidated_run_promotes_the_union_of_the_winners(tmp_path: Path) -> None:
    a, b = teaching("a", 10), teaching("b", 10)
    async with on_stage(teacher(a=[a], b=[b]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(
            start_run("run", [task("a"), task("b")], candidates=1, promotion="PROMOTION_MODE_CONSOLIDATED")
        )
        update = of_kind(events, "update_trained")[0]
        union = (await desk.stub.GetEdit(pb.GetEditRequest(edit=update.trained_edit.sha256))).record
        listed = (await desk.stub.ListEdits(pb.ListEditsRequest())).edits
    run = of_kind(events, "run_finished")[0].run
    assert {e.sha256 for e in update.edits} == {a.digest.sha256, b.digest.sha256}
    assert len(union.edit.examples) == 20
    assert union.summary.state == pb.EDIT_STATE_ACCEPTED
    assert len(union.holdout_results) == 10
    assert (run.live_holdout.correct, run.edits_accepted) == (10, 2)
    assert len(of_kind(events, "version_promoted")) == 1
    assert len(listed) == 2


async def test_second_round_starts_from_what_was_promoted_and_replays_it(tmp_path: Path) -> None:
    a, b = teaching("a", 10), teaching("b", 10)
    async with on_stage(teacher(a=[a], b=[b]), student()) as stage, at_desk(stage, tmp_path) as desk:
        first = await desk.run(start_run("one", [task("a")], candidates=1))
        second = await desk.run(start_run("two", [task("b")], candidates=1, rounds=2))
    live = of_kind(first, "version_promoted")[0].version
    assert of_kind(second, "round_started")[0].parent_version == live
    update = of_kind(second, "update_trained")[0]
    assert update.version.parent_version == live
    assert update.version.replay_share == pytest.approx(0.2)
    judged = of_kind(second, "update_judged")[0]
    # The ten known items, and all ten questions of the task that was accepted before.
    assert judged.retention_after.questions == 20
    assert (
        of_kind(second, "round_started")[1].policy_version == of_kind(second, "policy_learned")[0].policy.policy_version
    )


async def test_promotion_none_keeps_edits_and_moves_nothing(tmp_path: Path) -> None:
    async with on_stage(teacher(a=[teaching("a", 10)]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1, promotion="PROMOTION_MODE_NONE"))
        kept = (await desk.stub.ListEdits(pb.ListEditsRequest(state=pb.EDIT_STATE_KEPT))).edits
    assert stage.student.moves == []
    assert "update_trained" not in kinds(events)
    assert len(kept) == 1


async def test_invalid_liveness_fails_a_candidate_and_is_never_a_reward(tmp_path: Path) -> None:
    good, bad = teaching("a", 10), teaching("a", 9)
    stand_in = student()
    stand_in.faults.invalid.add(bad.digest.sha256)
    async with on_stage(teacher(a=[good, bad]), stand_in) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=2))
        record = (await desk.stub.GetEdit(pb.GetEditRequest(edit=bad.digest.sha256))).record
    assert [f.edit.sha256 for f in of_kind(events, "candidate_failed")] == [bad.digest.sha256]
    assert "LIVENESS_INVALID" in of_kind(events, "candidate_failed")[0].reason
    assert bad.digest.sha256 not in {s.edit.sha256 for s in of_kind(events, "candidate_scored")}
    verdict = next(v for v in of_kind(events, "filter_decided")[0].verdicts if v.edit.sha256 == bad.digest.sha256)
    assert not verdict.kept
    assert "no candidate could be" in verdict.reason
    assert record.summary.state == pb.EDIT_STATE_REJECTED
    assert len(of_kind(events, "version_promoted")) == 1


async def test_inert_adapter_is_reported_and_cannot_be_kept(tmp_path: Path) -> None:
    edit = teaching("a", 10)
    stand_in = student()
    stand_in.faults.inert.add(edit.digest.sha256)
    async with on_stage(teacher(a=[edit]), stand_in) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1))
    scored = of_kind(events, "candidate_scored")[0]
    verdict = of_kind(events, "filter_decided")[0].verdicts[0]
    assert scored.liveness == 3
    assert not verdict.kept
    assert verdict.reason.startswith("INERT")


async def test_one_failed_candidate_and_one_failed_proposal_fail_alone(tmp_path: Path) -> None:
    good, bad = teaching("a", 10), teaching("a", 9)
    stand_in = student()
    stand_in.faults.untrainable.add(bad.digest.sha256)
    async with on_stage(teacher(a=[good, None, bad]), stand_in) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")]))
    assert of_kind(events, "proposal_failed")[0].reason == "EMPTY_EDIT"
    assert of_kind(events, "candidate_failed")[0].reason == "NON_FINITE_LOSS"
    assert len(of_kind(events, "version_promoted")) == 1


async def test_screen_turns_away_duplicates_and_edits_beyond_the_limits(tmp_path: Path) -> None:
    good = teaching("a", 10)
    greedy = edit_about("doc-a", "About a", [("a question 0?", "a0")], recipe=Recipe(rank=65))
    alien = edit_about("doc-b", "About a", [("a question 0?", "a0")])
    async with on_stage(teacher(a=[good, good, greedy, alien]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=4))
        accepted = (await desk.stub.ListEdits(pb.ListEditsRequest(state=pb.EDIT_STATE_ACCEPTED))).edits
    reasons = [s.gate.reason for s in of_kind(events, "edit_screened")]
    assert reasons[0] == "duplicate of an edit of this round"
    assert "rank 65 is over the student's limit of 64" in reasons[1]
    assert reasons[2] == "written for another document or revision"
    assert len(of_kind(events, "candidate_trained")) == 1
    assert len(accepted) == 1


async def test_teacher_with_nothing_to_learn_from_does_not_fail_the_run(tmp_path: Path) -> None:
    speechless = teacher(a=[teaching("a", 10)])
    speechless.has_nothing_to_learn = True
    async with on_stage(speechless, student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1))
    (learned,) = of_kind(events, "policy_learned")
    assert "NOTHING_TO_LEARN" in learned.skipped
    assert of_kind(events, "run_finished")


async def test_policy_rule_turns_an_edit_away_without_quoting_it(tmp_path: Path) -> None:
    async with (
        on_stage(teacher(a=[teaching("a", 10)]), student()) as stage,
        at_desk(stage, tmp_path, policy={"forbidden": ["a question [0-9]"]}) as desk,
    ):
        events = await desk.run(start_run("run", [task("a")], candidates=1))
    screened = of_kind(events, "edit_screened")[0]
    assert screened.gate.kind == pb.GATE_KIND_POLICY
    assert screened.gate.reason == "policy.forbidden[0]: 10 of 10 examples match what it forbids"
    assert stage.student.trainings == Counter()


async def test_live_moved_by_somebody_else_rejects_the_update(tmp_path: Path) -> None:
    stand_in = student()

    def interfere(name: str) -> None:
        if name == "live":
            version, generation = stand_in.alias["live"]
            stand_in.alias["live"] = (version, generation + 1)

    stand_in.before_move = interfere
    async with on_stage(teacher(a=[teaching("a", 10)]), stand_in) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1))
        edits = (await desk.stub.ListEdits(pb.ListEditsRequest())).edits
    assert "version_promoted" not in kinds(events)
    assert not of_kind(events, "update_judged")[-1].accepted
    assert "somebody else moved live" in edits[0].reason
    assert kinds(events)[-1] == "run_finished"


async def test_broken_streams_are_opened_again_and_nothing_comes_twice(tmp_path: Path) -> None:
    stand_in = student()
    stand_in.faults.breaks.update({"Train": 2, "Answer": 2})
    edits = [teaching("a", n) for n in (3, 6, 10)]
    async with on_stage(teacher(a=edits), stand_in) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")]))
    assert kinds(events)[-1] == "run_finished"
    assert len(of_kind(events, "candidate_trained")) == 3
    assert max(stage.student.trainings.values()) == 1


async def test_baseline_is_asked_once_over_rounds_and_runs(tmp_path: Path) -> None:
    async with on_stage(teacher(a=[teaching("a", 0)]), student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.run(start_run("one", [task("a")], candidates=1, rounds=2))
        events = await desk.run(start_run("two", [task("a")], candidates=1))
    assert all(scored.cached for scored in of_kind(events, "version_scored"))
    assert max(stage.student.asked.values()) == 1


async def test_run_fails_at_once_when_an_earlier_task_cannot_be_marked_any_more(tmp_path: Path) -> None:
    commands = {
        name: {"argv": ["grep", "-q", "^[a-c]", "answer.txt"], "sandbox": "limits", "network": True}
        for name in ("kept", "dropped")
    }
    marked = task("a")
    for item in marked["tau"]:
        item |= {"answers": [], "grader": {"kind": "GRADER_KIND_COMMAND", "name": "dropped"}}
    async with on_stage(teacher(a=[teaching("a", 10)], b=[teaching("b", 10)]), student()) as stage:
        async with at_desk(stage, tmp_path, commands=commands) as desk:
            events = await desk.run(start_run("first", [marked], candidates=1))
            assert of_kind(events, "version_promoted")
        del commands["dropped"]
        async with at_desk(stage, tmp_path, commands=commands) as desk:
            events = await desk.run(start_run("second", [task("b")], candidates=1))
            (failed,) = of_kind(events, "run_failed")
            assert failed.reason == "GRADER_UNKNOWN"
            assert "task a of an earlier run" in failed.detail
            assert "command dropped" in failed.detail
            assert not of_kind(events, "edit_proposed")
            # Nothing is judged here, so nothing earlier is asked.
            events = await desk.run(start_run("third", [task("b")], candidates=1, promotion="PROMOTION_MODE_NONE"))
            assert kinds(events)[-1] == "run_finished"


async def test_unreachable_student_fails_the_run_and_the_service_stays_up(tmp_path: Path) -> None:
    async with (
        on_stage(teacher(a=[teaching("a", 10)]), student()) as stage,
        at_desk(stage, tmp_path, student={"target": "127.0.0.1:1"}) as desk,
    ):
        events = await desk.run(start_run("run", [task("a")], candidates=1))
        failed = (await desk.stub.GetRun(pb.GetRunRequest(run_id="run"))).run
        status = await desk.stub.GetStatus(pb.AuditorServiceGetStatusRequest())
    assert of_kind(events, "run_failed")[0].reason == "UNAVAILABLE"
    assert failed.state == pb.RUN_STATE_FAILED
    assert status.teacher.backend == "scripted"
    assert not status.HasField("student")


async def test_same_run_id_is_idempotent_and_refused_for_other_content(tmp_path: Path) -> None:
    async with on_stage(teacher(a=[teaching("a", 10)]), student()) as stage, at_desk(stage, tmp_path) as desk:
        await desk.run(start_run("run", [task("a")], candidates=1))
        again = await desk.stub.StartRun(start_run("run", [task("a")], candidates=1))
        with pytest.raises(grpc.aio.AioRpcError) as other:
            await desk.stub.StartRun(start_run("run", [task("a")], candidates=2))
        runs = (await desk.stub.ListRuns(pb.ListRunsRequest())).runs
    assert again.run.state == pb.RUN_STATE_FINISHED
    assert other.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert len(runs) == 1
