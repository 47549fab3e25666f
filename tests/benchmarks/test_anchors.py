"""Anchors: what is rehearsed is not counted, however it is worded; everything else is."""

from __future__ import annotations

import pytest

from auditor.tasks import EvaluationItem
from benchmarks.method import anchors
from benchmarks.method.figures import arm_figures, differences
from benchmarks.method.loading import Loaded
from benchmarks.method.results import Answered
from benchmarks.method.settings import DATA, BenchSettings
from benchmarks.passages import Passage, Question
from teacher.rehearsal import read_questions


def item(question: str, answer: str = "yes") -> EvaluationItem:
    return EvaluationItem(item_id="one", question=question, answers=(answer,))


@pytest.mark.parametrize("question", ["How many minutes are there in an hour?", *read_questions()[:3]])
def test_a_question_that_is_rehearsed_is_found_in_other_words(question: str) -> None:
    assert anchors.rehearsed([item("Who invented the telephone?"), item(question)]) == {1}


def test_most_built_in_anchors_are_never_rehearsed() -> None:
    items = anchors.read_anchors(DATA / "anchors.yaml")
    assert 0 < len(anchors.rehearsed(items)) < len(items) / 4


def test_an_anchor_that_is_rehearsed_counts_neither_as_asked_nor_as_lost() -> None:
    passage = Passage(title="T", context="C.", questions=(Question(question="Q?", answer="A"),))
    loaded = Loaded((passage,), {}, (item("First?"), item("Second?"), item("Third?")), "0" * 64, frozenset({1}))
    settings = BenchSettings(data=DATA / "reported_passages.json")
    unedited = Answered(passage=passage.key, answers=("A",))
    found = Answered(passage=passage.key, answers=("A",), anchors={0: "yes", 1: "no", 2: "no"})
    figures = arm_figures(settings, loaded, "passage/seal", [found], [unedited])
    assert (figures.anchors, figures.anchors_lost, figures.anchor_questions) == (2, 1, 2)


def test_losses_of_both_procedures_are_compared_anchor_by_anchor_over_updates() -> None:
    passages = tuple(
        Passage(title=title, context="C.", questions=(Question(question="Q?", answer="A"),)) for title in "TUV"
    )
    loaded = Loaded(passages, {}, (item("First?"), item("Second?")), "0" * 64)
    settings = BenchSettings(data=DATA / "reported_passages.json")

    def found(said: list[dict[int, str]]) -> tuple[Answered, ...]:
        return tuple(
            Answered(passage=passage.key, answers=("A",), anchors=one)
            for passage, one in zip(passages, said, strict=True)
        )

    ours = found([{0: "yes", 1: "yes"}, {0: "no", 1: "yes"}, {}])
    theirs = found([{0: "no", 1: "no"}, {0: "no", 1: "yes"}, {}])
    (difference,) = differences(settings, loaded, {"passage/seal": ours, "passage/reference": theirs})
    assert difference.lost is not None
    assert (difference.lost.mean, difference.lost.low, difference.lost.high) == (-0.5, -1.0, 0.0)
    assert difference.lost_share == (0.25, 0.75)
    alone = found([{0: "yes"}, {}, {}])
    (together,) = differences(settings, loaded, {"passage/seal": alone, "passage/reference": alone})
    assert together.lost is None
