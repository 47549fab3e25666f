"""What callers may ask of the student, with the limits that proto/seal/v1/student.proto states.

A message becomes one of these at the edge (common/convert.py), or is refused with every violation named by its path.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from common.edits import edit_digest
from common.types import Conversation, Domain, Prompt, RequestId, Sampling, Seed, SelfEdit, unique
from common.versions import AnswerPurpose, Replay

VersionReference = Annotated[str, Field(min_length=1, max_length=128)]
AliasName = Literal["live", "shadow", "previous"]


class TrainCandidate(Domain):
    candidate_id: str = Field(min_length=1, max_length=128)
    edit: SelfEdit
    seed: Seed = 0
    scale: float = Field(default=1.0, ge=0, le=1)

    @field_validator("scale")
    @classmethod
    def _zero_is_whole(cls, scale: float) -> float:
        return scale or 1.0

    @field_validator("edit")
    @classmethod
    def _is_what_it_says(cls, edit: SelfEdit) -> SelfEdit:
        found = edit_digest(edit)
        if found.sha256 != edit.digest.sha256:
            raise ValueError(f"digest says {edit.digest.sha256}, but the content has {found.sha256}")
        return edit


class TrainRequest(Domain):
    request_id: RequestId
    parent_version: VersionReference
    candidates: tuple[TrainCandidate, ...] = Field(min_length=1, max_length=1_024)
    replay: Replay = Replay()
    alone: bool = False

    @field_validator("candidates")
    @classmethod
    def _told_apart(cls, candidates: tuple[TrainCandidate, ...]) -> tuple[TrainCandidate, ...]:
        if not unique([candidate.candidate_id for candidate in candidates]):
            raise ValueError("two candidates have the same candidate_id")
        return candidates


class AnswerRequest(Domain):
    request_id: RequestId
    purpose: AnswerPurpose
    prompts: tuple[Prompt, ...] = Field(min_length=1, max_length=4_096)
    versions: tuple[VersionReference, ...] = Field(min_length=1, max_length=64)
    sampling: Sampling = Sampling()
    fallback_to_parent: bool = False

    @field_validator("prompts")
    @classmethod
    def _told_apart(cls, prompts: tuple[Prompt, ...]) -> tuple[Prompt, ...]:
        if not unique([prompt.prompt_id for prompt in prompts]):
            raise ValueError("two prompts have the same prompt_id")
        return prompts

    @field_validator("versions")
    @classmethod
    def _users_get_live(cls, versions: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("purpose") is AnswerPurpose.LIVE and versions != ("live",):
            raise ValueError("users are answered by the alias live, and by nothing else")
        return versions


class Continuation(Domain):
    continuation_id: str = Field(min_length=1, max_length=200)
    conversation: Conversation
    options: tuple[Annotated[str, Field(min_length=1, max_length=16_384)], ...] = Field(min_length=1, max_length=64)


class LogLikelihoodRequest(Domain):
    request_id: RequestId
    versions: tuple[VersionReference, ...] = Field(min_length=1, max_length=64)
    continuations: tuple[Continuation, ...] = Field(default=(), max_length=4_096)
    kl_prompts: tuple[Prompt, ...] = Field(default=(), max_length=1_024)

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        if not self.continuations and not self.kl_prompts:
            raise ValueError("there is nothing to score: continuations and kl_prompts are both empty")
        if not unique([c.continuation_id for c in self.continuations]):
            raise ValueError("continuations: two have the same continuation_id")
        if not unique([prompt.prompt_id for prompt in self.kl_prompts]):
            raise ValueError("kl_prompts: two have the same prompt_id")
        return self


class SetAliasRequest(Domain):
    request_id: RequestId
    name: AliasName
    version: str = Field(pattern=r"^(base|[0-9a-f]{64})$")
    expected_generation: int = Field(default=0, ge=0)


class ListVersionsRequest(Domain):
    page_size: int = Field(default=0, ge=0, le=1_000)
    page_token: str = Field(default="", max_length=256)


class VersionRequest(Domain):
    """VerifyVersionRequest and DiscardRequest."""

    version: VersionReference
