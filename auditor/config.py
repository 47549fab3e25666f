"""The auditor's configuration."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from auditor.database_url import PASSWORD_ELSEWHERE, holds_password
from auditor.graders.config import CommandConfig, JudgeConfig, Name
from auditor.harness.config import HarnessConfig
from auditor.policy.config import PolicyConfig
from auditor.tasks import Settings
from common.config import Config, ServiceConfig


class Peer(Config):
    """Where another service answers."""

    target: str = Field(min_length=1, description="host:port, or dns:///name:port")


class StudentPeer(Peer):
    """The student, which may be several replicas on one store behind one name."""

    replicas: int = Field(
        default=1,
        ge=0,
        le=256,
        description="over how many replicas an order is spread at most; 1: not at all; 0: over all addresses of target",
    )
    train_batch: int = Field(
        default=0, ge=0, le=1_024, description="candidates that a replica trains at a time; 0: an equal share of them"
    )


class Timeouts(Config):
    """Deadlines of calls to the other two, in seconds."""

    status: float = Field(default=30.0, gt=0)
    propose: float = Field(default=3_600.0, gt=0)
    train: float = Field(default=7_200.0, gt=0)
    answer: float = Field(default=3_600.0, gt=0)
    learn: float = Field(default=7_200.0, gt=0)
    ask: float = Field(default=300.0, gt=0)


class Retries(Config):
    """How long an unreachable peer is waited for before a run fails. Each new result starts anew."""

    attempts: int = Field(default=8, ge=1, le=100)
    first_wait_seconds: float = Field(default=0.5, gt=0)
    longest_wait_seconds: float = Field(default=30.0, gt=0)


class FilterConfig(Config):
    max_kept_per_context: int = Field(default=10, ge=1, description="cap of kept edits a context and round")


class RewardsConfig(Config):
    """How much the teacher is told of rewards (docs/security.md)."""

    levels: int = Field(
        default=0,
        ge=0,
        le=1_000,
        description="levels that rewards sent to the teacher are rounded up to; 1: kept or not alone; 0: exact",
    )


class AuditorConfig(ServiceConfig):
    listen: str = Field(default="127.0.0.1:50053", pattern=r"^[^\s]+:\d{1,5}$")
    metrics_listen: str = Field(default="127.0.0.1:9103", pattern=r"^$|^[^\s]+:\d{1,5}$")
    teacher: Peer = Peer(target="127.0.0.1:50051")
    student: StudentPeer = StudentPeer(target="127.0.0.1:50052")
    database: str = Field(default="sqlite:///seal-ledger.db", description="SQLAlchemy URL of the ledger")
    database_password_file: Path | None = Field(
        default=None, description="file that holds the password alone, read at every connection; left out: none"
    )
    verify_ledger_hours: float = Field(
        default=24.0, ge=0, le=8_760, description="between checks of the whole chain, the first at start; 0: none"
    )
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    settings: Settings = Field(default=Settings(), description="what a run takes where its request says nothing")
    filter: FilterConfig = FilterConfig()
    rewards: RewardsConfig = RewardsConfig()
    policy: PolicyConfig = PolicyConfig()
    lm_eval: HarnessConfig = Field(default=HarnessConfig(), description="suites of lm-evaluation-harness")
    judges: dict[Name, JudgeConfig] = Field(default_factory=dict, description="language models that mark answers")
    commands: dict[Name, CommandConfig] = Field(default_factory=dict, description="programs that mark answers")
    max_queued_runs: int = Field(default=100, ge=1)

    @field_validator("database")
    @classmethod
    def _without_password(cls, url: str) -> str:
        """Here and not only where it is opened: --print-config shows settings."""
        if holds_password(url):
            raise ValueError(PASSWORD_ELSEWHERE)
        return url
