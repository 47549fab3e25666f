"""What the student says: mirrors of student.proto's answers, field by field."""

from __future__ import annotations

from datetime import datetime

from common.lora.answering import FinishReason
from common.lora.proof import LivenessProof
from common.types import Digest, Domain, Progress, Recipe, Software
from student.requests import AliasName


class Alias(Domain):
    name: AliasName
    version: str
    generation: int = 0


class TrainLimits(Domain):
    max_rank: int
    max_epochs: int
    max_examples: int
    max_tokens_per_example: int
    max_candidates: int
    target_modules: tuple[str, ...]
    max_learning_rate: float


class Status(Domain):
    model: str
    model_digest: Digest
    aliases: tuple[Alias, ...]
    limits: TrainLimits
    default_recipe: Recipe
    prompt_template_digest: Digest
    software: Software


class Version(Domain):
    """An adapter of the store, and all that is known of its making."""

    version: str
    adapter: Digest | None = None
    parent_version: str = ""
    candidate_key: str = ""
    edit: Digest | None = None
    recipe: Recipe | None = None
    seed: int = 0
    trained_alone: bool = False
    create_time: datetime | None = None
    tensors: int = 0
    tokens_trained: int = 0
    first_loss: float = 0.0
    last_loss: float = 0.0
    seconds: float = 0.0
    software: Software | None = None
    replay_share: float = 0.0
    scale: float = 1.0


class TrainedCandidate(Domain):
    candidate_id: str
    version: Version
    reused: bool = False


class FailedCandidate(Domain):
    candidate_id: str
    reason: str
    detail: str = ""


class Answer(Domain):
    prompt_id: str
    version: str
    text: str
    tokens: int
    finish_reason: FinishReason
    alias_generation: int = 0


class OptionScore(Domain):
    log_likelihood: float
    tokens: int
    greedy: bool


class ScoredContinuation(Domain):
    continuation_id: str
    version: str
    options: tuple[OptionScore, ...]


class KlFromBase(Domain):
    prompt_id: str
    version: str
    kl_per_token: float


class Verification(Domain):
    """VerifyVersionResponse."""

    expected: Digest
    found: Digest | None = None
    intact: bool = False
    detail: str = ""


class VersionList(Domain):
    """StudentServiceListVersionsResponse."""

    versions: tuple[Version, ...]
    aliases: tuple[Alias, ...]
    next_page_token: str = ""


TrainEvent = Progress | TrainedCandidate | FailedCandidate
AnswerEvent = Progress | LivenessProof | Answer
ScoreEvent = Progress | LivenessProof | ScoredContinuation | KlFromBase
