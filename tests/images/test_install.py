"""The auditor's image, made and started without a container engine, and the locks of the GPU resolved.

Its Dockerfile's own steps run in a fresh environment, as user 10001, on a read-only root; so does what it starts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli.certificates import Authority
from common.boundary.identities import Role
from tests.images.box import why_not
from tests.images.build import Container, build, exec_form, own
from tests.images.dockerfile import ROOT, Dockerfile, read
from tools.image_requirements import name_of, pins

pytestmark = [
    pytest.mark.images,
    pytest.mark.timeout(1_200),
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "never"),
]


@pytest.fixture(scope="module")
def file() -> Dockerfile:
    return read("auditor")


@pytest.fixture(scope="module")
def built(file: Dockerfile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(file, tmp_path_factory.mktemp("auditor"))


@pytest.fixture
def container(file: Dockerfile, built: Path, tmp_path: Path) -> Container:
    tls = tmp_path / "tls"
    Authority.create("seal.internal").issue(tls, Role.AUDITOR)
    own(tls)
    return Container.of(file, built, tmp_path, {"/var/run/seal/tls": tls})


def test_its_command_shows_the_settings_that_it_would_start_with(container: Container, file: Dockerfile) -> None:
    done = container.run(f"{exec_form(file.final.last('CMD').value)} --print-config")
    assert done.returncode == 0, done.stderr
    assert "listen: 0.0.0.0:50053" in done.stdout
    assert "database: sqlite:////var/lib/seal/ledger.db" in done.stdout


def test_it_serves_until_it_is_told_to_stop(container: Container, file: Dockerfile) -> None:
    """Its HEALTHCHECK finds it ready, the ledger is where the volume is, and SIGTERM ends it in order."""
    start, check = (exec_form(file.final.last(name).value) for name in ("CMD", "HEALTHCHECK"))
    done = container.run(
        f"{start} & server=$!; until {check}; do kill -0 $server || exit 9; done;"
        " echo ready; kill -TERM $server; wait $server; echo ended $?"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ready\n" in done.stdout
    assert "ended 0" in done.stdout, done.stdout + done.stderr
    assert (container.box.writable["/var/lib/seal"] / "ledger.db").stat().st_size > 0


def test_nothing_but_the_volumes_can_be_written(container: Container) -> None:
    done = container.run(
        "id -u; for file in /opt/seal/x /etc/seal/x /etc/x /var/run/seal/tls/x /x; do"
        " touch $file 2>/dev/null && echo wrote $file; done;"
        " touch /var/lib/seal/x /tmp/x && echo volumes; grep CapEff /proc/self/status"
    )
    assert done.stdout.split("\n")[:2] == ["10001", "volumes"], done.stdout + done.stderr
    assert "CapEff:\t0000000000000000" in done.stdout


def test_it_holds_what_is_locked_and_the_project_alone(container: Container, built: Path) -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "list", "--format", "json", "--path", str(site_packages(built))],
        capture_output=True,
        text=True,
        check=True,
    )
    found = {name_of(package["name"]): package["version"] for package in json.loads(listed.stdout)}
    locked = pins((ROOT / "requirements" / "image-auditor.txt").read_text())
    assert found.pop("seal-services")
    assert found == locked
    code = (
        "import importlib.util as u; print(*[n for n in ('torch','pip','teacher','student','tests') if u.find_spec(n)])"
    )
    assert container.run(f'python -c "{code}"').stdout.strip() == ""


def test_the_command_line_is_in_it(container: Container) -> None:
    done = container.run("seal --version && seal run /nowhere --changed-since /var/lib/seal/state.json")
    assert done.stdout.startswith("seal ")
    assert done.returncode == 2
    assert "/nowhere: no such file or folder" in done.stderr


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with what resolves and what lists."""
    folder = tmp_path_factory.mktemp("tools")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    lock = ROOT / "requirements" / "image-tools.txt"
    command = [folder / "bin" / "pip", "install", "-q", "--no-deps", "--require-hashes", "-r", lock]
    subprocess.run([str(word) for word in command], check=True)
    return folder / "bin"


def test_the_list_of_contents_is_what_is_installed(tools: Path, built: Path, tmp_path: Path) -> None:
    subprocess.run(["tools/sbom", str(tmp_path)], cwd=ROOT, env={"PATH": f"{tools}:/usr/bin:/bin"}, check=True)
    listed = json.loads((tmp_path / "auditor.cdx.json").read_text())
    assert (listed["bomFormat"], listed["metadata"]["component"]["name"]) == ("CycloneDX", "seal-services")
    components = {name_of(entry["name"]): entry for entry in listed["components"]}
    installed = {name_of(path.name.split("-")[0]) for path in site_packages(built).glob("*.dist-info")}
    assert set(components) == installed - {"seal-services"}
    assert all(entry["purl"].startswith("pkg:pypi/") and entry["version"] for entry in components.values())


@pytest.mark.parametrize("name", ["student", "teacher"])
def test_the_gpu_locks_resolve_to_themselves(tools: Path, tmp_path: Path, name: str) -> None:
    """Every package is to be had with the locked hashes, and its own requirements are met by the others."""
    lock = ROOT / "requirements" / f"image-{name}.txt"
    out = tmp_path / "again.txt"
    command = [tools / "uv", "pip", "compile", "-q", "--generate-hashes", "--no-annotate", "--no-header", lock]
    target = ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28", "-o", out]
    subprocess.run([str(word) for word in [*command, *target]], check=True, cwd=ROOT)
    again = out.read_text()
    assert pins(again) == pins(lock.read_text())


def site_packages(built: Path) -> Path:
    (found,) = built.glob("lib/python3.*/site-packages")
    return found
