"""One edit read in two ways: as our procedure trains it, and as the published one does (SEAL.md).

Works on edits of benchmarks/method/own_edits.py, which hold written pieces and the passage. An example without
grounding is rehearsal and left out of both readings: whatever a teacher writes about a document says where it comes
from, and rehearsed common knowledge comes from nowhere (teacher/rehearsal.py). Pure functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.edit_forms import MAX_DOCUMENTS, examples_of
from common.prompting import ask
from common.types import Example, Recipe, SelfEdit
from teacher.forms import FormSettings, in_forms
from teacher.pieces import Candidate, Question, Statement


class Reading(NamedTuple):
    """What our procedure trains, before rehearsal, and the recipe that suits it. as_written: in no form of ours."""

    examples: Sequence[Example]
    suited: Recipe
    as_written: bool


def our_reading(edit: SelfEdit, title: str, context: str, forms: FormSettings) -> Reading:
    """Statements in the forms that are set; written questions, and a passage without either, as they are."""
    written = pieces(edit, title)
    if any(isinstance(piece, Statement) for piece in written):
        taught = in_forms(written, title, context, forms)
        return Reading(examples_of(taught, title, context, forms), taught.recipe, as_written=False)
    return Reading([example for example in edit.examples if example.grounding], Recipe(), as_written=True)


def published_documents(edit: SelfEdit, title: str, context: str) -> list[str]:
    """What the published procedure trains: each piece as a text under the title, at most 30, and the passage last."""
    texts = [
        piece.text if isinstance(piece, Statement) else f"Question: {piece.question}\nAnswer: {piece.answer}"
        for piece in pieces(edit, title)
    ]
    return [f"{title}\n{text}" for text in (*texts[:MAX_DOCUMENTS], context)]


def pieces(edit: SelfEdit, title: str) -> list[Candidate]:
    """What was written: without rehearsal, and without the passage, which only repeats what it is grounded in."""
    return [_piece(example, title) for example in _written(edit.examples, title)]


def _written(examples: Sequence[Example], title: str) -> list[Example]:
    return [
        example
        for example in examples
        if example.grounding and not (example.text or "").startswith(f"{title}\n{example.grounding}")
    ]


def _piece(example: Example, title: str) -> Candidate:
    if example.text is not None:
        return Statement(example.text.removeprefix(f"{title}\n"), example.grounding)
    asked, answer = example.texts
    topic = ask(title, "?").messages[0].text.removesuffix("?")
    return Question(asked.removeprefix(topic), answer, example.grounding)
