"""A scripted student that continues raw texts and scores options, as lm_eval's tasks ask it to."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from common.contract.seal.v1 import student_pb2
from common.contract.seal.v1.types_pb2 import ROLE_USER
from tests.support.scripted_services import ScriptedStudent


class ContinuingStudent(ScriptedStudent):
    """A raw text's last line but "Answer:" is its question; the option that it would answer is the likeliest."""

    def __init__(self, knows: dict[str, str]) -> None:
        super().__init__(knows)
        # Raw questions of each version, and the options that came with them.
        self.continued: Counter[tuple[str, str]] = Counter()
        self.options: list[tuple[str, ...]] = []

    async def Answer(
        self, request: student_pb2.AnswerRequest, context: Any
    ) -> AsyncIterator[student_pb2.AnswerResponse]:
        spoken = student_pb2.AnswerRequest.FromString(request.SerializeToString())
        for prompt in spoken.prompts:
            if prompt.conversation.HasField("raw"):
                question = question_of(prompt.conversation.raw)
                self.continued.update((version, question) for version in request.versions)
                prompt.conversation.Clear()
                prompt.conversation.messages.add(role=ROLE_USER).content.add(text=question)
        self.received.append(request.SerializeToString())
        async for event in super().Answer(spoken, context):
            yield event

    async def LogLikelihood(
        self, request: student_pb2.LogLikelihoodRequest, context: Any
    ) -> AsyncIterator[student_pb2.LogLikelihoodResponse]:
        self._receive(request, request.request_id)
        for version in request.versions:
            adapter = self.adapters.get(version)
            liveness = self._liveness(adapter)
            yield student_pb2.LogLikelihoodResponse(
                proof=student_pb2.LivenessProof(version=version, liveness=liveness, detail="scripted")
            )
            if liveness == student_pb2.LIVENESS_INVALID:
                continue
            for continuation in request.continuations:
                question = question_of(continuation.conversation.raw)
                self.continued[version, question] += 1
                self.options.append(tuple(continuation.options))
                said = self._say(adapter, question)
                scores = [
                    student_pb2.OptionScore(log_likelihood=-1 if option == said else -5, tokens=1)
                    for option in continuation.options
                ]
                scored = student_pb2.ScoredContinuation(
                    continuation_id=continuation.continuation_id, version=version, options=scores
                )
                yield student_pb2.LogLikelihoodResponse(scored=scored)
            for prompt in request.kl_prompts:
                kl = student_pb2.KlFromBase(prompt_id=prompt.prompt_id, version=version)
                yield student_pb2.LogLikelihoodResponse(kl=kl)


def question_of(raw: str) -> str:
    return raw.removesuffix("\nAnswer:").rpartition("\n")[2]
