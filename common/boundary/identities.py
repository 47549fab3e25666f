"""Who a caller is: a SPIFFE ID, spiffe://TRUST_DOMAIN/ROLE or .../ROLE/NAME, which is the URI SAN of its certificate.

NAME tells people apart: an operator's certificate is one person's, and what he decides is recorded under both.
(SPIFFE ID, section 2: https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

SCHEME = "spiffe://"
TRUST_DOMAIN = r"[a-z0-9._-]{1,255}"
NAME = r"[A-Za-z0-9._-]{1,64}"


class Role(StrEnum):
    """What a caller may be. SCHEDULER starts runs unattended, and sees neither questions nor edits."""

    TEACHER = "teacher"
    STUDENT = "student"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    APPLICATION = "application"
    SCHEDULER = "scheduler"


PATTERN = re.compile(rf"{SCHEME}(?P<domain>{TRUST_DOMAIN})/(?P<role>{'|'.join(Role)})(/(?P<name>{NAME}))?")


@dataclass(frozen=True)
class Identity:
    """A caller. `name` is empty where the role says it all; never of an operator who shows a certificate."""

    role: Role
    name: str = ""

    def __str__(self) -> str:
        """As it is recorded: operator/alice, auditor."""
        return f"{self.role}/{self.name}" if self.name else str(self.role)

    def uri(self, trust_domain: str) -> str:
        return f"{SCHEME}{trust_domain}/{self}"

    def host(self, trust_domain: str) -> str:
        """The DNS SAN by which a client knows a server: gRPC compares hosts, not URIs. It names the role alone."""
        return f"{self.role}.{trust_domain}"

    @classmethod
    def of_uri(cls, uri: str, trust_domain: str) -> Self | None:
        """The identity that a URI SAN names; None for another trust domain and for what is no identity of ours.

        An operator without a name is none: nobody could say later who decided.
        """
        found = PATTERN.fullmatch(uri)
        if found is None or found["domain"] != trust_domain:
            return None
        identity = cls(Role(found["role"]), found["name"] or "")
        return None if identity == cls(Role.OPERATOR) else identity
