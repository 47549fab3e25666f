"""The gates before promotion: liveness, an operator's rejection, confirmation, retention. Pure.

auditor/judging.py calls them for every update that was trained alone, cheapest first; each finding carries its reason
and its figures.
"""

from __future__ import annotations

from collections.abc import Sequence

from auditor.examiner import Marked, Paper
from auditor.filter import DECIDING_QUESTIONS
from auditor.findings import Gate, GateKind, Score
from common.lora.proof import Liveness


def liveness_gate(paper: Paper) -> Gate:
    """The answers must come from the version they are said to come from, and it must differ from its parent."""
    passed = paper.liveness is Liveness.LIVE
    detail = paper.proof.detail if paper.proof is not None else ""
    said = {
        Liveness.INVALID: "the student could not prove that the adapter answers",
        Liveness.INERT: "the adapter is bound, but answers like its parent",
        Liveness.BASE: "the base answered in place of the adapter",
    }
    reason = "" if passed else f"{paper.liveness.value}: {said[paper.liveness]}" + (f" ({detail})" if detail else "")
    figures = {}
    if paper.proof is not None:
        figures = {
            "probe_distance_from_base": paper.proof.probe_distance_from_base,
            "probe_distance_from_parent": paper.proof.probe_distance_from_parent,
            "probe_noise": paper.proof.probe_noise,
        }
    return Gate(kind=GateKind.LIVENESS, passed=passed, reason=reason, figures=figures)


def approval_gate(rejected_by: str) -> Gate:
    """An operator's rejection stands, whatever the figures say."""
    reason = f"rejected by {rejected_by}" if rejected_by else ""
    return Gate(kind=GateKind.APPROVAL, passed=not rejected_by, reason=reason)


def confirmation_gate(own: tuple[Score, Score], pooled: tuple[Score, Score]) -> Gate:
    """The holdout decides. own: the update's own tasks before and after; pooled: those of all winners of the round.

    With five own holdout questions or more, they must gain. With fewer, they say nothing by themselves (UNDECIDED):
    they must not lose, and the pooled ones must gain.
    """
    gain = own[1].correct - own[0].correct
    pooled_gain = pooled[1].correct - pooled[0].correct
    undecided = own[1].questions < DECIDING_QUESTIONS
    passed = (gain >= 0 and pooled_gain > 0) if undecided else gain > 0
    said = f"{own[0].correct:g} -> {own[1].correct:g} of {own[1].questions} holdout questions"
    if undecided:
        said = (
            f"UNDECIDED alone: {said}; pooled over the round's winners "
            f"{pooled[0].correct:g} -> {pooled[1].correct:g} of {pooled[1].questions}"
        )
    return Gate(
        kind=GateKind.CONFIRMATION,
        passed=passed,
        reason=said,
        figures={
            "before": own[0].correct,
            "after": own[1].correct,
            "questions": float(own[1].questions),
            "pooled_before": pooled[0].correct,
            "pooled_after": pooled[1].correct,
            "pooled_questions": float(pooled[1].questions),
            "undecided": float(undecided),
        },
    )


def retention_gate(groups: Sequence[tuple[str, Marked, Marked]], max_drop: float, scale: float = 1.0) -> Gate:
    """No group of five items or more, and not all items together, may drop by more than `max_drop` of their mean.

    groups: (name, before, after). Smaller groups decide nothing by themselves; they count in the total. scale: of the
    update, noted among the figures.
    """
    if not groups:
        return Gate(kind=GateKind.RETENTION, passed=True, reason="nothing to retain")
    pairs = [(name, before.score, after.score) for name, before, after in groups]
    before = sum((old for _, old, _ in pairs), Score())
    after = sum((new for _, _, new in pairs), Score())
    judged = [pair for pair in pairs if pair[2].questions >= DECIDING_QUESTIONS] + [("all", before, after)]
    # A hair of slack: 0.1 of ten questions is one question, also in floating point.
    failed = [(name, old, new) for name, old, new in judged if old.mean - new.mean > max_drop + 1e-9]
    said = [f"{name} fell from {old.correct:g} to {new.correct:g} of {new.questions}" for name, old, new in failed]
    drops = {f"drop:{name}": old.mean - new.mean for name, old, new in judged}
    return Gate(
        kind=GateKind.RETENTION,
        passed=not failed,
        reason="; ".join(said) or f"{before.correct:g} -> {after.correct:g} of {after.questions}",
        figures={**drops, "max_drop": max_drop, "scale": scale},
    )
