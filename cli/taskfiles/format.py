"""The formats of task files and suite files, with the limits of proto/seal/v1/task.proto."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from common.types import Identifier

Question = Annotated[str, StringConstraints(min_length=1, max_length=4_096, strip_whitespace=True)]


def _has_word(answer: str) -> str:
    if not re.search(r"\w", answer):
        raise ValueError("needs at least one letter or digit")
    return answer


Answer = Annotated[
    str, StringConstraints(min_length=1, max_length=1_024, strip_whitespace=True), AfterValidator(_has_word)
]
Title = Annotated[str, StringConstraints(min_length=1, max_length=300, strip_whitespace=True)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=65_536, strip_whitespace=True)]
GraderName = Literal["exact", "contains", "token_f1"]


class Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GraderEntry(Entry):
    """A grader's name, or `{kind: token_f1, threshold: 0.6}`."""

    kind: GraderName = "contains"
    threshold: float | None = Field(default=None, gt=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _threshold_fits(self) -> Self:
        if self.threshold is not None and self.kind != "token_f1":
            raise ValueError(f"has a threshold, which {self.kind} does not use")
        return self


class ItemEntry(Entry):
    """One question with its key. The first answer is the usual spelling, the others are accepted as well."""

    id: Identifier
    question: Question
    answers: tuple[Answer, ...] = Field(min_length=1, max_length=32)
    grader: GraderEntry = GraderEntry()


class TaskEntry(Entry):
    """One task: a document, and the questions that show whether it was learned."""

    id: Identifier
    kind: Literal["knowledge"] = "knowledge"
    document_id: Identifier | None = None
    revision: str = Field(default="1", min_length=1, max_length=64)
    title: Title
    context: Text | None = None
    context_file: str | None = Field(default=None, min_length=1)
    tau: tuple[ItemEntry, ...] = Field(min_length=1, max_length=1_000)
    retention: tuple[ItemEntry, ...] = Field(default=(), max_length=1_000)

    @model_validator(mode="after")
    def _one_context(self) -> Self:
        if (self.context is None) == (self.context_file is None):
            raise ValueError("exactly one of context and context_file must be given")
        return self


class SuiteEntry(Entry):
    """Questions that every version must go on answering."""

    id: Identifier
    title: str = Field(default="", max_length=300)
    items: tuple[ItemEntry, ...] = Field(min_length=1, max_length=10_000)


class ListedQuestion(Entry):
    question: Question
    answer: Answer


class ListedPassage(Entry):
    """An entry of the JSON list format: `{title, context, questions: [{question, answer}]}`."""

    title: Title
    context: Text
    questions: tuple[ListedQuestion, ...] = Field(min_length=1, max_length=1_000)
