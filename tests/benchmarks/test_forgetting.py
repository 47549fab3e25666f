"""The forgetting matrix's figures, its picture, and steps that are finished on disk."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmarks.forgetting import EditSequence, result
from benchmarks.heat_map import heat_map
from benchmarks.steps import Steps
from common.errors import InvalidConfig


def sequence(rows: list[list[float]], arm: str = "ours", order: int = 0) -> EditSequence:
    n = len(rows[0])
    return EditSequence(
        arm=arm,
        order=order,
        passages=tuple(f"p{i}" for i in range(n)),
        titles=tuple(f"<{i}> & co" for i in range(n)),
        questions=(5,) * n,
        accepted=tuple(i % 2 == 0 for i in range(n)),
        rows=tuple(tuple(row) for row in rows),
        empty=(0,) * (n + 1),
    )


def test_figures_are_those_of_the_definitions() -> None:
    found = sequence([[0.0, 0.2, 0.0], [0.6, 0.2, 0.0], [0.4, 0.4, 0.0], [0.2, 0.4, 0.8]])
    assert found.right_after == (0.6, 0.4, 0.8)
    assert found.learned == pytest.approx(0.6)
    assert found.forgetting == pytest.approx((0.4 + 0.0 + 0.0) / 3)
    assert found.backward_transfer == pytest.approx(-0.2)
    assert found.final_mean == pytest.approx(1.4 / 3)
    assert found.unedited_mean == pytest.approx(0.2 / 3)


@given(st.integers(1, 6).flatmap(lambda n: st.lists(st.lists(st.floats(0, 1), min_size=n, max_size=n),
                                                     min_size=n + 1, max_size=n + 1)))  # fmt: skip
def test_what_was_learned_is_kept_or_forgotten(rows: list[list[float]]) -> None:
    found = sequence(rows)
    assert found.learned - found.forgetting == pytest.approx(found.final_mean)


def test_the_last_line_is_the_mean_over_orders() -> None:
    low, high = [[0.0, 0.0], [0.2, 0.0], [0.2, 0.2]], [[0.0, 0.0], [0.6, 0.0], [0.4, 0.6]]
    found = result([sequence(low), sequence(high, order=1)], [sequence(low, "reference")])
    assert found == {
        "accepted": 1.0,
        "learned": 0.4,
        "learned_reference": 0.2,
        "forgetting": 0.05,
        "forgetting_reference": 0.0,
        "final_mean": 0.35,
        "unedited_mean": 0.0,
    }


def test_a_matrix_that_does_not_fit_its_passages_is_refused() -> None:
    with pytest.raises(ValidationError):
        sequence([[0.0, 0.0], [0.0, 0.0]])


def test_the_picture_has_a_cell_for_every_version_and_passage() -> None:
    rows = [[0.0, 1.0], [0.25, 0.5], [0.0, 0.75]]
    picture = ET.fromstring(heat_map([sequence(rows), sequence(rows, "reference"), sequence(rows, order=1)]))
    name = "{http://www.w3.org/2000/svg}"
    assert len(picture.findall(f"{name}g")) == 3
    for panel in picture.findall(f"{name}g"):
        texts = [text.text for text in panel.findall(f"{name}text")]
        assert [text for text in texts if text and text.isdigit()] == ["0", "100", "25", "50", "0", "75"]


def test_finished_steps_are_not_done_again_and_settings_do_not_mix(tmp_path: Path) -> None:
    calls = []

    def work() -> EditSequence:
        calls.append(1)
        return sequence([[0.0], [1.0]])

    first = Steps(tmp_path, {"epochs": 10}).once("one", EditSequence, work)
    again = Steps(tmp_path, {"epochs": 10}).once("one", EditSequence, work)
    assert (first, len(calls)) == (again, 1)
    with pytest.raises(InvalidConfig, match="other settings"):
        Steps(tmp_path, {"epochs": 5})
