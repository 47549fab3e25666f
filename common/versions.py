"""What student and auditor say to each other of versions: mirrors of student.proto's messages, field by field.

No type here has a field for a key, a grading rule or a reward.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field, ValidationInfo, field_validator

from common.types import Digest, Domain, Recipe, Software


class Alias(Domain):
    name: str
    version: str
    generation: int = 0


class TrainLimits(Domain):
    """What the student allows an edit to ask for. 0 or empty: it does not say."""

    max_rank: int = 0
    max_epochs: int = 0
    max_examples: int = 0
    max_tokens_per_example: int = 0
    max_candidates: int = 0
    target_modules: tuple[str, ...] = ()
    max_learning_rate: float = 0.0


class Version(Domain):
    """An adapter of the store, and all that is known of its making."""

    version: str
    adapter: Digest | None = None
    parent_version: str = ""
    candidate_key: str = ""
    edit: Digest | None = None
    recipe: Recipe = Recipe()
    seed: int = 0
    trained_alone: bool = False
    create_time: datetime | None = None
    tensors: int = 0
    tokens_trained: int = 0
    first_loss: float = 0.0
    last_loss: float = 0.0
    seconds: float = 0.0
    software: Software = Software()
    replay_share: float = 0.0
    scale: float = 1.0

    @field_validator("scale")
    @classmethod
    def _zero_is_whole(cls, scale: float) -> float:
        return scale or 1.0


class Replay(Domain):
    """Accepted edits to mix in, and the share of the update that they make up."""

    edits: tuple[Digest, ...] = Field(default=(), max_length=4_096)
    share: float = Field(default=0.0, ge=0, le=0.9)


class TrainedCandidate(Domain):
    candidate_id: str
    version: Version
    reused: bool = False


class FailedCandidate(Domain):
    candidate_id: str
    reason: str = ""
    detail: str = ""


class AnswerPurpose(StrEnum):
    AUDIT = "ANSWER_PURPOSE_AUDIT"
    LIVE = "ANSWER_PURPOSE_LIVE"


class FinishReason(StrEnum):
    STOP = "FINISH_REASON_STOP"
    LENGTH = "FINISH_REASON_LENGTH"


class Answer(Domain):
    """version: that was asked; answered_by: whose words these are, an ancestor's only where the fallback is wanted."""

    prompt_id: str
    version: str
    text: str = ""
    tokens: int = 0
    finish_reason: FinishReason | None = None
    alias_generation: int = 0
    answered_by: str = Field(default="", validate_default=True)

    @field_validator("answered_by")
    @classmethod
    def _unsaid_is_its_own(cls, answered_by: str, info: ValidationInfo) -> str:
        return answered_by or str(info.data.get("version", ""))


class OptionScore(Domain):
    """log_likelihood: sum over the option's tokens, in nats; greedy: whether it is what greedy decoding would say."""

    log_likelihood: float = 0.0
    tokens: int = 0
    greedy: bool = False


class ScoredContinuation(Domain):
    continuation_id: str
    version: str
    options: tuple[OptionScore, ...] = ()


class KlFromBase(Domain):
    """kl_per_token: mean over the prompt's tokens, in nats."""

    prompt_id: str
    version: str
    kl_per_token: float = 0.0
