"""Which tasks of lm-evaluation-harness runs may name as suites, and where those of one's own lie."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from common.config import Config

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")]


class HarnessTask(Config):
    task: str = Field(default="", description="lm_eval's name of the task or group; empty: the same as here")
    include_path: Path | None = Field(
        default=None, description="folder with the task's YAML and its data; none: lm_eval's own tasks"
    )
    limit: int | None = Field(default=None, ge=1, le=10_000, description="first documents of each task; none: all")
    num_fewshot: int | None = Field(default=None, ge=0, le=64, description="none: as the task says")
    metric: str = Field(default="", description="a score of 0..1 per document; empty: exact_match or acc")
    filter: str = Field(default="", description="of the task's filters; empty: its first")


class HarnessConfig(Config):
    tasks: dict[Name, HarnessTask] = Field(default={}, description="by NAME; runs call them lm_eval:NAME")
    offline: bool = Field(default=True, description="fetch nothing: data lies beside the task or in the hub's cache")
