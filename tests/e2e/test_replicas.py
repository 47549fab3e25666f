"""Three student replicas as processes on one store, with a simulated GPU: as fast as three, and robust as one store."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.replicas import measured

CANDIDATES, SECONDS = 12, 5.0


@pytest.mark.e2e
@pytest.mark.timeout(900)
async def test_three_replicas_train_as_fast_as_three_and_a_killed_one_costs_its_work_in_flight(tmp_path: Path) -> None:
    result = await measured(tmp_path, CANDIDATES, SECONDS, 3)
    assert result["ratio"] >= 2.8
    assert result["several"]["begun_twice"] == 0
    assert set(result["several"]["trainings_begun"].values()) == {CANDIDATES // 3}
    killed = result["killed"]
    assert killed["finished"] == CANDIDATES
    # One candidate was under way when its process was killed.
    assert killed["begun_twice"] == 1
    assert killed["ratio"] > 1.5
