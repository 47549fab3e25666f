"""What the live version has forgotten of what its ancestors learned. Pure.

The forgetting matrix (tasks x versions) is a projection of the ledger: every judged update was asked its own tasks and
all earlier ones. auditor/projections.py and the servicer call this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from auditor.findings import Score
from auditor.views import Forgetting, VersionView


def forgetting(lineage: Sequence[VersionView], scores: Mapping[str, Mapping[str, Score]]) -> Forgetting:
    """lineage: the live version and its ancestors, newest first; scores: on holdout questions, by version and task.

    Average forgetting is best score so far minus newest (Chaudhry et al. 2018), backward transfer newest minus the
    score when the task was learned (Lopez-Paz and Ranzato 2017); means over the tasks that were asked again since.
    """
    learned: dict[str, list[float]] = {}
    for view in reversed(lineage):
        row = scores.get(view.version, {})
        # Taught again, perhaps with other questions, a task's history begins anew.
        learned |= {task_id: [] for task_id in view.task_ids}
        for task_id, history in learned.items():
            if task_id in row:
                history.append(row[task_id].mean)
    again = [history for history in learned.values() if len(history) > 1]
    if not again:
        return Forgetting()
    return Forgetting(
        tasks=len(again),
        average_forgetting=sum(max(history[:-1]) - history[-1] for history in again) / len(again),
        backward_transfer=sum(history[-1] - history[0] for history in again) / len(again),
    )
