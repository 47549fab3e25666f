"""What cannot be used is refused when it is read, by its name; a table names what it was made of without any path."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.method.loading import load
from benchmarks.method.settings import DATA, BenchSettings, told
from common.canonical import digest_bytes
from common.errors import InvalidConfig

ONE = {"title": "Box", "context": "It is full.", "questions": [{"question": "Is it full?", "answer": "yes"}]}


def asked(question: str, answer: str) -> dict[str, object]:
    return {**ONE, "questions": [{"question": question, "answer": answer}]}


def settings_of(tmp_path: Path, content: object, **more: object) -> BenchSettings:
    data = tmp_path / "mine.json"
    data.write_text(json.dumps(content))
    return BenchSettings.model_validate({"data": data, "arms": ["unedited"], **more})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([ONE, ONE], r"mine.json: \[1\]: the passage of \[0\], titled 'Box', occurs twice"),
        ([{**ONE, "title": ""}], r"mine.json: .*title: "),
        ([{**ONE, "questions": []}], r"mine.json: .*questions: "),
        ([{**ONE, "source": "x"}], r"mine.json: .*source: "),
        ([asked("  ", "yes")], r"mine.json: \[0\].questions\[0\]: question: "),
        ([asked("?" * 5_000, "yes")], r"mine.json: \[0\].questions\[0\]: question: "),
        ([asked("Is it full?", "y" * 2_000)], r"mine.json: \[0\].questions\[0\]: answers\[0\]: "),
        ([asked("Is it full?", "?")], r"mine.json: \[0\].questions\[0\]: answers"),
        ({"data": [ONE]}, r"mine.json: expected a list of .*, found a JSON object"),
    ],
)
def test_a_wrong_file_is_refused_by_file_and_field(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        load(settings_of(tmp_path, content))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[\n{"title": "Box",\n}]', r"mine.json: not valid JSON \(line 3: "),
        ("[" * 100_000, "mine.json: nested too deeply"),
        ("\udcff", r"mine.json: not text in UTF-8 \(at byte 0\)"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_line(tmp_path: Path, text: str, said: str) -> None:
    settings = settings_of(tmp_path, [])
    settings.data.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidConfig, match=said):
        load(settings)


@pytest.mark.parametrize(
    ("edits", "said"),
    [
        ([["It is full."], ["It is red."]], r"edits.json: \[1\]: there are edits of its passage, titled 'Box', before"),
        ([["It is full.", " - "]], r"edits.json: \[0\].completions: \[1\] has no word"),
    ],
)
def test_recorded_edits_are_one_entry_a_passage_and_say_something(
    tmp_path: Path, edits: list[list[str]], said: str
) -> None:
    file = tmp_path / "edits.json"
    file.write_text(json.dumps([{"title": "Box", "context": ONE["context"], "completions": one} for one in edits]))
    with pytest.raises(InvalidConfig, match=said):
        load(settings_of(tmp_path, [ONE], arms=["recorded"], edits=file))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"arms": ["own:rewrite", "own:unheard"]}, "own:unheard: no such prompt variant"),
        ({"arms": ["own:rewrite"], "teacher": "missing.yaml"}, "missing.yaml: No such file"),
        ({"arms": ["policy:0ddba11"]}, "policy:0ddba11: the teacher's store .* has no such policy"),
        ({"count": 2}, "has 1 passages; 2 are asked for"),
    ],
)
def test_what_an_arm_needs_is_read_before_anything_is_written(
    tmp_path: Path, more: dict[str, object], said: str
) -> None:
    with pytest.raises(InvalidConfig, match=said):
        load(settings_of(tmp_path, [ONE], **more))


def test_a_table_names_files_by_what_is_in_them(tmp_path: Path) -> None:
    edits = tmp_path / "edits.json"
    edits.write_text("[]")
    settings = settings_of(tmp_path, [ONE], edits=edits, folder=tmp_path, workers=3)
    values = told(settings)
    assert values["edits"] == digest_bytes(b"[]").sha256
    assert values["anchors"] == digest_bytes((DATA / "anchors.yaml").read_bytes()).sha256
    assert values["seal"] == settings.seal.model_dump(mode="json")
    assert str(tmp_path) not in json.dumps(values)
    assert str(Path.home()) not in json.dumps(values)
