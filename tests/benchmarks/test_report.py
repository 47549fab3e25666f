"""A hand-made table as text and as a picture: every arm, every figure, and nothing where nothing was measured."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from benchmarks.method.pictures import picture
from benchmarks.method.report import report
from benchmarks.method.results import ArmFigures, Comparison, Difference, Figure, Table

SVG = "{http://www.w3.org/2000/svg}"


def figure(mean: float, low: float, high: float) -> Figure:
    return Figure(mean=mean, low=low, high=high)


def both(mean: float, low: float, high: float) -> dict[str, Figure]:
    return {"contains": figure(mean, low, high), "token_f1": figure(mean / 2, low / 2, high / 2)}


def arm(name: str, procedure: str = "", mean: float = 0.1, **more: object) -> ArmFigures:
    values: dict[str, object] = {
        "arm": name,
        "procedure": procedure,
        "passages": 2,
        "questions": 40,
        "accuracy": both(mean, mean - 0.05, mean + 0.05),
        "empty": 0,
        "right_to_wrong": 0,
        "wrong_to_right": 0,
    }
    return ArmFigures.model_validate(values | more)


@pytest.fixture
def table() -> Table:
    trained = {"anchors": 120, "anchor_questions": 90, "tokens": 12_345, "seconds": 61.4, "right_to_wrong": 1}
    return Table(
        bench="passages",
        model="org/a<model",
        base="0" * 64,
        data="1" * 64,
        settings={},
        titles=("A", "B"),
        arms=(
            arm("unedited"),
            arm("in-context", mean=0.9, gain=both(0.8, 0.7, 0.9)),
            arm("recorded", "seal", 0.45, gain=both(0.35, 0.2, 0.5), anchors_lost=6, wrong_to_right=15, **trained),
            arm("recorded", "reference", 0.2, gain=both(0.1, -0.1, 0.3), anchors_lost=30, empty=10, **trained),
        ),
        differences=(
            Difference(
                arm="recorded", accuracy=both(0.25, 0.05, 0.45), lost_share=(0.05, 0.25), lost=figure(-0.2, -0.3, -0.1)
            ),
        ),
        comparisons=(
            Comparison(procedure="seal", arm="recorded", less="in-context", accuracy=both(-0.45, -0.6, -0.3)),
        ),
    )


def rows(text: str, *first: str) -> list[list[str]]:
    """Cells of the table rows that begin so."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    return [row for row in cells if row[: len(first)] == list(first)]


def test_every_arm_stands_with_its_figures_in_per_cent(table: Table) -> None:
    learned, cost = rows(report(table), "recorded", "seal")
    assert learned[2:] == [
        "45.0 [40.0, 50.0]",
        "22.5 [20.0, 25.0]",
        "+35.0 [+20.0, +50.0]",
        "+17.5 [+10.0, +25.0]",
        "0.0",
    ]
    assert cost[2:] == ["1", "15", "6 of 120 (5.0)", "90", "12,345", "61"]


def test_empty_answers_are_counted_apart(table: Table) -> None:
    learned, _ = rows(report(table), "recorded", "reference")
    assert learned[-1] == "25.0"


def test_what_was_not_measured_is_no_nought(table: Table) -> None:
    learned, cost = rows(report(table), "unedited")
    assert learned[1] == "-"
    assert learned[4:6] == ["-", "-"]
    assert cost[4:] == ["-", "-", "-", "-"]


def test_the_difference_is_ours_less_the_published(table: Table) -> None:
    (row,) = [row for row in rows(report(table), "recorded") if len(row) == 6]
    assert row[1:] == ["+25.0 [+5.0, +45.0]", "+12.5 [+2.5, +22.5]", "5.0", "25.0", "-20.0 [-30.0, -10.0]"]


def test_arms_are_compared_with_each_other(table: Table) -> None:
    (row,) = rows(report(table), "seal", "recorded")
    assert row[2:] == ["in-context", "-45.0 [-60.0, -30.0]", "-22.5 [-30.0, -15.0]"]


def test_a_policy_is_called_by_the_beginning_of_its_digest(table: Table) -> None:
    policy = f"policy:{'0123456789abcdef' * 4}"
    arms = tuple(one.model_copy(update={"arm": policy}) if one.arm == "recorded" else one for one in table.arms)
    named = table.model_copy(update={"arms": arms})
    assert rows(report(named), "policy:0123456789ab", "seal")
    assert policy not in report(named) + picture(named)


def test_without_both_procedures_nothing_is_compared(table: Table) -> None:
    assert "published" in report(table)
    assert "published" not in report(table.model_copy(update={"differences": ()}))


def test_answers_of_the_parent_are_counted_only_where_they_were_asked_for(table: Table) -> None:
    assert "parent" not in report(table)
    filled = table.arms[3].model_copy(update={"with_fallback": both(0.3, 0.2, 0.4)})
    text = report(table.model_copy(update={"arms": (*table.arms[:3], filled)}))
    assert rows(text, "recorded", "reference")[-1][2:] == ["30.0 [20.0, 40.0]", "15.0 [10.0, 20.0]"]
    assert "labelled as the parent's" in text


def test_tables_are_even_so_that_a_terminal_shows_them_as_they_are(table: Table) -> None:
    blocks = [block.splitlines() for block in report(table).split("\n\n") if block.startswith("|")]
    assert len(blocks) == 4
    assert all(len({len(line) for line in block}) == 1 for block in blocks)


def test_the_picture_is_well_formed_and_holds_every_arm_in_both_panels(table: Table) -> None:
    root = ElementTree.fromstring(picture(table))
    assert root.tag == f"{SVG}svg"
    written = [element.text for element in root.iter(f"{SVG}text")]
    for name in ("unedited", "in-context", "recorded, seal", "recorded, reference"):
        assert written.count(name) == 1
    said = [element.text or "" for element in root.iter(f"{SVG}title")]
    assert len(said) == 2 * len(table.arms)
    assert "recorded, seal: 45.0 [40.0, 50.0]" in said
    assert len(list(root.iter(f"{SVG}circle"))) == 6, "ours and what nobody trained"
    assert len([r for r in root.iter(f"{SVG}rect") if r.get("width") == "10"]) == 2, "the published: another shape"


def test_nothing_is_drawn_outside_the_picture(table: Table) -> None:
    root = ElementTree.fromstring(picture(table))
    width, height = float(root.get("width", "0")), float(root.get("height", "0"))
    lines = [{key: float(line.get(key, "nan")) for key in ("x1", "x2", "y1", "y2")} for line in root.iter(f"{SVG}line")]
    assert lines
    assert all(min(line["x1"], line["x2"]) >= 0 and max(line["x1"], line["x2"]) <= width for line in lines)
    assert all(min(line["y1"], line["y2"]) >= 0 and max(line["y1"], line["y2"]) <= height for line in lines)


def test_what_intervals_leave_out_is_said(table: Table) -> None:
    assert "too narrow" in report(table)
    assert "another seed" not in report(table)
    many = [one.model_copy(update={"passages": 24}) for one in table.arms]
    text = report(table.model_copy(update={"arms": tuple(many), "together": 24}))
    assert "too narrow" not in text
    assert "another seed" in text
