"""What earlier rounds and runs taught the version that is about to be updated: edits to replay, tasks to retain.

Documents change. Of a document that an update teaches anew nothing is replayed, and of its earlier questions only those
are retained that the new revision still asks with the same answer. Where the answer changed, the old one is superseded:
something that the model must no longer say, for this update and for all that follow. Of a document that was learned in
several revisions only the newest counts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from auditor.evidence.splits import split
from auditor.graders.lexical import contains, normalized, numeric, within
from auditor.keys import GraderKind
from auditor.projections import Projections
from auditor.recorder import Recorder
from auditor.tasks import EvaluationItem, Split, Task
from auditor.views import EditView
from common.types import Context, Digest

MAX_REPLAYED = 4_096
WORDED = (GraderKind.EXACT, GraderKind.CONTAINS, GraderKind.TOKEN_F1, GraderKind.JUDGE)


@dataclass(frozen=True)
class Superseded:
    """A question as it is asked now, and answers that were right in an earlier revision and are not any more.

    changing: the update under trial is the one that changes it.
    """

    task: Task
    split: Split
    item: EvaluationItem
    old_answers: tuple[str, ...]
    changing: bool

    def said_in(self, answer: str) -> bool:
        """Whether an answer still gives an old one."""
        old = self.item.model_copy(update={"answers": self.old_answers})
        if self.item.grader.kind is GraderKind.NUMERIC:
            return bool(numeric(answer, old))
        if self.item.grader.kind is GraderKind.CHOICE:
            return answer.strip() in self.old_answers
        return bool(contains(answer, old))


def replayable(views: Projections, version: str, learning: Sequence[Context]) -> tuple[Digest, ...]:
    """Accepted edits in the ancestry of `version`, newest first, that are still true."""
    taught = {context.document_id: "" for context in learning}
    found: dict[str, Digest] = {}
    for edit, document_id, revision, _ in _accepted(views, version):
        if taught.setdefault(document_id, revision) == revision:
            found[edit.sha256] = edit.proposed.edit
    return tuple(found.values())[:MAX_REPLAYED]


class History:
    """The tasks that a version has learned, newest first, by document. Made by `History.of`."""

    def __init__(self, learned: dict[str, list[Task]]) -> None:
        self._learned = learned

    @classmethod
    async def of(cls, recorder: Recorder, views: Projections, version: str) -> History:
        """Reads the tasks as they were asked then. One whose payload was erased cannot be asked."""
        payloads = dict.fromkeys(payload for _, _, _, payload in _accepted(views, version))
        learned: dict[str, list[Task]] = defaultdict(list)
        for payload in payloads:
            data = await recorder.run(recorder.ledger.payload, payload)
            if data is not None:
                task = Task.model_validate(json.loads(data))
                learned[task.context.document_id].append(task)
        return cls(learned)

    def retained(self, learning: Sequence[Task]) -> list[Task]:
        """What must be retained while `learning` is taught: tasks, cut down to the questions that are still true."""
        taught = {task.context.document_id: task for task in learning}
        own = {(task.context.document_id, task.task_id) for task in learning}
        tasks: dict[tuple[str, str], Task] = {}
        for document_id, revisions in self._learned.items():
            newest = revisions[0].context.revision
            now = taught.get(document_id)
            for task in revisions:
                name = (document_id, task.task_id)
                if now is None or now.context.revision == task.context.revision:
                    # Of two tasks with one name the newest is asked; of older revisions nothing.
                    if task.context.revision == newest:
                        tasks.setdefault(name, task)
                elif (kept := unchanged(task, now)) is not None:
                    tasks.setdefault(name, kept)
        return [task for name, task in tasks.items() if name not in own]

    def superseded(self, learning: Sequence[Task]) -> list[Superseded]:
        """Answers that are not true any more, once `learning` is what is taught."""
        taught = {task.context.document_id: task for task in learning}
        found: list[Superseded] = []
        for document_id in {**taught, **self._learned}:
            revisions = self._learned.get(document_id, [])
            now = taught.get(document_id)
            newest, older = (now, revisions) if now is not None else (revisions[0], revisions[1:])
            older = [task for task in older if task.context.revision != newest.context.revision]
            found += changed(newest, older, changing=now is not None)
        return found


def unchanged(task: Task, now: Task) -> Task | None:
    """The task, with only those questions that `now` asks too and answers alike; None where there are none."""
    answers = {item.content_hash: _key(item) for item in now.tau}
    tau = tuple(item for item in task.tau if answers.get(item.content_hash) == _key(item))
    return task.model_copy(update={"tau": tau}) if tau else None


def changed(newest: Task, older: Sequence[Task], *, changing: bool) -> Iterator[Superseded]:
    """The questions of `newest` whose answer was another one in an older revision."""
    before: dict[str, list[EvaluationItem]] = defaultdict(list)
    for task in older:
        for item in task.tau:
            before[item.content_hash].append(item)
    tau = split(newest.tau)
    for side, items in ((Split.REWARD, tau.reward), (Split.HOLDOUT, tau.holdout)):
        for item in items:
            if item.grader.kind in (GraderKind.REGEX, GraderKind.COMMAND):
                continue  # their keys are no answers
            if any(set(_key(other)) & set(_key(item)) for other in before[item.content_hash]):
                continue  # the answer is the same, whatever other words for it were or are accepted
            old = dict.fromkeys(
                answer
                for other in before[item.content_hash]
                if other.grader.kind not in (GraderKind.REGEX, GraderKind.COMMAND)
                for answer in other.answers
            )
            # An old answer that stands in a new one cannot be told from it.
            worded = item.grader.kind in WORDED
            gone = tuple(answer for answer in old if not (worded and any(within(answer, key) for key in item.answers)))
            if gone:
                yield Superseded(newest, side, item, gone, changing)


def _key(item: EvaluationItem) -> tuple[tuple[str, ...], ...]:
    """Accepted answers as they can be compared: words where wording is what is marked, else as they stand."""
    if item.grader.kind in WORDED:
        return tuple(sorted(tuple(normalized(answer)) for answer in item.answers))
    return tuple(sorted((item.grader.kind, *item.options, answer.strip()) for answer in item.answers))


def _accepted(views: Projections, version: str) -> Iterator[tuple[EditView, str, str, str]]:
    """(edit, document, revision, payload of its task), from the newest ancestor back."""
    by_name = {(edit.run_id, edit.sha256): edit for edit in views.edits if edit.accepted_version}
    for ancestor in views.ancestry(version):
        for digest in ancestor.edits:
            edit = by_name.get((ancestor.run_id, digest.sha256))
            if edit is None:
                continue
            task = next(t for t in views.run(edit.run_id).tasks if t.name == edit.proposed.task_id)
            yield edit, task.document_id, task.revision, task.payload
