"""What the three files hold, read as one: nothing is used that does not fit together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from common.boundary.identities import PATTERN, Identity
from common.errors import InvalidConfig
from common.tls.settings import TlsSettings


@dataclass(frozen=True)
class Material:
    """Certificate, key and authorities as bytes, who they name, and until when they hold."""

    certificate: bytes
    key: bytes
    ca: bytes
    identity: Identity
    leaf_expires: datetime
    ca_expires: datetime

    @property
    def fingerprint(self) -> str:
        """Changes when any of the three files does."""
        return hashlib.sha256(b"\0".join((self.certificate, self.key, self.ca))).hexdigest()


def read_material(settings: TlsSettings) -> Material:
    """Raises InvalidConfig that names the file and what is wrong with it."""
    certificate, key, ca = (
        _read(name, path)
        for name, path in (
            ("tls.certificate", settings.certificate),
            ("tls.key", settings.key),
            ("tls.ca", settings.ca),
        )
    )
    leaf = _certificates("tls.certificate", settings.certificate, certificate)[0]
    authorities = _certificates("tls.ca", settings.ca, ca)
    _check_key(settings, leaf, key)
    now = datetime.now(tz=UTC)
    _check_time("tls.certificate", settings.certificate, leaf, now)
    ca_expires = max(authority.not_valid_after_utc for authority in authorities)
    if ca_expires <= now:
        raise InvalidConfig(f"tls.ca: {settings.ca}: expired on {ca_expires:%Y-%m-%d %H:%M} UTC")
    return Material(certificate, key, ca, _identity(settings, leaf), leaf.not_valid_after_utc, ca_expires)


def identities_of(certificate: x509.Certificate, trust_domain: str) -> list[Identity]:
    """Every identity of the trust domain that a certificate's URI SANs name."""
    found = (Identity.of_uri(uri, trust_domain) for uri in _uris(certificate))
    return [identity for identity in found if identity is not None]


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def trust_domain_of(path: Path) -> str:
    """The trust domain that a certificate is of. Raises InvalidConfig."""
    leaf = _certificates("tls.certificate", path, _read("tls.certificate", path))[0]
    for uri in _uris(leaf):
        if (found := PATTERN.fullmatch(uri)) is not None:
            return found["domain"]
    raise InvalidConfig(f"tls.certificate: {path}: names no identity (a URI SAN spiffe://TRUST_DOMAIN/ROLE)")


def _identity(settings: TlsSettings, leaf: x509.Certificate) -> Identity:
    found = identities_of(leaf, settings.trust_domain)
    if len(found) != 1:
        raise InvalidConfig(
            f"tls.certificate: {settings.certificate}: must have one URI SAN spiffe://{settings.trust_domain}/ROLE,"
            f" has {len(found)}; is tls.trust_domain right?"
        )
    return found[0]


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidConfig(f"{name}: {path}: cannot be read: {error.strerror}") from None


def _certificates(name: str, path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise InvalidConfig(f"{name}: {path}: holds no PEM certificate, or half of one") from None


def _check_key(settings: TlsSettings, leaf: x509.Certificate, pem: bytes) -> None:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        raise InvalidConfig(f"tls.key: {settings.key}: holds no PEM key that opens without a passphrase") from None
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise InvalidConfig(f"tls.key: {settings.key}: is not the key of {settings.certificate}")


def _check_time(name: str, path: Path, certificate: x509.Certificate, now: datetime) -> None:
    if certificate.not_valid_after_utc <= now:
        raise InvalidConfig(f"{name}: {path}: expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if certificate.not_valid_before_utc > now:
        raise InvalidConfig(f"{name}: {path}: holds from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on")
