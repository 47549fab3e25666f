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
        ({"data": [ONE]}, r"mine.json: expected a list of .*, found a JSON object"),
    ],
)
def test_a_wrong_file_is_refused_by_file_and_field(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        load(settings_of(tmp_path, content))


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
