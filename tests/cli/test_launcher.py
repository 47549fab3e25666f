"""The launcher's promises, with real child processes: ready means ready, a death is told, nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.failure import Failure
from cli.launcher.ready import is_serving
from cli.launcher.services import services_up
from cli.serving import keep_running
from tests.cli.tiny_up import tiny_plan

ROOT = Path(__file__).resolve().parent.parent.parent


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


async def test_ready_means_that_all_three_say_so(tmp_path: Path) -> None:
    reports: list[dict[str, str]] = []
    ready = tmp_path / "ready"
    plan = tiny_plan(tmp_path, student={"ready_when": str(ready)})

    def note(report: dict[str, str]) -> None:
        reports.append(report)
        if report["teacher"] == "ready" and report["student"] == "loading the model":
            ready.touch()

    async with services_up(plan, note) as services:
        for service in plan.services:
            assert await is_serving(services.target(service.name), service.health_name)
    assert ready.exists(), reports


async def test_nothing_is_left_behind(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path, teacher={"litter": True}, auditor={"deaf": True})
    async with services_up(plan) as services:
        pids = [child.pid for child in services.children]
        litter = int((tmp_path / "config" / "teacher.litter").read_text())
        assert all(map(alive, [*pids, litter]))
    assert not any(map(alive, pids))
    assert until(lambda: not alive(litter))


async def test_services_end_by_themselves_when_asked(tmp_path: Path) -> None:
    async with services_up(tiny_plan(tmp_path)):
        pass
    assert '"event": "stopped"' in (tmp_path / "logs" / "student.log").read_text()


async def test_a_child_that_cannot_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(Failure) as failure:
        async with services_up(tiny_plan(tmp_path, student={"crash": True})):
            pytest.fail("it cannot be ready")
    assert "student ended with exit code 1" in failure.value.what
    assert "the model file is missing" in failure.value.what
    assert str(tmp_path / "logs" / "student.log") in failure.value.next_step


async def test_a_child_that_dies_later_is_told_and_the_others_end(tmp_path: Path) -> None:
    end = tmp_path / "end"
    async with services_up(tiny_plan(tmp_path, teacher={"die_when": str(end)})) as services:
        pids = [child.pid for child in services.children]
        end.touch()
        failure = await services.died()
    assert "teacher ended with exit code 3" in failure.what
    assert not any(map(alive, pids))


async def test_a_child_that_never_gets_ready_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"not ready after 2 s: .*student \("):
        async with services_up(tiny_plan(tmp_path, wait_seconds=2.0, student={"ready_when": str(tmp_path / "never")})):
            pytest.fail("it cannot be ready")


async def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    plan = tiny_plan(tmp_path)
    taken = plan.service("student").address
    with socket.create_server((taken.host, taken.port)), pytest.raises(Failure) as failure:
        async with services_up(plan):
            pytest.fail("the port is taken")
    assert f"student.listen: cannot listen at 127.0.0.1:{taken.port}" in failure.value.what
    assert not (tmp_path / "logs").exists()


async def test_a_folder_in_use_is_named_with_its_holder(tmp_path: Path) -> None:
    async with services_up(tiny_plan(tmp_path)):
        with pytest.raises(Failure) as failure:
            async with services_up(tiny_plan(tmp_path)):
                pytest.fail("the folder is taken")
        assert str(tmp_path) in failure.value.what
        assert f"process {os.getpid()}" in failure.value.what
    async with services_up(tiny_plan(tmp_path)):
        pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_orphan_however_the_launcher_ends(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tests.cli.tiny_up", str(tmp_path)]
    launcher = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    pids = [int(pid) for pid in launcher.stdout.readline().split()]
    assert len(pids) == 3
    assert all(map(alive, pids))
    launcher.send_signal(number)
    _, said = launcher.communicate(timeout=20)
    assert until(lambda: not any(map(alive, pids)))
    if number is not signal.SIGKILL:
        assert launcher.returncode == 130
        assert said.strip() == "stopped"


async def test_seal_up_says_where_everything_is_and_tells_a_death(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    end = tmp_path / "end"
    plan = tiny_plan(tmp_path, student={"die_when": str(end)})
    running = asyncio.create_task(keep_running(plan))
    said = ""
    while "export SEAL_AUDITOR" not in said and not running.done():
        await asyncio.sleep(0.05)
        said += capsys.readouterr().out
    end.touch()
    with pytest.raises(Failure, match="student ended with exit code 3"):
        await running
    said += capsys.readouterr().out
    assert "Ready." in said
    for service in plan.services:
        assert f"{service.name:8} {service.address.dialled}" in said
    assert f"export SEAL_AUDITOR={plan.service('auditor').address.dialled}" in said
