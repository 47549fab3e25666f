"""StudentService: each RPC is checked, handed to the domain, and its events are turned back into messages.

Train, audits' Answer and LogLikelihood are jobs (common/jobs.py): they outlive the stream that asked for them, and the
same request id attaches to them again. What users ask is no job: it ends with its stream and nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from common.canonical import digest_of
from common.contract.seal.v1 import student_pb2, student_pb2_grpc, types_pb2
from common.convert import from_proto, to_proto
from common.jobs import Jobs
from common.lora.proof import LivenessProof
from common.versions import Answer, AnswerPurpose, FailedCandidate, KlFromBase, ScoredContinuation, TrainedCandidate
from student.messages import AnswerEvent, ScoreEvent, TrainEvent
from student.requests import (
    AnswerRequest,
    ListVersionsRequest,
    LogLikelihoodRequest,
    SetAliasRequest,
    TrainRequest,
    VersionRequest,
)
from student.student import Student

Context = grpc.aio.ServicerContext[Any, Any]
KEEP_FINISHED = 16


class StudentServicer(student_pb2_grpc.StudentServiceServicer):
    """Knows messages and nothing of models."""

    def __init__(self, student: Student) -> None:
        self._student = student
        self._training: Jobs[TrainEvent] = Jobs(KEEP_FINISHED)
        self._answering: Jobs[AnswerEvent] = Jobs(KEEP_FINISHED)
        self._scoring: Jobs[ScoreEvent] = Jobs(KEEP_FINISHED)

    async def GetStatus(  # noqa: N802
        self, request: student_pb2.StudentServiceGetStatusRequest, context: Context
    ) -> student_pb2.StudentServiceGetStatusResponse:
        return to_proto(student_pb2.StudentServiceGetStatusResponse, await self._student.status())

    async def Train(  # noqa: N802
        self, request: student_pb2.TrainRequest, context: Context
    ) -> AsyncIterator[student_pb2.TrainResponse]:
        asked = from_proto(TrainRequest, request)
        training = self._student.training
        training.check(asked)
        job = self._training.attach(asked.request_id, digest_of(asked), lambda publish: training.train(asked, publish))
        async for event in job:
            yield _trained(event)

    async def Answer(  # noqa: N802
        self, request: student_pb2.AnswerRequest, context: Context
    ) -> AsyncIterator[student_pb2.AnswerResponse]:
        asked = from_proto(AnswerRequest, request)
        events = self._once(asked) if asked.purpose is AnswerPurpose.LIVE else self._audit(asked)
        async for event in events:
            yield _answered(event)

    async def LogLikelihood(  # noqa: N802
        self, request: student_pb2.LogLikelihoodRequest, context: Context
    ) -> AsyncIterator[student_pb2.LogLikelihoodResponse]:
        asked = from_proto(LogLikelihoodRequest, request)
        answering = self._student.answering
        job = self._scoring.attach(asked.request_id, digest_of(asked), lambda publish: answering.score(asked, publish))
        async for event in job:
            yield _scored(event)

    async def SetAlias(  # noqa: N802
        self, request: student_pb2.SetAliasRequest, context: Context
    ) -> student_pb2.SetAliasResponse:
        alias = await self._student.move_alias(from_proto(SetAliasRequest, request))
        return student_pb2.SetAliasResponse(alias=to_proto(student_pb2.Alias, alias))

    async def ListVersions(  # noqa: N802
        self, request: student_pb2.StudentServiceListVersionsRequest, context: Context
    ) -> student_pb2.StudentServiceListVersionsResponse:
        page = await self._student.list_versions(from_proto(ListVersionsRequest, request))
        return to_proto(student_pb2.StudentServiceListVersionsResponse, page)

    async def VerifyVersion(  # noqa: N802
        self, request: student_pb2.VerifyVersionRequest, context: Context
    ) -> student_pb2.VerifyVersionResponse:
        verification = await self._student.verify(from_proto(VersionRequest, request).version)
        return to_proto(student_pb2.VerifyVersionResponse, verification)

    async def Discard(  # noqa: N802
        self, request: student_pb2.DiscardRequest, context: Context
    ) -> student_pb2.DiscardResponse:
        await self._student.discard(from_proto(VersionRequest, request).version)
        return student_pb2.DiscardResponse()

    async def close(self) -> None:
        """Calls off what is under way; asked for again, training goes on from what is stored."""
        for jobs in (self._training, self._answering, self._scoring):
            await jobs.close()

    def _audit(self, asked: AnswerRequest) -> AsyncIterator[AnswerEvent]:
        answering = self._student.answering
        return self._answering.attach(
            asked.request_id, digest_of(asked), lambda publish: answering.answer(asked, publish)
        )

    async def _once(self, asked: AnswerRequest) -> AsyncIterator[AnswerEvent]:
        """A user's answer: called off when its stream ends, and forgotten with it."""
        answering = self._student.answering
        jobs: Jobs[AnswerEvent] = Jobs(keep_finished=0)
        try:
            async for event in jobs.attach(
                asked.request_id, digest_of(asked), lambda publish: answering.answer(asked, publish)
            ):
                yield event
        finally:
            await jobs.close()


def _trained(event: TrainEvent) -> student_pb2.TrainResponse:
    if isinstance(event, TrainedCandidate):
        return student_pb2.TrainResponse(trained=to_proto(student_pb2.TrainedCandidate, event))
    if isinstance(event, FailedCandidate):
        return student_pb2.TrainResponse(failed=to_proto(student_pb2.FailedCandidate, event))
    return student_pb2.TrainResponse(progress=to_proto(types_pb2.Progress, event))


def _answered(event: AnswerEvent) -> student_pb2.AnswerResponse:
    if isinstance(event, Answer):
        return student_pb2.AnswerResponse(answer=to_proto(student_pb2.Answer, event))
    if isinstance(event, LivenessProof):
        return student_pb2.AnswerResponse(proof=to_proto(student_pb2.LivenessProof, event))
    return student_pb2.AnswerResponse(progress=to_proto(types_pb2.Progress, event))


def _scored(event: ScoreEvent) -> student_pb2.LogLikelihoodResponse:
    if isinstance(event, ScoredContinuation):
        return student_pb2.LogLikelihoodResponse(scored=to_proto(student_pb2.ScoredContinuation, event))
    if isinstance(event, KlFromBase):
        return student_pb2.LogLikelihoodResponse(kl=to_proto(student_pb2.KlFromBase, event))
    if isinstance(event, LivenessProof):
        return student_pb2.LogLikelihoodResponse(proof=to_proto(student_pb2.LivenessProof, event))
    return student_pb2.LogLikelihoodResponse(progress=to_proto(types_pb2.Progress, event))
