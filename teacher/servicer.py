"""TeacherService: each RPC is checked, handed to the domain, and its events are turned back into messages.

Proposals and M-steps are jobs (common/jobs.py): they outlive the stream that asked for them, and the same request id
attaches to them again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from common.canonical import digest_of
from common.contract.seal.v1 import teacher_pb2, teacher_pb2_grpc, types_pb2
from common.convert import from_proto, to_proto
from common.jobs import Jobs
from common.types import Progress
from teacher.learner import LearnEvent
from teacher.messages import LearnRequest, PolicyList, ProposedEdit, ProposeRequest, SetPolicyRequest
from teacher.proposer import ProposeEvent
from teacher.teacher import Teacher

Context = grpc.aio.ServicerContext[Any, Any]


class TeacherServicer(teacher_pb2_grpc.TeacherServiceServicer):
    """Knows messages and nothing of models."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        # Finished work stands on disk as well, so few of its events need to be kept in memory.
        self._proposing: Jobs[ProposeEvent] = Jobs(keep_finished=8)
        self._learning: Jobs[LearnEvent] = Jobs(keep_finished=8)

    async def GetStatus(  # noqa: N802
        self, request: teacher_pb2.TeacherServiceGetStatusRequest, context: Context
    ) -> teacher_pb2.TeacherServiceGetStatusResponse:
        return to_proto(teacher_pb2.TeacherServiceGetStatusResponse, self._teacher.status())

    async def ProposeEdits(  # noqa: N802
        self, request: teacher_pb2.ProposeEditsRequest, context: Context
    ) -> AsyncIterator[teacher_pb2.ProposeEditsResponse]:
        asked = from_proto(ProposeRequest, request)
        self._teacher.proposer.check(asked)
        job = self._proposing.attach(
            asked.request_id, digest_of(asked), lambda publish: self._teacher.proposer.propose(asked, publish)
        )
        async for event in job:
            yield _proposed(event)

    async def Learn(  # noqa: N802
        self, request: teacher_pb2.LearnRequest, context: Context
    ) -> AsyncIterator[teacher_pb2.LearnResponse]:
        asked = from_proto(LearnRequest, request)
        job = self._learning.attach(
            asked.request_id, digest_of(asked), lambda publish: self._teacher.learner.learn(asked, publish)
        )
        async for event in job:
            yield _learned(event)

    async def SetPolicy(  # noqa: N802
        self, request: teacher_pb2.SetPolicyRequest, context: Context
    ) -> teacher_pb2.SetPolicyResponse:
        active = await self._teacher.policies.choose(from_proto(SetPolicyRequest, request))
        return to_proto(teacher_pb2.SetPolicyResponse, active)

    async def ListPolicies(  # noqa: N802
        self, request: teacher_pb2.ListPoliciesRequest, context: Context
    ) -> teacher_pb2.ListPoliciesResponse:
        active = self._teacher.policies.active()
        listed = PolicyList(
            policies=tuple(await self._teacher.policies.all()),
            active=active.policy_version,
            policy_generation=active.policy_generation,
        )
        return to_proto(teacher_pb2.ListPoliciesResponse, listed)

    async def close(self) -> None:
        """Calls off what is under way; asked for again, it goes on from what is on disk."""
        await self._proposing.close()
        await self._learning.close()


def _proposed(event: ProposeEvent) -> teacher_pb2.ProposeEditsResponse:
    if isinstance(event, Progress):
        return teacher_pb2.ProposeEditsResponse(progress=to_proto(types_pb2.Progress, event))
    if isinstance(event, ProposedEdit):
        return teacher_pb2.ProposeEditsResponse(edit=to_proto(teacher_pb2.ProposedEdit, event))
    return teacher_pb2.ProposeEditsResponse(failure=to_proto(teacher_pb2.FailedProposal, event))


def _learned(event: LearnEvent) -> teacher_pb2.LearnResponse:
    if isinstance(event, Progress):
        return teacher_pb2.LearnResponse(progress=to_proto(types_pb2.Progress, event))
    return teacher_pb2.LearnResponse(policy=to_proto(teacher_pb2.Policy, event))
