"""How much is rehearsed in an update: of edits in our forms all that is known, of written questions a few."""

from __future__ import annotations

from pathlib import Path

from benchmarks.method.materials import Material, recipe_of, recorded, training_of
from benchmarks.method.settings import BenchSettings
from benchmarks.passages import Passage, Question
from common.prompting import question_and_answer
from common.types import Example, Recipe

BASE = "b" * 64
SETTINGS = BenchSettings.model_validate(
    {"data": Path("none.json"), "seal": {"rehearsal": 5, "rehearsal_as_written": 2}}
)


def common(number: int) -> Example:
    return question_and_answer("", f"Which is number {number}?", f"It is {number}.")


def rehearse(seed: int) -> list[Example]:
    return [common(number) for number in range(8)]


def edit(name: str, *, as_written: bool) -> Material:
    asked = question_and_answer(name, "Who built it?", "Ada Holm")
    return Material(passage=name, documents=(name,), examples=(asked,), as_written=as_written, recipe=Recipe(epochs=7))


def test_written_questions_rehearse_as_few_as_the_teacher_does() -> None:
    counts = {
        as_written: len(
            training_of([edit("a", as_written=as_written)], "seal", SETTINGS, base=BASE, rehearse=rehearse).examples
        )
        for as_written in (True, False)
    }
    assert counts == {True: 1 + 2, False: 1 + 5}


def test_a_union_rehearses_for_each_of_its_edits_and_each_question_once() -> None:
    def shifted(seed: int) -> list[Example]:
        known = rehearse(seed)
        turn = seed % len(known)
        return [*known[turn:], *known[:turn]]

    both = [edit("a", as_written=True), edit("b", as_written=False)]
    training = training_of(both, "seal", SETTINGS, base=BASE, rehearse=shifted)
    rehearsed = [example for example in training.examples if example in rehearse(0)]
    assert 5 <= len(rehearsed) <= 7
    assert len(set(map(repr, rehearsed))) == len(rehearsed)


def test_nothing_is_drawn_where_nothing_is_rehearsed() -> None:
    def drawn(seed: int) -> list[Example]:
        raise AssertionError("asked for")

    none = SETTINGS.model_copy(update={"seal": SETTINGS.seal.model_copy(update={"rehearsal": 0})})
    training = training_of([edit("a", as_written=False)], "seal", none, base=BASE, rehearse=drawn)
    assert len(training.examples) == 1
    assert training_of([edit("a", as_written=True)], "reference", SETTINGS, base=BASE, rehearse=drawn).examples


def test_recorded_questions_are_taught_as_written_with_the_passage_beside_them() -> None:
    passage = Passage(
        title="Library",
        context="Ada Holm built the library in 1902.",
        questions=(Question(question="Who built it?", answer="Ada Holm"),),
    )
    asked = recorded(SETTINGS, passage, "Question: Who built the library?\nAnswer: Ada Holm built it in 1902.\n")
    assert asked.as_written
    assert [example.text for example in asked.examples if example.text] == [
        "Library\nAda Holm built the library in 1902."
    ]
    stated = recorded(SETTINGS, passage, "Ada Holm built the library in 1902.\n")
    assert not stated.as_written
    assert all(example.text is None for example in stated.examples)


def test_of_several_edits_the_one_with_the_epochs_in_the_middle_says_how_all_are_trained() -> None:
    edits = [edit("a", as_written=True).model_copy(update={"recipe": Recipe(epochs=n, rank=n)}) for n in (20, 6, 8, 10)]
    assert recipe_of(edits) == Recipe(epochs=8, rank=8)
    assert recipe_of(edits[:1]) == Recipe(epochs=20, rank=20)
