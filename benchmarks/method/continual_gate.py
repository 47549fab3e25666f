"""Whether an edit may become the live version of a sequence: by the auditor's own gates, and scaled as it scales.

Its own questions must not lose, and the retention gate must pass: of anchors against the unedited model, so that a
sequence as a whole stays within the bound, and of earlier passages against the parent. Own questions come first; what
follows a failed gate is not asked. benchmarks/method/continual_turns.py is the caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from auditor.evidence.scaling import WHOLE, Outcome, next_scale
from auditor.findings import Gate, GateKind, Mark, Score
from auditor.gates.update import HAIR, retention_gate
from auditor.graders.lexical import grade
from auditor.judging import EARLIER, outcome_of
from auditor.papers import Group, Marked
from auditor.tasks import EvaluationItem, Split
from benchmarks.method import anchors
from benchmarks.method.continual_settings import GateSettings
from benchmarks.method.versions import BASE, Training
from benchmarks.method.workshop import Workshop
from benchmarks.passages import Passage
from common.canonical import digest_bytes
from common.silence import is_empty
from common.types import Domain


class Attempt(Domain):
    """An edit at one scale, and what the gates said."""

    scale: float
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class Decided:
    """attempts: in the order in which they were made; the last is the decision."""

    adapter: str
    attempts: tuple[Attempt, ...]

    @property
    def scale(self) -> float:
        return self.attempts[-1].scale

    @property
    def accepted(self) -> bool:
        return self.attempts[-1].outcome is Outcome.PASSED


@dataclass(frozen=True)
class Exam:
    """What a gate asks: of each passage of a sequence the questions at the places `judged`, and the anchors at those
    `asked`.

    tokens: of an answer about a passage, at most.
    """

    passages: Sequence[Passage]
    judged: Sequence[Sequence[int]]
    items: Sequence[EvaluationItem]
    asked: Sequence[int]
    tokens: int


class Judge:
    """Asks versions and decides."""

    def __init__(self, workshop: Workshop, settings: GateSettings, exam: Exam) -> None:
        self._workshop = workshop
        self._settings = settings
        self._exam = exam

    def decide(self, training: Training, parent: str, place: int, earlier: Sequence[int]) -> Decided:
        """The scale to accept, if any. parent: its adapter; earlier: places of passages that are learned already."""
        tried: dict[float, Outcome] = {}
        attempts: list[Attempt] = []
        scale, adapter = WHOLE, self._workshop.train(training).adapter
        while True:
            gates = self._gates(adapter, parent, place, earlier, scale)
            tried[scale] = outcome_of(gates)
            said = "; ".join(gate.reason for gate in gates if not gate.passed) or gates[-1].reason
            attempts.append(Attempt(scale=scale, outcome=tried[scale], reason=said))
            following = next_scale(tried, scale, self._settings.min_scale)
            if not following:
                return Decided(adapter, tuple(attempts))
            scale, adapter = following, self._workshop.scaled(training, following)

    def _gates(self, adapter: str, parent: str, place: int, earlier: Sequence[int], scale: float) -> list[Gate]:
        before, after = self._marked(parent), self._marked(adapter)
        own = own_gate(before[place].score, after[place].score)
        if not own.passed:
            return [own]
        asked = [i for i in earlier if self._exam.judged[i]]
        groups = [(f"{EARLIER}/{self._exam.passages[i].key}", before[i], after[i]) for i in asked]
        if self._exam.asked:
            groups.insert(0, ("anchors", self._anchors(BASE), self._anchors(adapter)))
        return [own, retention_gate(groups, self._settings.max_drop, self._settings.level, scale)]

    def _marked(self, adapter: str) -> list[Marked]:
        """Of each passage of the sequence. All questions are asked, as for the matrix, and those judged are marked."""
        exam = self._exam
        said = answers(self._workshop, adapter, exam.passages, exam.tokens)
        found = []
        for passage, texts, places in zip(exam.passages, said, exam.judged, strict=True):
            items = tuple(passage.items()[place] for place in places)
            group = Group(Split.RETENTION, items, topic=passage.title, task_id=passage.key)
            found.append(marked(group, [texts[place] for place in places]))
        return found

    def _anchors(self, adapter: str) -> Marked:
        group = Group(Split.RETENTION, tuple(self._exam.items[place] for place in self._exam.asked), suite_id="anchors")
        prompts = anchors.prompts(self._exam.items, self._exam.asked)
        return marked(group, self._workshop.answers(adapter, prompts, anchors.TOKENS))


def answers(workshop: Workshop, adapter: str, passages: Sequence[Passage], tokens: int) -> tuple[tuple[str, ...], ...]:
    """All questions about all passages of a sequence, asked together; answers passage by passage."""
    said = iter(workshop.answers(adapter, [prompt for passage in passages for prompt in passage.prompts()], tokens))
    return tuple(tuple(next(said) for _ in passage.questions) for passage in passages)


def own_gate(before: Score, after: Score) -> Gate:
    """What the edit is about must not lose: the part of the auditor's confirmation that one training can show."""
    return Gate(
        kind=GateKind.CONFIRMATION,
        passed=after.correct >= before.correct - HAIR,
        reason=f"{before.correct:g} -> {after.correct:g} of {after.questions} of its own questions",
    )


def marked(group: Group, texts: Sequence[str]) -> Marked:
    """Answers as the auditor marks them."""
    marks = tuple(
        Mark(item_id=item.item_id, answer=digest_bytes(text.encode()).sha256, score=grade(text, item))
        for item, text in zip(group.items, texts, strict=True)
    )
    correct, empty = sum(mark.score for mark in marks), sum(map(is_empty, texts))
    return Marked(group, marks, Score(questions=len(marks), correct=correct, empty=empty))
