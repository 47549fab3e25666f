"""A crew of real processes: every outcome arrives, one failure ends it, and none of its processes is left behind."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.method.crew import each
from benchmarks.method.settings import BenchSettings
from benchmarks.method.versions import Training
from benchmarks.method.workshop import Workshop, work_folder
from common.errors import Corrupt, InvalidRequest, NotFound, Overloaded, SealError, Violation
from tests.support.examples import EXAMPLES, RECIPE
from tests.support.tiny_model import make_tiny_model, tiny_config

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 240
REFUSAL = InvalidRequest([Violation("examples[0].text", "is empty")])


@pytest.fixture
def settings(tmp_path: Path) -> BenchSettings:
    model = tiny_config(make_tiny_model(tmp_path / "model"))
    return BenchSettings(data=tmp_path / "none.json", model=model, folder=tmp_path / "bench", workers=2)


def square(workshop: Workshop, turn: int) -> tuple[int, int]:
    return turn * turn, os.getpid()


def refuse_the_second(workshop: Workshop, turn: int) -> int:
    if turn == 1:
        raise REFUSAL
    if turn > 1:
        wait_forever()
    return turn


def leave_at_once(workshop: Workshop, turn: int) -> None:
    os._exit(3)


def wait_forever() -> None:
    threading.Event().wait()


def train_then_wait(workshop: Workshop, turn: str) -> None:
    """Says on the error stream what it did, and stays at work."""
    said = workshop.train(training(workshop.base_digest)).adapter if turn == "train" else "waits"
    sys.stderr.write(f"turn {turn}: {said}\n")
    sys.stderr.flush()
    wait_forever()


def training(base: str) -> Training:
    return Training(base=base, examples=EXAMPLES, recipe=RECIPE, seed=1)


def hold(settings: str) -> None:
    """The parent of a crew whose turns never end."""
    for _ in each(BenchSettings.model_validate_json(settings), train_then_wait, ["train", "wait"]):
        pass


def test_outcomes_of_all_turns_arrive_from_processes_of_their_own(settings: BenchSettings) -> None:
    outcomes = dict(each(settings, square, range(5)))
    assert {turn: squared for turn, (squared, _) in outcomes.items()} == {0: 0, 1: 1, 2: 4, 3: 9, 4: 16}
    processes = {process for _, process in outcomes.values()}
    assert len(processes) <= 2
    assert os.getpid() not in processes
    assert list(each(settings, square, [])) == []


def test_a_turn_that_fails_raises_its_own_error_and_ends_the_others(settings: BenchSettings) -> None:
    # Turn 2 would never end by itself.
    with pytest.raises(InvalidRequest) as raised:
        list(each(settings, refuse_the_second, range(3)))
    assert (raised.value.message, raised.value.violations) == (REFUSAL.message, REFUSAL.violations)


def test_a_process_that_is_gone_is_said_to_be(settings: BenchSettings) -> None:
    with pytest.raises(SealError, match="ended unasked"):
        list(each(settings, leave_at_once, [1, 2]))


@pytest.mark.parametrize(
    "error",
    [
        SealError("nothing works", reason="WHY", ids={"version": "v"}),
        NotFound("not here"),
        Corrupt("half of it", ids={"file": "f"}),
        REFUSAL,
        Overloaded("later", retry_seconds=2.5, ids={"job": "j"}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_reach_another_process_whole(error: SealError) -> None:
    there = pickle.loads(pickle.dumps(error))
    assert type(there) is type(error)
    assert (str(there), there.__dict__) == (str(error), error.__dict__)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
async def test_no_process_outlives_its_parent_and_what_was_finished_stays(
    settings: BenchSettings, how: signal.Signals
) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        # A test run in a shell's background has SIGINT ignored, and its children inherit that.
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from tests.benchmarks.test_crew import hold; hold(sys.argv[1])",
        settings.model_dump_json(),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    assert parent.stderr is not None
    said: dict[str, str] = {}
    async with asyncio.timeout(SECONDS):
        while len(said) < 2:
            line = (await parent.stderr.readline()).decode()
            assert line, "the crew ended by itself"
            if line.startswith("turn "):
                turn, _, what = line.removeprefix("turn ").strip().partition(": ")
                said[turn] = what
        parent.send_signal(how)
        # All of its processes write to this stream: it ends when the last of them has.
        await parent.stderr.read()
        assert await parent.wait() != 0
    steps: list[str] = []
    workshop = Workshop(work_folder(settings.folder), settings.model, steps.append)
    assert workshop.train(training(workshop.base_digest)).adapter == said["train"]
    assert steps == []
