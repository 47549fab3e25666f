"""No key ever leaves the auditor, and what is malformed is refused by name before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from auditor.keys import GraderKind
from auditor.requests import StartRun
from auditor.suite_files import built_in_suites, read_suite
from auditor.tasks import Settings
from common.contract.seal.v1 import auditor_pb2 as pb
from common.convert import from_proto
from common.errors import InvalidConfig, InvalidRequest
from tests.auditor.plays import at_desk, kinds, of_kind, settings, start_run, student, suite, task, teacher, teaching
from tests.support.openai_endpoint import asked, serving
from tests.support.scripted_services import edit_about, on_stage

CANARY = "CANARY-3f9a"


async def test_a_string_in_every_key_never_reaches_teacher_or_student(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    own = [{"item_id": "r0", "question": "Capital of France?", "answers": ["Paris", CANARY]}]
    tasks = [{**task(name, extra_answer=CANARY), "retention": own} for name in "ab"]
    content = {"run_id": "run", "tasks": tasks, "settings": settings(rounds=2), "suites": [suite(CANARY)]}
    script = {name: [teaching(name, n) for n in (0, 5, 10)] for name in "ab"}
    async with on_stage(teacher(**script), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(ParseDict(content, pb.StartRunRequest()))
    printed = capfd.readouterr()
    assert kinds(events)[-1] == "run_finished"
    assert of_kind(events, "version_promoted")
    assert len(stage.received()) > 10_000
    assert CANARY.encode() not in stage.received()
    assert CANARY.encode() not in b"".join(event.SerializeToString() for event in events)
    assert CANARY not in printed.out + printed.err
    # It is in the ledger, so it was really there to be leaked.
    assert CANARY.encode() in (tmp_path / "ledger.db").read_bytes()


def choice_of(key: str) -> list[dict[str, Any]]:
    """Choices that the scripted student knows nothing of; every option is as likely as the others."""
    options = [f"option {name}" for name in "abcd"]
    return [
        {
            "item_id": f"q{i}",
            "question": f"Which one is number {i}?",
            "options": [f"option {key}", *(option for option in options if not option.endswith(key))],
            "answers": [f"option {key}"],
            "grader": {"kind": "GRADER_KIND_CHOICE"},
        }
        for i in range(8)
    ]


async def test_what_is_sent_of_a_choice_is_the_same_whichever_option_is_right(tmp_path: Path) -> None:
    sent = []
    for key in "ad":
        (folder := tmp_path / key).mkdir()
        script = [
            edit_about("doc-a", "About a", [(f"Which one is number {i}?", "-") for i in range(n)]) for n in (2, 4)
        ]
        async with on_stage(teacher(a=script), student()) as stage, at_desk(stage, folder) as desk:
            events = await desk.run(start_run("run", [{**task("a"), "tau": choice_of(key)}], candidates=2))
        assert kinds(events)[-1] == "run_finished"
        # Which edits are kept says a little of the keys; here none is.
        assert not of_kind(events, "update_trained")
        sent.append(stage.received())
    assert sent[0] == sent[1]
    assert sent[0].count(b"option a") == sent[0].count(b"option d") >= 8


async def test_keys_and_verdicts_of_a_judge_reach_nobody_but_the_judge(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    judged = task("a", extra_answer=CANARY)
    for item in judged["tau"]:
        item["grader"] = {"kind": "GRADER_KIND_JUDGE"}
    (key := tmp_path / "key").write_text("CANARY-api-key")

    def say(body: dict[str, Any]) -> str:
        return f"{'yes' if asked(body)['answer_to_mark'].startswith('a') else 'no'}\nCANARY-verdict"

    with serving(say) as endpoint:
        judge = {"base_url": endpoint.base_url, "model": "CANARY-model", "api_key_file": str(key)}
        async with (
            on_stage(teacher(a=[teaching("a", n) for n in (5, 10)]), student()) as stage,
            at_desk(stage, tmp_path, judges={"main": judge}, log_level="debug") as desk,
        ):
            events = await desk.run(start_run("run", [judged], candidates=2))
    printed = capfd.readouterr()
    assert of_kind(events, "version_promoted")
    assert CANARY in str(endpoint.bodies)
    for bytes_ in (stage.received(), b"".join(event.SerializeToString() for event in events)):
        assert b"CANARY" not in bytes_
    assert "CANARY" not in printed.out + printed.err
    ledger = (tmp_path / "ledger.db").read_bytes()
    assert b"CANARY-api-key" not in ledger
    assert b"CANARY-verdict" not in ledger


async def test_tau_without_answers_is_refused_by_path_and_the_service_stays_up(tmp_path: Path) -> None:
    request = start_run("run", [task("a")])
    request.tasks[0].tau[2].ClearField("answers")
    async with on_stage(teacher(), student()) as stage, at_desk(stage, tmp_path) as desk:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await desk.stub.StartRun(request)
        status = await desk.stub.GetStatus(pb.AuditorServiceGetStatusRequest())
    bad = error_details_pb2.BadRequest()
    status_of = rpc_status.from_call(cast("grpc.Call", refused.value))
    for detail in status_of.details if status_of else ():
        if detail.Is(bad.DESCRIPTOR):
            detail.Unpack(bad)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in bad.field_violations] == ["tasks[0].tau[2].answers"]
    assert status.ledger_seq == 0


def change(path: str, value: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "run_id": "run",
        "tasks": [task("a"), task("b")],
        "settings": settings(),
        "suites": [suite()],
    }
    node: Any = content
    *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    for step in steps:
        node = node[step]
    node[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("tasks/0/tau/2/answers", ["..."], "tasks[0].tau[2].answers"),
        ("tasks/0/tau/2/grader", {"kind": "GRADER_KIND_GRID"}, "tasks[0].tau[2].grader.kind"),
        ("tasks/0/tau/2/grader", {"kind": "GRADER_KIND_NUMERIC"}, "tasks[0].tau[2].answers"),
        ("tasks/0/tau/2/grader", {"kind": "GRADER_KIND_CHOICE"}, "tasks[0].tau[2].options"),
        ("tasks/0/tau/2/grader", {"kind": "GRADER_KIND_JUDGE", "name": "a b"}, "tasks[0].tau[2].grader.name"),
        ("tasks/0/tau/2/question", "", "tasks[0].tau[2].question"),
        ("tasks/0/tau/2/options", ["x"], "tasks[0].tau[2].options"),
        ("tasks/0/tau/2/item_id", "q1", "tasks[0].tau"),
        ("tasks/0/kind", "TASK_KIND_FEW_SHOT", "tasks[0].kind"),
        ("tasks/0/tau", task("a", 3)["tau"], "tasks[0].tau"),
        ("tasks/1/task_id", "a", "tasks"),
        ("tasks/1/context/title", "", "tasks[1].context.title"),
        ("suites/0/suite_id", "general", "suites[0].suite_id"),
        ("settings/retention/suites", ["unheard-of"], "settings.retention.suites[0]"),
        ("settings/rounds", 101, "settings.rounds"),
        ("settings/recipe", {"rank": 1000}, "settings.recipe.rank"),
        ("run_id", "a b", "run_id"),
    ],
)
def test_what_breaks_a_limit_is_named(path: str, value: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        from_proto(StartRun, ParseDict(change(path, value), pb.StartRunRequest())).resolve(
            Settings(), built_in_suites()
        )
    assert field in [violation.path for violation in refused.value.violations]


def test_small_tasks_are_accepted_when_pooled() -> None:
    content = change("settings/pool_small_tasks", True)
    content["tasks"][0]["tau"] = task("a", 3)["tau"]
    order = from_proto(StartRun, ParseDict(content, pb.StartRunRequest())).resolve(Settings(), built_in_suites())
    assert len(order.tasks[0].tau) == 3


def test_missing_settings_take_the_auditors_defaults() -> None:
    defaults = Settings(rounds=7, threshold=0.25)
    request = from_proto(
        StartRun, ParseDict({**change("run_id", "run"), "settings": {"candidates": 2}}, pb.StartRunRequest())
    )
    order = request.resolve(defaults, built_in_suites())
    assert (order.settings.rounds, order.settings.candidates, order.settings.threshold) == (7, 2, 0.25)
    assert order.settings.retention.suites == ("general", "known")
    explicit = from_proto(
        StartRun, ParseDict({**change("run_id", "run"), "settings": {"learn": False, "seed": 0}}, pb.StartRunRequest())
    ).resolve(Settings(seed=5), built_in_suites())
    assert (explicit.settings.learn, explicit.settings.seed) == (False, 0)


def test_built_in_suite_is_large_enough() -> None:
    general = next(suite for suite in built_in_suites() if suite.suite_id == "general")
    assert len(general.items) >= 40


def test_a_suite_file_names_graders_as_task_files_do(tmp_path: Path) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(
        "id: x\nitems:\n"
        "  - {id: a, question: 'How far?', answers: ['5'], grader: {kind: numeric, tolerance: 0.5}}\n"
        "  - {id: b, question: 'Who?', answers: [me], options: [me, you], grader: choice}\n"
    )
    first, second = read_suite(file).items
    assert (first.grader.kind, first.grader.tolerance) == (GraderKind.NUMERIC, 0.5)
    assert (second.grader.kind, second.options) == (GraderKind.CHOICE, ("me", "you"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id: x\nitems: [", "line 2"),
        ("id: x\n", "expected id, title and a list of items"),
        ("id: x\nitems:\n  - {id: q, question: 'what?'}\n", "items[0].answers"),
        ("id: x\nitems:\n  - {id: q, question: 'what?', answers: [a], grader: oracle}\n", "items[0].grader.kind"),
    ],
)
def test_malformed_suite_file_is_refused_by_file_and_place(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "suite.yaml"
    file.write_text(text)
    with pytest.raises(InvalidConfig) as refused:
        read_suite(file)
    assert str(file) in refused.value.message
    assert said in refused.value.message
