"""The formats of task files and suite files, with the limits of proto/seal/v1/task.proto."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from cli.taskfiles.items import Answer, Entry, ItemEntry, Question
from common.types import Identifier

Title = Annotated[str, StringConstraints(min_length=1, max_length=300, strip_whitespace=True)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=65_536, strip_whitespace=True)]


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


def _has_word(answer: str) -> str:
    if not re.search(r"\w", answer):
        raise ValueError("needs at least one letter or digit")
    return answer


class ListedQuestion(Entry):
    question: Question
    answer: Annotated[Answer, AfterValidator(_has_word)]


class ListedPassage(Entry):
    """An entry of the JSON list format: `{title, context, questions: [{question, answer}]}`."""

    title: Title
    context: Text
    questions: tuple[ListedQuestion, ...] = Field(min_length=1, max_length=1_000)
