"""Has the policy model read a batch of edits, each once a run: a verdict in the ledger is never asked for again.

What it gives as its reason is its own text, and may quote the edit: it is kept as a payload, which can be erased, and
no event holds it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from auditor.events import PolicyJudged
from auditor.findings import Gate, GateKind
from auditor.journal import Journal, Kept
from auditor.policy.model import PolicyModel
from common.canonical import digest_bytes
from common.metrics import timed
from common.types import SelfEdit


@dataclass(frozen=True)
class Opinion:
    """A finding, and the digest of what the model said of it; empty in ledgers from before that was a payload."""

    gate: Gate
    said: str


async def read_by_model(model: PolicyModel, journal: Journal, edits: Sequence[SelfEdit]) -> dict[str, Opinion]:
    """A finding for each edit, by its digest. Raises Unavailable or NotPossible when the model cannot be asked."""

    async def judge(edit: SelfEdit) -> Kept[PolicyJudged]:
        verdict = await model.verdict(edit)
        said = verdict.reason.encode()
        event = PolicyJudged(
            edit=edit.digest.sha256,
            model=model.identity,
            allowed=verdict.allowed,
            record=PolicyJudged.Record(said=digest_bytes(said).sha256),
        )
        return Kept(event, (said,))

    with timed("policy"):
        asked = [journal.step(f"policy/{edit.digest.sha256}", partial(judge, edit)) for edit in edits]
        # All of them end before one that failed is told: what was said meanwhile is in the ledger.
        found = await asyncio.gather(*asked, return_exceptions=True)
    verdicts: list[PolicyJudged] = []
    for outcome in found:
        if isinstance(outcome, BaseException):
            raise outcome
        verdicts.append(outcome)
    return {verdict.edit: Opinion(finding(verdict, model.name), verdict.record.said) for verdict in verdicts}


def finding(verdict: PolicyJudged, name: str) -> Gate:
    said = f"policy model {name} {'allows' if verdict.allowed else 'rejects'} it"
    return Gate(
        kind=GateKind.POLICY, passed=verdict.allowed, reason=f"{said}: {verdict.reason}" if verdict.reason else said
    )
