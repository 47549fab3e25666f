"""python -m common.rpc.probe HOST:PORT [SERVICE]: asks grpc.health.v1 in plain text; exit code 0 means SERVING.

For an image's HEALTHCHECK and for people; kubelets ask by themselves. Without a service it asks whether the process is
alive, with one whether that service is ready.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def probe(target: str, service: str = "", *, seconds: float = 5.0) -> str:
    """What the port says: SERVING, NOT_SERVING, ..., or the status code with which it refuses to say."""
    with grpc.insecure_channel(target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its types do not name its methods
        try:
            response = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=seconds)
        except grpc.RpcError as error:
            return str(error.code().name)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m common.rpc.probe", description="Ask a service how it is.")
    parser.add_argument("target", metavar="HOST:PORT", help="the port for probes")
    parser.add_argument("service", nargs="?", default="", help="as seal.v1.AuditorService; left out: the process")
    parser.add_argument("--seconds", type=float, default=5.0, help="longest wait for an answer")
    arguments = parser.parse_args(argv)
    found = probe(arguments.target, arguments.service, seconds=arguments.seconds)
    print(found)
    sys.exit(0 if found == "SERVING" else 1)


if __name__ == "__main__":
    main()
