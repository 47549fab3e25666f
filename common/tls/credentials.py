"""gRPC's credentials from a Reloader.

A server asks for the newest certificate at every handshake, so connections that stand are not touched. A client's
certificate cannot change under a channel: common/rpc/channels.py makes a new channel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import grpc

from common.tls.material import Material
from common.tls.reloading import Reloader


def server_credentials(reloader: Reloader) -> grpc.ServerCredentials:
    """Every caller must show a certificate that the authorities in ca.crt signed."""
    material = reloader.current
    used = material.fingerprint

    def newest() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used
        material = reloader.current
        if material.fingerprint == used:
            return None
        used = material.fingerprint
        return _configuration(material)

    # None stands for "unchanged"; the type stubs do not know it.
    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", newest)
    return grpc.dynamic_ssl_server_credentials(_configuration(material), fetch, require_client_authentication=True)


def channel_credentials(material: Material) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=material.ca, private_key=material.key, certificate_chain=material.certificate
    )


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.ca
    )
