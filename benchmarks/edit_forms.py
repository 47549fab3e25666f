"""Recorded completions, read as published and as pieces that the teacher's own forms are made of.

`reference_documents` is the published reading (SEAL.md): plain texts under the title, the passage one more. `pieces_of`
reads what the teacher would screen, and `formed` makes examples of it in the forms of teacher/forms.py. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from common.types import Example
from teacher.forms import FormSettings, Taught, in_forms
from teacher.parsing import SEPARATOR, documents, pairs, passages
from teacher.pieces import Candidate, Question, Statement, example_of

LONGEST = 3_000  # characters of one example, which may have 1,024 tokens
MAX_DOCUMENTS = 30  # of an edit (SEAL.md: later versions cap there)
HEADING = re.compile(r"^\*\*[^*]+(?::\*\*|\*\*:)\s*|\*\*")


def reference_documents(completion: str, title: str, context: str) -> list[str]:
    """The published reading of a completion: its questions with their answers, if it is made of them; or its blocks
    between `---` lines, or each line that is not empty.

    Every document stands under the title; the passage itself is the last one.
    """
    blocks = SEPARATOR.split(completion)
    pieces = [f"Question: {question}\nAnswer: {answer}" for question, answer in pairs(completion, finished=True)]
    pieces = pieces or (blocks if len(blocks) > 1 else completion.split("\n"))
    kept = [piece.strip() for piece in pieces if piece.strip()][:MAX_DOCUMENTS]
    return [f"{title}\n{piece}" for piece in (*kept, context)]


def statements(completion: str) -> list[str]:
    """What a completion states, without list marks and headings; the same statement once.

    A line that was cut off is left out, and one that asks or only announces.
    """
    finished = completion.rstrip().endswith((".", "!", "?", '"'))
    found = (HEADING.sub("", line) for line in documents(completion, finished=finished))
    return list(dict.fromkeys(line for line in found if line and not line.endswith(("?", ":"))))[:MAX_DOCUMENTS]


def pieces_of(completions: Sequence[str], context: str) -> list[Candidate]:
    """What completions say, each once: their questions with answers, or the statements of those that have none."""
    found: dict[Candidate, None] = {}
    for completion in completions:
        written: list[Candidate] = [Question(*pair, context) for pair in pairs(completion, finished=True)]
        found |= dict.fromkeys(written or [Statement(text, context) for text in statements(completion)])
    return list(found)


def formed(pieces: Sequence[Candidate], title: str, context: str, forms: FormSettings) -> list[Example]:
    """The pieces in the forms that are set, and the passage as plain text where statements are plain; of no pieces, the
    passage alone in these forms."""
    return examples_of(in_forms(pieces, title, context, forms), title, context, forms)


def examples_of(taught: Taught, title: str, context: str, forms: FormSettings) -> list[Example]:
    """`formed` of what is in its forms already."""
    bare = not taught.written and (forms.plain or not taught.asked)
    passage = passage_examples(title, context) if taught.plain or bare else []
    written = [example_of(piece, title) for piece in taught.unchanged]
    return [*written, *passage, *(example_of(piece, title) for piece in taught.asked)]


def passage_examples(title: str, context: str) -> list[Example]:
    """The passage as plain text, in as many examples as its length needs."""
    pieces = [context] if len(context) <= LONGEST else passages(context, LONGEST)
    return [Example(text=f"{title}\n{piece}") for piece in pieces]
