"""`make tables`: what it compares, how it is said in one line, and that it reads the files that it is given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.forgetting import EditSequence
from benchmarks.method.continual_report import report
from benchmarks.method.continual_results import ContinualTable, chain_figures, differences
from benchmarks.method.continual_turns import Edited, Played
from benchmarks.method.results import ArmFigures, Difference, Figure, Table
from benchmarks.method.tables import parse, result, settings_of
from benchmarks.passages import read_passages
from common.errors import InvalidConfig

DATA = Path(__file__).resolve().parents[2] / "benchmarks" / "data"


def figures(mean: float, low: float = 0.0, high: float = 1.0) -> dict[str, Figure]:
    return {name: Figure(mean=mean, low=low, high=high) for name in ("contains", "token_f1")}


def arm(name: str, procedure: str, mean: float, empty: int) -> ArmFigures:
    return ArmFigures(
        arm=name,
        procedure=procedure,
        passages=24,
        questions=120,
        accuracy=figures(mean),
        empty=empty,
        right_to_wrong=0,
        wrong_to_right=0,
    )


def apart() -> Table:
    return Table(
        bench="passages",
        model="m",
        base="0" * 64,
        data="0" * 64,
        settings={},
        titles=(),
        arms=(arm("unedited", "", 0.02, 1), arm("recorded", "seal", 0.4, 0), arm("recorded", "reference", 0.3, 30)),
        differences=(Difference(arm="recorded", accuracy=figures(0.1, -0.02, 0.21), lost_share=(0.1, 0.4)),),
    )


def played(chain: str, last: float, accepted: bool = True) -> Played:
    """Two passages: half right after its edit, `last` of the first at the end."""
    sequence = EditSequence(
        arm=chain,
        order=0,
        passages=("a", "b"),
        titles=("A", "B"),
        questions=(10, 10),
        accepted=(True, accepted),
        rows=((0.1, 0.0), (0.5, 0.0), (last, 0.5)),
        empty=(0, 0, 4),
    )
    edits = [
        Edited(passage=key, training=key * 32, accepted=done, examples=5, tokens=100, seconds=2.0)
        for key, done in zip(sequence.passages, sequence.accepted, strict=True)
    ]
    return Played(
        sequence=sequence, edits=tuple(edits), versions=("base", "1", "2"), answers={}, anchors=0, lost=(0,) * 3
    )


@pytest.fixture
def chained() -> ContinualTable:
    found = {"reference": [played("reference", 0.1)], "gate+replay": [played("gate+replay", 0.4, accepted=False)]}
    return ContinualTable(
        model="m",
        base="0" * 64,
        data="0" * 64,
        settings={},
        chains=tuple(chain_figures(chain, outcomes, 0) for chain, outcomes in found.items()),
        differences=differences(found, 0),
        sequences=tuple(outcome for outcomes in found.values() for outcome in outcomes),
    )


def test_the_last_line_has_exactly_these_figures(chained: ContinualTable) -> None:
    assert result(apart(), chained) == {
        "passages": {
            "ours": 0.4,
            "reference": 0.3,
            "interval": [-0.02, 0.21],
            "empty_ours": 0.0,
            "empty_reference": 0.25,
        },
        "continual": {"forgetting_ours": 0.05, "forgetting_reference": 0.2},
    }


def test_sequences_are_shown_chain_by_chain_and_against_the_published(chained: ContinualTable) -> None:
    text = report(chained)
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    learned, cost, further, difference = (row for row in rows if row[0] == "gate+replay")
    assert learned[1].startswith("50.0 [")
    assert learned[3].startswith("+5.0 ["), "forgotten"
    assert cost[1:5] == ["1 of 2", "0", "20.0", "-"]
    assert further[1:] == ["50.0", "40.0"]
    assert difference[3].startswith("-15.0 ["), "less forgotten than the published procedure forgets"
    assert "unedited: 5.0 [" in text


def test_the_shipped_tables_are_24_passages_and_a_sequence_of_four() -> None:
    whole, sequence = settings_of(parse([]))
    assert whole.count == 24
    assert whole.arms == ("unedited", "recorded")
    assert whole.procedures == ("seal", "reference")
    assert whole.reference.epochs == 10
    assert (sequence.length, sequence.sequences, sequence.chains) == (4, 1, ("reference", "gate+replay"))
    assert sequence.folder == whole.folder, "what both need is trained once"
    tuned = {passage.context for passage in read_passages(DATA / "tuned_passages.json")}
    reported = read_passages(whole.data)
    assert len(reported) == 24
    assert not tuned & {passage.context for passage in reported}


def test_the_small_tables_take_the_shortest_passages(tmp_path: Path) -> None:
    whole, sequence = settings_of(parse(["--small", "--results", str(tmp_path)]))
    chosen = read_passages(whole.data)
    assert len(chosen) == whole.count == 3
    known = sorted(len(passage.context) for passage in read_passages(DATA / "reported_passages.json"))
    assert sorted(len(passage.context) for passage in chosen) == known[:3]
    assert sequence.length == 2
    assert whole.reference.epochs < 10


def test_a_users_own_passages_may_be_fewer(tmp_path: Path) -> None:
    data = DATA / "invented_passages.json"
    told = ["--data", str(data), "--set", "seal.recipe.epochs=1", "--set", "gate.anchors=3"]
    whole, sequence = settings_of(parse(told))
    assert whole.count == 8
    assert sequence.gate.anchors == 3
    assert whole.seal.recipe.epochs == 1
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps([{"title": "T"}]))
    with pytest.raises(InvalidConfig, match=r"wrong.json: \[0\].context"):
        settings_of(parse(["--data", str(wrong)]))
    for fixed in ("arms=[passage]", "procedures=[seal]", "chains=[bare]"):
        with pytest.raises(InvalidConfig, match=f"--set: {fixed.partition('=')[0]}: the tables' own"):
            settings_of(parse(["--set", fixed]))
    with pytest.raises(InvalidConfig, match=r"gait.anchors: gait: unknown key"):
        settings_of(parse(["--set", "gait.anchors=3"]))


def test_too_few_passages_for_the_sequence_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    data = tmp_path / "two.json"
    data.write_text(json.dumps(json.loads((DATA / "invented_passages.json").read_text())[:2]))
    with pytest.raises(InvalidConfig, match=r"two.json: 2 passages are taken of it, and a sequence needs 4"):
        settings_of(parse(["--data", str(data)]))
