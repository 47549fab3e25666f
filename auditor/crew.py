"""What the loop works with, and the small things that several of its steps need."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from auditor.events import RunStarted, VersionScored
from auditor.examiner import Examiner
from auditor.findings import Comparison, Mark
from auditor.graders.desk import Graders
from auditor.journal import Journal, Kept
from auditor.measures import Measure
from auditor.moves import Moves
from auditor.papers import Group, Marked
from auditor.peers import StudentStatus
from auditor.policy.model import PolicyModel
from auditor.policy.rules import Rules
from auditor.ports import Student, Teacher
from auditor.projections import Views
from auditor.recorder import Recorder
from auditor.tasks import Order, Suite, Task
from common.canonical import digest_bytes
from common.errors import NotPossible
from common.types import SelfEdit, Software


@dataclass(frozen=True)
class Crew:
    """Who takes part in every run."""

    teacher: Teacher
    student: Student
    recorder: Recorder
    views: Views
    moves: Moves
    graders: Graders
    config_sha256: str
    rules: Rules
    policy_model: PolicyModel | None
    max_kept_per_context: int
    software: Software
    # Of rewards as the teacher hears of them; 0: exact.
    reward_levels: int = 0
    # By suite id: what marks suites that the auditor does not mark itself.
    measures: Mapping[str, Measure] = field(default_factory=dict)
    # Asked for drift where a run's own suites have no questions.
    built_in: tuple[Suite, ...] = ()


@dataclass(frozen=True)
class Work:
    """One run under way."""

    order: Order
    crew: Crew
    journal: Journal
    start: RunStarted
    examiner: Examiner
    # As they were when the run started, also after a restart with others.
    rules: Rules
    policy_model: PolicyModel | None


@dataclass(frozen=True)
class Winner:
    """An edit that the filter kept."""

    edit: SelfEdit
    task: Task
    gain: float


async def load_edit(recorder: Recorder, sha256: str) -> SelfEdit:
    """An edit of the ledger. Raises NotPossible(PAYLOAD_ERASED)."""
    return edit_of(await load(recorder, sha256))


def edit_of(data: bytes) -> SelfEdit:
    """The edit whose canonical bytes these are."""
    return SelfEdit.model_validate({**json.loads(data), "digest": digest_bytes(data)})


async def load(recorder: Recorder, sha256: str) -> bytes:
    """A payload of the ledger. Raises NotPossible(PAYLOAD_ERASED)."""
    data = await recorder.run(recorder.ledger.payload, sha256)
    if data is None:
        raise NotPossible("a payload that is needed was erased", reason="PAYLOAD_ERASED", ids={"sha256": sha256})
    return data


def expect_same_student(start: RunStarted, status: StudentStatus) -> None:
    """A run's answers come from one base model and one prompt template. Raises NotPossible(STUDENT_CHANGED)."""
    if status.identity != start.record.student:
        what = "the student's model, its type or its prompt template changed during the run"
        raise NotPossible(what, reason="STUDENT_CHANGED")


def marked_again(group: Group, event: VersionScored) -> Marked:
    """A group's result as the ledger has it."""
    return Marked(group, event.record.marks, event.score)


def answers_of(*parts: tuple[Comparison, ...] | tuple[Mark, ...]) -> tuple[str, ...]:
    """Digests of all answers that an event names."""
    names: dict[str, None] = {}
    for part in parts:
        for entry in part:
            found = (entry.answer,) if isinstance(entry, Mark) else (entry.before, entry.after)
            names.update(dict.fromkeys(found))
    return tuple(names)


def scored(version: str, marked: Marked, cached: bool, purpose: str) -> Kept[VersionScored]:
    """A version's result as an event, with the answers that it rests on."""
    group = marked.group
    event = VersionScored(
        version=version,
        task_id=group.task_id,
        suite_id=group.suite_id,
        split=group.split,
        score=marked.score,
        cached=cached,
        purpose=purpose,
        record=VersionScored.Record(marks=marked.marks),
    )
    return Kept(event, answers_of(marked.marks))
