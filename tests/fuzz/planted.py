"""A teacher that breaks in three ways: by an exception, by never answering, and by leaving. See test_fuzz.py."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from common.contract.seal.v1 import teacher_pb2, teacher_pb2_grpc


class Offender(teacher_pb2_grpc.TeacherServiceServicer):
    """Two of its five RPCs have a defect, and SetPolicy has one that ends the process."""

    async def GetStatus(self, request: Any, context: Any) -> teacher_pb2.TeacherServiceGetStatusResponse:
        return teacher_pb2.TeacherServiceGetStatusResponse()

    async def ListPolicies(self, request: Any, context: Any) -> teacher_pb2.ListPoliciesResponse:
        return teacher_pb2.ListPoliciesResponse()

    async def ProposeEdits(self, request: teacher_pb2.ProposeEditsRequest, context: Any) -> Any:
        if request.count > 64:
            raise ValueError("nobody thought of so many")
        yield teacher_pb2.ProposeEditsResponse()

    async def Learn(self, request: teacher_pb2.LearnRequest, context: Any) -> Any:
        if request.seed < 0:
            await asyncio.Event().wait()
        yield teacher_pb2.LearnResponse()

    async def SetPolicy(self, request: teacher_pb2.SetPolicyRequest, context: Any) -> teacher_pb2.SetPolicyResponse:
        if request.expected_generation < 0:
            os._exit(3)
        return teacher_pb2.SetPolicyResponse()
