"""AuditorService requests as domain objects, with auditor.proto's limits: what a servicer hands to the domain."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import Field, field_validator

from auditor.tasks import MIN_QUESTIONS, Order, RunSettings, Settings, Suite, Task, repeated
from common.errors import InvalidRequest, Violation
from common.types import Domain, Identifier, RequestId, Sampling

Reason = Annotated[str, Field(min_length=1, max_length=1_024)]


class EditState(StrEnum):
    PROPOSED = "EDIT_STATE_PROPOSED"
    KEPT = "EDIT_STATE_KEPT"
    ACCEPTED = "EDIT_STATE_ACCEPTED"
    REJECTED = "EDIT_STATE_REJECTED"
    ROLLED_BACK = "EDIT_STATE_ROLLED_BACK"


class StartRun(Domain):
    run_id: Identifier
    tasks: tuple[Task, ...] = Field(min_length=1, max_length=10_000)
    settings: RunSettings = RunSettings()
    suites: tuple[Suite, ...] = Field(default=(), max_length=32)

    @field_validator("tasks")
    @classmethod
    def _unique_tasks(cls, tasks: tuple[Task, ...]) -> tuple[Task, ...]:
        if (name := repeated([task.task_id for task in tasks])) is not None:
            raise ValueError(f"task_id {name} occurs twice")
        return tasks

    @field_validator("suites")
    @classmethod
    def _unique_suites(cls, suites: tuple[Suite, ...]) -> tuple[Suite, ...]:
        if (name := repeated([suite.suite_id for suite in suites])) is not None:
            raise ValueError(f"suite_id {name} occurs twice")
        return suites

    def resolve(self, defaults: Settings, built_in: Sequence[Suite]) -> Order:
        """The order that this request stands for. Suites sent along gate the run without being named again.

        Raises InvalidRequest for tasks too small to be split and for suites that nobody knows.
        """
        settings = self.settings.over(defaults)
        known = {suite.suite_id: suite for suite in built_in}
        violations = [
            Violation(f"suites[{i}].suite_id", f"{suite.suite_id} is the name of a built-in suite")
            for i, suite in enumerate(self.suites)
            if suite.suite_id in known
        ]
        known |= {suite.suite_id: suite for suite in self.suites}
        violations += [
            Violation(f"settings.retention.suites[{i}]", f"{name} is neither built in nor sent along")
            for i, name in enumerate(settings.retention.suites)
            if name not in known
        ]
        if not settings.pool_small_tasks:
            violations += [
                Violation(
                    f"tasks[{i}].tau",
                    f"{len(task.tau)} questions; fewer than {MIN_QUESTIONS} need settings.pool_small_tasks",
                )
                for i, task in enumerate(self.tasks)
                if len(task.tau) < MIN_QUESTIONS
            ]
        if violations:
            raise InvalidRequest(violations)
        names = tuple(dict.fromkeys((*settings.retention.suites, *(suite.suite_id for suite in self.suites))))
        retention = settings.retention.model_copy(update={"suites": names})
        return Order(
            run_id=self.run_id,
            tasks=self.tasks,
            settings=settings.model_copy(update={"retention": retention}),
            suites=tuple(known[name] for name in names),
        )


class WatchRun(Domain):
    run_id: Identifier
    after_seq: int = Field(default=0, ge=0)


class NamedRun(Domain):
    """GetRun and CancelRun."""

    run_id: Identifier


class Page(Domain):
    """One page of a list, newest first. A token is the number of the last entry already seen."""

    page_size: int = Field(default=100, ge=0, le=1_000)
    page_token: str = Field(default="", pattern=r"^\d{0,19}$")

    @field_validator("page_size")
    @classmethod
    def _zero_is_default(cls, value: int) -> int:
        return value or 100


class ListEdits(Page):
    run_id: str = Field(default="", pattern=r"^[A-Za-z0-9._:-]{0,128}$")
    state: EditState | None = None


class GetEdit(Domain):
    edit: str = Field(pattern=r"^[0-9a-f]{6,64}$")


class Ask(Domain):
    version: str = Field(default="", max_length=64)
    topic: str = Field(default="", max_length=300)
    question: str = Field(min_length=1, max_length=4_096)
    sampling: Sampling = Sampling()
    fallback_to_parent: bool = False


class DecideEdit(Domain):
    """ApproveEdit and RejectEdit."""

    request_id: RequestId
    edit: str = Field(pattern=r"^[0-9a-f]{6,64}$")
    reason: Reason


class Promote(Domain):
    request_id: RequestId
    version: str = Field(min_length=1, max_length=64)
    reason: Reason


class Rollback(Domain):
    request_id: RequestId
    version: str = Field(default="", max_length=64)
    reason: Reason


class VerifyLedger(Domain):
    expected_seq: int = Field(default=0, ge=0)
    expected_hash: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
