"""Domain objects of the teacher's contract: the messages of proto/seal/v1/teacher.proto with their limits.

The servicer makes them from messages and back (common/convert.py); everything behind it speaks these.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from common.types import (
    Context,
    Digest,
    Domain,
    Recipe,
    RequestId,
    Sampling,
    Seed,
    SelfEdit,
    Software,
    TaskKind,
    unique,
)
from teacher.generator import BASE

POLICY_PATTERN = r"^(base|[0-9a-f]{64})$"
OPTIONAL_POLICY_PATTERN = r"^(|base|[0-9a-f]{64})$"


class ProposeRequest(Domain):
    """K edits for one context."""

    request_id: RequestId
    kind: TaskKind
    context: Context
    count: int = Field(ge=1, le=64)
    prompt_variants: tuple[str, ...] = Field(default=(), max_length=16)
    sampling: Sampling | None = None
    seed: Seed = 0
    policy_version: str = Field(default="", pattern=OPTIONAL_POLICY_PATTERN)
    recipe: Recipe = Recipe()


class KeptEdit(Domain):
    """An edit that the filter kept, and its reward."""

    edit: Digest
    reward: float = 0.0


class LearnFrom(StrEnum):
    """Where the M-step starts: from the base (ReST^EM) or from the policy in use (SEAL)."""

    BASE = "LEARN_FROM_BASE"
    POLICY = "LEARN_FROM_POLICY"


class LearnRequest(Domain):
    """The M-step on kept edits."""

    request_id: RequestId
    kept: tuple[KeptEdit, ...] = Field(min_length=1, max_length=4_096)
    learn_from: LearnFrom = LearnFrom.BASE
    recipe: Recipe = Recipe()
    seed: Seed = 0
    activate: bool = False

    @model_validator(mode="after")
    def _edits_differ(self) -> Self:
        if not unique([kept.edit.sha256 for kept in self.kept]):
            raise ValueError("kept: an edit is named twice")
        return self


class SetPolicyRequest(Domain):
    """Chooses the policy that proposes."""

    request_id: RequestId
    policy_version: str = Field(pattern=POLICY_PATTERN)
    expected_generation: int = Field(default=0, ge=0)


class EditOrigin(Domain):
    """What is written down about an edit's making."""

    model: str
    model_digest: Digest
    backend: str
    policy_version: str
    prompt_variant: str
    prompts: tuple[str, ...] = ()
    prompts_digest: Digest
    completions_digest: Digest
    sampling: Sampling
    completions: int = 0
    screened_out: dict[str, int] = Field(default_factory=dict)
    rationale: str = Field(default="", max_length=4_096)
    software: Software = Software()


class ProposedEdit(Domain):
    """One of the K edits."""

    index: int = Field(ge=0)
    edit: SelfEdit
    origin: EditOrigin


class FailedProposal(Domain):
    """One of the K that could not be written; the others go on."""

    index: int = Field(ge=0)
    reason: str


class Policy(Domain):
    """A version of the teacher's own model."""

    policy_version: str = Field(default=BASE, pattern=POLICY_PATTERN)
    adapter: Digest | None = None
    parent: str = ""
    create_time: datetime | None = None
    kept_edits: int = 0
    pairs: int = 0
    first_loss: float = 0.0
    last_loss: float = 0.0
    loaded: bool = False


class ActivePolicy(Domain):
    """The policy in use and how often that changed."""

    policy_version: str = Field(default=BASE, pattern=POLICY_PATTERN)
    policy_generation: int = Field(default=0, ge=0)


class TeacherStatus(ActivePolicy):
    """Model, backend, policy, abilities."""

    model: str
    model_digest: Digest
    backend: str
    kinds: tuple[TaskKind, ...]
    can_learn: bool
    prompt_variants: tuple[str, ...]
    software: Software


class PolicyList(Domain):
    """All policies and the one in use."""

    policies: tuple[Policy, ...]
    active: str
    policy_generation: int
