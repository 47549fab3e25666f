"""The teacher's and the student's images for a CPU, made without a container engine: gigabytes, minutes.

Those for a GPU differ by their lock alone; tests/images/test_install.py resolves it.
"""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.certificates import Authority
from common.boundary.identities import Role
from tests.images.box import why_not
from tests.images.build import Container, build, exec_form, own
from tests.images.dockerfile import ROOT, Dockerfile, read
from tools.image_requirements import pins

pytestmark = [
    pytest.mark.images,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "never"),
]
CPU_WHEELS = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Made:
    service: str
    file: Dockerfile
    target: Path


@pytest.fixture(scope="module", params=["student", "teacher"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    service = str(request.param)
    folder = tmp_path_factory.mktemp(service)
    yield Made(service, read(service), build(read(service), folder, VARIANT="-cpu", TORCH_INDEX=torch_index()))
    shutil.rmtree(folder)


@pytest.fixture
def container(made: Made, tmp_path: Path) -> Container:
    tls = tmp_path / "tls"
    Authority.create("seal.internal").issue(tls, Role(made.service))
    own(tls)
    return Container.of(made.file, made.target, tmp_path, {"/var/run/seal/tls": tls})


def torch_index() -> str:
    """Where torch's CPU build is; elsewhere pip knows a folder or mirror that has the same file (tools/install)."""
    try:
        urllib.request.urlopen(f"{CPU_WHEELS}/torch/", timeout=5).close()
    except (urllib.error.URLError, OSError):
        return ""
    return CPU_WHEELS


def test_it_starts_with_its_own_libraries_and_settings(container: Container, made: Made) -> None:
    done = container.run(f"{exec_form(made.file.final.last('CMD').value)} --print-config")
    assert done.returncode == 0, done.stderr
    assert "model: /models/model" in done.stdout
    versions = pins((ROOT / "requirements" / "cpu-torch.txt").read_text())
    code = (
        "import torch, transformers, peft, safetensors; x = torch.ones(2, 2); print(torch.__version__, (x @ x).sum())"
    )
    done = container.run(f'python -c "{code}"')
    assert done.stdout.split()[0].partition("+")[0] == versions["torch"], done.stderr
    assert "8." in done.stdout


def test_it_refuses_to_start_without_weights_and_says_so(container: Container, made: Made) -> None:
    """No weights are in the image: whoever forgot to mount some is told where they were looked for."""
    done = container.run(exec_form(made.file.final.last("CMD").value))
    assert done.returncode != 0
    assert "/models/model" in done.stdout + done.stderr


def test_no_other_service_and_no_command_line_is_in_it(container: Container, made: Made) -> None:
    others = sorted({"teacher", "student", "auditor", "cli", "pip"} - {made.service})
    code = f"import importlib.util as u; print(*[n for n in {others!r} if u.find_spec(n)])"
    assert container.run(f'python -c "{code}"').stdout.strip() == ""
    assert not (made.target / "bin" / "seal").exists()
