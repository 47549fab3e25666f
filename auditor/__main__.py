"""python -m auditor: runs the auditor until SIGTERM."""

from __future__ import annotations

import asyncio
import sys

from auditor.config import AuditorConfig
from auditor.service import Auditor
from auditor.servicer import AuditorServicer
from common.config import load_config
from common.contract.seal.v1.auditor_pb2_grpc import add_AuditorServiceServicer_to_server
from common.errors import SealError
from common.logging import configure_logging
from common.rpc.server import serve

SERVICE = "seal.v1.AuditorService"


async def run(config: AuditorConfig) -> None:
    auditor = Auditor.open(config)
    await serve(
        config,
        service=SERVICE,
        add=lambda server: add_AuditorServiceServicer_to_server(AuditorServicer(auditor), server),
        start=auditor.start,
        stop=auditor.stop,
    )


def main() -> None:
    config = load_config(AuditorConfig, "auditor")
    configure_logging("auditor", config.log_level)
    try:
        asyncio.run(run(config))
    except SealError as error:
        sys.exit(error.message)


if __name__ == "__main__":
    main()
