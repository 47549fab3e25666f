"""Asks versions the questions of an evaluation and has the answers marked. Keys stay here: the student gets prompts.

An answer is asked once: it is cached under (version, prompt, the student's model and prompt template, sampling), so a
baseline costs nothing the second time. Of a choice the answer is the option that the version finds likeliest, cached
under (version, prompt, options, model and template). Answers of a version whose liveness proof is INVALID are never
marked and never cached: such a version has no score at all. The loop's steps call this.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import replace
from itertools import islice, repeat
from typing import Protocol

from auditor.batches import batches
from auditor.graders.choice import chosen
from auditor.graders.desk import Graders
from auditor.journal import Journal
from auditor.ledger.store import GivenAnswer, texts
from auditor.papers import Group, Marked, Paper, ReadAnswer, joined, marked, name_of, submission_of, version_invalid
from auditor.peers import AnswerOrder, Continuation, ScoreOrder
from auditor.ports import OnProgress, Student
from auditor.recorder import Recorder
from common.canonical import digest_of
from common.errors import NotPossible
from common.lora.proof import Liveness, LivenessProof
from common.tracing import span
from common.types import Prompt, Sampling
from common.versions import AnswerPurpose, ScoredContinuation

MAX_PROMPTS, MAX_VERSIONS = 4_096, 64  # of one AnswerRequest
MAX_CONTINUATIONS = 256  # of one LogLikelihoodRequest; with all their options they fit a message


class Marking(Protocol):
    """What marks groups that have no questions of the auditor's own: auditor/measuring.py."""

    async def papers(
        self, versions: Sequence[str], groups: Sequence[Group], progress: OnProgress
    ) -> dict[str, Paper]: ...


class Examiner:
    """Asks and marks for one run.

    identity: what an answer depends on beside version, prompt and sampling (StudentStatus.identity).
    """

    def __init__(
        self,
        student: Student,
        recorder: Recorder,
        journal: Journal,
        graders: Graders,
        *,
        identity: str,
        max_answer_tokens: int,
        measuring: Marking,
    ) -> None:
        self._student = student
        self._recorder = recorder
        self._journal = journal
        self._measuring = measuring
        self._graders = graders
        self._identity = identity
        self._sampling = Sampling(max_new_tokens=max_answer_tokens)

    async def examine(self, versions: Sequence[str], groups: Sequence[Group], progress: OnProgress) -> dict[str, Paper]:
        """Every version's paper. One call to the student for all that was not asked before, one for all choices, and
        measures' own."""
        asked = [group for group in groups if group.measured is None]
        measured = [group for group in groups if group.measured is not None]
        papers = await self._questions(versions, asked, progress) if asked else {}
        sound = [version for version in versions if version not in papers or not papers[version].invalid]
        if measured:
            for version, paper in (await self._measuring.papers(sound, measured, progress)).items():
                papers[version] = joined(papers[version], paper) if version in papers else paper
        return papers

    async def _questions(
        self, versions: Sequence[str], groups: Sequence[Group], progress: OnProgress
    ) -> dict[str, Paper]:
        questions = {name_of(question): question for group in groups for question in group.questions()}
        keys = {(version, name): self._key_of(version, q) for version in versions for name, q in questions.items()}
        known = await self._recorder.run(self._recorder.ledger.recall, list(keys.values()))
        missing: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for version in dict.fromkeys(versions):
            unasked = tuple(name for name in questions if keys[version, name] not in known)
            if unasked:
                missing[unasked].append(version)
        proofs: dict[str, LivenessProof] = {}
        for unasked, asked in missing.items():
            proofs |= await self._ask([questions[name] for name in unasked], asked, progress)
        known = await self._recorder.run(self._recorder.ledger.recall, list(keys.values()))
        answers = await self._recorder.run(texts, self._recorder.ledger, [row.answer for row in known.values()])
        papers: dict[str, Paper] = {}
        given: dict[str, dict[str, tuple[str, str]]] = {}
        for version in versions:
            proof = proofs.get(version)
            rows = {name: known[keys[version, name]] for name in questions if keys[version, name] in known}
            if proof is not None and proof.liveness is Liveness.INVALID:
                papers[version] = Paper(version, Liveness.INVALID, proof, False, {})
                continue
            liveness = proof.liveness if proof is not None else next(iter(rows.values())).liveness
            given[version] = {name: (row.answer, answers[row.answer]) for name, row in rows.items()}
            papers[version] = Paper(version, liveness, proof, proof is None, {})
        for version, results in (await self._marked(groups, given)).items():
            papers[version] = replace(papers[version], results=results)
        return papers

    async def _marked(
        self, groups: Sequence[Group], given: Mapping[str, Mapping[str, tuple[str, str]]]
    ) -> dict[str, dict[str, Marked]]:
        """Results by version and name of group, all marked at once; given: (digest, text) by version and question."""
        papers = {
            version: [[*map(submission_of, group.items, group.questions(), repeat(said))] for group in groups]
            for version, said in given.items()
        }
        every = [submission for paper in papers.values() for part in paper for submission in part]
        with span("grade", answers=len(every)):
            scores = iter(await self._graders.mark(every))
        return {
            version: {
                group.name: marked(group, part, list(islice(scores, len(part))))
                for group, part in zip(groups, paper, strict=True)
            }
            for version, paper in papers.items()
        }

    async def _ask(
        self, questions: Sequence[Prompt | Continuation], versions: Sequence[str], progress: OnProgress
    ) -> dict[str, LivenessProof]:
        """Each version's proof; of several the one that is INVALID, if any is."""
        proofs: dict[str, LivenessProof] = {}
        prompts = [question for question in questions if isinstance(question, Prompt)]
        choices = [question for question in questions if isinstance(question, Continuation)]
        for some_versions in batches(versions, MAX_VERSIONS):
            calls = [
                *(self._answer(part, some_versions, progress) for part in batches(prompts, MAX_PROMPTS)),
                *(self._choose(part, some_versions, progress) for part in batches(choices, MAX_CONTINUATIONS)),
            ]
            for call in calls:
                with span("answer", questions=len(questions), versions=some_versions):
                    found = await call
                for version, proof in found.items():
                    if version not in proofs or proofs[version].liveness is not Liveness.INVALID:
                        proofs[version] = proof
        return proofs

    async def _answer(
        self, prompts: Sequence[Prompt], versions: Sequence[str], progress: OnProgress
    ) -> dict[str, LivenessProof]:
        content = {"versions": versions, "prompts": [prompt.prompt_id for prompt in prompts]}
        order = AnswerOrder(
            request_id=self._journal.request_id("answer", [self._identity, content, self._sampling_name()]),
            purpose=AnswerPurpose.AUDIT,
            prompts=tuple(prompts),
            versions=tuple(versions),
            sampling=self._sampling,
        )
        proofs: dict[str, LivenessProof] = {}
        answers: dict[tuple[str, str], tuple[str, str]] = {}
        async for event in self._student.answer(order, progress):
            if isinstance(event, LivenessProof):
                proofs[event.version] = event
            else:
                answers[event.version, event.prompt_id] = (event.text, event.finish_reason or "")
        await self._remember(order.versions, order.prompts, proofs, answers)
        return proofs

    async def _choose(
        self, choices: Sequence[Continuation], versions: Sequence[str], progress: OnProgress
    ) -> dict[str, LivenessProof]:
        content = {"versions": versions, "continuations": [choice.continuation_id for choice in choices]}
        order = ScoreOrder(
            request_id=self._journal.request_id("score", [self._identity, content]),
            versions=tuple(versions),
            continuations=tuple(choices),
        )
        named = {choice.continuation_id: choice for choice in choices}
        proofs: dict[str, LivenessProof] = {}
        answers: dict[tuple[str, str], tuple[str, str]] = {}
        async for event in self._student.score(order, progress):
            if isinstance(event, LivenessProof):
                proofs[event.version] = event
            elif isinstance(event, ScoredContinuation) and (choice := named.get(event.continuation_id)) is not None:
                option = chosen(choice, event)
                if option is not None:
                    answers[event.version, event.continuation_id] = (option, "")
        await self._remember(order.versions, order.continuations, proofs, answers)
        return proofs

    async def _remember(
        self,
        versions: Sequence[str],
        questions: Sequence[Prompt | Continuation],
        proofs: Mapping[str, LivenessProof],
        answers: Mapping[tuple[str, str], tuple[str, str]],
    ) -> None:
        """Caches what one call brought, all or none: a call that is made again is the same call."""
        trusted = [version for version in versions if _proven(version, proofs)]
        for version in trusted:
            _complete(list(map(name_of, questions)), version, {name for given, name in answers if given == version})
        rows = []
        for version in trusted:
            for question in questions:
                text, finish = answers[version, name_of(question)]
                key, liveness = self._key_of(version, question), proofs[version].liveness
                rows.append(GivenAnswer(key=key, version=version, liveness=liveness, text=text, finish=finish))
        await self._recorder.run(self._recorder.ledger.remember, rows)

    def _key_of(self, version: str, question: Prompt | Continuation) -> str:
        """A choice does not depend on sampling."""
        if isinstance(question, Continuation):
            return digest_of([version, question.continuation_id, self._identity, "choice"]).sha256
        return self._key(version, question.prompt_id)

    def allowing(self, max_answer_tokens: int) -> Examiner:
        """The same, for answers of another length: calls and cached answers are told apart by it. 0: no other."""
        other = copy(self)
        other._sampling = self._sampling.model_copy(
            update={"max_new_tokens": max_answer_tokens or self._sampling.max_new_tokens}
        )
        return other

    def known_as(self, identity: str) -> Examiner:
        """The same, with another identity: what was asked under one is asked again under the other.

        Suites that something else marks keep theirs.
        """
        other = copy(self)
        other._identity = identity
        return other

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


def _complete(asked: Collection[str], version: str, answered: Collection[str]) -> None:
    absent = sum(name not in answered for name in asked)
    if absent:
        raise NotPossible(
            f"the student left {absent} of {len(asked)} prompts unanswered",
            reason="PEER_BROKE_CONTRACT",
            ids={"version": version},
        )


def _proven(version: str, proofs: Mapping[str, LivenessProof]) -> bool:
    if version not in proofs:
        raise NotPossible(
            "the student answered without a liveness proof", reason="PEER_BROKE_CONTRACT", ids={"version": version}
        )
    return proofs[version].liveness is not Liveness.INVALID
