"""Settings of the generator backends. No model library is imported here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from common.config import Config


class VllmSettings(Config):
    """vLLM in process. What it calls GPU memory is the device's, or on CPU the machine's."""

    max_model_len: int = Field(default=2_048, ge=128, le=1_048_576, description="prompt and completion, in tokens")
    kv_cache_gib: int = Field(default=1, ge=1, le=1_024, description="key-value cache on CPU, in GiB")
    max_num_seqs: int = Field(default=96, ge=1, le=4_096, description="completions written at the same time")
    max_loras: int = Field(default=1, ge=1, le=64, description="policies in one batch")
    max_cpu_loras: int = Field(default=4, ge=1, le=1_024, description="policies held in memory")
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256] = Field(default=64, description="largest rank of a policy")
    enforce_eager: bool = Field(default=True, description="no compilation: starts sooner, and all that CPU LoRA does")
    block_size: Literal[16, 32, 64, 128] = Field(
        default=32, description="tokens of a cache block; prompts share whole blocks, so small ones share more"
    )
    enable_prefix_caching: bool = Field(default=True, description="compute what prompts share once")
    gpu_memory_utilization: float = Field(
        default=0.6, gt=0, le=1, description="share of the device for the engine; the rest is the M-step's"
    )
    tensor_parallel_size: int = Field(default=1, ge=1, le=64)
    cpu_cores: str = Field(
        default="",
        pattern=r"^[0-9,|-]*$",
        description="cores of the engine on CPU, as 0-1 or 0,2; empty: model.threads of them, or all there are",
    )
    log_level: Literal["ERROR", "WARNING", "INFO"] = "ERROR"


class TransformersSettings(Config):
    """transformers in process: slower than vLLM, small, and everywhere."""

    batch_size: int = Field(default=32, ge=1, le=1_024, description="completions written at the same time")
    max_model_len: int = Field(default=2_048, ge=16, le=1_048_576, description="prompt and completion, in tokens")
