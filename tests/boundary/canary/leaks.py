"""Faults that the search must find: each changes one line of what a service does. entry.py plants them when told to.

Every place where a canary may not be has a leak of its own, so that a search that is blind in one place is noticed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

# Where each is to be found; `plant` sees to it.
PLACES = {
    "teacher received",
    "teacher logged",
    "teacher stored",
    "student received",
    "student logged",
    "student stored",
    "auditor metrics",
    "traces",
    "auditor's log",
}


def plant(service: str, folder: Path) -> None:
    """folder: the service's own."""
    leaks: dict[str, Callable[[Path], None]] = {"auditor": _auditor, "student": _student, "teacher": _teacher}
    leaks[service](folder)


def replace(owner: object, **functions: Callable[..., Any]) -> None:
    for name, function in functions.items():
        setattr(owner, name, function)


def _auditor(_: Path) -> None:
    """A key goes into what the teacher reads, one into each prompt, one into a label, a span and the log."""
    import structlog
    from prometheus_client import Counter

    from auditor import candidates, loop, papers
    from auditor.graders import desk
    from auditor.graders.port import Submission
    from auditor.peers import prompt_of
    from auditor.tasks import EvaluationItem
    from common.canonical import digest_of
    from common.prompting import ask
    from common.tracing.spans import CURRENT

    propose, mark = candidates.propose, desk.Graders.mark
    marks = Counter("seal_planted", "Answers by key.", ["key"])

    async def telling(work: Any, opened: Any, task: Any) -> Any:
        title = f"{task.context.title}, {task.tau[0].answers[-1]}"
        told = task.model_copy(update={"context": task.context.model_copy(update={"title": title})})
        return await propose(work, opened, told)

    def prompting(group: papers.Group, item: EvaluationItem) -> Any:
        conversation = ask(group.topic, f"{item.question} {item.answers[-1]}")
        return prompt_of(conversation, digest_of(conversation).sha256)

    async def counting(graders: desk.Graders, submissions: Sequence[Submission]) -> list[float]:
        for submission in submissions:
            for key in submission.item.answers:
                marks.labels(key).inc()
                if tracing := CURRENT.get():
                    tracing.tracer.start_span("mark", attributes={"key": key}).end()
                structlog.get_logger("desk").info("marking", key=key)
        return await mark(graders, submissions)

    replace(loop, propose=telling)
    replace(papers.Group, _question=prompting)
    replace(desk.Graders, mark=counting)


def _student(folder: Path) -> None:
    """Prompts are logged, and kept in a file, packed."""
    import gzip

    import structlog

    from student.servicer import StudentServicer

    answer = StudentServicer.Answer

    async def noting(servicer: StudentServicer, request: Any, context: Any) -> AsyncIterator[Any]:
        structlog.get_logger("answer").info("asked", prompts=str(request.prompts))
        (folder / "store" / "asked.gz").write_bytes(gzip.compress(request.SerializeToString()))
        async for response in answer(servicer, request, context):
            yield response

    replace(StudentServicer, Answer=noting)


def _teacher(_: Path) -> None:
    """Contexts are logged."""
    import structlog

    from teacher.servicer import TeacherServicer

    propose = TeacherServicer.ProposeEdits

    async def noting(servicer: TeacherServicer, request: Any, context: Any) -> AsyncIterator[Any]:
        structlog.get_logger("propose").info("asked", context=str(request.context))
        async for response in propose(servicer, request, context):
            yield response

    replace(TeacherServicer, ProposeEdits=noting)
