"""The student as several replicas on one store. Implements auditor/ports.py over one client a replica.

Nothing depends on which replica does what: a candidate's key and a version's digest mean the same to all of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from grpc import aio

from auditor.clients import GrpcStudent
from auditor.config import AuditorConfig, Retries, Timeouts
from auditor.peers import AliasOrder, AnswerOrder, ScoreOrder, StudentStatus, TrainOrder
from auditor.pieces import Cut, Event, OrderT, answers, scores, trainings
from auditor.ports import OnProgress
from auditor.spreading import Ask, Spread, Spreading
from common.lora.proof import LivenessProof
from common.rpc.replicas import Replicas
from common.versions import Alias, Answer, FailedCandidate, KlFromBase, ScoredContinuation, TrainedCandidate


@dataclass(frozen=True)
class SpreadStudent:
    """`anyone` asks whichever replica answers; a call trains at most `batch` candidates (0: an equal share of them)."""

    anyone: GrpcStudent
    means: Spreading
    batch: int = 0

    @classmethod
    def open(
        cls, config: AuditorConfig, anyone: GrpcStudent, open_address: Callable[[str], aio.Channel]
    ) -> SpreadStudent:
        """`open_address`: a channel to one replica (common/rpc/replicas.py)."""
        once = config.retries.model_copy(update={"attempts": 1})
        means = Spreading(
            replicas=Replicas(config.student.target, open_address),
            client=lambda replica: GrpcStudent(replica.channel, config.timeouts, once),
            retries=config.retries,
            most=config.student.replicas,
        )
        return cls(anyone, means, config.student.train_batch)

    def for_users(self, anyone: GrpcStudent, timeouts: Timeouts) -> SpreadStudent:
        """The same replicas for somebody who waits: the one with least to do, and if it goes away another, once."""
        soon = Retries(attempts=2, first_wait_seconds=0.1)
        means = replace(
            self.means,
            client=lambda replica: GrpcStudent(replica.channel, timeouts, soon.model_copy(update={"attempts": 1})),
            retries=soon,
            most=1,
        )
        return SpreadStudent(anyone, means)

    async def close(self) -> None:
        await self.means.replicas.close()

    async def status(self) -> StudentStatus:
        return await self.anyone.status()

    async def set_alias(self, order: AliasOrder) -> Alias:
        """At any replica: the shared store decides between two that move at once."""
        return await self.anyone.set_alias(order)

    async def train(self, order: TrainOrder, progress: OnProgress) -> AsyncIterator[TrainedCandidate | FailedCandidate]:
        async for event in self._spread(order, trainings(self.batch), GrpcStudent.train, progress):
            if isinstance(event, TrainedCandidate | FailedCandidate):
                yield event

    async def answer(self, order: AnswerOrder, progress: OnProgress) -> AsyncIterator[LivenessProof | Answer]:
        async for event in self._spread(order, answers(), GrpcStudent.answer, progress):
            if isinstance(event, LivenessProof | Answer):
                yield event

    async def score(
        self, order: ScoreOrder, progress: OnProgress
    ) -> AsyncIterator[LivenessProof | ScoredContinuation | KlFromBase]:
        async for event in self._spread(order, scores(), GrpcStudent.score, progress):
            if isinstance(event, LivenessProof | ScoredContinuation | KlFromBase):
                yield event

    async def _spread(
        self, order: OrderT, cut: Cut[OrderT], ask: Ask[OrderT], progress: OnProgress
    ) -> AsyncIterator[Event]:
        work = Spread(self.means, order, cut, ask, progress)
        try:
            while await work.hand_out():
                async for event in work.events():
                    yield event
        finally:
            await work.close()
