"""Settings of the LoRA engine."""

from __future__ import annotations

from pydantic import Field

from common.config import Config


class EngineConfig(Config):
    """How work is cut into forward passes, and how much stays in memory."""

    train_tokens: int = Field(default=2_048, ge=16, description="tokens of one training forward pass, of all jobs")
    answer_tokens: int = Field(default=16_384, ge=16, description="padded tokens (prompt and answer) answered at once")
    score_tokens: int = Field(default=2_048, ge=16, description="padded tokens of one scoring forward pass")
    train_memory_gib: float = Field(
        default=0.0,
        ge=0,
        description="memory that training may take beside the base model and its packed copies; 0: what is free",
    )
    checkpointing: bool = Field(
        default=False, description="train in a fraction of the memory and about four thirds of the time"
    )
    pack_weights: bool = Field(
        default=True,
        description="on a CPU, hold the base once more for answering and once for training, in the order that is "
        "computed fastest",
    )
    resident_adapters: int = Field(default=16, ge=1, le=256, description="adapters kept attached to the base")
    end_of_text: bool = Field(default=True, description="end plain-text examples with one end-of-text token")
