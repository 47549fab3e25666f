"""Can what earlier runs taught still be marked? Asked when a run begins, not at its first retention gate, hours later.

Earlier accepted tasks are asked again by every update, with the judges and commands of then; an operator may have
dropped one from the configuration since. auditor/loop.py calls `expect_graders` before anything is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from auditor.crew import Work
from auditor.graders.desk import CONFIGURED
from auditor.history import History
from auditor.requests import StartRun
from auditor.tasks import PromotionMode, Task
from common.errors import InvalidRequest, NotPossible


async def expect_graders(work: Work, live: str) -> None:
    """Raises NotPossible(GRADER_UNKNOWN) that names the grader and a task which needs it."""
    if work.order.settings.promotion is PromotionMode.NONE:
        return
    history = await History.of(work.crew.recorder, await work.crew.views.current(), live)
    for (noun, name), task in needed(may_be_asked(history, work.order.tasks)).items():
        try:
            await work.crew.graders.check(StartRun(run_id=work.order.run_id, tasks=(task,)))
        except InvalidRequest as refused:
            raise NotPossible(
                f"task {task.task_id} of an earlier run is asked again by every update, and its {noun} "
                f"{name or '(the only one, without a name)'} is not here: {refused.violations[0].reason}. Configure it "
                "again, or roll back to before that task",
                reason="GRADER_UNKNOWN",
                ids={"task_id": task.task_id, "grader": name},
            ) from None


def may_be_asked(history: History, ordered: Sequence[Task]) -> list[Task]:
    """What any update of the run may have to retain. An update teaches one task or more of the run's, seldom all."""
    taught_together = history.retained(ordered)
    return taught_together if len(ordered) == 1 else [*taught_together, *history.retained([])]


def needed(tasks: Sequence[Task]) -> dict[tuple[str, str], Task]:
    """Every (judge or command, name), and a task cut down to one question that it marks."""
    found: dict[tuple[str, str], Task] = {}
    for task in tasks:
        for item in task.tau:
            if (noun := CONFIGURED.get(item.grader.kind)) is not None:
                one = task.model_copy(update={"tau": (item,), "retention": ()})
                found.setdefault((noun, item.grader.name), one)
    return found
