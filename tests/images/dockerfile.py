"""Reads a Dockerfile as far as the tests need: stages, and their instructions in order."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "deploy" / "docker"
SERVICES = ("teacher", "student", "auditor")


@dataclass(frozen=True)
class Instruction:
    """`flags` are the --key=value words in front."""

    name: str
    value: str
    flags: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """Of the exec form, or as a shell splits it."""
        return list(json.loads(self.value)) if self.value.startswith("[") else shlex.split(self.value)


@dataclass(frozen=True)
class Stage:
    name: str
    base: str
    instructions: tuple[Instruction, ...]

    def all(self, name: str) -> list[Instruction]:
        return [instruction for instruction in self.instructions if instruction.name == name]

    def last(self, name: str) -> Instruction:
        return self.all(name)[-1]

    @property
    def environment(self) -> dict[str, str]:
        pairs = (word.partition("=") for env in self.all("ENV") for word in env.words)
        return {key: value for key, _, value in pairs}


@dataclass(frozen=True)
class Dockerfile:
    """arguments: those before the first stage, with their defaults."""

    text: str
    arguments: dict[str, str]
    stages: tuple[Stage, ...]

    def stage(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def final(self) -> Stage:
        return self.stages[-1]


def read(service: str) -> Dockerfile:
    text = (FOLDER / f"{service}.Dockerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [_instruction(line) for line in joined.splitlines() if line.strip()]
    starts = [i for i, instruction in enumerate(found) if instruction.name == "FROM"]
    stages = [
        _stage(found[start], found[start + 1 : end]) for start, end in zip(starts, [*starts[1:], None], strict=True)
    ]
    arguments = [instruction.value.partition("=") for instruction in found[: starts[0]]]
    return Dockerfile(text, {name: default for name, _, default in arguments}, tuple(stages))


def _instruction(line: str) -> Instruction:
    name, _, rest = line.strip().partition(" ")
    flags = {}
    while (match := re.match(r"--([a-z-]+)=(\S+)\s+", rest.lstrip())) is not None:
        flags[match[1]] = match[2]
        rest = rest.lstrip()[match.end() :]
    return Instruction(name, rest.strip(), flags)


def _stage(begin: Instruction, instructions: list[Instruction]) -> Stage:
    base, _, name = begin.value.partition(" AS ")
    return Stage(name.strip(), base.strip(), tuple(instructions))
