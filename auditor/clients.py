"""The two peers over gRPC: implements auditor/ports.py.

A stream that breaks with UNAVAILABLE (or CANCELLED, by a peer that is stopping) is opened again with the same request
id, which attaches to the same work; what comes twice is passed on once. Every call has a deadline. A peer's answer that
breaks the contract is an error of the peer, not of whoever started the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import Message
from grpc import aio
from pydantic import BaseModel

from auditor.config import Retries, Timeouts
from auditor.peers import (
    AliasOrder,
    AnswerOrder,
    FailedProposal,
    LearnOrder,
    Policy,
    ProposalOrder,
    ProposedEdit,
    ScoreOrder,
    StudentStatus,
    TeacherStatus,
    TrainOrder,
)
from auditor.ports import OnProgress
from common.contract.seal.v1 import student_pb2, student_pb2_grpc, teacher_pb2, teacher_pb2_grpc
from common.convert import from_proto, to_proto
from common.errors import Cancelled, InvalidRequest, NotPossible, Overloaded, SealError, Unavailable
from common.lora.proof import LivenessProof
from common.rpc.client import remote_errors
from common.types import Progress
from common.versions import Alias, Answer, FailedCandidate, KlFromBase, ScoredContinuation, TrainedCandidate

ModelT = TypeVar("ModelT", bound=BaseModel)
T = TypeVar("T")
SCORES: dict[str, type[LivenessProof | ScoredContinuation | KlFromBase]] = {
    "proof": LivenessProof,
    "scored": ScoredContinuation,
    "kl": KlFromBase,
}


class GrpcTeacher:
    """TeacherService as the loop sees it."""

    def __init__(self, channel: aio.Channel, timeouts: Timeouts, retries: Retries) -> None:
        self._stub: Any = teacher_pb2_grpc.TeacherServiceStub(channel)
        self._timeouts = timeouts
        self._retries = retries

    async def status(self) -> TeacherStatus:
        request = teacher_pb2.TeacherServiceGetStatusRequest()
        call = partial(self._stub.GetStatus, request, timeout=self._timeouts.status)
        return received(TeacherStatus, await unary(call, self._retries), "teacher")

    async def propose(self, order: ProposalOrder, progress: OnProgress) -> AsyncIterator[ProposedEdit | FailedProposal]:
        request = to_proto(teacher_pb2.ProposeEditsRequest, order)
        seen: set[int] = set()
        opened = partial(self._stub.ProposeEdits, request, timeout=self._timeouts.propose)
        async for event in streamed(opened, self._retries):
            match event.WhichOneof("event"):
                case "progress":
                    progress(received(Progress, event.progress, "teacher"))
                case "edit" if event.edit.index not in seen:
                    seen.add(event.edit.index)
                    yield received(ProposedEdit, event.edit, "teacher")
                case "failure" if event.failure.index not in seen:
                    seen.add(event.failure.index)
                    yield received(FailedProposal, event.failure, "teacher")

    async def learn(self, order: LearnOrder, progress: OnProgress) -> Policy:
        request = to_proto(teacher_pb2.LearnRequest, order)
        policy: Policy | None = None
        opened = partial(self._stub.Learn, request, timeout=self._timeouts.learn)
        async for event in streamed(opened, self._retries):
            if event.HasField("progress"):
                progress(received(Progress, event.progress, "teacher"))
            elif event.HasField("policy"):
                policy = received(Policy, event.policy, "teacher")
        if policy is None:
            raise broken("teacher", "Learn ended without a policy")
        return policy


class GrpcStudent:
    """StudentService as the loop sees it."""

    def __init__(self, channel: aio.Channel, timeouts: Timeouts, retries: Retries) -> None:
        self._stub: Any = student_pb2_grpc.StudentServiceStub(channel)
        self._timeouts = timeouts
        self._retries = retries

    async def status(self) -> StudentStatus:
        request = student_pb2.StudentServiceGetStatusRequest()
        call = partial(self._stub.GetStatus, request, timeout=self._timeouts.status)
        return received(StudentStatus, await unary(call, self._retries), "student")

    async def train(self, order: TrainOrder, progress: OnProgress) -> AsyncIterator[TrainedCandidate | FailedCandidate]:
        request = to_proto(student_pb2.TrainRequest, order)
        seen: set[str] = set()
        opened = partial(self._stub.Train, request, timeout=self._timeouts.train)
        async for event in streamed(opened, self._retries):
            match event.WhichOneof("event"):
                case "progress":
                    progress(received(Progress, event.progress, "student"))
                case "trained" if event.trained.candidate_id not in seen:
                    seen.add(event.trained.candidate_id)
                    yield received(TrainedCandidate, event.trained, "student")
                case "failed" if event.failed.candidate_id not in seen:
                    seen.add(event.failed.candidate_id)
                    yield received(FailedCandidate, event.failed, "student")

    async def answer(self, order: AnswerOrder, progress: OnProgress) -> AsyncIterator[LivenessProof | Answer]:
        request = to_proto(student_pb2.AnswerRequest, order)
        seen: set[tuple[str, ...]] = set()
        opened = partial(self._stub.Answer, request, timeout=self._timeouts.answer)
        async for event in streamed(opened, self._retries):
            match event.WhichOneof("event"):
                case "progress":
                    progress(received(Progress, event.progress, "student"))
                case "proof" if _proof_key(event.proof) not in seen:
                    seen.add(_proof_key(event.proof))
                    yield received(LivenessProof, event.proof, "student")
                case "answer" if (event.answer.version, event.answer.prompt_id) not in seen:
                    seen.add((event.answer.version, event.answer.prompt_id))
                    yield _own(received(Answer, event.answer, "student"), order)

    async def score(
        self, order: ScoreOrder, progress: OnProgress
    ) -> AsyncIterator[LivenessProof | ScoredContinuation | KlFromBase]:
        request = to_proto(student_pb2.LogLikelihoodRequest, order)
        seen: set[tuple[str, ...]] = set()
        opened = partial(self._stub.LogLikelihood, request, timeout=self._timeouts.answer)
        async for event in streamed(opened, self._retries):
            kind = str(event.WhichOneof("event"))
            if kind == "progress":
                progress(received(Progress, event.progress, "student"))
                continue
            message = getattr(event, kind)
            name = {"scored": "continuation_id", "kl": "prompt_id"}.get(kind)
            key = (kind, message.version, getattr(message, name)) if name else _proof_key(message)
            if key not in seen:
                seen.add(key)
                yield received(SCORES[kind], message, "student")

    async def set_alias(self, order: AliasOrder) -> Alias:
        request = to_proto(student_pb2.SetAliasRequest, order)
        call = partial(self._stub.SetAlias, request, timeout=self._timeouts.status)
        return received(Alias, (await unary(call, self._retries)).alias, "student")


def _own(answer: Answer, order: AnswerOrder) -> Answer:
    """Another version's words count for nobody who did not ask for them. Raises NotPossible(PEER_BROKE_CONTRACT)."""
    if answer.answered_by != answer.version and not order.fallback_to_parent:
        raise broken("student", f"{answer.answered_by} answered in place of {answer.version}, unasked")
    return answer


def _proof_key(proof: student_pb2.LivenessProof) -> tuple[str, ...]:
    """A call that is opened again may come to where the version proves invalid: that is news."""
    invalid = proof.liveness == student_pb2.LIVENESS_INVALID
    return "proof", proof.version, "invalid" if invalid else ""


async def unary(call: Callable[[], Awaitable[T]], retries: Retries) -> T:
    """One answer; an unreachable or overloaded peer is waited for.

    Raises Unavailable or Overloaded when the waits are used up.
    """
    for attempt in range(1, retries.attempts + 1):
        try:
            with remote_errors():
                return await call()
        except (Unavailable, Cancelled, Overloaded) as error:
            if attempt == retries.attempts:
                raise
            await asyncio.sleep(wait_before(attempt, retries, error))
    raise AssertionError("attempts is at least 1")


async def streamed(opened: Callable[[], AsyncIterator[Any]], retries: Retries) -> AsyncIterator[Any]:
    """A stream's messages, across breaks; messages may come again after one.

    Only a result that did not come before starts the count of failures anew: a peer that dies of the same work again
    and again still says that it has begun.
    """
    failures = most = 0
    while True:
        results = 0
        try:
            with remote_errors():
                async for message in opened():
                    results += message.WhichOneof("event") != "progress"
                    if results > most:
                        failures, most = 0, results
                    yield message
            return
        except (Unavailable, Cancelled, Overloaded) as error:
            failures += 1
            if failures >= retries.attempts:
                raise
            await asyncio.sleep(wait_before(failures, retries, error))


def wait_before(failures: int, retries: Retries, error: SealError | None = None) -> float:
    """Seconds to wait after so many failures in a row; not less than an overloaded peer asks for."""
    wait = float(min(retries.longest_wait_seconds, retries.first_wait_seconds * 2 ** (failures - 1)))
    return max(wait, error.retry_seconds) if isinstance(error, Overloaded) else wait


def received(model: type[ModelT], message: Message, peer: str) -> ModelT:
    """A peer's message as a domain object. Raises NotPossible(PEER_BROKE_CONTRACT)."""
    try:
        return from_proto(model, message)
    except InvalidRequest as error:
        raise broken(peer, f"{message.DESCRIPTOR.name}: {error.message}") from None


def broken(peer: str, what: str) -> NotPossible:
    return NotPossible(f"the {peer} broke the contract: {what}", reason="PEER_BROKE_CONTRACT")
