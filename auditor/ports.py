"""The two peers as the loop sees them. auditor/clients.py implements both over gRPC.

Every order carries an id that makes a second call harmless: the peer attaches to the work under way or answers from its
store. Errors are SealErrors; Unavailable is raised after bounded retries, or at once by a peer that is asked once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

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
from common.lora.proof import LivenessProof
from common.types import Progress
from common.versions import Alias, Answer, FailedCandidate, KlFromBase, ScoredContinuation, TrainedCandidate

OnProgress = Callable[[Progress], None]


class Teacher(Protocol):
    """Proposes edits and learns which ones work."""

    async def status(self) -> TeacherStatus: ...

    def propose(self, order: ProposalOrder, progress: OnProgress) -> AsyncIterator[ProposedEdit | FailedProposal]:
        """Each of the K once, in any order."""
        ...

    async def learn(self, order: LearnOrder, progress: OnProgress) -> Policy: ...


class Student(Protocol):
    """Trains adapters and answers with any version."""

    async def status(self) -> StudentStatus: ...

    def train(self, order: TrainOrder, progress: OnProgress) -> AsyncIterator[TrainedCandidate | FailedCandidate]:
        """Each candidate once, in any order."""
        ...

    def answer(self, order: AnswerOrder, progress: OnProgress) -> AsyncIterator[LivenessProof | Answer]:
        """For each version its proof once, then each prompt's answer once, unless the proof is INVALID."""
        ...

    def score(
        self, order: ScoreOrder, progress: OnProgress
    ) -> AsyncIterator[LivenessProof | ScoredContinuation | KlFromBase]:
        """For each version its proof once, then each continuation's score and each KL once, unless it is INVALID."""
        ...

    async def set_alias(self, order: AliasOrder) -> Alias:
        """Raises StaleGeneration when somebody else moved the alias."""
        ...
