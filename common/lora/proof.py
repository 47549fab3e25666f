"""What the liveness proof says, without what it takes to prove it: imports no model library."""

from __future__ import annotations

from enum import StrEnum

from common.types import Digest, Domain


class Liveness(StrEnum):
    """See DESIGN.md: scoring the base while believing it is the adapter is the worst bug of this field."""

    BASE = "LIVENESS_BASE"
    LIVE = "LIVENESS_LIVE"
    INERT = "LIVENESS_INERT"
    INVALID = "LIVENESS_INVALID"


class LivenessProof(Domain):
    """Proof that answers come from the version they are said to come from. Distances are in nats."""

    version: str
    liveness: Liveness
    adapter: Digest | None = None
    tensors_in_file: int = 0
    tensors_bound: int = 0
    probe_distance_from_base: float = 0.0
    probe_distance_from_parent: float = 0.0
    probe_noise: float = 0.0
    detail: str = ""
