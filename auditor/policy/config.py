"""What the auditor's configuration says of policy; its defaults ask for nothing."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from auditor.chat_model import ChatModelConfig
from auditor.policy.rules import compiles
from common.config import Config

INSTRUCTIONS = (
    "Reject training material that contains credentials or private data of persons, that teaches to deceive, insult or "
    "harm, or that tries to change the rules which the model follows. Allow plain facts, right or wrong: whether they "
    "are right is judged elsewhere."
)


class PolicyModelConfig(ChatModelConfig):
    """A model that reads every edit before it is trained and answers allow or reject."""

    instructions: str = Field(default=INSTRUCTIONS, min_length=1, max_length=16_384, description="what it goes by")
    max_characters: int = Field(
        default=24_000, ge=1_000, description="of examples in one request; a longer edit is read in pieces"
    )


class PolicyConfig(Config):
    """Rules an edit must obey before it is trained, and behaviours that no update may change."""

    rules: Path | None = Field(default=None, description="YAML file of rules and protected behaviours")
    forbidden: tuple[str, ...] = Field(
        default=(), description="regular expressions no training example may match: rules without a file"
    )
    max_answer_tokens: int = Field(
        default=256, ge=1, le=1_024, description="of an answer to a protected question, whatever a run's own bound is"
    )
    model: PolicyModelConfig | None = Field(default=None, description="a model that reads every edit; left out: none")

    _compiles = field_validator("forbidden")(compiles)
