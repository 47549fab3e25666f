"""An engine's processes do not outlive the one that started them, however it ends."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from common.vllm_engine.guard import ROOT

# {}: what happens between the worker's start and the owner's end.
OWNER = """
import subprocess, sys, time
from common.vllm_engine.guard import Guard
guard = Guard()
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
{}
print(worker.pid, flush=True)
time.sleep(600)
"""


def ended(process: psutil.Process) -> bool:
    """Whether a process ends within a minute; one that nobody has reaped yet has ended too."""
    for _ in range(600):
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("started", ["guard.settle()", "time.sleep(2)  # still starting"])
def test_the_guard_ends_what_a_killed_process_leaves_behind(started: str) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER.format(started)], stdout=subprocess.PIPE, cwd=ROOT) as owner:
        assert owner.stdout is not None
        worker = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
        assert ended(worker)
