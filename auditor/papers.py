"""What is asked together, and what came of it: groups of items, a version's marks on each, its paper on all.

The terms in which auditor/examiner.py and everything that judges talk; nothing here asks anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from auditor.findings import Comparison, Mark, Score
from auditor.graders.choice import continuation_of
from auditor.graders.desk import is_silent
from auditor.graders.port import Submission
from auditor.keys import GraderKind
from auditor.peers import Continuation, prompt_of
from auditor.tasks import EvaluationItem, Measured, Split, Suite, Task
from common.canonical import digest_of
from common.errors import NotPossible
from common.lora.proof import Liveness, LivenessProof
from common.prompting import ask
from common.types import Prompt


@dataclass(frozen=True)
class Group:
    """Items that are scored together under one name."""

    split: Split
    items: tuple[EvaluationItem, ...]
    topic: str = ""
    task_id: str = ""
    suite_id: str = ""
    # Set where something else asks and marks: then there are no items here.
    measured: Measured | None = None

    @property
    def name(self) -> str:
        # Tasks of two runs may have one id, and be about other documents.
        about = f":{digest_of(self.topic).sha256[:8]}" if self.topic else ""
        return f"{self.split.lower()}:{self.task_id}:{self.suite_id}{about}"

    @property
    def title(self) -> str:
        return self.suite_id or self.task_id

    def questions(self) -> list[Prompt | Continuation]:
        """What is asked for each item: a prompt, or of a choice the options to be scored. Equal ones have equal ids."""
        return [self._question(item) for item in self.items]

    def prompts(self) -> list[Prompt]:
        """One prompt an item that is answered in words; choices are not."""
        return [question for question in self.questions() if isinstance(question, Prompt)]

    def _question(self, item: EvaluationItem) -> Prompt | Continuation:
        if item.grader.kind is GraderKind.CHOICE:
            return continuation_of(self.topic, item)
        conversation = ask(self.topic, item.question)
        return prompt_of(conversation, digest_of(conversation).sha256)


@dataclass(frozen=True)
class Marked:
    """A version's result on one group."""

    group: Group
    marks: tuple[Mark, ...]
    score: Score


@dataclass(frozen=True)
class Paper:
    """A version's results. INVALID: none."""

    version: str
    liveness: Liveness
    proof: LivenessProof | None
    cached: bool
    results: Mapping[str, Marked]

    @property
    def invalid(self) -> bool:
        return self.liveness is Liveness.INVALID

    def result(self, group: Group) -> Marked:
        """Raises NotPossible(VERSION_INVALID): such a version has no score, not a score of 0."""
        if self.liveness is Liveness.INVALID:
            raise version_invalid(self.version)
        return self.results[group.name]


@dataclass(frozen=True)
class ReadAnswer:
    """An answer as it was given: its digest, its text, and its FinishReason (empty where it was not noted)."""

    sha256: str
    text: str
    finish: str


def version_invalid(version: str) -> NotPossible:
    return NotPossible("a version could not be proven to answer", reason="VERSION_INVALID", ids={"version": version})


def of_task(task: Task, split: Split, items: Sequence[EvaluationItem]) -> Group:
    """Questions about a task's context are asked under its title; retention items are about anything."""
    topic = "" if split is Split.RETENTION else task.context.title
    return Group(split, tuple(items), topic=topic, task_id=task.task_id)


def of_suite(suite: Suite) -> Group:
    return Group(Split.RETENTION, suite.items, suite_id=suite.suite_id, measured=suite.measured)


def joined(one: Paper, other: Paper) -> Paper:
    """A version's results on different groups as one paper; INVALID in one of them, it has none."""
    for paper in (one, other):
        if paper.invalid:
            return paper
    results = {**one.results, **other.results}
    return replace(one, proof=one.proof or other.proof, cached=one.cached and other.cached, results=results)


def compare(before: Marked, after: Marked) -> tuple[Comparison, ...]:
    """The same items before and after."""
    group = before.group
    return tuple(
        Comparison(
            item_id=old.item_id,
            task_id=group.task_id,
            suite_id=group.suite_id,
            split=group.split,
            before=old.answer,
            after=new.answer,
            score_before=old.score,
            score_after=new.score,
        )
        for old, new in zip(before.marks, after.marks, strict=True)
    )


def name_of(question: Prompt | Continuation) -> str:
    return question.continuation_id if isinstance(question, Continuation) else question.prompt_id


def submission_of(
    item: EvaluationItem, question: Prompt | Continuation, given: Mapping[str, tuple[str, str]]
) -> Submission:
    """An item's answer, ready to be marked; given: (digest, text) by the question's name."""
    sha256, text = given[name_of(question)]
    return Submission(item, text, sha256)


def marked(group: Group, submissions: Sequence[Submission], scores: Sequence[float]) -> Marked:
    """A group's result."""
    marks = tuple(
        Mark(item_id=s.item.item_id, answer=s.sha256, score=score) for s, score in zip(submissions, scores, strict=True)
    )
    empty = sum(is_silent(submission.answer, submission.item) for submission in submissions)
    return Marked(group, marks, Score(questions=len(marks), correct=sum(scores), empty=empty))
