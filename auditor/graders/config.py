"""The auditor's configuration of its graders: judges and commands by name. Both are off until one is named."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field

from auditor.chat_model import ChatModelConfig
from common.config import Config

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]


class JudgeConfig(ChatModelConfig):
    """A language model behind an OpenAI-compatible endpoint that says whether an answer agrees with a key."""

    concurrency: int = Field(default=8, ge=1, le=256, description="requests at a time, one answer each")
    price_read: float = Field(default=0.0, ge=0, description="of a million tokens read, in any currency; for a metric")
    price_written: float = Field(default=0.0, ge=0, description="of a million tokens written")

    def price(self, read: int, written: int) -> float:
        """What so many tokens cost."""
        return (read * self.price_read + written * self.price_written) / 1e6


class Sandbox(StrEnum):
    """What a command is shut in by; each is weaker than the one before. docs/graders.md says what each leaves open."""

    NAMESPACES = "namespaces"
    LANDLOCK = "landlock"
    LIMITS = "limits"


class CommandConfig(Config):
    """A program that marks an answer: exit status 0 is right, any other wrong."""

    argv: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1, max_length=64)
    revision: str = Field(default="", max_length=128, description="change it when what the command does changes")
    timeout_seconds: float = Field(default=60.0, gt=0, le=3_600)
    memory_mib: int = Field(default=1_024, ge=16, description="address space of one process")
    max_file_mib: int = Field(default=64, ge=1, description="size of one file")
    max_processes: int = Field(default=64, ge=1, description="held in sandbox namespaces, unless the auditor is root")
    concurrency: int = Field(default=1, ge=1, le=64)
    sandbox: Sandbox = Sandbox.NAMESPACES
    network: bool = Field(default=False, description="leave the network open")
    readable: tuple[Path, ...] = Field(
        default=(), max_length=64, description="folders and files beside the system's own"
    )
    environment: dict[str, str] = Field(default_factory=dict, description="variables, beside HOME and TMPDIR")
