"""Who called, for whoever answers: set by the authorization interceptor, read by servicers."""

from __future__ import annotations

from contextvars import ContextVar

from common.boundary.identities import Identity, Role

# In plain text, on loopback, everybody is this machine's operator.
UNNAMED_OPERATOR = Identity(Role.OPERATOR)
_caller: ContextVar[Identity] = ContextVar("caller", default=UNNAMED_OPERATOR)


def caller() -> Identity:
    """The identity of the call that this task answers."""
    return _caller.get()


def set_caller(identity: Identity) -> None:
    """gRPC answers each call in a task of its own, so this ends with the call."""
    _caller.set(identity)
