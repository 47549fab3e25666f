"""What the allow table cannot say by RPC alone: which requests an application may make, what a scheduler is not told.

The application speaks for people who use the model: it may ask the live version, as they do, and no other. The
scheduler orders runs and watches them, without questions, keys or answers. Used by common/rpc/authorization.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from common.boundary.identities import Role
from common.contract.seal.v1 import student_pb2

LIVE = "live"


def _answer(request: Any) -> str:
    if request.purpose != student_pb2.ANSWER_PURPOSE_LIVE:
        return "purpose must be ANSWER_PURPOSE_LIVE"
    return "" if list(request.versions) == [LIVE] else "versions must be live alone"


def _ask(request: Any) -> str:
    return "" if request.version in ("", LIVE) else "version must be live or empty"


def _without_questions(response: Any) -> None:
    response.ClearField("holdout_results")


# By role and method. A request: what is wrong with it, or nothing. A response: takes out what the caller may not see.
REQUESTS: Mapping[tuple[Role, str], Callable[[Any], str]] = {
    (Role.APPLICATION, "/seal.v1.StudentService/Answer"): _answer,
    (Role.APPLICATION, "/seal.v1.AuditorService/Ask"): _ask,
}
RESPONSES: Mapping[tuple[Role, str], Callable[[Any], None]] = {
    (Role.SCHEDULER, "/seal.v1.AuditorService/GetRun"): _without_questions,
}
