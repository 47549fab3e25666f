"""Arms compared with each other: paired by question, each procedure by itself."""

from __future__ import annotations

from benchmarks.method.figures import comparisons
from benchmarks.method.loading import Loaded
from benchmarks.method.results import Answered
from benchmarks.method.settings import DATA, BenchSettings
from benchmarks.passages import Passage, Question

PASSAGES = tuple(
    Passage(
        title=title, context="C.", questions=(Question(question="Q?", answer="A"), Question(question="R?", answer="B"))
    )
    for title in "TU"
)


def said(*texts: str) -> tuple[Answered, ...]:
    return tuple(
        Answered(passage=passage.key, answers=(first, second))
        for passage, first, second in zip(PASSAGES, texts[::2], texts[1::2], strict=True)
    )


def test_arms_are_compared_two_by_two_within_a_procedure() -> None:
    answered = {
        "unedited": said("-", "-", "-", "-"),
        "in-context": said("A", "-", "A", "-"),
        "passage/seal": said("A", "B", "A", "B"),
        "passage/reference": said("-", "-", "-", "-"),
        "recorded/seal": said("A", "B", "-", "B"),
    }
    loaded = Loaded(PASSAGES, {}, (), "0" * 64)
    settings = BenchSettings(data=DATA / "reported_passages.json")
    found = {
        (one.procedure, one.arm, one.less): one.accuracy["contains"] for one in comparisons(settings, loaded, answered)
    }
    assert {key: figure.mean for key, figure in found.items()} == {
        ("seal", "passage", "in-context"): 0.5,
        ("seal", "recorded", "in-context"): 0.25,
        ("seal", "recorded", "passage"): -0.25,
        ("reference", "passage", "in-context"): -0.5,
    }
    less = found["seal", "recorded", "passage"]
    assert (less.low, less.high) == (-0.5, 0.0), "passages are drawn again, not questions"
