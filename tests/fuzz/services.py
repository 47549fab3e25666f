"""One service in a process of its own: `python -m tests.fuzz.services NAME FOLDER [TEACHER STUDENT]`.

Says where it answers as one JSON line on standard output, and serves until standard input ends: no service outlives
the process that started it. NAME is teacher, student, auditor, peers (the scripted two that the auditor talks to), or
one of the planted offenders.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from unittest.mock import patch

from common.config import ServiceConfig
from common.contract.seal.v1 import auditor_pb2_grpc, student_pb2_grpc, teacher_pb2_grpc
from common.logging import configure_logging
from common.rpc.server import running

Targets = dict[str, str]
QUIET = {"listen": "127.0.0.1:0", "metrics_listen": "", "grace_seconds": 0}


@asynccontextmanager
async def teacher(folder: Path) -> AsyncIterator[Targets]:
    """The real teacher on an instant generator."""
    from teacher.config import ProposerSettings, TeacherConfig
    from teacher.servicer import TeacherServicer
    from teacher.teacher import Teacher
    from tests.fuzz.instant import InstantGenerator, InstantMStep, strict_model

    config = TeacherConfig.model_validate(
        {
            **QUIET,
            "store": folder / "teacher",
            "backend": "transformers",
            "model": strict_model(folder / "teacher-model" / "model"),
            "proposer": ProposerSettings(prompt_variants=("implications",)),
            "rehearsal": {"examples": 0},
        }
    )
    with patch("teacher.learner.MStepProcess", InstantMStep):
        whole = Teacher(config, InstantGenerator())
        await whole.start()
        servicer = TeacherServicer(whole)
        async with running(
            config,
            service="seal.v1.TeacherService",
            add=lambda server: teacher_pb2_grpc.add_TeacherServiceServicer_to_server(servicer, server),
            stop=servicer.close,
        ) as serving:
            yield {"teacher": serving.target}


@asynccontextmanager
async def student(folder: Path) -> AsyncIterator[Targets]:
    """The real student on an instant engine."""
    from student.config import StudentConfig
    from student.servicer import StudentServicer
    from student.student import Student
    from tests.fuzz.instant import InstantEngine, strict_model

    config = StudentConfig.model_validate(
        {**QUIET, "store": folder / "student", "model": strict_model(folder / "student-model" / "model")}
    )
    with patch("student.student.LoraEngine", InstantEngine):
        whole = Student(config)
        servicer = StudentServicer(whole)
        async with running(
            config,
            service="seal.v1.StudentService",
            add=lambda server: student_pb2_grpc.add_StudentServiceServicer_to_server(servicer, server),
            start=whole.start,
            stop=servicer.close,
        ) as serving:
            yield {"student": serving.target}
        await whole.close()


@asynccontextmanager
async def peers(folder: Path) -> AsyncIterator[Targets]:
    """The scripted teacher and student, which keep no more than they need."""
    from tests.soak.day import known
    from tests.support.forgetful_services import forgetful_student, forgetful_teacher
    from tests.support.scripted_services import on_stage

    async with on_stage(forgetful_teacher(), forgetful_student(known())) as stage:
        yield {"peer-teacher": stage.teacher_target, "peer-student": stage.student_target}


@asynccontextmanager
async def auditor(folder: Path) -> AsyncIterator[Targets]:
    """The real auditor, on the scripted two whose targets the command line names."""
    from auditor.config import AuditorConfig
    from auditor.service import Auditor
    from auditor.servicer import AuditorServicer

    config = AuditorConfig.model_validate(
        {
            **QUIET,
            "database": f"sqlite:///{folder / 'ledger.db'}",
            "teacher": {"target": sys.argv[3]},
            "student": {"target": sys.argv[4]},
            "retries": {"attempts": 3, "first_wait_seconds": 0.05, "longest_wait_seconds": 0.5},
        }
    )
    whole = Auditor.open(config)
    async with running(
        config,
        service="seal.v1.AuditorService",
        add=lambda server: auditor_pb2_grpc.add_AuditorServiceServicer_to_server(AuditorServicer(whole), server),
        start=whole.start,
        stop=whole.stop,
    ) as serving:
        yield {"auditor": serving.target}


@asynccontextmanager
async def planted(folder: Path) -> AsyncIterator[Targets]:
    """A teacher with the three kinds of defects: the fuzzer must find every one."""
    from tests.fuzz.planted import Offender

    async with running(
        ServiceConfig.model_validate(QUIET),
        service="seal.v1.TeacherService",
        add=lambda server: teacher_pb2_grpc.add_TeacherServiceServicer_to_server(Offender(), server),
    ) as serving:
        yield {"teacher": serving.target}


SERVICES: dict[str, Callable[[Path], AbstractAsyncContextManager[Targets]]] = {
    "teacher": teacher,
    "student": student,
    "auditor": auditor,
    "peers": peers,
    "planted": planted,
}


async def serve(name: str, folder: Path) -> None:
    async with SERVICES[name](folder) as targets:
        print(json.dumps(targets), flush=True)
        await asyncio.to_thread(_until_input_ends)


def _until_input_ends() -> None:
    while os.read(0, 1):
        pass


if __name__ == "__main__":
    configure_logging(sys.argv[1], "error")
    asyncio.run(serve(sys.argv[1], Path(sys.argv[2])))
