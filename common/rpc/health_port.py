"""A port that answers grpc.health.v1 in plain text and nothing else: kubelets and load balancers have no certificate.

It says SERVING or NOT_SERVING, by the same servicer as the service's own port; any other RPC is UNIMPLEMENTED.
"""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from common.errors import InvalidConfig

# A probe is a few bytes; who sends more is no probe.
OPTIONS = (("grpc.max_receive_message_length", 4_096), ("grpc.so_reuseport", 0))
CONCURRENT_PROBES = 64


async def serve_health(listen: str, checks: health.aio.HealthServicer) -> grpc.aio.Server | None:
    """The running server; None when `listen` is empty. Raises InvalidConfig when the address cannot be had."""
    if not listen:
        return None
    server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=CONCURRENT_PROBES)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    try:
        server.add_insecure_port(listen)
    except RuntimeError:
        raise InvalidConfig(f"health_listen: cannot listen at {listen}; is the port in use?") from None
    await server.start()
    return server
