"""A short day stays flat by the same measure as the long one, and the measure sees what grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.soak.run import Day, Samples, is_stored, soak
from tests.soak.trend import growth

RUNS = 6


@pytest.mark.timeout(600)
async def test_six_runs_leave_memory_and_files_as_they_were(tmp_path: Path) -> None:
    folder = tmp_path / "day"
    folder.mkdir()
    day = await soak(folder, RUNS)
    found: Any = day.result
    assert (found["runs"], found["failed"]) == (RUNS, 0)
    assert found["promoted"] >= 1
    assert found["flat"], found


def measured(rss: list[float], open_files: list[float], leftovers: list[float]) -> Any:
    samples = Samples({"auditor": rss}, {"auditor": open_files}, leftovers, [0], [1.0])
    return Day(len(rss), promoted=1, failed=0, events=1_000, samples=samples).result


STEADY = [40.0] * 12


def test_growth_is_that_of_a_whole_day_without_its_warm_up() -> None:
    warming = [10.0, 60.0, 80.0, 90.0, *(100.0 + step for step in range(8))]
    assert growth(warming) == pytest.approx(12.0)
    assert growth(STEADY) == 0.0


def test_a_leak_of_memory_files_or_descriptors_is_not_flat() -> None:
    leaking = [40.0 + 3.0 * run for run in range(12)]
    assert measured(STEADY, STEADY, STEADY)["flat"]
    assert not measured(leaking, STEADY, STEADY)["flat"]
    assert not measured(STEADY, leaking, STEADY)["flat"]
    assert not measured(STEADY, STEADY, leaking)["flat"]


def test_temporary_files_of_a_store_are_leftovers_and_versions_are_not() -> None:
    assert is_stored(Path("student/adapters/abc/manifest.json"))
    assert not is_stored(Path("student/adapters/.abc.tmp1/manifest.json"))
    assert not is_stored(Path("teacher/proposals/.x.json.tmp"))
    assert not is_stored(Path("ledger.db-wal"))
