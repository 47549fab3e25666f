"""Asks every RPC of the contract as everybody who may not and as everybody who may: for tests and `make boundary`."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from cli.certificates import Authority
from common.boundary.allow_table import RPCS
from common.boundary.identities import Identity, Role
from common.contract.seal.v1 import student_pb2
from common.rpc.client import open_channel
from common.tls.settings import TlsSettings
from tests.boundary.instant import SERVICES, Instant, Rpc, instant_services, rpcs

REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE}
# A connection of its own for every call: one that failed before must not answer for the next.
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
# What callers without a right certificate of ours have: none of it opens a connection.
STRANGERS = ("plain text", "no certificate", "wrong CA", "expired certificate")
# The rest get one, and are told why they are refused.
EXPECTED = {
    "foreign trust domain": grpc.StatusCode.UNAUTHENTICATED,
    "two identities": grpc.StatusCode.UNAUTHENTICATED,
    "operator without a name": grpc.StatusCode.UNAUTHENTICATED,
    "wrong identity": grpc.StatusCode.PERMISSION_DENIED,
}

NAMES = {Role.OPERATOR: "alice"}  # whose certificate must have one


@dataclass
class Refusals:
    """`refused` by kind of caller; `mistakes` says what was let through or turned away wrongly."""

    rpcs: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    admitted: int = 0
    mistakes: list[str] = field(default_factory=list)

    @property
    def refused_wrong_identity(self) -> int:
        """Calls with a right certificate whose role the table does not name."""
        return self.refused["wrong identity"]


async def refusals() -> Refusals:
    """Every RPC x every caller, against real servers."""
    found = Refusals()
    with tempfile.TemporaryDirectory() as folder:
        async with instant_services(Path(folder)) as services:
            strangers = _strangers(services, Path(folder))
            unnamed = _unnamed(services, Path(folder))
            for rpc in rpcs():
                found.rpcs += 1
                for kind in STRANGERS:
                    await _refused(found, services, rpc, kind, strangers[kind])
                for kind, credentials in unnamed.items():
                    await _refused(found, services, rpc, kind, credentials)
                for role in Role:
                    await _as_role(found, services, rpc, role)
            await _impostors(found, services)
    return found


def _unnamed(services: Instant, folder: Path) -> dict[str, grpc.ChannelCredentials]:
    """Signed by the right authority, and no identity of this trust domain: one authority may serve several."""
    ours = services.authority
    other = Authority("elsewhere.internal", ours.certificate, ours.key)
    auditor, operator = (Identity(role).uri(ours.trust_domain) for role in (Role.AUDITOR, Role.OPERATOR))
    made = {
        "foreign trust domain": other.issue(folder / "foreign", Role.AUDITOR),
        "two identities": with_uris(ours, folder / "two", auditor, f"{operator}/alice"),
        "operator without a name": ours.issue(folder / "nameless", Role.OPERATOR),
    }
    return {kind: _credentials(TlsSettings.of_folder(own)) for kind, own in made.items()}


def with_uris(authority: Authority, folder: Path, *uris: str) -> Path:
    """A certificate with these URI SANs, which `seal certificates` never makes."""
    return with_names(
        authority, folder, x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
    )


def with_names(authority: Authority, folder: Path, names: x509.ExtensionType) -> Path:
    authority.issue(folder, Role.AUDITOR)
    leaf = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
    now = datetime.now(tz=UTC)
    certificate = (
        x509.CertificateBuilder(leaf.issuer, leaf.subject, leaf.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(names, critical=False)
        .sign(authority.key, SHA256())
    )
    (folder / "tls.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
    return folder


def _strangers(services: Instant, folder: Path) -> dict[str, grpc.ChannelCredentials | None]:
    # Each would be the auditor, whom most RPCs admit, and trusts the services.
    wrong, expired = folder / "wrong-ca", folder / "expired"
    Authority.create().issue(wrong, Role.AUDITOR)
    (wrong / "ca.crt").write_bytes(services.authority.pem)
    services.authority.issue(
        expired, Role.AUDITOR, valid=timedelta(hours=1), not_before=datetime.now(tz=UTC) - timedelta(hours=2)
    )
    return {
        "plain text": None,
        "no certificate": grpc.ssl_channel_credentials(root_certificates=services.authority.pem),
        "wrong CA": _credentials(TlsSettings.of_folder(wrong)),
        "expired certificate": _credentials(TlsSettings.of_folder(expired)),
    }


def _credentials(tls: TlsSettings) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        tls.ca.read_bytes(), private_key=tls.key.read_bytes(), certificate_chain=tls.certificate.read_bytes()
    )


async def _refused(
    found: Refusals,
    services: Instant,
    rpc: Rpc,
    kind: str,
    credentials: grpc.ChannelCredentials | None,
) -> None:
    before = services.reached.total()
    code = await _status(services.targets[rpc.role], rpc, credentials)
    if code is not EXPECTED.get(kind, grpc.StatusCode.UNAVAILABLE) or services.reached.total() != before:
        found.mistakes.append(f"{rpc.path} as {kind}: {code.name}")
    else:
        found.refused[kind] += 1


async def _as_role(found: Refusals, services: Instant, rpc: Rpc, role: Role) -> None:
    credentials = _credentials(services.certificate(role, NAMES.get(role, "")))
    if role not in RPCS[rpc.path]:
        await _refused(found, services, rpc, "wrong identity", credentials)
        return
    before = services.reached[rpc.path]
    code = await _status(services.targets[rpc.role], rpc, credentials, _request(rpc, role))
    if code in REFUSED or services.reached[rpc.path] != before + 1:
        found.mistakes.append(f"{rpc.path} as {role}, whom the table names: {code.name}")
    else:
        found.admitted += 1


def _request(rpc: Rpc, role: Role) -> Any:
    """What the role may ask."""
    if role is Role.APPLICATION and rpc.method.name == "Answer":
        return student_pb2.AnswerRequest(purpose=student_pb2.ANSWER_PURPOSE_LIVE, versions=["live"])
    return rpc.request


async def _status(
    target: str, rpc: Rpc, credentials: grpc.ChannelCredentials | None, request: Any = None
) -> grpc.StatusCode:
    made = (
        grpc.aio.insecure_channel(target, options=OPTIONS)
        if credentials is None
        else grpc.aio.secure_channel(target, credentials, options=OPTIONS)
    )
    async with made as channel:
        try:
            await rpc.call(channel, request)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return grpc.StatusCode.OK


async def _impostors(found: Refusals, services: Instant) -> None:
    """A service that answers in another's place: its caller goes away before it has sent anything."""
    for real in SERVICES:
        for expected in SERVICES:
            rpc = next(rpc for rpc in rpcs() if rpc.role is expected)
            role = Role.AUDITOR if expected is not Role.AUDITOR else Role.OPERATOR
            caller = services.certificate(role, NAMES.get(role, ""))
            before = services.reached.total()
            async with open_channel(services.targets[real], tls=caller, expects=expected) as channel:
                try:
                    await rpc.call(channel)
                    code = grpc.StatusCode.OK
                except grpc.aio.AioRpcError as error:
                    code = error.code()
            if real is expected and code is not grpc.StatusCode.OK:
                found.mistakes.append(f"the {real} was not taken for itself: {code.name}")
            if real is not expected:
                if code is not grpc.StatusCode.UNAVAILABLE or services.reached.total() != before:
                    found.mistakes.append(f"the {real} was taken for the {expected}: {code.name}")
                else:
                    found.refused["impostor"] += 1
