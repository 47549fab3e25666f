"""A certificate authority for development and tests, and what it issues: one folder an identity.

A folder holds tls.crt, tls.key and ca.crt. A certificate names its bearer as spiffe://TRUST_DOMAIN/ROLE[/NAME] (URI
SAN), which is what servers authorize, and as ROLE.TRUST_DOMAIN and its hosts (DNS and IP SANs), which is what clients
check of a server. In a cluster an issuer of the cluster's own takes this module's place; docs/security.md says how.
Used by `seal certificates` and tests.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.boundary.identities import Identity, Role
from common.files import write_atomically
from common.tls.settings import AUTHORITY, CERTIFICATE, DEFAULT_TRUST_DOMAIN, KEY

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
LEAF_VALID = timedelta(days=90)
AUTHORITY_VALID = timedelta(days=3_650)
CLOCKS_DIFFER = timedelta(minutes=5)
SERVICES = (Role.TEACHER, Role.STUDENT, Role.AUDITOR)
AUTHORITY_CERTIFICATE, AUTHORITY_KEY = "ca.crt", "ca.key"


@dataclass(frozen=True)
class Authority:
    """A self-signed EC P-256 authority of one trust domain."""

    trust_domain: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, trust_domain: str = DEFAULT_TRUST_DOMAIN, *, valid: timedelta = AUTHORITY_VALID) -> Self:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, "SEAL development authority"),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, trust_domain),
            ]
        )
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        now = datetime.now(tz=UTC)
        certificate = (
            _builder(name, name, key, now - CLOCKS_DIFFER, now + valid)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            # By this an authority and the one that takes over from it are told apart: they have the same name.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, SHA256())
        )
        return cls(trust_domain, certificate, key)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raises OSError or ValueError when the folder holds no authority."""
        certificate = x509.load_pem_x509_certificate((folder / AUTHORITY_CERTIFICATE).read_bytes())
        key = load_pem_private_key((folder / AUTHORITY_KEY).read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the authority's key is not of an elliptic curve")
        domain = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value
        return cls(str(domain), certificate, key)

    def save(self, folder: Path) -> None:
        """Whoever reads ca.key can be anybody: only its owner may."""
        write_atomically(folder / AUTHORITY_KEY, _key_pem(self.key))  # temporary files are the owner's alone
        _write_public(folder / AUTHORITY_CERTIFICATE, self.pem)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        folder: Path,
        role: Role,
        name: str = "",
        *,
        hosts: Sequence[str] = LOCAL_HOSTS,
        valid: timedelta = LEAF_VALID,
        not_before: datetime | None = None,
        also_trust: Sequence[bytes] = (),
    ) -> Path:
        """Writes a new key and certificate to `folder`, each file whole or not at all.

        `valid` counts from now, or from `not_before` where that is given. `also_trust`: PEM certificates of further
        authorities for ca.crt, which is how one authority takes over from another.
        """
        identity = Identity(role, name)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(tz=UTC)
        start = not_before or now - CLOCKS_DIFFER
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if role in SERVICES:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(identity))])
        certificate = (
            _builder(subject, self.certificate.subject, key, start, (not_before or now) + valid)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName(
                    [
                        x509.UniformResourceIdentifier(identity.uri(self.trust_domain)),
                        x509.DNSName(identity.host(self.trust_domain)),
                        *(_host(host) for host in hosts),
                    ]
                ),
                critical=False,
            )
            .sign(self.key, SHA256())
        )
        write_atomically(folder / KEY, _key_pem(key))
        _write_public(folder / CERTIFICATE, certificate.public_bytes(Encoding.PEM))
        _write_public(folder / AUTHORITY, b"".join((self.pem, *also_trust)))
        return folder


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_public(path: Path, pem: bytes) -> None:
    write_atomically(path, pem)
    path.chmod(0o644)
