"""The gate on drift: how far a version's next-token distributions are from the frozen base's. Pure.

KL from the base on prompts that an update has nothing to do with foretells forgetting before questions show it.
auditor/health.py calls this for every update that retention let through.
"""

from __future__ import annotations

from collections.abc import Sequence

from auditor.findings import Gate, GateKind


def drift_gate(kl_per_token: Sequence[float], max_drift: float, scale: float = 1.0) -> Gate:
    """The mean over the anchor prompts may not exceed `max_drift`.

    kl_per_token: KL(version || base) of each prompt, mean over its tokens, in nats. scale: of the update, noted among
    the figures.
    """
    if not kl_per_token:
        return Gate(kind=GateKind.DRIFT, passed=True, reason="no anchor prompts")
    mean = sum(kl_per_token) / len(kl_per_token)
    passed = mean <= max_drift
    relation = "within" if passed else "over"
    return Gate(
        kind=GateKind.DRIFT,
        passed=passed,
        reason=f"{mean:.3g} nats a token from the base on {len(kl_per_token)} anchor prompts, {relation} {max_drift:g}",
        figures={
            "kl_per_token": mean,
            "highest": max(kl_per_token),
            "prompts": float(len(kl_per_token)),
            "max_drift": max_drift,
            "scale": scale,
        },
    )
