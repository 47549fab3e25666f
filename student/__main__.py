"""`python -m student`: the student as a process of its own."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from common.config import load_config
from common.contract.seal.v1 import student_pb2, student_pb2_grpc
from common.errors import SealError
from common.logging import configure_logging
from common.rpc.server import serve
from student.config import StudentConfig

if TYPE_CHECKING:
    from student.student import Student

SERVICE = student_pb2.DESCRIPTOR.services_by_name["StudentService"].full_name


async def run(config: StudentConfig) -> None:
    """Serves until SIGTERM or SIGINT; liveness answers while the model loads."""
    from student.student import Student

    await serve_student(config, Student(config))


async def serve_student(config: StudentConfig, student: Student) -> None:
    from student.servicer import StudentServicer

    servicer = StudentServicer(student)
    try:
        await serve(
            config,
            service=SERVICE,
            add=lambda server: student_pb2_grpc.add_StudentServiceServicer_to_server(servicer, server),
            start=student.start,
            stop=servicer.close,
        )
    finally:
        await student.close()


def main() -> None:
    config = load_config(StudentConfig, "student")
    configure_logging("student", config.log_level)
    try:
        asyncio.run(run(config))
    except SealError as error:
        sys.exit(f"student: {error.message}")


if __name__ == "__main__":
    main()
