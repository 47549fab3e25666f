"""What the student alone says, field by field as in student.proto; of versions, see common/versions.py."""

from __future__ import annotations

from common.lora.proof import LivenessProof
from common.types import Digest, Domain, Progress, Recipe, Software
from common.versions import (
    Alias,
    Answer,
    FailedCandidate,
    KlFromBase,
    ScoredContinuation,
    TrainedCandidate,
    TrainLimits,
    Version,
)


class Status(Domain):
    model: str
    model_digest: Digest
    aliases: tuple[Alias, ...]
    limits: TrainLimits
    default_recipe: Recipe
    prompt_template_digest: Digest
    software: Software


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
