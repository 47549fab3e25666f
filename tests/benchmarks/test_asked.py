"""What `seal bench` asks becomes settings, and what cannot be used is refused by the flag that it came from."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.method.__main__ import main
from benchmarks.method.asked import Asked, CorpusSettings, settings_of
from benchmarks.method.continual_settings import ContinualSettings
from benchmarks.method.settings import BenchSettings
from common.errors import InvalidConfig

DATA = Path(__file__).resolve().parents[2] / "benchmarks" / "data"
PASSAGES = DATA / "invented_passages.json"
EDITS = DATA / "invented_passages_edits.json"


def asked(*options: tuple[str, str, object], bench: str = "passages", settings: tuple[str, ...] = ()) -> Asked:
    told = [["DATA", "data", str(PASSAGES)], *map(list, options)]
    return Asked.model_validate({"bench": bench, "options": told, "settings": settings})


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """The process that `main` is meant for answers SIGTERM in its own way."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_options_and_settings_meet_in_one_object() -> None:
    settings = settings_of(
        asked(("--model", "model.model", "org/name"), ("--seed", "seed", 3), settings=("seal.recipe.epochs=5",)),
        BenchSettings,
    )
    assert settings.model.model == "org/name"
    assert settings.seed == 3
    assert settings.seal.recipe.epochs == 5


def test_one_key_of_a_group_leaves_the_others_as_they_are() -> None:
    usual = BenchSettings(data=PASSAGES, arms=("unedited", "in-context", "passage"))
    told = settings_of(asked(("--model", "model.model", "org/name"), settings=("seal.recipe.epochs=5",)), BenchSettings)
    recipe = usual.seal.recipe.model_copy(update={"epochs": 5})
    assert told.seal == usual.seal.model_copy(update={"recipe": recipe})
    assert told.model == usual.model.model_copy(update={"model": "org/name"})
    assert settings_of(asked(), BenchSettings) == usual


def test_without_recorded_edits_no_arm_needs_them() -> None:
    assert "recorded" not in settings_of(asked(), BenchSettings).arms
    assert "recorded" in settings_of(asked(("--edits", "edits", str(EDITS))), BenchSettings).arms
    assert settings_of(asked(bench="continual"), ContinualSettings).taught == "passage"


def test_a_corpus_learns_so_many_passages_at_once() -> None:
    assert settings_of(asked(("--n", "together", 8), bench="corpus"), CorpusSettings).together == 8


@pytest.mark.parametrize(
    ("procedures", "chains"),
    [
        (["reference"], ("reference",)),
        (["seal"], ("bare", "replay", "gate", "gate+replay")),
    ],
)
def test_a_procedure_of_sequences_means_its_chains(procedures: list[str], chains: tuple[str, ...]) -> None:
    chosen = asked(("--procedure", "procedures", procedures), bench="continual")
    assert settings_of(chosen, ContinualSettings).chains == chains


def test_a_chain_of_the_other_procedure_is_refused() -> None:
    told = [("--chain", "chains", ["bare", "reference"]), ("--procedure", "procedures", ["seal"])]
    with pytest.raises(InvalidConfig, match="--chain: reference is of the reference procedure"):
        settings_of(asked(*told, bench="continual"), ContinualSettings)
    both = [told[0], ("--procedure", "procedures", ["seal", "reference"])]
    assert settings_of(asked(*both, bench="continual"), ContinualSettings).chains == ("bare", "reference")


@pytest.mark.parametrize(
    ("option", "setting", "said"),
    [
        (("--arms", "arms", ["sideways"]), "", "--arms: arms: sideways: known are unedited, in-context, passage"),
        (("--seed", "seed", -1), "", "--seed: seed: Input should be greater than or equal to 0"),
        (("--seed", "seed", 0), "seal.recipe.epocs=3", "--set seal.recipe.epocs: seal.recipe.epocs: unknown key"),
        (("--seed", "seed", 0), "seal.recipe.epochs=many", "--set seal.recipe.epochs: seal.recipe.epochs: Input sh"),
        (("--seed", "seed", 0), "seal.recipe.epochs", "--set seal.recipe.epochs: expected KEY=VALUE"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_flag(option: tuple[str, str, object], setting: str, said: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        settings_of(asked(option, settings=(setting,) if setting else ()), BenchSettings)
    assert refused.value.message.startswith(said)


def refusal_of(folder: Path, **request: Any) -> dict[str, Any]:
    """What the process leaves for the command line."""
    told, refusal = folder / "asked.json", folder / "refusal.json"
    told.write_text(json.dumps({"bench": "passages", "settings": [], "plan": False, "json": False} | request))
    with pytest.raises(SystemExit) as ended:
        main([str(told), "--refusal", str(refusal)])
    said = json.loads(refusal.read_text())
    assert ended.value.code == said["code"]
    assert isinstance(said, dict)
    return said


@pytest.mark.parametrize("bench", ["passages", "corpus", "continual"])
@pytest.mark.parametrize("plan", [True, False])
def test_a_wrong_file_is_refused_before_anything_is_trained(tmp_path: Path, bench: str, plan: bool) -> None:
    wrong = tmp_path / "mine.json"
    wrong.write_text(json.dumps([{"title": "T", "context": "C", "questions": [{"question": "Q?"}]}] * 12))
    options = [["DATA", "data", str(wrong)], ["--results", "folder", str(tmp_path / "results")]]
    said = refusal_of(tmp_path, bench=bench, options=options, plan=plan)
    assert said["code"] == 2
    assert f"{wrong}: [0].questions[0].answer: Field required" in said["what"]
    assert said["what"].endswith("and 4 more")
    assert "seal bench COMMAND --help" in said["next_step"]
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--arms", "arms", ["recorded"]], "recorded needs"),
        (["--passages", "count", 9], "has 8 passages; 9 are asked for"),
        (["--edits", "edits", str(DATA / "eight_passages_edits.json")], "no edits for the passage titled"),
        (["--anchors", "anchors", str(PASSAGES)], "invented_passages.json"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(tmp_path: Path, option: list[Any], said: str) -> None:
    assert said in refusal_of(tmp_path, options=[["DATA", "data", str(PASSAGES)], option])["what"]
