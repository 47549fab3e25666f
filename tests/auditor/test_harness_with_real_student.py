"""A retention suite of lm-evaluation-harness over gRPC gives what lm_eval's own Hugging Face model class gives."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from auditor.events import UpdateJudged
from auditor.ledger.store import texts
from common.models.config import ModelConfig
from common.models.resolve import resolve_model
from common.types import Recipe
from student.config import DEFAULT_MODEL
from tests.auditor.plays import Desk, at_desk, facts, of_kind, start_run, task, teacher
from tests.support.real_student import on_stage_with_real_student
from tests.support.scripted_services import edit_about

pytest.importorskip("lm_eval", reason="the extra lm-eval is not installed")
pytestmark = [pytest.mark.model, pytest.mark.timeout(1_800)]

TASKS = Path(__file__).resolve().parents[2] / "examples" / "lm_eval"
METRICS = {"capitals": "acc", "opposites": "exact_match"}
# Hard enough that some documents change their marks.
RECIPE = Recipe(rank=8, target_modules=("q_proj", "v_proj"), learning_rate=4e-3, epochs=12, batch_size=4)


@asynccontextmanager
async def real_desk(folder: Path) -> AsyncIterator[Desk]:
    """An auditor that offers the two tasks, with the real student and a teacher that has one edit."""
    offered = {"tasks": {name: {"include_path": str(TASKS)} for name in METRICS}}
    edit = edit_about("doc-a", "About a", list(facts("a").items()), recipe=RECIPE)
    model = ModelConfig(model=DEFAULT_MODEL)
    async with (
        on_stage_with_real_student(teacher(a=[edit]), folder, model) as stage,
        at_desk(stage, folder, lm_eval=offered) as desk,
    ):
        yield desk


def by_lm_eval(monkeypatch: pytest.MonkeyPatch, adapter: Path | None) -> dict[tuple[str, str], float]:
    """Each document's mark by lm_eval itself, as its own command would compute it: no code of this project."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(TASKS)  # where lm_eval looks for data files
    model = HFLM(
        pretrained=str(resolve_model(DEFAULT_MODEL)),
        peft=str(adapter) if adapter else None,
        dtype="float32",
        device="cpu",
        batch_size=4,
    )
    results: Any = simple_evaluate(
        model=model,
        tasks=list(METRICS),
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        bootstrap_iters=0,
    )
    return {
        (f"lm_eval:{name}", str(sample["doc_id"])): float(sample[metric])
        for name, metric in METRICS.items()
        for sample in results["samples"][name]
    }


async def test_every_document_gets_the_mark_that_lm_eval_gives_the_exported_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retention = {"suites": [f"lm_eval:{name}" for name in METRICS], "max_drop": 1.0}
    # One judgement, of the update as it was trained: what the gates make of it is not asked here.
    request = start_run("run", [task("a")], candidates=1, max_answer_tokens=8, retention=retention, min_scale=1.0)
    request.ClearField("suites")
    async with real_desk(tmp_path) as desk:
        events = await desk.run(request, seconds=800)
        (judged,) = of_kind(events, "update_judged")
        ledger = desk.auditor.recorder.ledger
        (link,) = [link for link in ledger.every_event(run_id="run") if link.type == UpdateJudged.kind]
        results = UpdateJudged.model_validate(link.payload).record.retention
        said = texts(ledger, [result.after for result in results])
    before = {(r.suite_id, r.item_id): r.score_before for r in results}
    after = {(r.suite_id, r.item_id): r.score_after for r in results}
    for name in METRICS:
        of = [key for key in after if key[0] == f"lm_eval:{name}"]
        print(f"{name}: {sum(before[key] for key in of)} of {len(of)} before, {sum(after[key] for key in of)} after")
    adapter = tmp_path / "store" / "adapters" / judged.version
    assert len(after) == 32
    assert after == by_lm_eval(monkeypatch, adapter)
    assert before == by_lm_eval(monkeypatch, None)
    # The two models do not score the same, so equal marks say something about which one was asked.
    assert before != after
    assert 0 < sum(before.values()) < 32
    options = {option for line in (TASKS / "capitals.jsonl").open() for option in json.loads(line)["options"]}
    assert {said[r.after] for r in results if r.suite_id == "lm_eval:capitals"} <= options
