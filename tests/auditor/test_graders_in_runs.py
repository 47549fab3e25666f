"""Whole runs with graders that ask somebody else: choices, a judge, a command; what is refused, and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import task_pb2
from common.types import SelfEdit
from tests.auditor.plays import at_desk, facts, kinds, of_kind, settings, start_run, student, suite, task, teacher
from tests.support.openai_endpoint import asked, serving
from tests.support.scripted_services import edit_about, on_stage

JUDGED = {"kind": "GRADER_KIND_JUDGE"}
OTHERS = ("other1", "other2", "other3")


def graded(name: str, grader: dict[str, Any], **more: Any) -> dict[str, Any]:
    made = task(name)
    for item in made["tau"]:
        item["grader"] = grader
        item.update(more)
    return made


def choices(name: str) -> dict[str, Any]:
    """The base is right here by chance at times, so that fewer than five of five holdout questions can gain."""
    made = graded(name, {"kind": "GRADER_KIND_CHOICE"})
    for item in made["tau"]:
        (key,) = item["answers"]
        item["options"] = [f"{key}-{other}" for other in OTHERS] + [key + "-" + "x" * 6]
        item["answers"] = [key + "-" + "x" * 6]
    return made


def telling(name: str, say: str = "{}") -> SelfEdit:
    return edit_about(f"doc-{name}", f"About {name}", [(q, say.format(a)) for q, a in facts(name).items()])


def refusals(error: grpc.aio.AioRpcError) -> list[tuple[str, str]]:
    bad = error_details_pb2.BadRequest()
    status = rpc_status.from_call(cast("grpc.Call", error))
    for detail in status.details if status else ():
        if detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
    return [(violation.field, violation.description) for violation in bad.field_violations]


async def test_choices_are_scored_by_likelihood_and_decide_like_any_question(tmp_path: Path) -> None:
    good = telling("a", "{}-xxxxxx")
    useless = edit_about("doc-a", "About a", [])
    async with on_stage(teacher(a=[useless, good]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [choices("a")], candidates=2, level=0.2))
        record = (await desk.stub.GetEdit(pb.GetEditRequest(edit=good.digest.sha256))).record
    (promoted,) = of_kind(events, "version_promoted")
    assert [edit.sha256 for edit in promoted.edits] == [good.digest.sha256]
    assert of_kind(events, "run_finished")[0].run.live_holdout == pb.Score(questions=5, correct=5)
    assert {result.grader for result in record.reward_results} == {task_pb2.GRADER_KIND_CHOICE}
    assert {result.answer_after for result in record.reward_results} == {
        result.accepted_answers[0] for result in record.reward_results
    }
    assert not record.reward_results[0].HasField("lexical_after")
    # Each version was asked for each choice once, and never to answer one in words.
    assert set(stage.student.asked.values()) == {1}


async def test_a_version_that_is_not_proven_has_no_score_on_choices_either(tmp_path: Path) -> None:
    good = telling("a", "{}-xxxxxx")
    playing = student()
    playing.faults.invalid.add(good.digest.sha256)
    async with on_stage(teacher(a=[good]), playing) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [choices("a")], candidates=1))
    assert [event.reason.split(":")[0] for event in of_kind(events, "candidate_failed")] == ["LIVENESS_INVALID"]
    assert not of_kind(events, "candidate_scored")
    assert kinds(events)[-1] == "run_finished"


async def test_a_broken_stream_of_scores_is_taken_up_again(tmp_path: Path) -> None:
    playing = student()
    playing.faults.breaks["LogLikelihood"] = 2
    async with on_stage(teacher(a=[telling("a", "{}-xxxxxx")]), playing) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [choices("a")], candidates=1, level=0.2))
    assert kinds(events)[-1] == "run_finished"
    assert of_kind(events, "version_promoted")


async def test_words_and_choices_of_one_task_are_asked_side_by_side(tmp_path: Path) -> None:
    mixed = task("a")
    mixed["tau"][:5] = choices("a")["tau"][:5]
    say = [(q, f"{a}-xxxxxx" if i < 5 else a) for i, (q, a) in enumerate(facts("a").items())]
    good = edit_about("doc-a", "About a", say)
    async with on_stage(teacher(a=[good]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [mixed], candidates=1, level=0.2))
    assert of_kind(events, "run_finished")[0].run.live_holdout.correct == 5


async def test_a_judge_decides_and_its_disagreements_are_shown(tmp_path: Path) -> None:
    good = telling("a", "The thing that people call {} by another name")
    for_judge = graded("a", JUDGED)
    for item in for_judge["tau"]:
        item["answers"] = ["unlike " + item["answers"][0]]
    with serving(lambda body: "yes" if "people call" in asked(body)["answer_to_mark"] else "no") as endpoint:
        judges = {"main": {"base_url": endpoint.base_url, "model": "judge-1"}}
        async with (
            on_stage(teacher(a=[good]), student()) as stage,
            at_desk(stage, tmp_path, judges=judges) as desk,
        ):
            events = await desk.run(start_run("run", [for_judge], candidates=1))
            record = (await desk.stub.GetEdit(pb.GetEditRequest(edit=good.digest.sha256))).record
            results = (await desk.stub.GetRun(pb.GetRunRequest(run_id="run"))).holdout_results
            # Two answers to each of ten questions, however many versions gave them.
            assert len(endpoint.bodies) == 20
            await desk.run(start_run("again", [for_judge], candidates=1))
            assert len(endpoint.bodies) == 20
    assert of_kind(events, "version_promoted")
    for result in (*record.reward_results, *record.holdout_results, *results):
        assert result.grader == task_pb2.GRADER_KIND_JUDGE
        assert (result.score_before, result.score_after) == (0, 1)
        assert (result.lexical_before, result.lexical_after) == (0, 0)
        assert result.HasField("lexical_after")


async def test_a_judge_that_is_away_ends_the_run_and_the_next_one_pays_for_nothing_twice(tmp_path: Path) -> None:
    with serving(lambda body: "no") as endpoint:
        endpoint.statuses = [200] * 4 + [500] * 3
        judges = {"main": {"base_url": endpoint.base_url, "model": "judge-1", "concurrency": 1, "max_retries": 2}}
        async with (
            on_stage(teacher(a=[telling("a")]), student()) as stage,
            at_desk(stage, tmp_path, judges=judges) as desk,
        ):
            failed = await desk.run(start_run("run", [graded("a", JUDGED)], candidates=1))
            said = of_kind(failed, "run_failed")[0]
            assert (said.reason, said.detail) == ("UNAVAILABLE", "judge main cannot be reached: InternalServerError")
            done = await desk.run(start_run("next", [graded("a", JUDGED)], candidates=1))
        assert kinds(done)[-1] == "run_finished"
    assert set(stage.student.asked.values()) == {1}
    # 10 questions with the base's answer, 5 with the edit's (which gained nothing), and the three that failed.
    assert len(endpoint.bodies) == 15 + 3


async def test_a_command_decides(tmp_path: Path) -> None:
    commands = {"check": {"argv": ["grep", "-q", "^a", "answer.txt"], "sandbox": "limits", "network": True}}
    good = telling("a")
    asked_of = graded("a", {"kind": "GRADER_KIND_COMMAND", "name": "check"}, answers=[])
    async with (
        on_stage(teacher(a=[good]), student()) as stage,
        at_desk(stage, tmp_path, commands=commands) as desk,
    ):
        events = await desk.run(start_run("run", [asked_of], candidates=1))
    assert of_kind(events, "run_finished")[0].run.live_holdout == pb.Score(questions=5, correct=5)


@pytest.mark.parametrize(
    ("grader", "judges", "reason"),
    [
        (JUDGED, [], "has no judge"),
        ({**JUDGED, "name": "b"}, ["a"], "it has a"),
        (JUDGED, ["a", "b"], "several judges; name one of a, b"),
        ({"kind": "GRADER_KIND_COMMAND"}, ["a"], "has no command"),
    ],
)
async def test_what_nobody_here_can_mark_is_refused_by_path(
    tmp_path: Path, grader: dict[str, Any], judges: list[str], reason: str
) -> None:
    broken = task("a")
    broken["tau"][2]["grader"] = grader
    own = [{"item_id": "r", "question": "Who?", "answers": ["me"], "grader": grader}]
    suites = suite()
    suites["items"][1]["grader"] = grader
    content = {"run_id": "run", "tasks": [task("b"), {**broken, "retention": own}], "suites": [suites]}
    named = {name: {"base_url": "http://127.0.0.1:1/v1", "model": "m"} for name in judges}
    async with on_stage(teacher(), student()) as stage, at_desk(stage, tmp_path, judges=named) as desk:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await desk.stub.StartRun(ParseDict({**content, "settings": settings()}, pb.StartRunRequest()))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = refusals(refused.value)
    assert [path for path, _ in found] == [
        "tasks[1].tau[2].grader",
        "tasks[1].retention[0].grader",
        "suites[0].items[1].grader",
    ]
    assert all(reason in description for _, description in found)


async def test_one_judge_needs_no_name(tmp_path: Path) -> None:
    judges = {"only": {"base_url": "http://127.0.0.1:1/v1", "model": "m", "max_retries": 0}}
    async with on_stage(teacher(a=[telling("a")]), student()) as stage, at_desk(stage, tmp_path, judges=judges) as desk:
        events = await desk.run(start_run("run", [graded("a", JUDGED)], candidates=1))
    assert of_kind(events, "run_failed")[0].detail.startswith("judge only cannot be reached")


async def test_a_runaway_pattern_is_refused_before_anything_runs(tmp_path: Path) -> None:
    broken = task("a")
    broken["tau"][2] |= {"grader": {"kind": "GRADER_KIND_REGEX"}, "answers": [r"(a|aa)+$"]}
    async with on_stage(teacher(), student()) as stage, at_desk(stage, tmp_path) as desk:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await desk.stub.StartRun(start_run("run", [broken]))
    assert [path for path, _ in refusals(refused.value)] == ["tasks[0].tau[2].answers"]
