"""Asks versions the questions of an evaluation and marks the answers. Keys stay here: the student gets prompts alone.

An answer is asked once: it is cached under (version, prompt, the student's model and prompt template, sampling), so a
baseline costs nothing the second time. Answers of a version whose liveness proof is INVALID are never marked and never
cached: such a version has no score at all. The loop's steps call this.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from auditor import grading
from auditor.findings import Comparison, Mark, Score
from auditor.journal import Journal
from auditor.ledger.store import GivenAnswer, texts
from auditor.peers import AnswerOrder, prompt_of
from auditor.ports import OnProgress, Student
from auditor.recorder import Recorder
from auditor.tasks import EvaluationItem, Split, Suite, Task
from common.canonical import digest_of
from common.errors import NotPossible
from common.lora.proof import Liveness, LivenessProof
from common.prompting import ask
from common.types import Conversation, Prompt, Sampling
from common.versions import Answer, AnswerPurpose

T = TypeVar("T")
MAX_PROMPTS, MAX_VERSIONS = 4_096, 64  # of one AnswerRequest


@dataclass(frozen=True)
class Group:
    """Items that are scored together under one name."""

    split: Split
    items: tuple[EvaluationItem, ...]
    topic: str = ""
    task_id: str = ""
    suite_id: str = ""

    @property
    def name(self) -> str:
        return f"{self.split.lower()}:{self.task_id}:{self.suite_id}"

    @property
    def title(self) -> str:
        return self.suite_id or self.task_id

    def prompts(self) -> list[Prompt]:
        """One prompt an item; equal questions have equal ids."""
        asked = [ask(self.topic, item.question) for item in self.items]
        return [prompt_of(conversation, _prompt_sha256(conversation)) for conversation in asked]


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
    return Group(Split.RETENTION, suite.items, suite_id=suite.suite_id)


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


class Examiner:
    """Asks and marks for one run.

    identity: what an answer depends on beside version, prompt and sampling (StudentStatus.identity).
    """

    def __init__(
        self, student: Student, recorder: Recorder, journal: Journal, *, identity: str, max_answer_tokens: int
    ) -> None:
        self._student = student
        self._recorder = recorder
        self._journal = journal
        self._identity = identity
        self._sampling = Sampling(max_new_tokens=max_answer_tokens)

    async def examine(self, versions: Sequence[str], groups: Sequence[Group], progress: OnProgress) -> dict[str, Paper]:
        """Every version's paper. One call to the student for all that has not been asked before."""
        prompts = {prompt.prompt_id: prompt for group in groups for prompt in group.prompts()}
        keys = {(version, name): self._key(version, name) for version in versions for name in prompts}
        known = await self._recorder.run(self._recorder.ledger.recall, list(keys.values()))
        missing: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for version in dict.fromkeys(versions):
            unasked = tuple(name for name in prompts if keys[version, name] not in known)
            if unasked:
                missing[unasked].append(version)
        proofs: dict[str, LivenessProof] = {}
        for unasked, asked in missing.items():
            proofs |= await self._ask([prompts[name] for name in unasked], asked, progress)
        known = await self._recorder.run(self._recorder.ledger.recall, list(keys.values()))
        answers = await self._recorder.run(texts, self._recorder.ledger, [row.answer for row in known.values()])
        papers = {}
        for version in versions:
            proof = proofs.get(version)
            rows = {name: known[keys[version, name]] for name in prompts if keys[version, name] in known}
            if proof is not None and proof.liveness is Liveness.INVALID:
                papers[version] = Paper(version, Liveness.INVALID, proof, False, {})
                continue
            liveness = proof.liveness if proof is not None else next(iter(rows.values())).liveness
            given = {name: (row.answer, answers[row.answer]) for name, row in rows.items()}
            results = {group.name: mark(group, given) for group in groups}
            papers[version] = Paper(version, liveness, proof, proof is None, results)
        return papers

    async def _ask(
        self, prompts: Sequence[Prompt], versions: Sequence[str], progress: OnProgress
    ) -> dict[str, LivenessProof]:
        proofs: dict[str, LivenessProof] = {}
        for some_versions in batches(versions, MAX_VERSIONS):
            for some_prompts in batches(prompts, MAX_PROMPTS):
                content = {"versions": some_versions, "prompts": [prompt.prompt_id for prompt in some_prompts]}
                order = AnswerOrder(
                    request_id=self._journal.request_id("answer", [self._identity, content, self._sampling_name()]),
                    purpose=AnswerPurpose.AUDIT,
                    prompts=tuple(some_prompts),
                    versions=tuple(some_versions),
                    sampling=self._sampling,
                )
                for version, proof in (await self._collect(order, progress)).items():
                    if version not in proofs or proofs[version].liveness is not Liveness.INVALID:
                        proofs[version] = proof
        return proofs

    async def _collect(self, order: AnswerOrder, progress: OnProgress) -> dict[str, LivenessProof]:
        """Caches what one call brings, all or none: a call that is made again is the same call."""
        proofs: dict[str, LivenessProof] = {}
        answers: dict[tuple[str, str], Answer] = {}
        async for event in self._student.answer(order, progress):
            if isinstance(event, LivenessProof):
                proofs[event.version] = event
            else:
                answers[event.version, event.prompt_id] = event
        trusted = [version for version in order.versions if _proven(version, proofs)]
        for version in trusted:
            absent = sum((version, prompt.prompt_id) not in answers for prompt in order.prompts)
            if absent:
                raise NotPossible(
                    f"the student left {absent} of {len(order.prompts)} prompts unanswered",
                    reason="PEER_BROKE_CONTRACT",
                    ids={"version": version},
                )
        rows = [
            GivenAnswer(
                key=self._key(version, p.prompt_id),
                version=version,
                liveness=proofs[version].liveness,
                text=answers[version, p.prompt_id].text,
                finish=answers[version, p.prompt_id].finish_reason or "",
            )
            for version in trusted
            for p in order.prompts
        ]
        await self._recorder.run(self._recorder.ledger.remember, rows)
        return proofs

    async def read(self, version: str, prompts: Sequence[Prompt], progress: OnProgress) -> list[ReadAnswer]:
        """A version's answers to prompts that nobody marks, in their order; what was asked before is not asked again.

        Raises NotPossible(VERSION_INVALID), as Paper.result does.
        """
        wanted = {prompt.prompt_id: prompt for prompt in prompts}
        keys = {name: self._key(version, name) for name in wanted}
        known = await self._recorder.run(self._recorder.ledger.recall, list(keys.values()))
        missing = [prompt for name, prompt in wanted.items() if keys[name] not in known]
        if missing:
            proofs = await self._ask(missing, [version], progress)
            if proofs[version].liveness is Liveness.INVALID:
                raise version_invalid(version)
            known = await self._recorder.run(self._recorder.ledger.recall, list(keys.values()))
        answers = await self._recorder.run(texts, self._recorder.ledger, [row.answer for row in known.values()])
        rows = [known[keys[prompt.prompt_id]] for prompt in prompts]
        return [ReadAnswer(row.answer, answers[row.answer], row.finish) for row in rows]

    def _key(self, version: str, prompt: str) -> str:
        return digest_of([version, prompt, self._identity, self._sampling_name()]).sha256

    def _sampling_name(self) -> str:
        return digest_of(self._sampling).sha256


def _proven(version: str, proofs: Mapping[str, LivenessProof]) -> bool:
    if version not in proofs:
        raise NotPossible(
            "the student answered without a liveness proof", reason="PEER_BROKE_CONTRACT", ids={"version": version}
        )
    return proofs[version].liveness is not Liveness.INVALID


def mark(group: Group, given: Mapping[str, tuple[str, str]]) -> Marked:
    """Marks a group's answers; given: (digest, text) by prompt id."""
    marks = []
    empty = 0
    for item, prompt in zip(group.items, group.prompts(), strict=True):
        sha256, text = given[prompt.prompt_id]
        empty += grading.is_empty(text)
        marks.append(Mark(item_id=item.item_id, answer=sha256, score=grading.grade(text, item)))
    score = Score(questions=len(marks), correct=sum(m.score for m in marks), empty=empty)
    return Marked(group, tuple(marks), score)


def batches(values: Sequence[T], size: int) -> Iterator[list[T]]:
    """Consecutive pieces of at most `size`."""
    rest = iter(values)
    while piece := list(islice(rest, size)):
        yield piece


def _prompt_sha256(conversation: Conversation) -> str:
    return digest_of(conversation).sha256
