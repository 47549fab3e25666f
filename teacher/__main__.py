"""`python -m teacher`: the teacher as a process of its own."""

from __future__ import annotations

import asyncio
import signal
import sys
from types import FrameType

from common.config import load_config
from common.contract.seal.v1 import teacher_pb2, teacher_pb2_grpc
from common.errors import SealError
from common.logging import configure_logging
from common.rpc.server import serve
from teacher.config import TeacherConfig

SERVICE = teacher_pb2.DESCRIPTOR.services_by_name["TeacherService"].full_name


async def run(config: TeacherConfig) -> None:
    """Loads the model, then serves until SIGTERM or SIGINT."""
    from teacher.servicer import TeacherServicer
    from teacher.teacher import Teacher

    teacher = Teacher(config)
    try:
        # Before the server: the engine's processes must not come from a process that runs gRPC.
        await teacher.start()
        servicer = TeacherServicer(teacher)
        await serve(
            config,
            service=SERVICE,
            add=lambda server: teacher_pb2_grpc.add_TeacherServiceServicer_to_server(servicer, server),
            stop=servicer.close,
        )
    finally:
        await teacher.close()


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main() -> None:
    config = load_config(TeacherConfig, "teacher")
    configure_logging("teacher", config.log_level)
    # While models load, the event loop is held up and a signal must still end the engine's processes in order.
    signal.signal(signal.SIGTERM, _leave)
    try:
        asyncio.run(run(config))
    except SealError as error:
        sys.exit(f"teacher: {error.message}")


if __name__ == "__main__":
    main()
