"""Configuration: one merged object, and an error that names source and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import Config, ServiceConfig, load_config, resolve
from common.errors import InvalidConfig


class Engine(Config):
    top_p: float = 0.9
    name: str = "small"


class Example(ServiceConfig):
    listen: str = "127.0.0.1:0"
    engine: Engine = Engine()


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("engine: {top_p: 0.1, name: file}\nreflection: true\n")
    config = resolve(
        Example, "example", file=file, settings=["engine.top_p=0.3"], environment={"SEAL_EXAMPLE__ENGINE__TOP_P": "0.2"}
    )
    assert (config.engine.top_p, config.engine.name, config.reflection) == (0.3, "file", True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("engine: {topp: 1}", r"c\.yaml: engine\.topp: unknown key"),
        ("enigne: 1", r"c\.yaml: enigne: unknown key"),
        ("engine: {top_p: high}", r"c\.yaml: engine\.top_p: .*number"),
        ("a: [", r"c\.yaml, line \d+: not valid YAML"),
        ("- 1", r"c\.yaml: expected settings"),
    ],
)
def test_bad_file_is_refused_by_file_and_key(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(InvalidConfig, match=expected):
        resolve(Example, "example", file=file)


def test_unknown_environment_key_is_refused() -> None:
    with pytest.raises(InvalidConfig, match=r"SEAL_EXAMPLE__ENGINE__SIZE: engine\.size: unknown key"):
        resolve(Example, "example", environment={"SEAL_EXAMPLE__ENGINE__SIZE": "3", "PATH": "x"})


def test_service_exits_with_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        load_config(Example, "example", ["--set", "nonsense=1"])
    assert stop.value.code == 2
    assert "nonsense: unknown key" in capsys.readouterr().err


def test_print_config_shows_what_is_in_force(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        load_config(Example, "example", ["--print-config", "--set", "engine.name=big"])
    assert stop.value.code == 0
    assert "name: big" in capsys.readouterr().out
