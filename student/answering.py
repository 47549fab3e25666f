"""Answers prompts and scores texts with versions whose liveness is proven first.

An INVALID version is never answered for by the base or by anything else: an auditor gets its proof and no answers, a
user gets an error. Where an answer has no word, and only if the request asks for it, an older version answers in its
own name (student/fallback.py). Aliases are looked up once a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from common.errors import Corrupt, NotFound, NotPossible
from common.jobs import Publish
from common.lora.engine import LoraEngine
from common.lora.likelihood import Continuation as ScoredContinuationText
from common.lora.likelihood import ScoredText
from common.lora.proof import Liveness, LivenessProof
from common.silence import is_empty
from common.versions import Answer, AnswerPurpose, KlFromBase, OptionScore, ScoredContinuation
from student import metrics
from student.answer_engine import AnswerEngine
from student.fallback import Fallback
from student.messages import AnswerEvent, ScoreEvent
from student.requests import AnswerRequest, LogLikelihoodRequest
from student.versions import Resolved, Versions
from student.workroom import Desk, Workroom

PURPOSES = {AnswerPurpose.AUDIT: "audit", AnswerPurpose.LIVE: "live"}


class Answering:
    """Carries out Answer and LogLikelihood requests.

    `engine` proves and scores; `answers` writes what is answered, and is `engine` itself unless configured otherwise.
    """

    def __init__(self, engine: LoraEngine, answers: AnswerEngine, versions: Versions, workroom: Workroom) -> None:
        self._engine = engine
        self._answers = answers
        self._versions = versions
        self._workroom = workroom
        self._fallback = Fallback(answers, versions)

    async def answer(self, request: AnswerRequest, publish: Publish[AnswerEvent]) -> None:
        """The proof of each version, then its answers. Raises NotFound, InvalidRequest, and Corrupt for a user."""
        resolved = await asyncio.to_thread(self._versions.resolve_all, request.versions)
        # A user waits for the model of this process, but not for another process's hours of work.
        in_turn = request.purpose is AnswerPurpose.AUDIT
        await self._workroom.run(
            "answering", lambda desk: self._answer(request, resolved, desk), publish, in_turn=in_turn
        )

    def _answer(self, request: AnswerRequest, resolved: Sequence[Resolved], desk: Desk[LivenessProof | Answer]) -> None:
        must = request.purpose is AnswerPurpose.LIVE
        places = {place.version: place for place in resolved}
        done, total = 0, len(places) * len(request.prompts)
        for lot in self._engine.residents.lots(list(places)):
            proven = [version for version in lot if self._proven(version, desk, must=must, answers=self._answers)]
            total -= (len(lot) - len(proven)) * len(request.prompts)
            for answer in self._answers_of([places[version] for version in proven], request, desk):
                _count(answer, PURPOSES[request.purpose])
                desk.say(answer)
                done += 1
                desk.progress(done, total)

    def _answers_of(
        self, proven: Sequence[Resolved], request: AnswerRequest, desk: Desk[LivenessProof | Answer]
    ) -> Iterator[Answer]:
        """What versions say, and where one says nothing and the request asks for it, what an ancestor says."""
        places = {place.version: place for place in proven}
        silent: list[Answer] = []
        for version, text in self._answers.answer(list(places), request.prompts, request.sampling, desk.cancelled):
            answer = Answer(
                prompt_id=request.prompts[text.index].prompt_id,
                version=version,
                text=text.text,
                tokens=text.tokens,
                finish_reason=text.finish_reason,
                alias_generation=places[version].generation,
            )
            if is_empty(answer.text):
                metrics.EMPTY_ANSWERS.labels(PURPOSES[request.purpose]).inc()
                if request.fallback_to_parent:
                    silent.append(answer)
                    continue
            yield answer
        yield from self._fallback.answers(silent, request, lambda version: self._found(version, desk), desk.cancelled)

    async def score(self, request: LogLikelihoodRequest, publish: Publish[ScoreEvent]) -> None:
        """The proof of each version, its option scores, then the KL of each from the base. Raises as `answer` does."""
        resolved = await asyncio.to_thread(self._versions.resolve_all, request.versions)
        await self._workroom.run("scoring", lambda desk: self._score(request, resolved, desk), publish)

    def _score(
        self,
        request: LogLikelihoodRequest,
        resolved: Sequence[Resolved],
        desk: Desk[LivenessProof | ScoredContinuation | KlFromBase],
    ) -> None:
        each = len(request.continuations) + len(request.kl_prompts)
        texts = [
            ScoredContinuationText(continuation.conversation, option, f"continuations[{i}].options[{j}]")
            for i, continuation in enumerate(request.continuations)
            for j, option in enumerate(continuation.options)
        ]
        conversations = [prompt.conversation for prompt in request.kl_prompts]
        lots = self._engine.residents.lots([place.version for place in resolved])
        done, total = 0, sum(map(len, lots)) * each
        for lot in lots:
            proven = [version for version in lot if self._proven(version, desk, must=False)]
            total -= (len(lot) - len(proven)) * each
            for version, scores in self._engine.score(proven, texts, desk.cancelled):
                remaining = iter(scores)
                for continuation in request.continuations:
                    options = tuple(_option(next(remaining)) for _ in continuation.options)
                    desk.say(
                        ScoredContinuation(
                            continuation_id=continuation.continuation_id, version=version, options=options
                        )
                    )
                    done += 1
                desk.progress(done, total)
            for version, place, kl in self._engine.drift(proven, conversations, desk.cancelled):
                desk.say(KlFromBase(prompt_id=request.kl_prompts[place].prompt_id, version=version, kl_per_token=kl))
                done += 1
                desk.progress(done, total)

    def _found(self, ancestor: str, desk: Desk[LivenessProof]) -> bool:
        """Publishes an ancestor's proof; whether it may speak. One that is gone or unreadable has none, and may not.

        A user's request does not fail for it either: without the fallback its answer would be empty as well.
        """
        try:
            return self._proven(ancestor, desk, must=False, answers=self._answers)
        except (NotFound, Corrupt):
            return False

    def _proven(
        self, version: str, desk: Desk[LivenessProof], *, must: bool, answers: AnswerEngine | None = None
    ) -> bool:
        """Publishes the proof; whether the version may speak. Raises Corrupt for one that `must` and may not.

        A version that does not answer as itself behind `answers` is as invalid as one whose bytes are wrong.
        """
        proof = self._engine.prove(version, self._versions.parent(version))
        if answers is not None and proof.liveness is not Liveness.INVALID:
            try:
                answers.prepare(version)
            except (Corrupt, NotPossible) as error:
                proof = proof.model_copy(update={"liveness": Liveness.INVALID, "detail": error.message})
        metrics.PROOFS.labels(proof.liveness.removeprefix("LIVENESS_").lower()).inc()
        metrics.RESIDENT_ADAPTERS.set(len(self._engine.residents.versions))
        desk.say(proof)
        if proof.liveness is not Liveness.INVALID:
            return True
        if must:
            raise Corrupt(
                f"version {version} is not what it says and does not answer: {proof.detail}",
                reason="VERSION_INVALID",
                ids={"version": version},
            )
        return False


def _option(scored: ScoredText) -> OptionScore:
    return OptionScore(log_likelihood=scored.log_likelihood, tokens=scored.tokens, greedy=scored.greedy)


def _count(answer: Answer, purpose: str) -> None:
    finish = answer.finish_reason.removeprefix("FINISH_REASON_").lower() if answer.finish_reason else ""
    metrics.ANSWERS.labels(purpose, finish).inc()
    metrics.ANSWER_TOKENS.inc(answer.tokens)
    if answer.answered_by != answer.version and not is_empty(answer.text):
        metrics.FALLBACK_ANSWERS.labels(purpose).inc()
