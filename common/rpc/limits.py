"""How much callers may ask of a service at once, and how often. What is over a limit is told when to come again."""

from __future__ import annotations

from pydantic import Field

from common.settings import Config


class CallLimits(Config):
    """A caller is one identity (operator/alice, auditor, application/shop). Health checks count for nothing."""

    concurrent_calls: int = Field(default=256, ge=1, le=65_536, description="calls under way, streams included")
    concurrent_calls_per_caller: int = Field(
        default=128, ge=1, le=65_536, description="of one identity; the rest is left to the others"
    )
    calls_per_second: float = Field(
        default=100.0, gt=0, le=100_000, description="of one identity, in the long run; calls that begin"
    )
    burst: int = Field(default=200, ge=1, le=100_000, description="calls of one identity that may begin at once")
    connection_seconds: float = Field(
        default=3_600.0, ge=1, le=86_400, description="how long a connection takes new calls before another is made"
    )
