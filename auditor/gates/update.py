"""The gates before promotion: liveness, an operator's rejection, confirmation, retention. Pure.

auditor/judging.py calls them for every update that was trained alone, cheapest first; each finding carries its reason
and its figures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from auditor import events as e
from auditor.evidence.scaling import WHOLE
from auditor.evidence.sign_flip import lost_share, upper_bound
from auditor.evidence.verdict import Verdict
from auditor.findings import Gate, GateKind, Score
from auditor.papers import Marked, Paper
from common.lora.proof import Liveness

# All retained items together, under this name among the figures.
EVERYTHING = "all"
# 0.1 of ten questions is one question, also in floating point.
HAIR = 1e-9


@dataclass(frozen=True)
class Confirmation:
    """What an update's own holdout questions say.

    before, after: of the training that is to be promoted; the verdict is over all `runs` fresh trainings.
    """

    verdict: Verdict
    before: Score
    after: Score
    runs: int = 1
    scale: float = WHOLE

    @property
    def loses(self) -> bool:
        """Whether the training that is to be promoted is worse than its parent, whatever the others are."""
        return self.after.correct < self.before.correct - HAIR


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


def confirmation_gate(own: Confirmation, pooled: e.WinnersPooled | None) -> Gate:
    """The holdout decides, by the exact sign-flip test at the run's level.

    The training that is to be promoted must not lose, however well the other fresh ones do. Where the update's own
    questions are too few for any verdict (UNDECIDED), it must not lose either, and those of the round's winners
    together must gain. The pool was measured on whole updates: scaled down, one must gain by itself as well.
    """
    found, before, after = own.verdict, own.before, own.after
    said = f"{before.correct:g} -> {after.correct:g} of {after.questions} holdout questions"
    tested = f"p = {found.p_value:.3g} against a level of {found.level:.3g}"
    figures = {
        "gain": found.gain,
        "lower": found.lower,
        "p_value": found.p_value,
        "level": found.level,
        "questions": float(found.questions),
        "runs": float(own.runs),
        "undecided": float(found.undecided),
    }
    if not found.undecided:
        reason = f"{said}; {tested}" if found.gained else f"{said}: no gain that chance does not explain, {tested}"
        if found.gained and own.loses:
            reason = f"{said}: the training to be promoted loses, though its repeats gain"
        return Gate(kind=GateKind.CONFIRMATION, passed=found.gained and not own.loses, reason=reason, figures=figures)
    vouched = own.scale == WHOLE or found.gain > 0
    passed = found.questions > 0 and vouched and not own.loses and pooled is not None and pooled.passed
    reason = f"UNDECIDED alone: {said}; {_together(pooled)}"
    if pooled is not None:
        figures |= {"pooled_gain": pooled.gain, "pooled_p_value": pooled.p_value, "pooled_level": pooled.level}
    return Gate(kind=GateKind.CONFIRMATION, passed=passed, reason=reason, figures=figures)


def _together(pooled: e.WinnersPooled | None) -> str:
    if pooled is None:
        return "nothing to pool them with: a task needs more questions, or a run more tasks"
    said = f"{pooled.before.correct:g} -> {pooled.after.correct:g} of {pooled.after.questions}"
    shown = "gain" if pooled.passed else "show no gain that chance does not explain"
    return f"the round's winners together {said}: they {shown} (p = {pooled.p_value:.3g}, level {pooled.level:.3g})"


def retention_gate(
    groups: Sequence[tuple[str, Marked, Marked]], max_drop: float, level: float = 0.05, scale: float = 1.0
) -> Gate:
    """Of no suite, and not of all items together, may the drop's upper confidence bound exceed `max_drop`.

    The bound is the larger of two: the inverted sign-flip test, and the exact bound of the share of items that got
    worse less the share that got better. groups: (name, before, after); those of one name are judged together, and so
    are those whose names begin alike up to a slash. One with so few items that no outcome could pass is judged by its
    mean. scale: of the update, noted among the figures.
    """
    if not groups:
        return Gate(kind=GateKind.RETENTION, passed=True, reason="nothing to retain")
    drops: dict[str, list[float]] = defaultdict(list)
    scores: dict[str, tuple[Score, Score]] = defaultdict(lambda: (Score(), Score()))
    several = len({name for name, _, _ in groups}) > 1
    for name, old, new in groups:
        pools = {name, name.partition("/")[0], *([EVERYTHING] if several else [])}
        for key in sorted(pools):
            drops[key] += [a.score - b.score for a, b in zip(old.marks, new.marks, strict=True)]
            scores[key] = (scores[key][0] + old.score, scores[key][1] + new.score)
    failed: list[str] = []
    figures = {"max_drop": max_drop, "level": level, "scale": scale}
    total = EVERYTHING if several else groups[0][0]
    for name, drop in drops.items():
        before, after = scores[name]
        figures[f"drop:{name}"] = before.mean - after.mean
        fell = f"{name} fell from {before.correct:g} to {after.correct:g} of {after.questions}"
        if lost_share(0, len(drop), level) > max_drop:
            # Too few items for any outcome to pass: their mean has to do, with two items for chance but in the total.
            allowed = max_drop if name == total else max(max_drop, 2 / len(drop))
            if before.mean - after.mean > allowed + HAIR:
                failed.append(f"{fell}: {allowed:.2g} is allowed of so few")
            continue
        bound = drop_bound(drop, level)
        figures[f"upper:{name}"] = bound
        if bound > max_drop + HAIR:
            failed.append(f"{fell}: a drop of up to {bound:.2f} cannot be ruled out, {max_drop:g} is allowed")
    before, after = scores[total]
    return Gate(
        kind=GateKind.RETENTION,
        passed=not failed,
        reason="; ".join(failed) or f"{before.correct:g} -> {after.correct:g} of {after.questions}",
        figures=figures,
    )


def drop_bound(drop: Sequence[float], level: float) -> float:
    """Upper confidence bound of a mean drop, at a one-sided `level`. drop: before minus after of each item, -1..1."""
    worse, better = sum(value > 0 for value in drop), sum(value < 0 for value in drop)
    return max(upper_bound(drop, level), lost_share(worse, len(drop), level) - better / len(drop))
