"""Tasks with their keys, suites, and the settings of a run: the auditor's own domain, with task.proto's limits.

Keys live in these types alone. Nothing here is ever sent to the teacher or the student; what they get is made from a
task by auditor/loop.py (the context) and auditor/examiner.py (questions without keys).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from common.canonical import digest_of
from common.types import Context, Domain, Grid, Identifier, Recipe, Seed, TaskKind

MIN_QUESTIONS = 4  # fewer cannot be split into rewards and a holdout that means anything


class GraderKind(StrEnum):
    EXACT = "GRADER_KIND_EXACT"
    CONTAINS = "GRADER_KIND_CONTAINS"
    TOKEN_F1 = "GRADER_KIND_TOKEN_F1"  # noqa: S105 - no password
    NUMERIC = "GRADER_KIND_NUMERIC"
    REGEX = "GRADER_KIND_REGEX"
    CHOICE = "GRADER_KIND_CHOICE"
    JUDGE = "GRADER_KIND_JUDGE"
    GRID = "GRADER_KIND_GRID"
    COMMAND = "GRADER_KIND_COMMAND"
    MAJORITY = "GRADER_KIND_MAJORITY"


BUILT_IN_GRADERS = (GraderKind.EXACT, GraderKind.CONTAINS, GraderKind.TOKEN_F1)


class FilterMode(StrEnum):
    POSITIVE = "FILTER_MODE_POSITIVE"
    TOP_K = "FILTER_MODE_TOP_K"
    SOLVED = "FILTER_MODE_SOLVED"


class PromotionMode(StrEnum):
    NONE = "PROMOTION_MODE_NONE"
    SEQUENTIAL = "PROMOTION_MODE_SEQUENTIAL"
    CONSOLIDATED = "PROMOTION_MODE_CONSOLIDATED"


class LearnFrom(StrEnum):
    BASE = "LEARN_FROM_BASE"
    POLICY = "LEARN_FROM_POLICY"


class Split(StrEnum):
    REWARD = "SPLIT_REWARD"
    HOLDOUT = "SPLIT_HOLDOUT"
    RETENTION = "SPLIT_RETENTION"


class Grader(Domain):
    """How an item's answer is marked; unspecified is contains."""

    kind: GraderKind = GraderKind.CONTAINS
    threshold: float = Field(default=0.5, ge=0, le=1)
    tolerance: float = Field(default=0.0, ge=0)
    name: str = Field(default="", pattern=r"^[A-Za-z0-9._:-]{0,128}$")

    @field_validator("kind")
    @classmethod
    def _built_in(cls, kind: GraderKind) -> GraderKind:
        if kind not in BUILT_IN_GRADERS:
            raise ValueError(f"{kind} is not built in; use one of {', '.join(BUILT_IN_GRADERS)}")
        return kind

    @field_validator("threshold")
    @classmethod
    def _zero_is_default(cls, value: float) -> float:
        return value or 0.5


class EvaluationItem(Domain):
    """One question with its key."""

    item_id: Identifier
    question: str = Field(default="", max_length=4_096, validate_default=True)
    query_grid: Grid | None = None
    # Before the answers, whose check depends on it.
    grader: Grader = Grader()
    answers: tuple[Annotated[str, Field(min_length=1, max_length=1_024)], ...] = Field(
        default=(), max_length=32, validate_default=True
    )
    answer_grid: Grid | None = None
    options: tuple[str, ...] = Field(default=(), max_length=64)

    @field_validator("question")
    @classmethod
    def _has_question(cls, question: str) -> str:
        if not question.strip():
            raise ValueError("a question of 1..4,096 characters is needed")
        return question

    @field_validator("query_grid", "answer_grid")
    @classmethod
    def _no_grids(cls, grid: Grid | None) -> Grid | None:
        if grid is not None:
            raise ValueError("grids need GRADER_KIND_GRID, which is not built in")
        return grid

    @field_validator("options")
    @classmethod
    def _no_options(cls, options: tuple[str, ...]) -> tuple[str, ...]:
        if options:
            raise ValueError("options need GRADER_KIND_CHOICE, which is not built in")
        return options

    @field_validator("answers")
    @classmethod
    def _has_key(cls, answers: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        grader = info.data.get("grader")
        if not answers and grader is not None:
            raise ValueError(f"{grader.kind} needs at least one accepted answer")
        if any(not re.search(r"\w", answer) for answer in answers):
            raise ValueError("an accepted answer needs at least one letter or digit")
        return answers

    @property
    def content_hash(self) -> str:
        """Hash of what is asked: equal questions have equal hashes, whatever their ids and keys."""
        return digest_of({"question": " ".join(self.question.casefold().split())}).sha256


class Task(Domain):
    """C and tau."""

    task_id: Identifier
    kind: TaskKind = TaskKind.KNOWLEDGE
    context: Context
    tau: tuple[EvaluationItem, ...] = Field(min_length=1, max_length=1_000)
    retention: tuple[EvaluationItem, ...] = Field(default=(), max_length=1_000)

    @field_validator("kind")
    @classmethod
    def _knowledge(cls, kind: TaskKind) -> TaskKind:
        if kind is not TaskKind.KNOWLEDGE:
            raise ValueError(f"{kind} needs GRADER_KIND_GRID, which is not built in")
        return kind

    @field_validator("tau", "retention")
    @classmethod
    def _unique_items(cls, items: tuple[EvaluationItem, ...]) -> tuple[EvaluationItem, ...]:
        return unique_items(items)


class Suite(Domain):
    """Items that a version must go on answering."""

    suite_id: Identifier
    title: str = Field(default="", max_length=300)
    items: tuple[EvaluationItem, ...] = Field(min_length=1, max_length=10_000)

    @field_validator("items")
    @classmethod
    def _unique_items(cls, items: tuple[EvaluationItem, ...]) -> tuple[EvaluationItem, ...]:
        return unique_items(items)


def unique_items(items: tuple[EvaluationItem, ...]) -> tuple[EvaluationItem, ...]:
    """The same items; raises ValueError that names an id which occurs twice."""
    name = repeated([item.item_id for item in items])
    if name is not None:
        raise ValueError(f"item_id {name} occurs twice")
    return items


def repeated(names: Sequence[str]) -> str | None:
    """The first name that occurs a second time."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


class RetentionSettings(Domain):
    suites: tuple[Identifier, ...] = Field(default=("general",), max_length=33)
    max_drop: float = Field(default=0.1, ge=0, le=1)


class HealthSettings(Domain):
    """max_drift: KL per token from the frozen base, in nats; 0: not bounded. max_degenerate: rise of a share."""

    # Typical updates of the small model are 0.5 to 0.7 nats away, spoilt ones 9 and more (docs/decisions.md).
    max_drift: float = Field(default=2.0, ge=0)
    max_degenerate: float = Field(default=0.1, ge=0, le=1)


class Settings(Domain):
    """What a run goes by, every field resolved. Its defaults stand in the auditor's configuration."""

    rounds: int = Field(default=1, ge=1, le=100)
    candidates: int = Field(default=5, ge=1, le=64)
    seeds: int = Field(default=1, ge=1, le=16)
    filter: FilterMode = FilterMode.TOP_K
    top_k: int = Field(default=1, ge=1, le=64)
    threshold: float = Field(default=0.0, ge=-1, le=1)
    promotion: PromotionMode = PromotionMode.SEQUENTIAL
    learn_from: LearnFrom = LearnFrom.BASE
    learn: bool = True
    prompt_variants: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(default=(), max_length=16)
    recipe: Recipe = Recipe()
    retention: RetentionSettings = RetentionSettings()
    seed: Seed = 0
    replay_share: float = Field(default=0.2, ge=0, le=0.9)
    max_answer_tokens: int = Field(default=64, ge=1, le=1_024)
    pool_small_tasks: bool = False
    level: float = Field(default=0.05, gt=0, lt=1)
    confirmation_seeds: int = Field(default=1, ge=1, le=16)
    filter_by_lower_bound: bool = False
    racing: bool = True
    cross_split_share: float = Field(default=0.0, ge=0, le=1)
    min_scale: float = Field(default=0.5, gt=0, le=1)
    health: HealthSettings = HealthSettings()


class PartialRetention(Domain):
    suites: tuple[Identifier, ...] = Field(default=(), max_length=33)
    max_drop: float | None = Field(default=None, ge=0, le=1)


class PartialHealth(Domain):
    max_drift: float | None = Field(default=None, ge=0)
    max_degenerate: float | None = Field(default=None, ge=0, le=1)


class RunSettings(Domain):
    """Settings as a caller sends them: what is missing takes the auditor's default."""

    rounds: int | None = Field(default=None, ge=1, le=100)
    candidates: int | None = Field(default=None, ge=1, le=64)
    seeds: int | None = Field(default=None, ge=1, le=16)
    filter: FilterMode | None = None
    top_k: int | None = Field(default=None, ge=1, le=64)
    threshold: float | None = Field(default=None, ge=-1, le=1)
    promotion: PromotionMode | None = None
    learn_from: LearnFrom | None = None
    learn: bool | None = None
    prompt_variants: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(default=(), max_length=16)
    recipe: Recipe = Recipe()
    retention: PartialRetention = PartialRetention()
    seed: Seed | None = None
    replay_share: float | None = Field(default=None, ge=0, le=0.9)
    max_answer_tokens: int | None = Field(default=None, ge=1, le=1_024)
    pool_small_tasks: bool | None = None
    level: float | None = Field(default=None, gt=0, lt=1)
    confirmation_seeds: int | None = Field(default=None, ge=1, le=16)
    filter_by_lower_bound: bool | None = None
    racing: bool | None = None
    cross_split_share: float | None = Field(default=None, ge=0, le=1)
    min_scale: float | None = Field(default=None, gt=0, le=1)
    health: PartialHealth = PartialHealth()

    def over(self, defaults: Settings) -> Settings:
        """These settings with everything missing taken from `defaults`."""
        chosen = {
            name: value
            for name in type(self).model_fields
            if name not in {"recipe", "retention", "health"} and (value := getattr(self, name)) not in (None, ())
        }
        parts = {
            "recipe": self.recipe.over(defaults.recipe),
            "retention": defaults.retention.model_copy(update=given(self.retention)),
            "health": defaults.health.model_copy(update=given(self.health)),
        }
        return defaults.model_copy(update={**chosen, **parts})


def given(partial: PartialRetention | PartialHealth) -> dict[str, object]:
    """The fields that a caller set."""
    return {name: value for name in type(partial).model_fields if (value := getattr(partial, name)) not in (None, ())}


class Order(Domain):
    """A run as it was ordered, resolved: all that the loop needs to know, and all that a resumed run starts from."""

    run_id: Identifier
    tasks: tuple[Task, ...] = Field(min_length=1, max_length=10_000)
    settings: Settings
    suites: tuple[Suite, ...] = Field(default=(), max_length=33)

    @model_validator(mode="after")
    def _knows_its_suites(self) -> Self:
        missing = set(self.settings.retention.suites) - {suite.suite_id for suite in self.suites}
        if missing:
            raise ValueError(f"unknown suites: {', '.join(sorted(missing))}")
        return self
