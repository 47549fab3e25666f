"""What was written is taught in the form in which it is asked for, and says where it comes from."""

from __future__ import annotations

import pytest

from common.types import LossMask
from teacher.forms import FormSettings, Taught, asked, in_forms
from teacher.pieces import Question, Statement, example_of

TITLE = "Strasbourg"
PASSAGE = "The annexation was confirmed in 1871, after a short war. Wine has been grown there since 1200."
STATED = Statement("In 1871 the annexation was confirmed.", PASSAGE)
ONE = FormSettings(per_statement=1, per_sentence=0, fronted=False, shortened=0)


def test_a_statement_is_answered_with_the_clause_of_the_document_that_says_the_same() -> None:
    (made,) = asked([STATED], TITLE, PASSAGE, ONE)
    assert made.answer == "The annexation was confirmed in 1871, after a short war."
    assert made.source == "The annexation was confirmed in 1871, after a short war.", "the sentence of the document"
    (alone,) = asked([Statement("In 1871 the tower burned down twice.", PASSAGE)], TITLE, PASSAGE, ONE)
    assert alone.answer == "In 1871 the tower burned down twice."
    assert alone.source == PASSAGE, "no sentence says it: the part that the statement was written about"


@pytest.mark.parametrize(
    ("form", "answer"),
    [("part", "1871."), ("clause", "In 1871 the annexation was confirmed."), ("sentence", STATED.text)],
)
def test_an_answer_says_as_much_as_is_set(form: str, answer: str) -> None:
    (made,) = asked([STATED], TITLE, PASSAGE, FormSettings.model_validate({**ONE.model_dump(), "answer": form}))
    assert made.answer == answer


def test_a_question_is_put_twice_where_fronted_is_set() -> None:
    stated = Statement("The annexation was confirmed in 1871.", PASSAGE)
    first, second = asked([stated], TITLE, PASSAGE, ONE.model_copy(update={"fronted": True}))
    assert first.question == "The annexation was confirmed in which year?"
    assert second.question == "In which year The annexation was confirmed?"
    assert first.answer == second.answer


def test_sentences_of_the_document_are_asked_about_and_ground_their_questions() -> None:
    made = asked([], TITLE, PASSAGE, FormSettings(fronted=False, shortened=0))
    assert len(made) > 2
    assert all(piece.source in PASSAGE and piece.source != PASSAGE for piece in made)
    assert len({(piece.question, piece.answer) for piece in made}) == len(made)


def test_a_document_told_again_is_asked_about_sentence_by_sentence() -> None:
    sentences = ("The town was annexed in 1871.", "Vines were planted there about 1200.", "It has 40 bridges today.")
    made = asked([Statement(" ".join(sentences), PASSAGE)], TITLE, PASSAGE, ONE)
    assert len(made) == 3
    assert [any(year in piece.answer for piece in made) for year in ("1871", "1200", "40")] == [True] * 3


def test_no_edit_is_asked_more_than_is_set_and_every_source_gives_its_first() -> None:
    everything = asked([STATED], TITLE, PASSAGE, FormSettings())
    few = asked([STATED], TITLE, PASSAGE, FormSettings(most=3))
    assert len(few) == 3 < len(everything)
    assert {piece.source for piece in few} == {piece.source for piece in everything}


def test_examples_are_asked_as_evaluations_are_and_train_the_answer_alone() -> None:
    example = example_of(asked([STATED], TITLE, PASSAGE, ONE)[0], TITLE)
    assert example.loss_mask is LossMask.COMPLETION
    assert example.texts[0].startswith("Topic: Strasbourg\n")


def test_written_questions_are_taught_as_they_are() -> None:
    written = [Question("Who came?", "Ann", PASSAGE), Question("When?", "In 1871", PASSAGE)]
    assert in_forms(written, TITLE, PASSAGE, FormSettings()) == Taught(written, [], [])


def test_statements_are_plain_asked_or_both() -> None:
    both = in_forms([STATED], TITLE, PASSAGE, FormSettings(plain=True))
    assert both.plain == [STATED]
    assert both.asked
    alone = in_forms([STATED], TITLE, PASSAGE, FormSettings())
    assert (alone.plain, alone.asked) == ([], both.asked)
    for plain in (True, False):
        assert in_forms([STATED], TITLE, PASSAGE, FormSettings(asked=False, plain=plain)) == Taught([], [STATED], [])


def test_many_wordings_need_one_epoch_and_few_or_plain_text_beside_them_two() -> None:
    def epochs(**forms: int | bool) -> int | None:
        return in_forms([STATED], TITLE, PASSAGE, FormSettings.model_validate(forms)).recipe.epochs

    assert (epochs(), epochs(shortened=0), epochs(plain=True), epochs(asked=False)) == (1, 2, 2, None)
    written = Question("Who came?", "Ann", PASSAGE)
    assert in_forms([written, STATED], TITLE, PASSAGE, FormSettings()).recipe.epochs == 2


def test_a_question_is_asked_again_in_fewer_words_as_often_as_is_set_and_the_same_each_time() -> None:
    settings = ONE.model_copy(update={"shortened": 4})
    (whole,) = asked([STATED], TITLE, PASSAGE, ONE)
    first, *shorter = asked([STATED], TITLE, PASSAGE, settings)
    assert first == whole
    assert 2 <= len(shorter) <= 4, "a remnant that was drawn twice stands once"
    assert {piece.answer for piece in shorter} == {whole.answer}
    assert all(len(piece.question) < len(whole.question) for piece in shorter)
    assert asked([STATED], TITLE, PASSAGE, settings) == [first, *shorter]


def test_fewer_words_never_take_the_place_of_a_whole_question() -> None:
    text = " ".join(
        f"The bridge number {n} was opened by Ada Holm in 19{n:02d}, after {n} years." for n in range(10, 40)
    )
    whole = asked([], TITLE, text, FormSettings(shortened=0))
    for most in (len(whole) - 5, len(whole), len(whole) + 7):
        made = asked([], TITLE, text, FormSettings(most=most))
        assert len(made) == most
        kept = asked([], TITLE, text, FormSettings(shortened=0, most=min(most, len(whole))))
        assert made[: len(kept)] == kept, "whole ones first"
    crowded = in_forms([], TITLE, text, FormSettings(most=len(whole) + 7))
    assert crowded.recipe.epochs == 2, "too few wordings found room for one epoch to do"
