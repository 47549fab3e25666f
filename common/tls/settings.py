"""Where a process finds its certificate, its key, and the authority that it trusts."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field

from common.boundary.identities import TRUST_DOMAIN
from common.settings import Config

CERTIFICATE, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"  # Kubernetes' names
DEFAULT_TRUST_DOMAIN = "seal.internal"


class TlsSettings(Config):
    """Three PEM files. They are read again while the process runs, so they may be replaced at any time."""

    certificate: Path = Field(description="PEM file: this process's certificate, then any intermediate ones")
    key: Path = Field(description="PEM file: its private key, without a passphrase")
    ca: Path = Field(description="PEM file: the certificates of the authorities that peers must be signed by")
    trust_domain: str = Field(
        default=DEFAULT_TRUST_DOMAIN, pattern=f"^{TRUST_DOMAIN}$", description="of spiffe://TRUST_DOMAIN/ROLE"
    )
    reload_seconds: float = Field(default=10.0, gt=0, le=3_600, description="how often the files are looked at")

    @classmethod
    def of_folder(cls, folder: Path, trust_domain: str = DEFAULT_TRUST_DOMAIN) -> Self:
        """The settings for a folder with tls.crt, tls.key and ca.crt."""
        return cls(certificate=folder / CERTIFICATE, key=folder / KEY, ca=folder / AUTHORITY, trust_domain=trust_domain)
