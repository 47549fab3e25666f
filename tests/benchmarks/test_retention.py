"""The benchmark's choice of passages and orders, its refusals, and an interrupted reference sequence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.edit_forms import pieces_of
from benchmarks.passages import chosen, read_edits, read_passages
from benchmarks.retention import load, orders_of, parse
from benchmarks.retention_reference import ReferenceArm
from common.errors import InvalidConfig
from teacher.pieces import Question
from tests.support.tiny_model import make_tiny_model

SQUAD = Path(__file__).resolve().parents[2] / "examples" / "squad"
DATA = Path(__file__).resolve().parents[2] / "benchmarks" / "data"


@pytest.mark.parametrize(("name", "completions"), [("invented_passages", 3), ("eight_passages", 5)])
def test_the_shipped_passages_have_edits_and_share_none_with_those_tuned_on(name: str, completions: int) -> None:
    files = ["--data", str(DATA / f"{name}.json"), "--edits", str(DATA / f"{name}_edits.json")]
    passages, edits = load(parse(files))
    tuned_on = {passage.context for passage in read_passages(SQUAD / "passages.json")}
    assert len(passages) == 8
    assert all(len(edits[passage.context].completions) == completions for passage in passages)
    assert not tuned_on & {passage.context for passage in passages}


def test_invented_passages_bear_their_answers_and_are_never_taught_in_the_words_that_are_asked() -> None:
    passages, edits = load(parse([]))
    for passage in passages:
        taught = pieces_of(edits[passage.context].completions, passage.context)
        assert len(passage.questions) == 12
        assert len(taught) == 36, "three wordings of each question"
        asked = {entry.question.lower() for entry in passage.questions}
        for piece in taught:
            assert isinstance(piece, Question)
            assert piece.question.lower() not in asked
            assert piece.answer in passage.context
            assert piece.answer.lower() not in piece.question.lower()
        assert {entry.answer for entry in passage.questions} == {p.answer for p in taught if isinstance(p, Question)}


def test_orders_differ_and_hold_every_passage() -> None:
    passages, _ = load(parse([]))
    orders = orders_of(passages, 4)
    assert orders[0] == passages
    assert orders[1] == passages[::-1]
    assert len(set(orders)) == 4
    assert all(set(order) == set(passages) for order in orders)


def test_files_that_cannot_be_used_are_refused_by_name(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps([{"title": "T", "context": "C", "questions": [{"question": "Q?"}]}]))
    with pytest.raises(InvalidConfig, match=r"wrong.json: \[0\].questions\[0\].answer"):
        load(parse(["--data", str(wrong)]))
    with pytest.raises(InvalidConfig, match="no edits for a passage titled 'Seattle'"):
        load(parse(["--data", str(SQUAD / "passages.json"), "--passages", "1"]))
    with pytest.raises(InvalidConfig, match="8 are needed"):
        load(parse(["--data", str(SQUAD / "passages.json")]))
    passages = read_passages(SQUAD / "passages.json")
    assert chosen(passages, 2, passages[:1]) == passages[1:3]


def test_an_interrupted_reference_sequence_goes_on_to_the_same_result(tmp_path: Path) -> None:
    passages = read_passages(DATA / "eight_passages.json")[:2]
    edits = {
        passage.context: edits.model_copy(update={"completions": (edits.completions[0][:120],)})
        for passage in passages
        if (edits := read_edits(DATA / "eight_passages_edits.json")[passage.context])
    }
    model = str(make_tiny_model(tmp_path / "model"))
    whole = ReferenceArm(tmp_path / "whole", edits, model=model, seed=0).run(passages, 0)
    assert len(whole.rows) == 3
    halfway = tmp_path / "halfway"
    shutil.copytree(tmp_path / "whole", halfway)
    untouched = (halfway / "order-1" / "edit-1.json").stat().st_mtime_ns
    for file in halfway.glob("order-1/edit-2.*"):
        file.unlink()
    resumed = ReferenceArm(halfway, edits, model=model, seed=0).run(passages, 0)
    assert (halfway / "order-1" / "edit-1.json").stat().st_mtime_ns == untouched
    assert resumed.model_copy(update={"seconds": whole.seconds}) == whole
    last = [json.loads((tmp_path / n / "order-1" / "edit-2.json").read_text())["answers"] for n in ("whole", "halfway")]
    assert last[0] == last[1]
    with pytest.raises(InvalidConfig, match="other settings"):
        ReferenceArm(halfway, edits, model=model, seed=1).run(passages, 0)
