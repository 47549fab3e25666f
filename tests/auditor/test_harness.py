"""Tasks of lm_eval as retention suites: gated, cached, refused early, and their keys stay here."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from auditor.events import UpdateJudged
from auditor.harness.config import HarnessConfig, HarnessTask
from auditor.harness.offered import open_measures
from auditor.journal import Journal
from auditor.measuring import Measuring
from auditor.papers import Paper, of_suite
from auditor.tasks import Suite
from common.errors import InvalidConfig, NotPossible
from common.lora.proof import Liveness
from common.types import SelfEdit
from tests.auditor.plays import GENERAL, Desk, at_desk, facts, kinds, of_kind, start_run, task, teacher
from tests.support.continuing_student import ContinuingStudent
from tests.support.scripted_services import FORGET, edit_about, on_stage

pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")

TASKS = Path(__file__).resolve().parents[2] / "examples" / "lm_eval"
CANARY = "CANARY-8d20"


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (TASKS / f"{name}.jsonl").read_text().splitlines()]


CAPITALS = {
    f"Question: What is the capital of {r['country']}?": f" {r['options'][r['answer']]}" for r in rows("capitals")
}
OPPOSITES = {f"The opposite of {r['word']} is": f" {r['opposite'].upper()}\nThe opposite" for r in rows("opposites")}
# lm_eval puts its target delimiter, a space, before each option.
KNOWN = {**GENERAL, **CAPITALS, **OPPOSITES}
OFFERED = {"tasks": {name: {"include_path": str(TASKS)} for name in ("capitals", "opposites")}}
BOTH: dict[str, Any] = {"suites": ["lm_eval:capitals", "lm_eval:opposites"], "max_drop": 0.4}


def student(knows: Mapping[str, str] = KNOWN) -> ContinuingStudent:
    return ContinuingStudent(dict(knows))  # type: ignore[abstract] # the auditor calls no other RPC


def teaching(*forgotten: str) -> SelfEdit:
    forget = [(f"{FORGET}{question}", "-") for question in forgotten]
    return edit_about("doc-a", "About a", [*facts("a").items(), *forget])


async def judged(folder: Path, edit: SelfEdit, pupil: ContinuingStudent) -> tuple[Desk, list[Any]]:
    async with on_stage(teacher(a=[edit]), pupil) as stage, at_desk(stage, folder, lm_eval=OFFERED) as desk:
        request = start_run("run", [task("a")], candidates=1, retention=BOTH)
        request.ClearField("suites")
        events = await desk.run(request)
        assert kinds(events)[-1] == "run_finished"
        links = list(desk.auditor.recorder.ledger.every_event(run_id="run"))
        return desk, [UpdateJudged.model_validate(link.payload) for link in links if link.type == UpdateJudged.kind]


async def test_an_update_that_keeps_both_suites_is_accepted_with_a_mark_a_document(tmp_path: Path) -> None:
    pupil = student()
    _, (update,) = await judged(tmp_path, teaching(), pupil)
    marks = [(c.suite_id, c.item_id, c.score_before, c.score_after) for c in update.record.retention]
    assert update.accepted
    assert sorted(marks) == sorted(
        (f"lm_eval:{name}", str(i), 1.0, 1.0) for name in ("capitals", "opposites") for i in range(16)
    )
    # The base is compared with and reported at the end, and was asked once.
    assert {count for (version, _), count in pupil.continued.items() if version == "base"} == {1}


async def test_an_update_that_forgets_a_suite_is_rejected_by_its_name(tmp_path: Path) -> None:
    _, (update, *_) = await judged(tmp_path, teaching(*CAPITALS), student())
    failed = [gate for gate in update.gates if not gate.passed]
    by_suite = {
        name: sum(c.score_after for c in update.record.retention if c.suite_id == name) for name in BOTH["suites"]
    }
    assert by_suite == {"lm_eval:capitals": pytest.approx(0, abs=8), "lm_eval:opposites": 16.0}
    assert [gate.kind for gate in failed] == ["GATE_KIND_RETENTION"]
    assert "lm_eval:capitals" in failed[0].reason


async def test_the_model_writes_or_chooses_what_is_kept_as_its_answer(tmp_path: Path) -> None:
    async with on_stage(teacher(), student()) as stage, at_desk(stage, tmp_path, lm_eval=OFFERED) as desk:
        papers = await measured(desk, "base")
        ledger = desk.auditor.recorder.ledger
        said = {
            name: [(ledger.payload(mark.answer) or b"").decode() for mark in paper.marks]
            for name, paper in papers.results.items()
        }
    assert said["split_retention::lm_eval:capitals"] == [r["options"][r["answer"]] for r in rows("capitals")]
    # Up to the task's own stop, a line's end.
    assert said["split_retention::lm_eval:opposites"] == [f" {r['opposite'].upper()}" for r in rows("opposites")]


async def measured(desk: Desk, version: str, **changes: Suite) -> Paper:
    crew = desk.auditor.crew
    journal = await Journal.open(crew.recorder, "alone")
    measuring = Measuring(crew.student, crew.recorder, journal, crew.measures, identity="student")
    suites = [
        changes.get(measure.suite.suite_id.partition(":")[2], measure.suite) for measure in crew.measures.values()
    ]
    return (await measuring.papers([version], [of_suite(suite) for suite in suites], lambda _: None))[version]


async def test_a_task_can_be_tried_from_the_command_line() -> None:
    async with on_stage(teacher(), student()) as stage:
        asked = [sys.executable, "-m", "auditor.harness", "opposites", "--include-path", str(TASKS), "--limit", "3"]
        command = [*asked, "--student", stage.student_target, "--version", "base"]
        running = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        printed, _ = await running.communicate()
    found = json.loads(printed)
    assert (found["mean"], found["version"], found["liveness"]) == (1.0, "base", "LIVENESS_BASE")
    assert found["documents"][0] == {"id": "0", "score": 1.0, "answer": " DOWN"}


async def test_a_version_that_is_not_alive_has_no_mark_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    pupil, edit = student(), teaching()
    async with on_stage(teacher(a=[edit]), pupil) as stage, at_desk(stage, tmp_path, lm_eval=OFFERED) as desk:
        request = start_run("run", [task("a")], candidates=1, promotion="PROMOTION_MODE_NONE")
        await desk.run(request)
        version = next(iter(pupil.adapters))
        pupil.faults.invalid.add(edit.digest.sha256)
        paper = await measured(desk, version)
        pupil.faults.invalid.clear()
        again = await measured(desk, version)
    assert (paper.liveness, paper.results) == (Liveness.INVALID, {})
    assert (again.liveness, again.cached) == (Liveness.LIVE, False)


async def test_a_suite_that_changed_since_the_run_was_ordered_is_not_mixed_with_the_old_one(tmp_path: Path) -> None:
    async with on_stage(teacher(), student()) as stage, at_desk(stage, tmp_path, lm_eval=OFFERED) as desk:
        suite = desk.auditor.crew.measures["lm_eval:capitals"].suite
        assert suite.measured is not None
        older = suite.model_copy(update={"measured": suite.measured.model_copy(update={"content": "0" * 64})})
        with pytest.raises(NotPossible) as refused:
            await measured(desk, "base", capitals=older)
    assert refused.value.reason == "SUITE_CHANGED"


async def test_a_suite_that_is_not_offered_is_refused_when_it_is_ordered(tmp_path: Path) -> None:
    async with on_stage(teacher(), student()) as stage, at_desk(stage, tmp_path, lm_eval=OFFERED) as desk:
        with pytest.raises(grpc.aio.AioRpcError, match=r"settings.retention.suites\[0\]: lm_eval:gsm8k"):
            await desk.stub.StartRun(start_run("run", [task("a")], retention={"suites": ["lm_eval:gsm8k"]}))


WRITING: dict[str, Any] = {
    "task": "own",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": "own.jsonl"}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}\nAnswer:",
    "doc_to_target": "key",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
    "metric_list": [{"metric": "exact_match"}],
}


def own_task(folder: Path, **changes: Any) -> HarnessConfig:
    """A task in `folder` whose keys hold the canary."""
    documents = [{"question": f"Question {i}?", "key": f"{CANARY}-{i}", "long": "x" * 20_000} for i in range(6)]
    (folder / "own.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    (folder / "own.yaml").write_text(yaml.safe_dump({**WRITING, **changes}))
    return HarnessConfig(tasks={"own": HarnessTask(include_path=folder)})


async def test_no_key_of_a_task_reaches_the_student(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = own_task(tmp_path)
    async with (
        on_stage(teacher(a=[teaching()]), student()) as stage,
        at_desk(stage, tmp_path, lm_eval=config.model_dump(mode="json")) as desk,
    ):
        request = start_run("run", [task("a")], candidates=1, retention={"suites": ["lm_eval:own"], "max_drop": 1.0})
        events = await desk.run(request)
    printed = capfd.readouterr()
    assert not of_kind(events, "run_failed"), of_kind(events, "run_failed")
    assert of_kind(events, "update_judged")
    assert b"Question 3?" in stage.received()
    assert CANARY.encode() not in stage.received()
    assert CANARY not in printed.out + printed.err


SHOTS = {"num_fewshot": 2, "fewshot_split": "test"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dataset_kwargs": {"data_files": {"test": "gone.jsonl"}}}, "gone.jsonl"),
        ({"output_type": "loglikelihood"}, "answer keys"),
        (SHOTS, "fewshot_split of others"),
        ({"generation_kwargs": {"num_beams": 3}}, "generation_kwargs.num_beams"),
        ({"doc_to_text": "{{missing.field}}"}, "lm_eval.tasks.own: "),
        ({"metric_list": [{"metric": "bleu"}]}, "lm_eval.tasks.own"),
        (
            {"output_type": "multiple_choice", "doc_to_choice": "{{[key, long]}}", "doc_to_target": 0}
            | {"metric_list": [{"metric": "acc"}], "generation_kwargs": None},
            "option: has 20001 characters",
        ),
    ],
)
def test_a_task_that_cannot_be_a_suite_stops_the_auditor_at_start(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        open_measures(own_task(tmp_path, **changes))
    assert said in refused.value.message


@pytest.mark.parametrize(
    ("task_", "said"),
    [
        (HarnessTask(include_path=Path("/nowhere")), "include_path: /nowhere is not a folder"),
        (HarnessTask(include_path=TASKS, task="gsm8k"), "no task gsm8k"),
        (HarnessTask(include_path=TASKS, metric="f1"), "metric: set one of acc, acc_norm"),
        (HarnessTask(include_path=TASKS, filter="strict"), "filter: set one of none"),
    ],
)
def test_a_wrong_setting_is_named_with_what_there_is(task_: HarnessTask, said: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        open_measures(HarnessConfig(tasks={"capitals": task_}))
    assert said in refused.value.message


def test_without_lm_eval_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(InvalidConfig, match=r"seal-services\[lm-eval\]"):
        open_measures(HarnessConfig(tasks={"capitals": HarnessTask(include_path=TASKS)}))


def test_a_limit_takes_the_first_documents_and_another_metric_is_another_suite() -> None:
    tasks = {
        "all": HarnessTask(include_path=TASKS, task="capitals"),
        "some": HarnessTask(include_path=TASKS, task="capitals", limit=5),
        "normed": HarnessTask(include_path=TASKS, task="capitals", metric="acc_norm"),
    }
    suites = {name.partition(":")[2]: m.suite.measured for name, m in open_measures(HarnessConfig(tasks=tasks)).items()}
    assert suites["some"] is not None
    assert suites["some"].items == ("0", "1", "2", "3", "4")
    assert len({measured.content for measured in suites.values() if measured}) == 3


def test_a_group_of_tasks_is_one_suite_if_one_metric_marks_them_all(tmp_path: Path) -> None:
    shutil.copytree(TASKS, tmp_path, dirs_exist_ok=True)
    again = (TASKS / "capitals.yaml").read_text().replace("task: capitals", "task: again")
    (tmp_path / "again.yaml").write_text(again)
    (tmp_path / "alike.yaml").write_text("group: alike\ntask: [capitals, again]\n")
    (tmp_path / "mixed.yaml").write_text("group: mixed\ntask: [capitals, opposites]\n")
    (measure,) = open_measures(HarnessConfig(tasks={"alike": HarnessTask(include_path=tmp_path, limit=2)})).values()
    assert measure.suite.measured is not None
    assert measure.suite.measured.items == ("capitals:0", "capitals:1", "again:0", "again:1")
    with pytest.raises(InvalidConfig, match="no metric in common"):
        open_measures(HarnessConfig(tasks={"mixed": HarnessTask(include_path=tmp_path)}))


def test_the_auditor_measures_without_model_libraries_and_names_a_suite_the_same_in_every_process() -> None:
    code = (
        "import sys; from pathlib import Path; from auditor.harness.config import *\n"
        "from auditor.harness.offered import open_measures\n"
        f"task = HarnessTask(include_path=Path({str(TASKS)!r}))\n"
        "(measure,) = open_measures(HarnessConfig(tasks={'opposites': task})).values()\n"
        "print(measure.suite.measured.content, *({'torch', 'transformers', 'peft', 'vllm'} & sys.modules.keys()))"
    )
    printed = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(printed) == 1
    assert len(printed.pop().split()) == 1
