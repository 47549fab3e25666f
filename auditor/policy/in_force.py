"""The policy of a run: what was in force when it started, whatever the auditor was restarted with since."""

from __future__ import annotations

import json

from auditor.crew import load
from auditor.events import RunStarted
from auditor.policy.model import PolicyModel
from auditor.policy.rules import Rules, forbidding
from auditor.recorder import Recorder
from common.errors import NotPossible


async def rules_in_force(recorder: Recorder, start: RunStarted) -> Rules:
    """The rules that a run started with. Raises NotPossible(PAYLOAD_ERASED)."""
    if not start.record.rules:
        return Rules(rules=forbidding(start.record.forbidden))
    return Rules.model_validate(json.loads(await load(recorder, start.record.rules)))


def policy_model_in_force(start: RunStarted, configured: PolicyModel | None) -> PolicyModel | None:
    """The policy model that a run started with. Raises NotPossible(POLICY_CHANGED) when that one is not at hand."""
    if not start.record.policy_model:
        return None
    if configured is None or configured.identity != start.record.policy_model:
        what = "the policy model or its instructions are not those that the run started with"
        raise NotPossible(what, reason="POLICY_CHANGED")
    return configured
