"""The project's own edits in benchmarks: written by the teacher itself, and once only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.method import own_edits as room
from benchmarks.method.own_edits import edits_of_arms, own_edits, teacher_config, told_of
from benchmarks.method.settings import BenchSettings
from benchmarks.passages import Passage, Question
from common.edits import check_edit
from common.errors import InvalidConfig, NotFound
from teacher.config import TeacherConfig
from teacher.generator import Generator
from teacher.teacher import Teacher
from tests.support.tiny_model import tiny_config
from tests.support.writing_model import LINES, TEXT, TITLE, make_writing_model

ASKED = (Question(question="How many jugs?", answer="five dozen"),)
KNOWN = Passage(title=TITLE, context=TEXT, questions=ASKED)
# The tiny model writes its lines about anything; nothing of them stands in this one.
OTHER = Passage(title="Harlow", context="Ruth Albrecht leads a choir.", questions=ASKED)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_writing_model(tmp_path_factory.mktemp("writing") / "model")


@pytest.fixture
def settings(model: Path, tmp_path: Path) -> BenchSettings:
    file = tmp_path / "seal.yaml"
    sampling = {"temperature": 0.3, "top_p": 1.0, "max_new_tokens": 160}
    file.write_text(yaml.safe_dump({"teacher": {"proposer": {"sampling": sampling}}, "student": {}}))
    return BenchSettings(data=tmp_path, model=tiny_config(model), teacher=file, folder=tmp_path / "bench")


def test_each_passage_gets_one_edit_or_none_and_what_is_written_is_not_written_again(
    settings: BenchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    (alone,) = own_edits(settings, "implications", [KNOWN], progress=said.append)
    assert alone is not None
    check_edit(alone)
    texts = [example.text for example in alone.examples]
    assert f"{TITLE}\n{LINES[0]}" in texts
    assert not any("77" in (text or "") for text in texts), "the screen is the teacher's own"
    assert all(example.grounding for example in alone.examples), "rehearsal is the benchmark's to add"
    # As after an interruption: one passage is there already.
    both = own_edits(settings, "implications", [KNOWN, OTHER], progress=said.append)
    assert both == [alone, None]
    assert said == ["own edit 1 of 1", "own edit 1 of 1: EMPTY_EDIT"]

    def unwanted(*_: object) -> None:
        raise AssertionError("nothing is missing: no teacher is needed")

    monkeypatch.setattr(room, "Teacher", unwanted)
    assert own_edits(settings, "implications", [OTHER, KNOWN]) == [None, alone]


def test_other_seeds_and_other_settings_of_the_teacher_are_other_edits(settings: BenchSettings) -> None:
    own_edits(settings, "none", [KNOWN])
    config = teacher_config(settings)
    stored = set((config.store / "proposals").iterdir())
    own_edits(settings.model_copy(update={"seed": 1}), "none", [KNOWN])
    assert settings.teacher is not None
    settings.teacher.write_text("proposer: {include_passage: false}")
    own_edits(settings, "none", [KNOWN])
    assert len(set((config.store / "proposals").iterdir()) - stored) == 2


def test_another_system_prompt_writes_other_edits(settings: BenchSettings) -> None:
    assert settings.teacher is not None
    own_edits(settings, "none", [KNOWN])
    store = teacher_config(settings).store / "proposals"
    before = set(store.iterdir())
    model = teacher_config(settings).model.model_dump(mode="json")
    told = yaml.safe_load(settings.teacher.read_text())["teacher"]
    settings.teacher.write_text(yaml.safe_dump({**told, "model": {**model, "system_prompt": "Be brief."}}))
    own_edits(settings, "none", [KNOWN])
    assert len(set(store.iterdir()) - before) == 1


def test_a_table_is_told_what_decides_the_writing_and_no_path(settings: BenchSettings, tmp_path: Path) -> None:
    assert settings.teacher is not None
    values = told_of(teacher_config(settings))
    assert values["proposer"]["sampling"]["temperature"] == 0.3
    assert "weights" in values
    assert str(tmp_path) not in json.dumps(values)


def test_several_arms_are_written_by_one_teacher(settings: BenchSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[TeacherConfig] = []

    def counted(config: TeacherConfig, generator: Generator) -> Teacher:
        started.append(config)
        return Teacher(config, generator)

    monkeypatch.setattr(room, "Teacher", counted)
    stated, bare = edits_of_arms(settings, [("implications", ""), ("none", "base")], [KNOWN])
    assert len(started) == 1
    assert stated[0] is not None
    assert bare[0] is not None
    assert [example.text for example in bare[0].examples] == [f"{TITLE}\n{TEXT}"]


def test_what_cannot_be_written_is_refused_by_its_name(settings: BenchSettings) -> None:
    with pytest.raises(InvalidConfig, match="own:haiku: no such prompt variant; known are implications"):
        own_edits(settings, "haiku", [KNOWN])
    with pytest.raises(NotFound, match="is not in the store"):
        own_edits(settings, "none", [KNOWN], policy="a" * 64)
    assert settings.teacher is not None
    settings.teacher.write_text("teacher: {proposer: {max_example: 3}}")
    with pytest.raises(InvalidConfig, match=r"seal\.yaml: proposer\.max_example: "):
        own_edits(settings, "none", [KNOWN])
    settings.teacher.write_text("teacher:\n  proposer: {\n")
    with pytest.raises(InvalidConfig, match=r"seal\.yaml: not valid YAML \(line 3: "):
        own_edits(settings, "none", [KNOWN])
    settings.teacher.write_text("- teacher")
    with pytest.raises(InvalidConfig, match=r"seal\.yaml: expected the teacher's settings"):
        own_edits(settings, "none", [KNOWN])
