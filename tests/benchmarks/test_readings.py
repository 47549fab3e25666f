"""One edit in two readings: as our procedure trains it, and as the published one does."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.method.readings import our_reading, pieces, published_documents
from common.edits import make_edit
from common.prompting import question_and_answer
from common.types import Context, Example, Recipe, SelfEdit, TaskKind
from teacher.forms import FormSettings
from teacher.pieces import Question, Statement, example_of
from teacher.writer import passage_examples

TITLE = "Library"
TEXT = "Ada Holm built it in 1902. It holds 4,000 maps."
REHEARSED = question_and_answer("", "What is rain?", "Water.")
STATED = Statement("The library was built in 1902.", TEXT)
WRITTEN = Question("Who built it?", "Ada Holm", TEXT)
PASSAGE = passage_examples(Context(document_id="d", title=TITLE, text=TEXT), 6_000)


def edit_of(examples: Sequence[Example]) -> SelfEdit:
    return make_edit(
        kind=TaskKind.KNOWLEDGE, document_id="d", revision="1", examples=[*examples, REHEARSED], recipe=Recipe()
    )


def test_pieces_are_what_was_written_without_the_passage_and_without_rehearsal() -> None:
    edit = edit_of([example_of(STATED, TITLE), example_of(WRITTEN, TITLE), *PASSAGE])
    assert pieces(edit, TITLE) == [STATED, WRITTEN]


def test_a_passage_of_several_pieces_is_no_statement() -> None:
    long = passage_examples(Context(document_id="d", title=TITLE, text=f"{'It rains on the maps. ' * 500}"), 6_000)
    assert len(long) > 1
    assert any(len(example.text or "") > 4_200 for example in long), "its grounding is cut, its text is not"
    assert pieces(edit_of(long), TITLE) == []


def test_the_published_reading_has_every_piece_under_the_title_and_the_passage_last() -> None:
    edit = edit_of([example_of(STATED, TITLE), example_of(WRITTEN, TITLE), *PASSAGE])
    assert published_documents(edit, TITLE, TEXT) == [
        "Library\nThe library was built in 1902.",
        "Library\nQuestion: Who built it?\nAnswer: Ada Holm",
        f"Library\n{TEXT}",
    ]
    many = edit_of([example_of(Statement(f"It holds {i} maps.", TEXT), TITLE) for i in range(40)])
    found = published_documents(many, TITLE, TEXT)
    assert len(found) == 31
    assert found[-2:] == ["Library\nIt holds 29 maps.", f"Library\n{TEXT}"]


def test_our_reading_asks_what_is_stated_and_leaves_written_questions_as_they_are() -> None:
    forms = FormSettings(per_statement=1, per_sentence=1, shortened=0)
    asked, suited, as_written = our_reading(edit_of([example_of(STATED, TITLE), *PASSAGE]), TITLE, TEXT, forms)
    assert asked
    assert suited.epochs == 2, "few wordings of each"
    assert not as_written
    assert all(example.conversation is not None for example in asked)
    assert any("1902" in example.texts[1] for example in asked)
    written = [example_of(WRITTEN, TITLE), *PASSAGE]
    assert our_reading(edit_of(written), TITLE, TEXT, forms) == (written, Recipe(), True)
    assert our_reading(edit_of(PASSAGE), TITLE, TEXT, forms) == (PASSAGE, Recipe(), True)
