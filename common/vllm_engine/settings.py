"""Settings of a vLLM engine. vLLM is not imported here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from common.config import Config


class VllmSettings(Config):
    """vLLM in process. What it calls GPU memory is the device's, or on CPU the machine's."""

    max_model_len: int = Field(default=2_048, ge=128, le=1_048_576, description="prompt and completion, in tokens")
    kv_cache_gib: int = Field(default=1, ge=1, le=1_024, description="key-value cache on CPU, in GiB")
    max_num_seqs: int = Field(default=96, ge=1, le=4_096, description="completions written at the same time")
    max_loras: int = Field(default=1, ge=1, le=64, description="adapters in one batch")
    max_cpu_loras: int = Field(default=4, ge=1, le=1_024, description="adapters held in memory")
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256] = Field(default=64, description="largest rank of an adapter")
    enforce_eager: bool = Field(default=True, description="no compilation: starts sooner, and all that CPU LoRA does")
    block_size: Literal[16, 32, 64, 128] = Field(
        default=32, description="tokens of a cache block; prompts share whole blocks, so small ones share more"
    )
    enable_prefix_caching: bool = Field(default=True, description="compute what prompts share once")
    gpu_memory_utilization: float = Field(
        default=0.6, gt=0, le=1, description="share of the device for the engine; the rest is for training"
    )
    tensor_parallel_size: int = Field(default=1, ge=1, le=64)
    cpu_cores: str = Field(
        default="",
        pattern=r"^[0-9,|-]*$",
        description="cores of the engine on CPU, as 0-1 or 0,2; empty: model.threads of them, or all there are",
    )
    log_level: Literal["ERROR", "WARNING", "INFO"] = "ERROR"

    @property
    def residents(self) -> int:
        """Adapters that the engine holds at most: vLLM needs room for those of one batch."""
        return max(self.max_cpu_loras, self.max_loras)
