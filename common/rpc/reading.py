"""Bytes that are no message: refused as any other bad request, and not as a defect of the service.

Left to itself gRPC answers them with UNKNOWN and logs a traceback. An interceptor puts `lenient` in place of a method's
deserializer and refuses what comes out as Unreadable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from common.errors import InvalidRequest, Violation


@dataclass(frozen=True)
class Unreadable:
    """Stands for a request that could not be parsed."""

    size_bytes: int

    def refusal(self) -> InvalidRequest:
        reason = f"its {self.size_bytes} bytes are no message of this method; was it made from the same contract?"
        return InvalidRequest([Violation("request", reason)])


def lenient(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """The deserializer, but for what it does with bytes that it cannot read."""
    if deserialize is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return Unreadable(len(data))

    return read


def readable(request: Any) -> Any:
    """The request. Raises InvalidRequest for one that could not be parsed."""
    if isinstance(request, Unreadable):
        raise request.refusal()
    return request
