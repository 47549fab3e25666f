"""`seal bench`: what is told reaches the benchmark, refusals come back from it, and an interrupt goes on to it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
from setuptools import find_namespace_packages

from cli import benching
from tests.cli.conftest import Outcome, Seal

ROOT = Path(__file__).resolve().parents[2]

RECORDING = """
    import json, sys
    from pathlib import Path
    asked = json.loads(Path(sys.argv[1]).read_text())
    Path("asked.json").write_text(json.dumps(asked))
    print("a table")
    print("progress", file=sys.stderr)
"""
REFUSING = """
    import json, sys
    from pathlib import Path
    refusal = {"what": "mine.json: [0].title: missing", "next_step": "Mend it.", "code": 2, "reason": "INVALID_CONFIG"}
    Path(sys.argv[3]).write_text(json.dumps(refusal))
    sys.exit(2)
"""
WAITING = """
    import os, signal, subprocess, sys
    def stop(number, frame):
        print("told to stop", flush=True)
        sys.exit(130)
    signal.signal(signal.SIGTERM, stop)
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"{os.getpid()} {worker.pid}", flush=True)
    while True:
        signal.pause()
"""


def standing_in(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark of a few lines in the place of the real one."""
    (folder / "stand_in.py").write_text(textwrap.dedent(code))
    monkeypatch.setattr(benching, "MODULE", "stand_in")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.chdir(folder)


@pytest.fixture
def asked_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seal: Seal) -> Any:
    """What a command line asks of the benchmark."""
    standing_in(RECORDING, tmp_path, monkeypatch)

    def ask(*arguments: str) -> dict[str, Any]:
        assert seal("bench", *arguments).code == 0
        asked = json.loads((tmp_path / "asked.json").read_text())
        assert isinstance(asked, dict)
        return asked

    return ask


def test_nothing_is_told_but_what_was_said(asked_by: Any) -> None:
    assert asked_by("passages", "mine.json") == {
        "bench": "passages",
        "options": [["DATA", "data", "mine.json"], ["--results", "folder", ".seal/bench"]],
        "settings": [],
        "plan": False,
        "json": False,
    }


def test_every_option_reaches_the_benchmark_under_its_settings_name(asked_by: Any) -> None:
    asked = asked_by(
        *("passages", "mine.json", "--edits", "e.json", "--arms", "unedited,passage", "--arms", "recorded"),
        *("--procedure", "reference", "--model", "org/name", "--device", "cuda", "--passages", "3"),
        *("--leave-out", "tuned.json", "--seed", "7", "--answer-tokens", "16", "--anchors", "a.yaml"),
        *("--anchors-asked", "0", "--teacher", "t.yaml", "--fallback", "--results", "out", "--workers", "2"),
        *("--set", "seal.recipe.epochs=3", "--set", "reference.sampled_pads=0", "--plan", "--json"),
    )
    assert {flag: (key, value) for flag, key, value in asked["options"]} == {
        "DATA": ("data", "mine.json"),
        "--edits": ("edits", "e.json"),
        "--arms": ("arms", ["unedited", "passage", "recorded"]),
        "--procedure": ("procedures", ["reference"]),
        "--model": ("model.model", "org/name"),
        "--device": ("model.device", "cuda"),
        "--passages": ("count", 3),
        "--leave-out": ("leave_out", "tuned.json"),
        "--seed": ("seed", 7),
        "--answer-tokens": ("answer_tokens", 16),
        "--anchors": ("anchors", "a.yaml"),
        "--anchors-asked": ("anchors_asked", 0),
        "--teacher": ("teacher", "t.yaml"),
        "--fallback": ("fallback", True),
        "--results": ("folder", "out"),
        "--workers": ("workers", 2),
    }
    assert asked["settings"] == ["seal.recipe.epochs=3", "reference.sampled_pads=0"]
    assert asked["plan"] is True
    assert asked["json"] is True


def test_corpus_and_continual_tell_their_sizes(asked_by: Any) -> None:
    assert ["--n", "together", 24] in asked_by("corpus", "mine.json", "--n", "24")["options"]
    options = asked_by("continual", "mine.json", "--length", "4", "--sequences", "2", "--chain", "bare,reference")[
        "options"
    ]
    assert ["--length", "length", 4] in options
    assert ["--sequences", "sequences", 2] in options
    assert ["--chain", "chains", ["bare", "reference"]] in options


def test_output_and_progress_are_the_commands_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    standing_in(RECORDING, tmp_path, monkeypatch)
    asyncio.run(benching.run_bench({"bench": "passages"}))
    said = capfd.readouterr()
    assert said.out == "a table\n"
    assert said.err == "progress\n"


def test_a_refusal_is_said_as_any_other_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seal: Seal) -> None:
    standing_in(REFUSING, tmp_path, monkeypatch)
    assert seal("bench", "passages", "mine.json") == Outcome(
        2, "", "seal: mine.json: [0].title: missing\n      Mend it.\n"
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [("import sys; sys.exit(3)", "exit code 3"), ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL")],
)
def test_a_benchmark_that_dies_says_how_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seal: Seal, code: str, said: str
) -> None:
    standing_in(code, tmp_path, monkeypatch)
    outcome = seal("bench", "passages", "mine.json")
    assert outcome.code == 1
    assert said in outcome.err
    assert "The same command goes on where it stopped." in outcome.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_the_benchmark_and_whatever_it_started(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "stand_in.py").write_text(textwrap.dedent(WAITING))
    command = 'import sys; from cli import benching; benching.MODULE = "stand_in"; from cli.main import main; main()'
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    process = subprocess.Popen(
        [sys.executable, "-c", command, "bench", "passages", "mine.json"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    started = [int(word) for word in process.stdout.readline().split()]
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == "told to stop\n"
    assert "benchmark stopped" in err
    assert "goes on where it stopped" in err
    assert not [pid for pid in started if running(pid)]


def running(pid: int) -> bool:
    """Not counting what has ended and waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("command", ["passages", "corpus", "continual"])
def test_each_command_explains_itself_with_an_example(seal: Seal, command: str) -> None:
    outcome = seal("bench", command, "--help")
    assert outcome.code == 0
    assert f"  seal bench {command} squad.json" in outcome.out


def test_a_wrong_file_is_refused_by_its_field_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seal: Seal
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text(json.dumps([{"title": "T", "context": "C", "questions": [{"question": "Q?"}]}]))
    outcome = seal("bench", "passages", "mine.json")
    assert outcome.code == 2
    assert "seal: mine.json: [0].questions[0].answer: Field required" in outcome.err
    assert not Path(".seal").exists()


def test_an_installed_command_finds_its_benchmarks_and_their_data() -> None:
    """What setuptools would put in a wheel: packages of the benchmarks, their data, and no results of former days."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = find_namespace_packages(str(ROOT), **found["packages"]["find"])
    assert "benchmarks.method" in packages
    assert not [name for name in packages if name.startswith(("tests", "tools", "benchmarks.results"))]
    data = {path for pattern in found["package-data"]["benchmarks"] for path in (ROOT / "benchmarks").glob(pattern)}
    assert {path for path in (ROOT / "benchmarks" / "data").iterdir() if path.is_file()} == data
