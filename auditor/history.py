"""What earlier rounds and runs taught the version that is about to be updated: edits to replay, tasks to retain.

Documents change: of a document that an update teaches anew, nothing is replayed and nothing must be retained; of a
document that was learned in several revisions, only the newest counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from auditor.projections import Projections
from auditor.recorder import Recorder
from auditor.tasks import Task
from auditor.views import EditView
from common.types import Context, Digest

MAX_REPLAYED = 4_096


def replayable(views: Projections, version: str, learning: Sequence[Context]) -> tuple[Digest, ...]:
    """Accepted edits in the ancestry of `version`, newest first, that are still true."""
    found = {edit.sha256: edit.proposed.edit for edit, _ in _accepted(views, version, learning)}
    return tuple(found.values())[:MAX_REPLAYED]


async def earlier_tasks(
    recorder: Recorder, views: Projections, version: str, learning: Sequence[Context]
) -> list[Task]:
    """Tasks that `version` has learned, as they were asked then. One whose payload was erased cannot be asked."""
    payloads = dict.fromkeys(payload for _, payload in _accepted(views, version, learning))
    tasks: dict[str, Task] = {}
    for payload in payloads:
        data = await recorder.run(recorder.ledger.payload, payload)
        if data is not None:
            task = Task.model_validate(json.loads(data))
            # Names of groups must differ: of two tasks with one id the newest is asked.
            tasks.setdefault(task.task_id, task)
    return list(tasks.values())


def _accepted(views: Projections, version: str, learning: Sequence[Context]) -> Iterator[tuple[EditView, str]]:
    """(edit, payload of its task), from the newest ancestor back."""
    taught = {context.document_id: "" for context in learning}
    by_name = {(edit.run_id, edit.sha256): edit for edit in views.edits if edit.accepted_version}
    for ancestor in views.ancestry(version):
        for digest in ancestor.edits:
            edit = by_name.get((ancestor.run_id, digest.sha256))
            if edit is None:
                continue
            task = next(t for t in views.run(edit.run_id).tasks if t.name == edit.proposed.task_id)
            if taught.setdefault(task.document_id, task.revision) == task.revision:
                yield edit, task.payload
