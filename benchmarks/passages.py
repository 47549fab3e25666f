"""Passages with their questions, and the edits that another model wrote about them: what benchmarks of the method use.

Both files are a user's own: a list of {title, context, questions: [{question, answer}]}, and a list of {title, context,
completions}, several self-edits a passage (the formats of the SEAL reference code). A wrong file is refused before
anything is trained. Passages are told apart by their text: two of them may have one title.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Self, TypeVar

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from auditor.tasks import EvaluationItem
from common.canonical import digest_of
from common.convert import violations_of
from common.errors import InvalidConfig
from common.prompting import ask
from common.silence import is_empty
from common.types import Domain, Prompt

DomainT = TypeVar("DomainT", bound=Domain)
LEAST_QUESTIONS = 5


class Question(Domain):
    """A question and its one accepted answer, within what an auditor's item takes."""

    question: str
    answer: str

    @model_validator(mode="after")
    def _can_be_asked(self) -> Self:
        try:
            self.item("q")
        except ValidationError as error:
            raise ValueError("; ".join(f"{v.path}: {v.reason}" for v in violations_of(error))) from None
        return self

    def item(self, name: str) -> EvaluationItem:
        """Graded by contains."""
        return EvaluationItem(item_id=name, question=self.question, answers=(self.answer,))


class Passage(Domain):
    """A context C with its tau."""

    title: str = Field(min_length=1, max_length=300)
    context: str = Field(min_length=1)
    questions: tuple[Question, ...] = Field(min_length=1)

    @property
    def key(self) -> str:
        """Names the passage by its content, in twelve characters."""
        return digest_of([self.title, self.context]).sha256[:12]

    def items(self) -> tuple[EvaluationItem, ...]:
        """tau, graded by contains."""
        return tuple(entry.item(f"{self.key}-{place}") for place, entry in enumerate(self.questions))

    def prompts(self) -> tuple[Prompt, ...]:
        """The questions as they are put to a model: under the title, without the passage."""
        return tuple(
            Prompt(prompt_id=item.item_id, conversation=ask(self.title, item.question)) for item in self.items()
        )


class RecordedEdits(Domain):
    """The completions that a model wrote about one passage; `prompt` is what it was asked."""

    title: str
    context: str
    prompt: str = ""
    completions: tuple[str, ...] = Field(min_length=1)

    @field_validator("completions")
    @classmethod
    def _with_words(cls, completions: tuple[str, ...]) -> tuple[str, ...]:
        for place, completion in enumerate(completions):
            if is_empty(completion):
                raise ValueError(f"[{place}] has no word")
        return completions


def read_passages(file: Path) -> tuple[Passage, ...]:
    """Raises InvalidConfig that names file and field."""
    passages = _read(file, TypeAdapter(tuple[Passage, ...]))
    places: dict[str, int] = {}
    for place, passage in enumerate(passages):
        if (first := places.setdefault(passage.key, place)) != place:
            raise InvalidConfig(f"{file}: [{place}]: the passage of [{first}], titled {passage.title!r}, occurs twice")
    return passages


def read_edits(file: Path) -> dict[str, RecordedEdits]:
    """Recorded edits by their passage's text. Raises InvalidConfig that names file and field."""
    known: dict[str, RecordedEdits] = {}
    for place, edits in enumerate(_read(file, TypeAdapter(tuple[RecordedEdits, ...]))):
        if edits.context in known:
            raise InvalidConfig(f"{file}: [{place}]: there are edits of its passage, titled {edits.title!r}, before")
        known[edits.context] = edits
    return known


def chosen(passages: Sequence[Passage], count: int, left_out: Sequence[Passage] = ()) -> tuple[Passage, ...]:
    """The first `count` passages with five questions or more that are not left out. Raises InvalidConfig."""
    known = {passage.key for passage in left_out}
    fit = [p for p in passages if len(p.questions) >= LEAST_QUESTIONS and p.key not in known]
    if len(fit) < count:
        raise InvalidConfig(f"{len(fit)} passages have {LEAST_QUESTIONS} questions or more; {count} are needed")
    return tuple(fit[:count])


def _read(file: Path, form: TypeAdapter[tuple[DomainT, ...]]) -> tuple[DomainT, ...]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, list):
            found = "object" if isinstance(content, dict) else "value"
            raise InvalidConfig(f"{file}: expected a list of {{title, context, ...}}, found a JSON {found}")
        return form.validate_python(content)
    except OSError as error:
        raise InvalidConfig(f"{file}: {error.strerror}") from None
    except ValidationError as error:
        raise InvalidConfig("\n".join(f"{file}: {v.path}: {v.reason}" for v in violations_of(error))) from None
    except json.JSONDecodeError as error:
        raise InvalidConfig(f"{file}: not valid JSON (line {error.lineno}: {error.msg})") from None
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{file}: not text in UTF-8 (at byte {error.start})") from None
    except RecursionError:
        raise InvalidConfig(f"{file}: nested too deeply") from None
