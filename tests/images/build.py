"""Carries out a Dockerfile's stages in a box, so that what is tested is what stands in the file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.images.box import USER, Box
from tests.images.dockerfile import ROOT, Dockerfile, Stage

TARGET = "/opt/seal"


def build(file: Dockerfile, folder: Path, **arguments: str) -> Path:
    """What the build stage leaves in /opt/seal: COPYs are copied, RUNs are run, in order, without any rights."""
    stage = file.stage("build")
    workdir = stage.last("WORKDIR").value
    target, work = owned(folder / "target"), owned(folder / "work")
    box = Box(
        folder / "space", writable={TARGET: target, workdir: work}, environment=stage_arguments(stage) | arguments
    )
    for instruction in stage.instructions:
        if instruction.name == "COPY":
            *sources, destination = instruction.words
            for source in sources:
                copy(source, work / destination, into=destination.endswith("/"))
            own(work)
        elif instruction.name == "RUN":
            done = box.run(instruction.value, cwd=workdir)
            if done.returncode:
                raise AssertionError(f"{instruction.value}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return target


def stage_arguments(stage: Stage) -> dict[str, str]:
    pairs = (argument.words[0].partition("=") for argument in stage.all("ARG"))
    return {name: value for name, _, value in pairs}


@dataclass(frozen=True)
class Container:
    """The final stage: its files closed, its volumes open, its user, its environment."""

    file: Dockerfile
    box: Box

    @classmethod
    def of(cls, file: Dockerfile, target: Path, folder: Path, mounted: dict[str, Path]) -> Container:
        """mounted: what a cluster would mount, read-only."""
        final = file.final
        volumes = {volume: owned(folder / volume.strip("/").replace("/", "-")) for volume in final.last("VOLUME").words}
        readable = {TARGET: target, **mounted}
        for copy_ in final.all("COPY"):
            if "from" not in copy_.flags:
                source, destination = copy_.words
                readable[destination] = ROOT / source
        environment = {
            name: value.replace("$PATH", "/usr/local/bin:/usr/bin:/bin") for name, value in final.environment.items()
        }
        # Debian's packages are this machine's.
        as_root = [run.value for run in final.all("RUN") if not run.value.startswith("apt-get ")]
        return cls(file, Box(folder / "space", volumes, readable, environment, as_root, network=False))

    def run(self, command: str, *, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        return self.box.run(command, cwd=self.file.final.last("WORKDIR").value, seconds=seconds)


def copy(source: str, destination: Path, *, into: bool) -> None:
    """As COPY does, of what git tracks: that is what a clean checkout would send."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", source],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, tracked):
        below = Path(name).relative_to(source) if (ROOT / source).is_dir() else Path(Path(name).name)
        to = destination / below if into or (ROOT / source).is_dir() or destination.is_dir() else destination
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, to)


def owned(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    os.chown(folder, USER, USER)
    return folder


def own(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, USER, USER, follow_symlinks=False)


def exec_form(value: str) -> str:
    """The shell words of ["python", "-m", ...]."""
    return re.sub(r'^CMD\s+|[\[\]",]', "", value)
