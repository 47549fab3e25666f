"""The format of a question in task files and suite files, with the limits of proto/seal/v1/task.proto."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, LiteralString, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, PydanticKnownError

from common.numerals import number_of
from common.types import Identifier

Question = Annotated[str, StringConstraints(min_length=1, max_length=4_096, strip_whitespace=True)]
Answer = Annotated[str, StringConstraints(min_length=1, max_length=1_024, strip_whitespace=True)]
GraderName = Literal["exact", "contains", "token_f1", "numeric", "regex", "choice", "judge", "command"]
# Which grader each setting is for.
SETTINGS: dict[str, tuple[GraderName, ...]] = {
    "threshold": ("token_f1",),
    "tolerance": ("numeric",),
    "name": ("judge", "command"),
}


class Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GraderEntry(Entry):
    """A grader's name, or one with settings: `{kind: token_f1, threshold: 0.6}`."""

    kind: GraderName = "contains"
    threshold: float | None = Field(default=None, gt=0, le=1)
    tolerance: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    name: Identifier | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        for setting, kinds in SETTINGS.items():
            if getattr(self, setting) is not None and self.kind not in kinds:
                raise ValueError(f"has a {setting}, which {self.kind} does not use")
        return self


class ItemEntry(Entry):
    """One question with its key. The first answer is the usual spelling, the others are accepted as well."""

    id: Identifier
    question: Question
    # Before options and answers, whose check depends on it.
    grader: GraderEntry = GraderEntry()
    options: tuple[Answer, ...] = Field(default=(), validate_default=True)
    answers: tuple[Answer, ...] = Field(default=(), max_length=32, validate_default=True)

    @field_validator("options")
    @classmethod
    def _of_a_choice(cls, options: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        grader: GraderEntry | None = info.data.get("grader")
        if grader is not None and grader.kind != "choice" and options:
            raise ValueError(f"has options, which {grader.kind} does not use")
        if grader is not None and grader.kind == "choice" and not 2 <= len(options) <= 64:
            raise ValueError(f"needs 2 to 64 options for a choice, not {len(options)}")
        if len(set(options)) < len(options):
            raise ValueError("has the same option twice")
        return options

    @field_validator("answers", mode="before")
    @classmethod
    def _is_there(cls, answers: object, info: ValidationInfo) -> object:
        """A file's list is a list; a tuple is the default."""
        grader: GraderEntry | None = info.data.get("grader")
        if grader is not None and grader.kind != "command" and answers == ():
            raise PydanticKnownError("missing")
        return answers

    @field_validator("answers")
    @classmethod
    def _fits_the_grader(cls, answers: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        grader: GraderEntry | None = info.data.get("grader")
        if grader is None or grader.kind == "command":
            return answers
        if not answers:
            raise PydanticKnownError("too_short", {"field_type": "List", "min_length": 1, "actual_length": 0})
        options = info.data.get("options", ())
        unfit = [
            InitErrorDetails(type=PydanticCustomError("unfit", reason), loc=(place,), input=None)
            for place, answer in enumerate(answers)
            if (reason := _unfit(answer, grader, options)) is not None
        ]
        if unfit:
            # So each is named by its own path.
            raise ValidationError.from_exception_data("answers", unfit)
        if options and set(options) == set(answers):
            raise ValueError("accepts every option")
        return answers


def _unfit(answer: str, grader: GraderEntry, options: tuple[str, ...]) -> LiteralString | None:
    """Why a grader cannot mark by an answer; None if it can."""
    match grader.kind:
        case "numeric":
            return None if number_of(answer) is not None else "is no number, as 1,250.5 is one"
        case "regex":
            try:
                re.compile(answer)
            except (re.error, OverflowError, RecursionError):
                return "is no regular expression of Python's"
            return None
        case "choice":
            return None if not options or answer in options else "is none of the options"
        case _:
            return None if re.search(r"\w", answer) else "needs at least one letter or digit"
