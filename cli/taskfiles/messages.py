"""File entries as messages of the contract."""

from __future__ import annotations

from collections.abc import Sequence

from cli.taskfiles.format import ListedPassage, SuiteEntry, TaskEntry
from cli.taskfiles.items import GraderEntry, ItemEntry
from cli.taskfiles.slug import numbered
from common.contract.seal.v1 import task_pb2, types_pb2

GRADERS = {
    "exact": task_pb2.GRADER_KIND_EXACT,
    "contains": task_pb2.GRADER_KIND_CONTAINS,
    "token_f1": task_pb2.GRADER_KIND_TOKEN_F1,
    "numeric": task_pb2.GRADER_KIND_NUMERIC,
    "regex": task_pb2.GRADER_KIND_REGEX,
    "choice": task_pb2.GRADER_KIND_CHOICE,
    "judge": task_pb2.GRADER_KIND_JUDGE,
    "command": task_pb2.GRADER_KIND_COMMAND,
}


def task_message(entry: TaskEntry, text: str) -> task_pb2.Task:
    """A task file's entry; `text` is its context, wherever it stood."""
    return task_pb2.Task(
        task_id=entry.id,
        kind=types_pb2.TASK_KIND_KNOWLEDGE,
        context=types_pb2.Context(
            document_id=entry.document_id or entry.id, revision=entry.revision, title=entry.title, text=text
        ),
        tau=_items(entry.tau),
        retention=_items(entry.retention),
    )


def suite_message(entry: SuiteEntry) -> task_pb2.Suite:
    return task_pb2.Suite(suite_id=entry.id, title=entry.title or entry.id, items=_items(entry.items))


def passage_message(passage: ListedPassage, number: int) -> task_pb2.Task:
    """The `number`-th entry of a JSON list, counted from 1. Its questions are named q01, q02, ..."""
    task_id = numbered(passage.title, number)
    return task_pb2.Task(
        task_id=task_id,
        kind=types_pb2.TASK_KIND_KNOWLEDGE,
        context=types_pb2.Context(document_id=task_id, revision="1", title=passage.title, text=passage.context),
        tau=[
            task_pb2.EvaluationItem(
                item_id=f"q{position:02d}",
                question=listed.question,
                answers=[listed.answer],
                grader=task_pb2.Grader(kind=task_pb2.GRADER_KIND_CONTAINS),
            )
            for position, listed in enumerate(passage.questions, start=1)
        ],
    )


def _items(entries: Sequence[ItemEntry]) -> list[task_pb2.EvaluationItem]:
    return [
        task_pb2.EvaluationItem(
            item_id=entry.id,
            question=entry.question,
            answers=entry.answers,
            options=entry.options,
            grader=_grader(entry.grader),
        )
        for entry in entries
    ]


def _grader(entry: GraderEntry) -> task_pb2.Grader:
    return task_pb2.Grader(
        kind=GRADERS[entry.kind],
        threshold=entry.threshold or 0.0,
        tolerance=entry.tolerance or 0.0,
        name=entry.name or "",
    )
