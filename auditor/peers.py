"""What the auditor knows of the other two services: mirrors of teacher.proto's and student.proto's messages.

No type here has a field for a key, a grading rule, or (but KeptEdit) a reward.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field, field_validator

from auditor.tasks import LearnFrom
from common.types import Context, Conversation, Digest, Domain, Prompt, Recipe, Sampling, SelfEdit, Software, TaskKind

BASE = "base"
LIVE = "live"
PREVIOUS = "previous"


class AnswerPurpose(StrEnum):
    AUDIT = "ANSWER_PURPOSE_AUDIT"
    LIVE = "ANSWER_PURPOSE_LIVE"


class FinishReason(StrEnum):
    STOP = "FINISH_REASON_STOP"
    LENGTH = "FINISH_REASON_LENGTH"


class Alias(Domain):
    name: str
    version: str
    generation: int = 0


class TrainLimits(Domain):
    """What the student allows an edit to ask for. 0 or empty: the student does not say."""

    max_rank: int = 0
    max_epochs: int = 0
    max_examples: int = 0
    max_tokens_per_example: int = 0
    max_candidates: int = 0
    target_modules: tuple[str, ...] = ()
    max_learning_rate: float = 0.0


class StudentStatus(Domain):
    model: str = ""
    model_digest: Digest | None = None
    aliases: tuple[Alias, ...] = ()
    limits: TrainLimits = TrainLimits()
    default_recipe: Recipe = Recipe()
    prompt_template_digest: Digest | None = None
    software: Software = Software()

    def alias(self, name: str) -> Alias | None:
        return next((alias for alias in self.aliases if alias.name == name), None)

    @property
    def live(self) -> Alias:
        """The live alias; a student that never moved it serves the bare base."""
        return self.alias(LIVE) or Alias(name=LIVE, version=BASE)

    @property
    def identity(self) -> str:
        """What an answer depends on beside version, prompt and sampling: the base's bytes and the prompt template."""
        model = self.model_digest.sha256 if self.model_digest else self.model
        return f"{model}:{self.prompt_template_digest.sha256 if self.prompt_template_digest else ''}"


class Version(Domain):
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


class TrainCandidate(Domain):
    candidate_id: str
    edit: SelfEdit
    seed: int
    scale: float = 1.0


class Replay(Domain):
    edits: tuple[Digest, ...] = ()
    share: float = 0.0


class TrainOrder(Domain):
    """TrainRequest."""

    request_id: str
    parent_version: str
    candidates: tuple[TrainCandidate, ...]
    replay: Replay | None = None
    alone: bool = False


class TrainedCandidate(Domain):
    candidate_id: str
    version: Version
    reused: bool = False


class FailedCandidate(Domain):
    candidate_id: str
    reason: str = ""
    detail: str = ""


class AnswerOrder(Domain):
    """AnswerRequest."""

    request_id: str
    purpose: AnswerPurpose
    prompts: tuple[Prompt, ...]
    versions: tuple[str, ...]
    sampling: Sampling


class Answer(Domain):
    prompt_id: str
    version: str
    text: str = ""
    tokens: int = 0
    finish_reason: FinishReason | None = None
    alias_generation: int = 0


class AliasOrder(Domain):
    """SetAliasRequest."""

    request_id: str
    name: str
    version: str
    expected_generation: int


class TeacherStatus(Domain):
    model: str = ""
    model_digest: Digest | None = None
    backend: str = ""
    policy_version: str = ""
    policy_generation: int = 0
    kinds: tuple[TaskKind, ...] = ()
    can_learn: bool = False
    prompt_variants: tuple[str, ...] = ()
    software: Software = Software()


class ProposalOrder(Domain):
    """ProposeEditsRequest."""

    request_id: str
    kind: TaskKind
    context: Context
    count: int
    prompt_variants: tuple[str, ...] = ()
    seed: int = 0
    policy_version: str = ""
    recipe: Recipe = Recipe()


class EditOrigin(Domain):
    """What is written down about an edit's making."""

    model: str = ""
    model_digest: Digest | None = None
    backend: str = ""
    policy_version: str = ""
    prompt_variant: str = ""
    prompts: tuple[str, ...] = ()
    prompts_digest: Digest | None = None
    completions_digest: Digest | None = None
    sampling: Sampling = Sampling()
    completions: int = 0
    screened_out: dict[str, int] = Field(default_factory=dict)
    rationale: str = ""
    software: Software = Software()


class ProposedEdit(Domain):
    index: int = 0
    edit: SelfEdit
    origin: EditOrigin = EditOrigin()


class FailedProposal(Domain):
    index: int = 0
    reason: str = ""


class KeptEdit(Domain):
    """All that the teacher learns of tau: that an edit was kept, and how much it was worth."""

    edit: Digest
    reward: float


class LearnOrder(Domain):
    """LearnRequest."""

    request_id: str
    kept: tuple[KeptEdit, ...]
    learn_from: LearnFrom
    seed: int
    activate: bool = True


class Policy(Domain):
    policy_version: str
    adapter: Digest | None = None
    parent: str = ""
    create_time: datetime | None = None
    kept_edits: int = 0
    pairs: int = 0
    first_loss: float = 0.0
    last_loss: float = 0.0
    loaded: bool = False


def prompt_of(conversation: Conversation, sha256: str) -> Prompt:
    """A prompt named by its content, so that equal questions are asked once."""
    return Prompt(prompt_id=sha256, conversation=conversation)
