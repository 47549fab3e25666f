"""`seal --help` answers at once, and imports nothing that it does not need."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.cli.conftest import Seal

ROOT = Path(__file__).resolve().parent.parent.parent
HEAVY = ("torch", "transformers", "peft", "vllm", "grpc", "google.protobuf", "pydantic", "rich", "yaml", "sqlalchemy")


LEARNING = ("up", "run", "watch", "runs", "cancel", "edits", "show", "demo")
DECIDING = ("ask", "versions", "rollback", "promote", "approve", "reject", "status", "verify")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_help_answers_in_under_half_a_second() -> None:
    """Processor time, the best of five: wall time on a busy machine says nothing about the command."""
    times = []
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "--help"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        times.append(usage.ru_utime + usage.ru_stime)
    assert min(times) < 0.5


def test_help_imports_no_heavy_library() -> None:
    code = f"""
import sys
sys.argv = ["seal", "--help"]
from cli.main import main
try:
    main()
except SystemExit:
    pass
print("heavy:", *[name for name in {HEAVY!r} if name in sys.modules])
"""
    assert python(code).splitlines()[-1] == "heavy:"


def test_the_whole_cli_imports_no_model_library_and_no_service() -> None:
    code = """
import importlib, pkgutil, sys, cli
for module in pkgutil.walk_packages(cli.__path__, "cli."):
    importlib.import_module(module.name)
wrong = ("torch", "transformers", "peft", "vllm", "teacher", "student", "auditor")
print("wrong:", *[name for name in wrong if name in sys.modules])
"""
    assert python(code).splitlines()[-1] == "wrong:"


@pytest.mark.parametrize("command", LEARNING + DECIDING)
def test_every_command_explains_itself_with_an_example(seal: Seal, command: str) -> None:
    outcome = seal(command, "--help")
    assert outcome.code == 0
    assert f"  seal {command}" in outcome.out


def test_no_command_shows_the_help(seal: Seal) -> None:
    outcome = seal()
    assert "The first minutes" in outcome.out + outcome.err


def test_an_unknown_command_is_wrong_usage(seal: Seal) -> None:
    outcome = seal("teach")
    assert outcome.code == 2
    assert "teach" in outcome.err


def test_the_version_is_the_packages(seal: Seal) -> None:
    outcome = seal("--version")
    assert outcome.code == 0
    assert outcome.out.strip() == f"seal {metadata.version('seal-services')}"
