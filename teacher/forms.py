"""The forms in which what was written about a document is taught.

Written questions are taught as they are. Statements are taught as questions that are made by rule of them and of the
document's sentences (teacher/rule_questions.py), each in many wordings: what a small model learned as plain text, or by
one wording alone, it can hardly use when it is asked. Every answer stands in a statement or in the document. The writer
is the caller, and benchmarks that bring recorded edits into the same forms. Pure functions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from common.canonical import derive_seed
from common.config import Config
from common.types import Recipe
from teacher.parsing import sentences
from teacher.pieces import Candidate, Question, Statement, spread
from teacher.rule_questions import Made, questions, shortened

# With questions an edit has several times as many examples as were written, for which few epochs were found to do: two
# (docs/retention.md), or one where each question is asked in many wordings (docs/results.md). The student's own default
# is for edits of a few texts.
EPOCHS, EPOCHS_OF_MANY_WORDINGS = 2, 1
MANY_WORDINGS = 2  # shortened questions for each whole one
RETOLD_SENTENCES = 3  # a statement of so many is the document told again, and is asked about sentence by sentence
WORD = re.compile(r"\w+")
SHORT_WORD = 3  # letters; shorter ones say little about what a clause is about
ALIKE = 0.5  # of a clause's telling words, for a clause of the document to say the same
AnswerForm = Literal["part", "clause", "sentence", "passage"]


class FormSettings(Config):
    """What statements become; docs/retention.md and docs/results.md say how the defaults were found."""

    plain: bool = Field(default=False, description="statements and document also as plain text under the title")
    asked: bool = Field(
        default=True,
        description="questions made of statements and document by rule, with answers; off: all plain",
    )
    per_statement: int = Field(default=1, ge=0, le=8, description="clauses asked about in a statement")
    per_sentence: int = Field(default=4, ge=0, le=8, description="clauses asked about in a sentence of the document")
    answer: AnswerForm = Field(
        default="passage",
        description="how much of its sentence an answer says; passage: the clause of the document that says the same",
    )
    fronted: bool = Field(
        default=True,
        description="each question once more, of the whole sentence, with what is asked for at its beginning",
    )
    shortened: int = Field(
        default=6,
        ge=0,
        le=16,
        description="times each question is asked again with half of its words left out",
    )
    most: int = Field(default=256, ge=1, le=500, description="questions made for one edit")


class Taught(NamedTuple):
    """What pieces become: written questions as they are, statements as they are, questions made by rule.

    recipe: what suits these forms, where nobody says otherwise.
    """

    written: Sequence[Question] = ()
    plain: Sequence[Statement] = ()
    asked: Sequence[Question] = ()
    recipe: Recipe = Recipe()

    @property
    def unchanged(self) -> list[Candidate]:
        """What is taught as it was written."""
        return [*self.written, *self.plain]


def in_forms(pieces: Sequence[Candidate], title: str, text: str, forms: FormSettings) -> Taught:
    """The pieces in the forms that are set. Statements stay plain where no question could be made of anything.

    Without a written question the document is asked about even if nothing was stated about it.
    """
    written = [piece for piece in pieces if isinstance(piece, Question)]
    stated = [piece for piece in pieces if isinstance(piece, Statement)]
    whole, remnants = _made(stated, title, text, forms) if forms.asked and (stated or not written) else ([], [])
    plain = stated if forms.plain or not whole else []
    recipe = Recipe()
    if whole:
        many = not written and not plain and len(remnants) >= MANY_WORDINGS * len(whole)
        recipe = Recipe(epochs=EPOCHS_OF_MANY_WORDINGS if many else EPOCHS)
    return Taught(written, plain, [*whole, *remnants], recipe)


def asked(stated: Sequence[Statement], title: str, text: str, forms: FormSettings) -> list[Question]:
    """Questions made of statements and of the document's sentences, with their answers; shortened ones last.

    Each is grounded in the sentence of the document that it was made of or whose clause answers it; else in the part of
    the document that its statement was written about.
    """
    whole, remnants = _made(stated, title, text, forms)
    return [*whole, *remnants]


def _made(
    stated: Sequence[Statement], title: str, text: str, forms: FormSettings
) -> tuple[list[Question], list[Question]]:
    """Whole questions, and shortened ones as far as there is room: these never take the place of a whole one."""
    own = sentences(text)
    sources = {sentence: piece.source for piece in stated for sentence in _units(piece.text)}
    sources |= {sentence: sentence for sentence in own}
    most = {**dict.fromkeys(sources, forms.per_statement), **dict.fromkeys(own, forms.per_sentence)}
    clauses: dict[str, str] = {}
    for sentence in own:
        for made in questions(sentence, title):
            clauses.setdefault(made.clause, sentence)
    whole: dict[tuple[str, str], Question] = {}
    remnants: dict[tuple[str, str], Question] = {}
    for source, grounding in sources.items():
        for made in questions(source, title)[: most[source]]:
            answer = _answer(made, source, clauses, forms.answer)
            for found, ways in ((whole, _whole(made, forms)), (remnants, _shortened(made, forms))):
                for question in ways:
                    piece = Question(question, answer, clauses.get(answer, grounding))
                    found.setdefault((question, answer), piece)
    kept = spread(list(whole.values()), forms.most, lambda piece: piece.source)
    fewer = [piece for key, piece in remnants.items() if key not in whole]
    return kept, spread(fewer, forms.most - len(kept), lambda piece: piece.source)


def _whole(made: Made, forms: FormSettings) -> list[str]:
    return [made.question, made.fronted] if forms.fronted else [made.question]


def _shortened(made: Made, forms: FormSettings) -> list[str]:
    whole = _whole(made, forms)
    drawn = random.Random(derive_seed("shortened", made.question, made.part))  # noqa: S311 - a seeded draw
    return [shortened(whole[place % len(whole)], drawn) for place in range(forms.shortened)]


def _units(statement: str) -> list[str]:
    found = sentences(statement)
    return found if len(found) >= RETOLD_SENTENCES else [statement]


def _answer(made: Made, source: str, clauses: Mapping[str, str], form: AnswerForm) -> str:
    match form:
        case "part":
            return f"{made.part}."
        case "clause":
            return made.clause
        case "sentence":
            return source
        case "passage":
            return same_said(made, list(clauses))


def same_said(made: Made, clauses: Sequence[str]) -> str:
    """The clause that names the part and has most words of its own clause; the own one where none has half of them."""
    own = _telling(made.clause)
    alike = {clause: len(own & _telling(clause)) for clause in clauses if made.part.lower() in clause.lower()}
    best = max(alike, key=alike.__getitem__, default=made.clause)
    return best if alike.get(best, 0) >= ALIKE * len(own) else made.clause


def _telling(text: str) -> set[str]:
    return {word for word in WORD.findall(text.lower()) if len(word) > SHORT_WORD or word.isdigit()}
