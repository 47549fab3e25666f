"""The real student behind a real gRPC server, in this process, for tests of the auditor with what really learns.

Whatever way a block ends, the calls end first and then the student's own work, so no thread or model outlives it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from common.contract.seal.v1 import student_pb2_grpc
from common.models.config import ModelConfig
from common.rpc.server import running
from student.config import StudentConfig
from student.servicer import StudentServicer
from student.student import Student
from tests.support.scripted_services import ScriptedStudent, ScriptedTeacher, Stage, on_stage


@asynccontextmanager
async def serving_student(folder: Path, model: ModelConfig) -> AsyncIterator[str]:
    """Where it answers, as host:port. It keeps what it makes in `folder`/store."""
    config = StudentConfig(
        listen="127.0.0.1:0", metrics_listen="", grace_seconds=0, store=folder / "store", model=model
    )
    student = Student(config)
    servicer = StudentServicer(student)
    try:
        async with running(
            config,
            service="seal.v1.StudentService",
            add=lambda server: student_pb2_grpc.add_StudentServiceServicer_to_server(servicer, server),
            start=student.start,
            stop=servicer.close,
        ) as serving:
            yield serving.target
    finally:
        await student.close()


@asynccontextmanager
async def on_stage_with_real_student(
    teacher: ScriptedTeacher, folder: Path, model: ModelConfig
) -> AsyncIterator[Stage]:
    """A scripted teacher and the real student; the stage's scripted student is never called."""
    idle = ScriptedStudent({})  # type: ignore[abstract] # no RPC is called
    async with on_stage(teacher, idle) as scripted, serving_student(folder, model) as target:
        yield Stage(scripted.teacher, scripted.student, scripted.teacher_target, target)
