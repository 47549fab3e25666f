"""Which model a service runs, and how."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from common.config import Config


def default_cache_dir() -> Path:
    """$SEAL_CACHE, or ~/.cache/seal."""
    return Path(os.environ.get("SEAL_CACHE") or Path.home() / ".cache" / "seal")


class ModelConfig(Config):
    """A causal language model. The same settings on the same kind of machine give the same numbers."""

    model: str = Field(
        min_length=1,
        description="folder of safetensors, hub id, or package:NAME/FILE.gguf (a file that a Python package carries)",
    )
    revision: str | None = Field(default=None, description="commit or tag of a hub id")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="of the base's weights; auto: float32 on a CPU, bfloat16 on a GPU"
    )
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    threads: int = Field(default=0, ge=0, le=512, description="threads of one operation; 0 takes torch's default")
    cache_dir: Path = Field(default_factory=default_cache_dir, description="converted models and digests")
    system_prompt: str = Field(
        default="", max_length=8_192, description="put before conversations without one; empty: the template's own"
    )

    @property
    def precision(self) -> str:
        """The type of the base's weights, by torch's name."""
        if self.dtype == "auto":
            return "float32" if self.device == "cpu" else "bfloat16"
        return self.dtype
