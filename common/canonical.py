"""Canonical bytes and their digests: the same content has the same name everywhere."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from common.types import Digest


def canonical_json(value: Any) -> bytes:
    """Sorted keys, no spaces, UTF-8, finite numbers only. Pydantic models are dumped without None."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_none=True)
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_bytes(data: bytes) -> Digest:
    return Digest(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def digest_of(value: Any) -> Digest:
    """Digest of a value's canonical JSON."""
    return digest_bytes(canonical_json(value))


def derive_seed(*parts: str | int) -> int:
    """A seed in 0..2^63-1 that depends on every part and on nothing else."""
    return int.from_bytes(hashlib.sha256(canonical_json(list(parts))).digest()[:8], "big") >> 1
