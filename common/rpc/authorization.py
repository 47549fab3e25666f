"""Lets through who the allow table names, and nobody else.

What always holds under TLS: nothing is read of a call before its caller's one identity, its certificate's time and its
RPC have been checked (common/boundary). Where the table alone does not say enough, common/rpc/reading.py checks the
request. Without TLS, which is loopback alone, everybody is the operator.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import grpc
from cryptography import x509

from common.boundary.allow_table import RPCS
from common.boundary.identities import Identity
from common.errors import NotAllowed, SealError, Unauthenticated
from common.rpc.caller import set_caller
from common.rpc.interceptors import refuse
from common.rpc.wrapping import Context, unseen, wrapped

# What gRPC calls a certificate's only URI SAN, if it is a SPIFFE ID, and the certificate.
SPIFFE_ID, CERTIFICATE = "peer_spiffe_id", "x509_pem_cert"


class AuthorizationInterceptor(grpc.aio.ServerInterceptor):
    """Stands inside the interceptor that maps errors; of `/grpc.` methods, which that one leaves alone, it refuses."""

    def __init__(self, trust_domain: str) -> None:
        self._trust_domain = trust_domain

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        method = str(handler_call_details.method)

        @asynccontextmanager
        async def admitted(_: Any, context: Context) -> AsyncIterator[Callable[[Any], None]]:
            await self._admit(method, context)
            yield unseen

        return wrapped(handler, admitted)

    async def _admit(self, method: str, context: Context) -> None:
        try:
            identity = identity_of(context, self._trust_domain)
            check(identity, method)
        except SealError as error:
            if method.startswith("/grpc."):
                await refuse(context, error)
            raise
        set_caller(identity)


def check(identity: Identity, method: str) -> None:
    """Raises NotAllowed unless the table names the method for the identity's role."""
    if identity.role not in RPCS.get(method, frozenset()):
        ids = {"identity": str(identity), "method": method}
        raise NotAllowed(f"{identity} may not call {method}", ids=ids)


def identity_of(context: Context, trust_domain: str) -> Identity:
    """Raises Unauthenticated when the certificate names nobody here, or has expired since the connection was made."""
    shown = context.auth_context()
    uris = [uri.decode("utf-8", "replace") for uri in shown.get(SPIFFE_ID, ())]
    identity = Identity.of_uri(uris[0], trust_domain) if len(uris) == 1 else None
    if identity is None:
        raise Unauthenticated(
            f"the certificate must have one URI SAN, spiffe://{trust_domain}/ROLE or .../ROLE/NAME;"
            " an operator's must have a name",
            reason="NO_IDENTITY",
        )
    for pem in shown.get(CERTIFICATE, ()):
        if _expires(pem) <= datetime.now(tz=UTC):
            raise Unauthenticated(f"the certificate of {identity} has expired", reason="CERTIFICATE_EXPIRED")
    return identity


@lru_cache(maxsize=1_024)
def _expires(pem: bytes) -> datetime:
    return x509.load_pem_x509_certificate(pem).not_valid_after_utc
