"""Tasks with their keys, suites, and the settings of a run: the auditor's own domain, with task.proto's limits.

Keys live in these types alone. Nothing here is ever sent to the teacher or the student; what they get is made from a
task by auditor/loop.py (the context) and auditor/examiner.py (questions without keys).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from auditor.keys import Grader, GraderKind, check_answers, check_options
from common.canonical import digest_of
from common.types import Context, Domain, Grid, Identifier, Recipe, Seed, Sha256, TaskKind

MAX_SUITE_ITEMS = 10_000
MIN_QUESTIONS = 4  # fewer cannot be split into rewards and a holdout that means anything


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


class EvaluationItem(Domain):
    """One question with its key."""

    item_id: Identifier
    question: str = Field(default="", max_length=4_096, validate_default=True)
    query_grid: Grid | None = None
    # Before options and answers, whose check depends on it.
    grader: Grader = Grader()
    options: tuple[Annotated[str, Field(min_length=1, max_length=1_024)], ...] = Field(
        default=(), validate_default=True
    )
    answers: tuple[Annotated[str, Field(min_length=1, max_length=1_024)], ...] = Field(
        default=(), max_length=32, validate_default=True
    )
    answer_grid: Grid | None = None

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
            raise ValueError(f"grids need {GraderKind.GRID}, which is not built in")
        return grid

    @field_validator("options")
    @classmethod
    def _fit_the_grader(cls, options: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if (grader := info.data.get("grader")) is not None:
            check_options(options, grader)
        return options

    @field_validator("answers")
    @classmethod
    def _has_key(cls, answers: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if (grader := info.data.get("grader")) is not None:
            check_answers(answers, info.data.get("options", ()), grader)
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
            raise ValueError(f"{kind} needs {GraderKind.GRID}, which is not built in")
        return kind

    @field_validator("tau", "retention")
    @classmethod
    def _unique_items(cls, items: tuple[EvaluationItem, ...]) -> tuple[EvaluationItem, ...]:
        return unique_items(items)


class Measured(Domain):
    """Items that something else asks about and marks (auditor/measures.py).

    content: digest of all that their marks depend on beside the version.
    """

    content: Sha256
    items: tuple[str, ...] = Field(min_length=1, max_length=MAX_SUITE_ITEMS)


class Suite(Domain):
    """Items that a version must go on answering. The contract has no `measured`: no caller can send one."""

    suite_id: Identifier
    title: str = Field(default="", max_length=300)
    # Before the items, whose check depends on it.
    measured: Measured | None = None
    items: tuple[EvaluationItem, ...] = Field(default=(), max_length=MAX_SUITE_ITEMS, validate_default=True)

    @field_validator("items")
    @classmethod
    def _unique_items(cls, items: tuple[EvaluationItem, ...], info: ValidationInfo) -> tuple[EvaluationItem, ...]:
        if bool(items) == (info.data.get("measured") is not None):
            raise ValueError("at least one item is needed")
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
    """max_drift: KL per token from the frozen base, in nats; 0: not bounded. max_degenerate: rise of a share.

    anchors: questions that the base is asked again when a run begins.
    """

    # Typical updates of the small model are 0.5 to 0.7 nats away, spoilt ones 9 and more (docs/decisions.md).
    max_drift: float = Field(default=2.0, ge=0)
    max_degenerate: float = Field(default=0.1, ge=0, le=1)
    anchors: int = Field(default=16, ge=0, le=1_000)


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
    cross_split_share: float = Field(default=0.25, ge=0, le=1)
    min_scale: float = Field(default=0.5, gt=0, le=1)
    health: HealthSettings = HealthSettings()
    accept_drift: bool = False


class PartialRetention(Domain):
    suites: tuple[Identifier, ...] = Field(default=(), max_length=33)
    max_drop: float | None = Field(default=None, ge=0, le=1)


class PartialHealth(Domain):
    max_drift: float | None = Field(default=None, ge=0)
    max_degenerate: float | None = Field(default=None, ge=0, le=1)
    anchors: int | None = Field(default=None, ge=0, le=1_000)


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
    accept_drift: bool | None = None

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
