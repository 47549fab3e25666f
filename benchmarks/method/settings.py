"""What a benchmark of the method can be told, and our procedure's defaults with it (docs/results.md says why)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field, field_validator

from common.config import Config
from common.files import sha256_file
from common.models.config import ModelConfig
from common.prompting import SYSTEM_PROMPT
from common.types import Recipe
from student.config import DEFAULT_MODEL
from teacher.forms import FormSettings
from teacher.rehearsal import RehearsalSettings
from teacher.screening import ScreeningSettings

Procedure = Literal["seal", "reference"]
PROCEDURES: tuple[Procedure, ...] = ("seal", "reference")
DATA = Path(__file__).resolve().parent.parent / "data"
UNEDITED, IN_CONTEXT, PASSAGE, RECORDED = "unedited", "in-context", "passage", "recorded"
UNTRAINED = (UNEDITED, IN_CONTEXT)
OWN, POLICY = "own:", "policy:"


class SealProcedure(Config):
    """Our inner update. Padding is masked; recipe: what the edit leaves open, over what suits its forms, over the
    student's defaults."""

    forms: FormSettings = FormSettings()
    screening: ScreeningSettings = ScreeningSettings()
    rehearsal: int = Field(
        default=256, ge=0, le=256, description="rehearsed common questions in every edit, or all that there are"
    )
    rehearsal_as_written: int = Field(
        default=RehearsalSettings().examples,
        ge=0,
        le=256,
        description="of an edit of written questions, taught as they are for several epochs: as the teacher does",
    )
    recipe: Recipe = Recipe(rank=32, alpha=64, learning_rate=1e-3, batch_size=4)
    scale: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="how much of an update answers, scaled down as the auditor does; in sequences its gate decides",
    )


class PublishedProcedure(Config):
    """SEAL.md's inner update; its figures stand in benchmarks/reference.py."""

    epochs: int = Field(default=10, ge=1, le=100, description="10 as published; fewer only to try the command")
    sampled_pads: int = Field(default=32, ge=0, description="pads drawn for each row; 0: all 2,048, for a GPU")
    scale: float = Field(default=1.0, gt=0, le=1, description="how much of an update answers: all, as published")


class BenchSettings(Config):
    """One benchmark, whole. Everything that figures depend on is here; `folder` and `workers` are not part of them."""

    data: Path = Field(description="a list of {title, context, questions: [{question, answer}]}")
    edits: Path | None = Field(default=None, description="recorded edits: a list of {title, context, completions}")
    count: int = Field(default=0, ge=0, description="the first so many passages; 0: all")
    leave_out: Path | None = Field(default=None, description="passages of this file are not used")
    arms: tuple[str, ...] = (UNEDITED, IN_CONTEXT, PASSAGE, RECORDED)
    procedures: tuple[Procedure, ...] = PROCEDURES
    model: ModelConfig = Field(default_factory=lambda: ModelConfig(model=DEFAULT_MODEL, system_prompt=SYSTEM_PROMPT))
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    answer_tokens: int = Field(default=32, ge=1, le=512)
    anchors: Path = Field(default=DATA / "anchors.yaml", description="questions in a suite's form; right ones count")
    anchors_asked: int = Field(default=60, ge=0, description="of each version, drawn from those the base has right")
    seal: SealProcedure = SealProcedure()
    reference: PublishedProcedure = PublishedProcedure()
    fallback: bool = Field(default=False, description="report also what the parent would answer in place of nothing")
    teacher: Path | None = Field(default=None, description="settings of the teacher that writes own edits, as YAML")
    folder: Path = Path(".seal/bench")
    workers: int = Field(default=0, ge=0, le=64, description="processes, a thread each; 0: cores, one on a GPU")

    @field_validator("arms")
    @classmethod
    def _known(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        fixed = (UNEDITED, IN_CONTEXT, PASSAGE, RECORDED)
        for arm in arms:
            named = arm.startswith((OWN, POLICY)) and arm not in (OWN, POLICY)
            if arm not in fixed and not named:
                raise ValueError(f"{arm}: known are {', '.join(fixed)}, own:VARIANT and policy:VERSION")
        return (UNEDITED, *(arm for arm in dict.fromkeys(arms) if arm != UNEDITED))


def told(settings: BenchSettings, unused: Mapping[str, set[str]] = MappingProxyType({})) -> dict[str, Any]:
    """What figures depend on, for their table: files by digest, so that no path of a machine is in it; of the
    teacher, benchmarks/method/own_edits.py tells.

    unused: settings that this benchmark does without, by their group.
    """
    left_out: dict[str, Any] = {
        **unused,
        "folder": True,
        "workers": True,
        "data": True,
        "leave_out": True,
        "teacher": True,
        "model": {"cache_dir", "threads"},
    }
    files = {"edits": settings.edits, "anchors": settings.anchors}
    digests = {name: sha256_file(file).sha256 if file is not None else None for name, file in files.items()}
    return {**settings.model_dump(mode="json", exclude=left_out), **digests}
