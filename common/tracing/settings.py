"""Where spans are sent, in every service's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from common.settings import Config


class TracingSettings(Config):
    """`endpoint` alone switches tracing on; it needs the extra `tracing`."""

    endpoint: str = Field(
        default="", pattern=r"^$|^[^\s/]+:\d{1,5}$", description="host:port of an OTLP/gRPC collector; empty: no traces"
    )
    service_name: str = Field(default="", pattern=r"^[\w.-]{0,64}$", description="in traces; empty: seal-SERVICE")
    sample_ratio: float = Field(default=1.0, ge=0, le=1, description="share of traces that are kept, whole ones")
    ca: Path | None = Field(default=None, description="PEM authority of the collector; left out: plaintext")
    certificate: Path | None = Field(default=None, description="PEM certificate shown to the collector, with key")
    key: Path | None = Field(default=None, description="PEM key of the certificate")
    timeout_seconds: float = Field(default=5.0, gt=0, le=60, description="a batch of spans is given up after this long")
    max_queued_spans: int = Field(default=4_096, ge=64, description="what comes on top of a full queue is dropped")

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key are given together")
        if self.certificate is not None and self.ca is None:
            raise ValueError("certificate needs ca: without it the collector is reached in plaintext")
        return self
