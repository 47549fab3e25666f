"""Settings of the generator backends. No model library is imported here; vLLM's are in common/vllm_engine."""

from __future__ import annotations

from pydantic import Field

from common.config import Config


class TransformersSettings(Config):
    """transformers in process: slower than vLLM, small, and everywhere."""

    batch_size: int = Field(default=32, ge=1, le=1_024, description="completions written at the same time")
    max_model_len: int = Field(default=2_048, ge=16, le=1_048_576, description="prompt and completion, in tokens")
