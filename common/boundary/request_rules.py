"""What the allow table cannot say by RPC alone: which requests a caller may make, and what a scheduler is not told.

The application speaks for people who use the model: it may ask the live version, as they do, and no other. The
scheduler orders runs by the auditor's own bounds and watches them, without questions, keys or answers: whoever can
start its job must not be able to loosen what an update is judged by. Used by common/rpc/authorization.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from common.boundary.identities import Role
from common.contract.seal.v1 import student_pb2

LIVE = "live"


# How much is tried, not by what it is judged.
SCHEDULED_SETTINGS = frozenset({"rounds", "candidates", "seeds", "seed"})


def _answer(request: Any) -> str:
    if request.purpose != student_pb2.ANSWER_PURPOSE_LIVE:
        return "may ask the live version alone: purpose must be ANSWER_PURPOSE_LIVE"
    return "" if list(request.versions) == [LIVE] else "may ask the live version alone: versions must be live alone"


def _ask(request: Any) -> str:
    return "" if request.version in ("", LIVE) else "may ask the live version alone: version must be live or empty"


def _order(request: Any) -> str:
    others = sorted(field.name for field, _ in request.settings.ListFields() if field.name not in SCHEDULED_SETTINGS)
    return f"may not set what a run is judged by: settings.{others[0]} is the auditor's to set" if others else ""


def _without_questions(response: Any) -> None:
    response.ClearField("holdout_results")


# By role and method. A request: why it is refused and what is wrong with it, or nothing. A response: takes out what the
# caller may not see.
REQUESTS: Mapping[tuple[Role, str], tuple[str, Callable[[Any], str]]] = {
    (Role.APPLICATION, "/seal.v1.StudentService/Answer"): ("LIVE_ONLY", _answer),
    (Role.APPLICATION, "/seal.v1.AuditorService/Ask"): ("LIVE_ONLY", _ask),
    (Role.SCHEDULER, "/seal.v1.AuditorService/StartRun"): ("AUDITORS_BOUNDS", _order),
}
RESPONSES: Mapping[tuple[Role, str], Callable[[Any], None]] = {
    (Role.SCHEDULER, "/seal.v1.AuditorService/GetRun"): _without_questions,
}
