"""The one place that maps exceptions to gRPC status codes, and back.

An error travels as google.rpc.Status with an ErrorInfo (reason and ids) and, for a bad request, every field violation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from common import errors
from common.errors import SealError, Violation

DOMAIN = "seal.v1"

# A status travels in HTTP/2 trailers. gRPC throws a call away whose trailers are larger than its peer takes (8 KiB by
# default), and the caller then hears of that and not of what was wrong. The message goes twice, details once as base64.
MOST_MESSAGE_BYTES = 768
MOST_VIOLATION_BYTES = 2_048
MOST_ID_BYTES = 160
MOST_IDS = 4

# A peer may ask to be left alone, not for ever: it need not be honest, and a run waits for it.
MOST_RETRY_SECONDS = 60.0

# Most specific first: the first class that fits decides, in both directions.
CODES: tuple[tuple[type[SealError], grpc.StatusCode], ...] = (
    (errors.InvalidRequest, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.InvalidConfig, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.Unauthenticated, grpc.StatusCode.UNAUTHENTICATED),
    (errors.NotAllowed, grpc.StatusCode.PERMISSION_DENIED),
    (errors.NotFound, grpc.StatusCode.NOT_FOUND),
    (errors.Conflict, grpc.StatusCode.ALREADY_EXISTS),
    (errors.StaleGeneration, grpc.StatusCode.ABORTED),
    (errors.NotPossible, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.TooMuch, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.Corrupt, grpc.StatusCode.DATA_LOSS),
    (errors.Unavailable, grpc.StatusCode.UNAVAILABLE),
    (errors.Expired, grpc.StatusCode.DEADLINE_EXCEEDED),
    (errors.Cancelled, grpc.StatusCode.CANCELLED),
    (SealError, grpc.StatusCode.INTERNAL),
)
CLASSES = {code: error for error, code in reversed(CODES) if error is not errors.InvalidConfig}


def code_of(error: SealError) -> grpc.StatusCode:
    return next(code for cls, code in CODES if isinstance(error, cls))


def to_status(error: SealError) -> status_pb2.Status:
    """The status that tells a caller about `error`."""
    ids = {cut(name, MOST_ID_BYTES): cut(value, MOST_ID_BYTES) for name, value in list(error.ids.items())[:MOST_IDS]}
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=ids)
    details = [_packed(info)]
    if isinstance(error, errors.InvalidRequest):
        bad = error_details_pb2.BadRequest()
        for violation in told(error.violations):
            bad.field_violations.add(field=violation.path, description=violation.reason)
        details.append(_packed(bad))
    if isinstance(error, errors.Overloaded):
        hint = error_details_pb2.RetryInfo()
        hint.retry_delay.FromMilliseconds(round(error.retry_seconds * 1_000))
        details.append(_packed(hint))
    number: int = code_of(error).value[0]
    return status_pb2.Status(code=number, message=cut(error.message, MOST_MESSAGE_BYTES), details=details)


def told(violations: Sequence[Violation]) -> list[Violation]:
    """As many violations as a status has room for; the last entry says how many more there are."""
    room = MOST_VIOLATION_BYTES
    shown: list[Violation] = []
    for violation in violations:
        short = Violation(cut(violation.path, MOST_VIOLATION_BYTES // 4), cut(violation.reason, MOST_MESSAGE_BYTES))
        room -= len(short.path.encode()) + len(short.reason.encode()) + 8  # tags and lengths
        if room < 0:
            left = len(violations) - len(shown)
            return [*shown, Violation("request", f"{left} more violations; a status has no room for them")]
        shown.append(short)
    return shown


def cut(text: str, most: int) -> str:
    """The text, or its beginning: what gRPC makes at most so many bytes of (three of one that is not printable)."""
    room = most
    for place, character in enumerate(text):
        room -= 1 if " " <= character <= "~" else 3 * len(character.encode())
        if room < 0:
            return f"{text[:place]}..."
    return text


def from_rpc_error(error: grpc.RpcError) -> SealError:
    """The exception that a peer's status stands for."""
    code = error.code() if hasattr(error, "code") else grpc.StatusCode.UNKNOWN
    message = (error.details() if hasattr(error, "details") else None) or str(code.name)
    info, violations, retry_seconds = _details(error)
    cls = CLASSES.get(code, SealError)
    if cls is errors.InvalidRequest:
        return errors.InvalidRequest(violations or [Violation("request", message)])
    if cls is errors.TooMuch and retry_seconds is not None:
        return errors.Overloaded(message, retry_seconds=retry_seconds, reason=info.reason, ids=dict(info.metadata))
    return cls(message, reason=info.reason or code.name, ids=dict(info.metadata))


@contextmanager
def remote_errors() -> Iterator[None]:
    """Turns a peer's RpcError into the SealError that it stands for."""
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error) from error


def _packed(message: Message) -> Any:
    packed = Any()
    packed.Pack(message)
    return packed


def _details(error: grpc.RpcError) -> tuple[error_details_pb2.ErrorInfo, list[Violation], float | None]:
    info, bad, hint = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    hinted = False
    status = rpc_status.from_call(cast("grpc.Call", error)) if hasattr(error, "trailing_metadata") else None
    for detail in status.details if status is not None else ():
        for known in (info, bad, hint):
            if detail.Is(known.DESCRIPTOR):
                detail.Unpack(known)
                hinted = hinted or known is hint
    violations = [Violation(v.field, v.description) for v in bad.field_violations]
    seconds = min(max(hint.retry_delay.ToMilliseconds() / 1_000, 0.0), MOST_RETRY_SECONDS)
    return info, violations, seconds if hinted else None
