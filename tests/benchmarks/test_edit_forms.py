"""Recorded completions: read as published, and as the pieces that the teacher's forms are made of."""

from __future__ import annotations

from benchmarks.edit_forms import LONGEST, formed, passage_examples, pieces_of, reference_documents, statements
from teacher.forms import FormSettings
from teacher.pieces import Statement

SENTENCE = "In 1871 the annexation, after a short war, was confirmed by the Treaty of Frankfurt for 30 years."


def test_the_published_reading_keeps_every_line_under_the_title_and_the_passage_last() -> None:
    found = reference_documents("1. One.\n\n2. Two.", "Title", "The passage.")
    assert found == ["Title\n1. One.", "Title\n2. Two.", "Title\nThe passage."]
    assert reference_documents("One.\nMore.\n---\nTwo.", "T", "P") == ["T\nOne.\nMore.", "T\nTwo.", "T\nP"]
    assert len(reference_documents("\n".join(f"{i}." for i in range(50)), "T", "P")) == 31


def test_only_whole_statements_are_taught() -> None:
    assert statements("1. It rains.\n2. It rains.\n3. It rai") == ["It rains."]
    lines = ["1. **Weather**: It rains.", "Here is what follows from this:", "Does it rain?"]
    lines += ["It **snows**.", "**Strasbourg** was annexed.", "It hails."]
    assert statements("\n".join(lines)) == ["It rains.", "It snows.", "Strasbourg was annexed.", "It hails."]


def test_forms_are_as_the_settings_name_them() -> None:
    context = "It rained in 1871."
    stated = pieces_of([SENTENCE], context)
    plain = [f"T\n{SENTENCE}", f"T\n{context}"]
    assert [example.text for example in formed(stated, "T", context, FormSettings(asked=False))] == plain
    few = FormSettings(plain=True, per_statement=1, fronted=False, shortened=0)
    both = formed(stated, "T", context, few)
    assert [example.text for example in both][:2] == plain
    assert len([example for example in both if example.conversation is not None]) == 1 + 1
    alone = formed(stated, "T", context, FormSettings(per_statement=1, fronted=False, shortened=0))
    assert alone == both[2:]


def test_a_passage_without_edits_is_brought_into_the_same_forms() -> None:
    context = "It rained in 1871."
    both = formed([], "T", context, FormSettings(plain=True, fronted=False, shortened=0))
    assert [example.text for example in both] == [f"T\n{context}", None]
    assert formed([], "T", context, FormSettings(fronted=False, shortened=0)) == both[1:]


def test_what_nothing_can_be_asked_about_stays_plain() -> None:
    pieces = [Statement("Yes.", "Oh.")]
    assert [e.text for e in formed(pieces, "T", "Oh.", FormSettings())] == ["T\nYes.", "T\nOh."]


def test_written_questions_are_taught_as_they_are_and_read_as_published() -> None:
    completion = "Question: Who built it?\nAnswer: Ada Holm\n\nQuestion: When was it built?\nAnswer: 1902"
    pieces = pieces_of([completion, completion], "Ada Holm built it in 1902.")
    examples = formed(pieces, "Library", "Ada Holm built it in 1902.", FormSettings())
    assert [example.texts for example in examples] == [
        ("Topic: Library\nWho built it?", "Ada Holm"),
        ("Topic: Library\nWhen was it built?", "1902"),
    ]
    assert reference_documents(completion, "Library", "The passage.") == [
        "Library\nQuestion: Who built it?\nAnswer: Ada Holm",
        "Library\nQuestion: When was it built?\nAnswer: 1902",
        "Library\nThe passage.",
    ]


def test_a_long_passage_becomes_several_examples_and_a_short_one_stays_as_it_is() -> None:
    (short,) = passage_examples("T", " As it is. ")
    assert short.text == "T\n As it is. "
    sentences = [f"Sentence {number} says little." for number in range(400)]
    texts = [example.text or "" for example in passage_examples("T", " ".join(sentences))]
    assert len(texts) > 2
    assert all(text.startswith("T\n") and len(text) <= LONGEST + len("T\n") for text in texts)
    assert " ".join(text.removeprefix("T\n") for text in texts) == " ".join(sentences)
