"""What `seal bench` asks of this process: one JSON file, refused by the flag that it came from.

cli/benching.py writes it; it holds what was told and nothing else, so that defaults stand in one place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, Field

from benchmarks.method.continual_settings import CHAINS, REFERENCE
from benchmarks.method.settings import IN_CONTEXT, PASSAGE, UNEDITED, BenchSettings
from common.config import resolve
from common.errors import InvalidConfig
from common.settings import Config

SettingsT = TypeVar("SettingsT", bound=BenchSettings)
Option = tuple[str, str, object]


class Asked(Config):
    """options: (flag, key, value); settings: KEY=VALUE of --set."""

    bench: Literal["passages", "corpus", "continual"]
    options: tuple[Option, ...]
    settings: tuple[str, ...] = ()
    plan: bool = False
    as_json: bool = Field(default=False, alias="json")


class CorpusSettings(BenchSettings):
    """One update on the union of several passages."""

    together: int = Field(default=24, ge=2, description="passages that one update learns")


def read(file: Path) -> Asked:
    return Asked.model_validate_json(file.read_bytes())


def settings_of(asked: Asked, model: type[SettingsT]) -> SettingsT:
    """Raises InvalidConfig that names the flag."""
    return resolved(model, [*asked.options, *implied(asked)], asked.settings)


def resolved(model: type[SettingsT], options: Sequence[Option], settings: Sequence[str]) -> SettingsT:
    """One key of a group that is told leaves the others as they are by default. Raises InvalidConfig."""
    return resolve(model, "bench", options=[*defaults(model), *options], settings=settings)


def defaults(model: type[BaseModel]) -> Iterator[Option]:
    """Every value of the groups that a benchmark has by default: those are not the groups' own defaults."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from _leaves(name, default.model_dump(mode="json", exclude_none=True))


def _leaves(path: str, value: object) -> Iterator[Option]:
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(f"{path}.{key}", below)
    else:
        yield ("default", path, value)


def implied(asked: Asked) -> list[Option]:
    """Arms that do without recorded edits where there are none; chains of the procedures that were asked for.

    Raises InvalidConfig for a chain of a procedure that was not.
    """
    told = {key: value for _, key, value in asked.options}
    told |= dict.fromkeys((setting.partition("=")[0] for setting in asked.settings), None)
    continual = asked.bench == "continual"
    found: list[Option] = []
    if not told.keys() & {"arms", "edits"}:
        found.append(("--arms", "arms", [UNEDITED, PASSAGE] if continual else [UNEDITED, IN_CONTEXT, PASSAGE]))
    procedures = told.get("procedures")
    if continual and isinstance(procedures, list):
        chains = told.get("chains")
        if "chains" not in told:
            found.append(("--procedure", "chains", [chain for chain in CHAINS if _procedure(chain) in procedures]))
        for chain in chains if isinstance(chains, list) else []:
            if chain in CHAINS and _procedure(chain) not in procedures:
                raise InvalidConfig(
                    f"--chain: {chain} is of the {_procedure(chain)} procedure, which --procedure leaves out"
                )
    return found


def _procedure(chain: str) -> str:
    return "reference" if chain == REFERENCE else "seal"
