"""What the auditor calls its traces: one for each task of a round, in which all of its edits go their way.

Proposal, trials and filter stand below the trace's first span; what is made of a winner after the round's last task
(training alone, gates, promotion, Learn) is put below it as well. Named by run, round and task, so a run that is taken
up again after a restart goes on in the same traces. auditor/loop.py and auditor/promotion.py call these.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from auditor.crew import Winner, Work
from auditor.findings import Gate
from auditor.tasks import Task
from common.tracing import Root, note, root_of, span
from common.types import Digest


def trace_of(work: Work, round_: int, task: Task) -> Root:
    return root_of("edits", work.order.run_id, round_, task.task_id)


def task_span(work: Work, round_: int, task: Task) -> AbstractContextManager[None]:
    """The first span of a task's trace."""
    starts = trace_of(work, round_, task)
    return span("task", starts=starts, run=work.order.run_id, round=round_, task=task.task_id, questions=len(task.tau))


def winners_span(
    name: str, work: Work, round_: int, winners: Sequence[Winner], *, edit: Digest | None = None
) -> AbstractContextManager[None]:
    """A span on what became of winners: in the first one's trace, pointing at those of the others.

    edit: what is trained, where that is known: of several winners it is their union.
    """
    traces = list(dict.fromkeys(trace_of(work, round_, winner.task) for winner in winners))
    return span(
        name,
        under=traces[0] if traces else None,
        links=traces[1:],
        run=work.order.run_id,
        round=round_,
        edit=edit.sha256 if edit else None,
        edits=[winner.edit.digest.sha256 for winner in winners],
    )


def note_gates(gates: Sequence[Gate], **ids: str | float) -> None:
    """Every gate's finding, without its words."""
    for gate in gates:
        note("gate", gate=gate.kind.value.removeprefix("GATE_KIND_").lower(), passed=gate.passed, **ids)
