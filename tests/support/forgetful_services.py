"""The scripted teacher and student for long runs: any document gets edits, and nothing is kept that is not needed.

What the scripted services note for tests' questions (every request, every count) would itself be a leak over a day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from common.types import SelfEdit
from tests.support.scripted_services import ScriptedStudent, ScriptedTeacher, edit_about

KEPT_REQUESTS = 256


def facts_of(document_id: str, count: int) -> list[tuple[str, str]]:
    """What there is to know about a document: tests/auditor/plays.py asks the same."""
    name = document_id.removeprefix("doc-")
    return [(f"{name} question {i}?"[-200:], f"{name}{i}"[-200:]) for i in range(count)]


class AnyDocument(Mapping[str, Sequence[SelfEdit]]):
    """A script for whatever it is asked: edits that teach three, nine and ten of ten facts."""

    def __getitem__(self, document_id: str) -> Sequence[SelfEdit]:
        title = f"About {document_id.removeprefix('doc-')}"
        return [edit_about(document_id, title, facts_of(document_id, count)) for count in (3, 9, 10)]

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class _Nothing(list[Any]):
    """A list that stays empty."""

    def append(self, _: Any) -> None:
        return None


class _Latest(dict[str, str]):
    """Remembers the newest entries only, as the real student's jobs do."""

    def setdefault(self, key: str, default: Any = None) -> Any:
        while len(self) > KEPT_REQUESTS:
            del self[next(iter(self))]
        return super().setdefault(key, default)


def forgetful_teacher() -> ScriptedTeacher:
    teacher = ScriptedTeacher(AnyDocument())  # type: ignore[abstract] # the auditor calls no other RPC
    teacher.received = _Nothing()
    teacher.learned = _Nothing()
    return teacher


class ForgetfulStudent(ScriptedStudent):
    """Forgets counts after each call; adapters it keeps, as a student must."""

    def _receive(self, request: Any, request_id: str) -> None:
        for counted in (self.asked, self.compared, self.trainings):
            counted.clear()
        super()._receive(request, request_id)


def forgetful_student(knows: Mapping[str, str] | None = None) -> ScriptedStudent:
    student = ForgetfulStudent(knows)  # type: ignore[abstract] # the auditor calls no other RPC
    student.received = _Nothing()
    student.moves = _Nothing()
    student._train_requests = _Nothing()
    student._requests = _Latest()
    return student
