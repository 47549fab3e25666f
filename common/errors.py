"""The project's exceptions: one small hierarchy that knows nothing of gRPC.

common/rpc/status.py maps each class to a status code. Messages carry ids and field names, never passages, answers or
tensors: they travel to callers and into logs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Violation:
    """One field that breaks a limit: its path in the request, and what is wrong."""

    path: str
    reason: str


class SealError(Exception):
    """Base class. `reason` is a constant for machines, UPPER_SNAKE_CASE; `ids` name what it is about."""

    reason = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None, ids: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.ids = dict(ids or {})

    def __reduce__(self) -> tuple[Any, ...]:
        """Whole, for another process: some kinds are made of more than their message."""
        return _as_it_was, (type(self), self.args), self.__dict__


def _as_it_was(kind: type[SealError], arguments: tuple[Any, ...]) -> SealError:
    return kind.__new__(kind, *arguments)


class InvalidRequest(SealError):
    """The request breaks a limit. Every violation is named."""

    reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{v.path}: {v.reason}" for v in violations))
        self.violations = tuple(violations)


class InvalidConfig(SealError):
    """The configuration cannot be used; the message names file and key."""

    reason = "INVALID_CONFIG"


class Unauthenticated(SealError):
    """The caller's certificate does not say who it is."""

    reason = "NO_IDENTITY"


class NotAllowed(SealError):
    """The caller is known, and the allow table does not name it."""

    reason = "NOT_ALLOWED"


class NotFound(SealError):
    reason = "NOT_FOUND"


class Conflict(SealError):
    """The same id came with other content."""

    reason = "ID_REUSED"


class StaleGeneration(SealError):
    """A compare-and-swap lost: the caller saw an older state."""

    reason = "STALE_GENERATION"


class NotPossible(SealError):
    """Well-formed, but not in the present state."""

    reason = "FAILED_PRECONDITION"


class TooMuch(SealError):
    """Over a limit of load or size that may be free again later."""

    reason = "RESOURCE_EXHAUSTED"


class Overloaded(TooMuch):
    """Refused before any work was done; worth another try after `retry_seconds`."""

    reason = "OVERLOADED"

    def __init__(
        self, message: str, *, retry_seconds: float, reason: str | None = None, ids: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message, reason=reason, ids=ids)
        self.retry_seconds = retry_seconds


class Corrupt(SealError):
    """Stored bytes do not match their digest, or a stored file cannot be read."""

    reason = "DATA_CORRUPT"


class Unavailable(SealError):
    """A peer cannot be reached; worth another try."""

    reason = "UNAVAILABLE"


class Expired(SealError):
    """The deadline passed."""

    reason = "DEADLINE_EXCEEDED"


class Cancelled(SealError):
    """The caller, or an operator, called it off."""

    reason = "CANCELLED"
