"""Fixtures: a scripted auditor on a real server, and commands run as `seal` runs them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
import structlog.testing

from cli.connection import choose_tls
from cli.main import main
from tests.cli.scripted_auditor import ScriptedAuditor, serving


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code and both outputs."""

    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[Any]:
        """Standard output as JSON, one value a line; fails if anything else stands there."""
        return [json.loads(line) for line in self.out.splitlines()]


Seal = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def quiet_server() -> Iterator[None]:
    """The scripted auditor's log would stand among what the commands print."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture(autouse=True)
def no_certificate() -> Iterator[None]:
    """A command chooses its certificate for the whole process, which here goes on to other tests."""
    yield
    choose_tls(None)


@pytest.fixture
def servicer() -> ScriptedAuditor:
    return ScriptedAuditor()


@pytest.fixture
def target(servicer: ScriptedAuditor) -> Iterator[str]:
    with serving(servicer) as address:
        yield address


@pytest.fixture
def seal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Seal:
    """Runs a command line and returns what it left."""

    def run(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["seal", *arguments])
        code = 0
        try:
            main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def asked(target: str, seal: Seal) -> Seal:
    """Runs a command against the scripted auditor."""
    return lambda *arguments: seal(*arguments, "--auditor", target)
