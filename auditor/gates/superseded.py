"""The gate against yesterday's truth: what an earlier revision of a document said must not be said any more. Pure."""

from __future__ import annotations

from auditor.findings import Gate, GateKind


def superseded_gate(changing: tuple[int, int], settled: tuple[int, int], questions: int) -> Gate:
    """Counts of old answers still given, before and after the update.

    changing: to questions whose answer this update changes: fewer old answers than before, or none. settled: to those
    that an earlier update changed: no more than before.
    """
    improved = changing[1] == 0 or changing[1] < changing[0]
    revived = settled[1] > settled[0]
    before, after = changing[0] + settled[0], changing[1] + settled[1]
    said = f"superseded answers still given: {before} -> {after} of {questions}"
    return Gate(
        kind=GateKind.SUPERSEDED,
        passed=improved and not revived,
        reason=f"{said}; an answer that was gone is back" if revived else said,
        figures={
            "changing_before": float(changing[0]),
            "changing_after": float(changing[1]),
            "settled_before": float(settled[0]),
            "settled_after": float(settled[1]),
            "questions": float(questions),
        },
    )
