"""What the three files hold, read as one: nothing is used that does not fit together."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from common.boundary.identities import PATTERN, Identity
from common.errors import InvalidConfig
from common.tls.settings import TlsSettings

# What bytes that are no certificate or key make the library raise: at any step, as it reads lazily.
UNUSABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    InternalError,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


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


def _uris(path: Path, certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return list(names.get_values_for_type(x509.UniformResourceIdentifier))
    except x509.ExtensionNotFound:
        return []
    except UNUSABLE:
        raise InvalidConfig(f"tls.certificate: {path}: its subject alternative names cannot be read") from None


def trust_domain_of(path: Path) -> str:
    """The trust domain that a certificate is of. Raises InvalidConfig."""
    leaf = _certificates("tls.certificate", path, _read("tls.certificate", path))[0]
    for uri in _uris(path, leaf):
        if (found := PATTERN.fullmatch(uri)) is not None:
            return found["domain"]
    raise InvalidConfig(f"tls.certificate: {path}: names no identity (a URI SAN spiffe://TRUST_DOMAIN/ROLE)")


def _identity(settings: TlsSettings, leaf: x509.Certificate) -> Identity:
    uris = _uris(settings.certificate, leaf)
    identity = Identity.of_uri(uris[0], settings.trust_domain) if len(uris) == 1 else None
    if identity is None:  # a peer refuses the same: a second URI SAN of any kind hides the first from it
        raise InvalidConfig(
            f"tls.certificate: {settings.certificate}: must have one URI SAN and no other,"
            f" spiffe://{settings.trust_domain}/ROLE (of an operator .../operator/NAME),"
            f" and has {', '.join(uris) or 'none'}; is tls.trust_domain right?"
        )
    return identity


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidConfig(f"{name}: {path}: cannot be read: {error.strerror}") from None


def _certificates(name: str, path: Path, pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except UNUSABLE:
        raise InvalidConfig(f"{name}: {path}: holds no PEM certificate, or half of one") from None


def _check_key(settings: TlsSettings, leaf: x509.Certificate, pem: bytes) -> None:
    try:
        key = load_pem_private_key(pem, password=None)
    except UNUSABLE:
        raise InvalidConfig(f"tls.key: {settings.key}: holds no PEM key that opens without a passphrase") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise InvalidConfig(f"tls.key: {settings.key}: must be an EC or RSA key: gRPC's TLS takes no other kind")
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    try:
        fits = key.public_key().public_bytes(*form) == leaf.public_key().public_bytes(*form)
    except UNUSABLE:
        fits = False
    if not fits:
        raise InvalidConfig(f"tls.key: {settings.key}: is not the key of {settings.certificate}")


def _check_time(name: str, path: Path, certificate: x509.Certificate, now: datetime) -> None:
    if certificate.not_valid_after_utc <= now:
        raise InvalidConfig(f"{name}: {path}: expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if certificate.not_valid_before_utc > now:
        raise InvalidConfig(f"{name}: {path}: holds from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on")
