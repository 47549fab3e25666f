"""Channels to other services: mutual TLS, retries, keepalive, message sizes.

Only UNAVAILABLE and an overloaded service's RESOURCE_EXHAUSTED are retried, the latter when the service says, and every
mutating call carries an id that makes a second try harmless.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import grpc

from common.boundary.identities import Identity, Role
from common.rpc.channels import ReloadingChannel
from common.rpc.status import remote_errors
from common.tls.credentials import channel_credentials
from common.tls.material import Material
from common.tls.reloading import Reloader
from common.tls.settings import TlsSettings

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
                    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
                },
            }
        ],
        "loadBalancingConfig": [{"round_robin": {}}],
    }
)


def open_channel(
    target: str,
    *,
    max_message_mib: int = 32,
    tls: TlsSettings | None = None,
    expects: Role | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> grpc.aio.Channel:
    """A channel to host:port (or dns:///name:port, balanced over all addresses). The caller closes it.

    With `tls` both sides show certificates. The service's must be signed by an authority of ours and belong to the role
    `expects` in our trust domain, wherever it answers; without `expects` it must name the host that is dialled. Raises
    InvalidConfig when the certificate files cannot be used.
    """
    options = [
        ("grpc.service_config", SERVICE_CONFIG),
        ("grpc.enable_retries", 1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.max_receive_message_length", max_message_mib * MIB),
        ("grpc.max_send_message_length", max_message_mib * MIB),
    ]
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    if expects is not None:
        # gRPC compares the certificate's DNS SANs with the channel's authority; URI SANs it does not look at.
        options.append(("grpc.default_authority", Identity(expects).host(tls.trust_domain)))

    def dial(material: Material) -> grpc.aio.Channel:
        credentials = channel_credentials(material)
        return grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors)

    return ReloadingChannel(Reloader(tls), dial)
