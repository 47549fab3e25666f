"""Whole tables of a tiny random model: every arm is asked the same, an interruption costs nothing, a failure little."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.method import passages
from benchmarks.method.figures import tabled
from benchmarks.method.loading import Loaded, load
from benchmarks.method.planned import plan, table_of
from benchmarks.method.results import Answered, ArmFigures, Table
from benchmarks.method.settings import BenchSettings, PublishedProcedure, SealProcedure
from benchmarks.method.versions import Trained, Training
from benchmarks.method.workshop import TrainingFailed, Workshop, work_folder
from common.types import Recipe
from tests.support.tiny_model import make_tiny_model, tiny_config

NAMES = ("red", "blue", "green")


class Stopped(Exception):
    """In the place of a Ctrl-C."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", layers=1)


@pytest.fixture
def settings(tiny: Path, tmp_path: Path) -> BenchSettings:
    data, edits = tmp_path / "data.json", tmp_path / "edits.json"
    texts = {name: f"The {name} box was built by John Fox in 1950. It holds 12 dogs." for name in NAMES}
    asked = [{"question": "Who built it?", "answer": "John Fox"}, {"question": "How many dogs?", "answer": "12"}]
    data.write_text(json.dumps([{"title": n, "context": text, "questions": asked} for n, text in texts.items()]))
    said = "John Fox built the {} box in 1950.\nThe {} box holds 12 dogs."
    edits.write_text(
        json.dumps([{"title": n, "context": text, "completions": [said.format(n, n)]} for n, text in texts.items()])
    )
    return BenchSettings(
        data=data,
        edits=edits,
        model=tiny_config(tiny),
        folder=tmp_path / "results",
        answer_tokens=6,
        anchors_asked=0,
        seal=SealProcedure(rehearsal=0, recipe=Recipe(rank=2, epochs=1)),
        reference=PublishedProcedure(epochs=1, sampled_pads=2),
    )


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crews have tests of their own."""

    def each(
        settings: BenchSettings, work: Callable[[Workshop, object], object], turns: Sequence[object]
    ) -> Iterator[tuple[object, object]]:
        workshop = Workshop(work_folder(settings.folder), settings.model)
        for turn in turns:
            yield turn, work(workshop, turn)

    monkeypatch.setattr(passages, "each", each)


def arm(table: Table, name: str, procedure: str = "") -> ArmFigures:
    (found,) = (one for one in table.arms if (one.arm, one.procedure) == (name, procedure))
    return found


def trainings(settings: BenchSettings) -> set[str]:
    """Files of whole updates; a scaled one has an @ in its name."""
    return {file.name for file in (work_folder(settings.folder) / "trainings").glob("*.json") if "@" not in file.name}


def test_every_arm_is_asked_all_questions_under_both_procedures(settings: BenchSettings) -> None:
    table = passages.run(settings)
    assert [(one.arm, one.procedure) for one in table.arms] == [
        ("unedited", ""),
        ("in-context", ""),
        ("passage", "seal"),
        ("passage", "reference"),
        ("recorded", "seal"),
        ("recorded", "reference"),
    ]
    assert {one.questions for one in table.arms} == {6}
    assert arm(table, "recorded", "seal").tokens > arm(table, "in-context").tokens == 0
    assert [one.arm for one in table.differences] == ["passage", "recorded"]
    assert [(one.procedure, one.arm, one.less) for one in table.comparisons] == [
        (procedure, arm, less)
        for procedure in ("seal", "reference")
        for less, arm in (("in-context", "passage"), ("in-context", "recorded"), ("passage", "recorded"))
    ]


def test_a_plan_counts_what_is_trained(settings: BenchSettings) -> None:
    planned, table = plan(settings, 1), passages.run(settings)
    assert [(part.arm, part.procedure) for part in planned.parts] == [(one.arm, one.procedure) for one in table.arms]
    for part, trained in zip(planned.parts, table.arms, strict=True):
        # Of ours it also counts what a template writes after an answer, which this model reads byte by byte.
        assert trained.tokens <= (part.tokens or 0) <= trained.tokens * (1.3 if part.procedure == "seal" else 1)
    assert f"About {planned.minutes} minutes if" in table_of(planned)


def test_a_plan_says_what_is_yet_to_be_written(settings: BenchSettings) -> None:
    unwritten = table_of(plan(settings.model_copy(update={"arms": ("own:rewrite",)}), 1))
    assert "A minute at most, and what is yet to be written, if" in unwritten
    assert "| own:rewrite | seal      |       3 |      unwritten |       6 |       ? |" in unwritten


def test_several_passages_at_once_are_one_update(settings: BenchSettings) -> None:
    few = settings.model_copy(update={"arms": ("unedited", "recorded")})
    apart = passages.run(few)
    alone = trainings(few)
    together = passages.run(few, together=3)
    assert (len(alone), len(trainings(few) - alone)) == (6, 2)
    assert together.bench == "corpus"
    assert [one.tokens > 0 for one in together.answered["recorded/seal"]] == [True, False, False]
    assert arm(together, "recorded", "reference").tokens == arm(apart, "recorded", "reference").tokens


def test_begun_again_it_goes_on_and_ends_the_same(settings: BenchSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = passages.run(settings.model_copy(update={"folder": settings.folder / "whole"}))
    train, left = Workshop.train, 5

    def until_stopped(workshop: Workshop, training: Training) -> Trained:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stopped
        return train(workshop, training)

    with monkeypatch.context() as patch:
        patch.setattr(Workshop, "train", until_stopped)
        with pytest.raises(Stopped):
            passages.run(settings)
    files = [work_folder(settings.folder) / "trainings" / name for name in trainings(settings)]
    written = [file.stat().st_mtime_ns for file in files]
    assert 0 < len(files) < 12
    again = passages.run(settings)
    assert [file.stat().st_mtime_ns for file in files] == written
    assert timeless(again) == timeless(whole)


def timeless(table: Table) -> str:
    """Everything but seconds."""
    arms = tuple(one.model_copy(update={"seconds": 0.0}) for one in table.arms)
    answered = {
        name: tuple(one.model_copy(update={"seconds": 0.0}) for one in found) for name, found in table.answered.items()
    }
    return table.model_copy(update={"arms": arms, "answered": answered}).model_dump_json()


def test_an_update_that_fails_costs_its_own_passage_alone(
    settings: BenchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, failing = Workshop.train, set[str]()

    def fails_once(workshop: Workshop, training: Training) -> Trained:
        if training.padding is None and not failing:
            failing.add(training.name)
        if training.name in failing:
            raise TrainingFailed("the loss was not finite at step 3")
        return train(workshop, training)

    monkeypatch.setattr(Workshop, "train", fails_once)
    table = passages.run(settings.model_copy(update={"arms": ("unedited", "recorded")}))
    assert arm(table, "recorded", "seal").without == {"the loss was not finite at step 3": 1}
    assert arm(table, "recorded", "reference").without == {}
    first, *_ = table.answered["recorded/seal"]
    assert first.answers == table.answered["unedited"][0].answers


def test_silence_is_counted_before_the_parent_answers_for_it(settings: BenchSettings) -> None:
    loaded = load(replace_arms(settings))
    keys = [passage.key for passage in loaded.passages]
    knowing = tuple(Answered(passage=key, answers=("John Fox", "no idea")) for key in keys)
    silent = tuple(Answered(passage=key, answers=("", "12 dogs")) for key in keys)
    wanted = settings.model_copy(update={"fallback": True})
    table = tabled(wanted, loaded, 1, {"unedited": knowing, "recorded/seal": silent})
    found = arm(table, "recorded", "seal")
    assert (found.empty, found.accuracy["contains"].mean) == (3, 0.5)
    assert (found.right_to_wrong, found.wrong_to_right) == (3, 3)
    assert found.with_fallback is not None
    assert found.with_fallback["contains"].mean == 1.0


def test_only_anchors_that_count_are_lost(settings: BenchSettings) -> None:
    loaded = load(replace_arms(settings))
    place = next(i for i in range(len(loaded.anchors)) if i not in loaded.rehearsed)
    key = loaded.anchors[place].answers[0]
    own = Answered(passage=loaded.passages[0].key, answers=("", ""))
    one = replace(loaded, passages=loaded.passages[:1])
    kept, lost = (
        tabled_with(settings, one, own.model_copy(update={"anchors": {place: said}})) for said in (key, "nonsense")
    )
    assert (kept.anchors, kept.anchors_lost) == (1, 0)
    assert (lost.anchors, lost.anchors_lost) == (1, 1)


def tabled_with(settings: BenchSettings, loaded: Loaded, answered: Answered) -> ArmFigures:
    table = tabled(settings, loaded, 1, {"unedited": (answered,), "recorded/seal": (answered,)})
    return arm(table, "recorded", "seal")


def replace_arms(settings: BenchSettings) -> BenchSettings:
    return settings.model_copy(update={"arms": ("unedited", "recorded")})
