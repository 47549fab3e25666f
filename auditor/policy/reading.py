"""Has the policy model read a batch of edits, each once a run: a verdict in the ledger is never asked for again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from auditor.events import PolicyJudged
from auditor.findings import Gate, GateKind
from auditor.journal import Journal
from auditor.policy.model import PolicyModel
from common.metrics import timed
from common.types import SelfEdit


async def read_by_model(model: PolicyModel, journal: Journal, edits: Sequence[SelfEdit]) -> dict[str, Gate]:
    """A finding for each edit, by its digest. Raises Unavailable or NotPossible when the model cannot be asked."""

    async def judge(edit: SelfEdit) -> PolicyJudged:
        said = await model.verdict(edit)
        return PolicyJudged(edit=edit.digest.sha256, model=model.identity, allowed=said.allowed, reason=said.reason)

    with timed("policy"):
        asked = [journal.step(f"policy/{edit.digest.sha256}", partial(judge, edit)) for edit in edits]
        # All of them end before one that failed is told: what was said meanwhile is in the ledger.
        found = await asyncio.gather(*asked, return_exceptions=True)
    verdicts: list[PolicyJudged] = []
    for outcome in found:
        if isinstance(outcome, BaseException):
            raise outcome
        verdicts.append(outcome)
    return {verdict.edit: finding(verdict, model.name) for verdict in verdicts}


def finding(verdict: PolicyJudged, name: str) -> Gate:
    said = "allows" if verdict.allowed else "rejects"
    return Gate(kind=GateKind.POLICY, passed=verdict.allowed, reason=f"policy model {name} {said} it: {verdict.reason}")
