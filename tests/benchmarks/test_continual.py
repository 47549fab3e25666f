"""Sequences of edits on a tiny random model: chains, gate, replay, and an interruption that costs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from auditor.evidence.scaling import Outcome
from auditor.graders.lexical import words
from auditor.tasks import EvaluationItem
from benchmarks.forgetting import EditSequence
from benchmarks.method import anchors, continual
from benchmarks.method.continual import procedure_of, run, turn_of
from benchmarks.method.continual_results import by_passage, chain_figures, differences
from benchmarks.method.continual_settings import CHAINS, ContinualSettings, GateSettings, sequences_of
from benchmarks.method.continual_turns import Edited, Live, Played, Turn, played, training_on
from benchmarks.method.loading import Loaded
from benchmarks.method.settings import SealProcedure
from benchmarks.method.versions import BASE, Padding, Trained, Training
from benchmarks.method.workshop import TrainingFailed, Workshop, work_folder
from benchmarks.passages import Passage, Question
from common.errors import InvalidConfig
from common.models.config import ModelConfig
from common.prompting import question_and_answer
from common.types import Example, Recipe
from student.config import DEFAULT_RECIPE
from tests.support.tiny_model import make_tiny_model, tiny_config

TOKENS = 8
STRONG = Recipe(rank=4, alpha=16, learning_rate=0.02, epochs=4, batch_size=4).over(DEFAULT_RECIPE)
PUBLISHED = STRONG.model_copy(update={"batch_size": 1, "epochs": 2, "target_modules": ("q_proj", "v_proj")})
NO_ANCHORS = GateSettings(anchors=0)


def passage(name: str) -> Passage:
    questions = tuple(Question(question=f"What is {name}{i}?", answer=f"fox {i}") for i in range(4))
    return Passage(title=f"About {name}", context=f"Box {name} holds the fox of {name}.", questions=questions)


PASSAGES = tuple(map(passage, "abc"))


@dataclass
class Room:
    """The tiny model with a folder for what is made of it."""

    folder: Path
    model: ModelConfig

    def workshop(self, progress: Callable[[str], None] = lambda said: None) -> Workshop:
        return Workshop(self.folder, self.model, progress)

    def turn(self, chain: str = "bare", **more: object) -> Turn:
        base = self.workshop().base_digest
        make = published if chain == "reference" else taught
        trainings = tuple(make(base, one) for one in PASSAGES)
        fields = {"chain": chain, "order": 0, "passages": PASSAGES, "trainings": trainings, "tokens": TOKENS}
        return Turn.model_validate({**fields, **more})


def taught(base: str, one: Passage) -> Training:
    examples = [question_and_answer(one.title, q.question, q.answer, one.context) for q in one.questions]
    return Training(base=base, examples=tuple(examples), recipe=STRONG, seed=len(one.title))


def published(base: str, one: Passage) -> Training:
    examples = tuple(Example(text=f"{one.title}\n{q.question} {q.answer}") for q in one.questions)
    return Training(base=base, examples=examples, recipe=PUBLISHED, seed=1, padding=Padding(width=64, sampled=4))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return tiny_config(make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", layers=1))


@pytest.fixture
def room(model: ModelConfig, tmp_path: Path) -> Room:
    return Room(tmp_path / "work", model)


def timeless(found: Played) -> dict[str, object]:
    """Everything but seconds."""
    sequence = found.sequence.model_copy(update={"seconds": 0.0})
    edits = tuple(edit.model_copy(update={"seconds": 0.0}) for edit in found.edits)
    return found.model_copy(update={"sequence": sequence, "edits": edits}).model_dump(mode="json")


def known_to_the_base(room: Room) -> tuple[EvaluationItem, ...]:
    """Questions whose keys are what the base says, so that it has all of them right."""
    asked = [
        EvaluationItem(item_id=f"k{i}", question=f"{'The quick brown fox'[:i]}?", answers=("unknown",))
        for i in range(1, 20)
    ]
    said = room.workshop().answers(BASE, anchors.prompts(asked, range(len(asked))), anchors.TOKENS)
    spoken = [(item, words(text)) for item, text in zip(asked, said, strict=True)]
    known = tuple(item.model_copy(update={"answers": (text[0],)}) for item, text in spoken if text)
    assert len(known) > 4
    return known


def test_without_a_gate_every_edit_is_accepted_and_goes_on_from_the_last(room: Room) -> None:
    found = played(room.workshop(), room.turn())
    assert found.sequence.accepted == (True,) * 3
    assert len(set(found.versions)) == 4
    assert found.sequence.rows[0] == (0.0,) * 3
    assert found.sequence.learned > found.sequence.unedited_mean, "a model learns four answers by heart"
    assert len(found.answers[found.versions[-1]][2]) == 4


def test_the_published_chain_is_one_adapter_whose_rank_grows(room: Room) -> None:
    workshop = room.workshop()
    found = played(workshop, room.turn("reference"))
    ranks = [
        json.loads((room.folder / "adapters" / version / "adapter_config.json").read_text())["r"]
        for version in found.versions[1:]
    ]
    assert ranks == [4, 8, 12]


def test_chains_share_the_training_of_the_first_edit_and_replay_changes_the_second(room: Room) -> None:
    bare, replay = room.turn(), room.turn("replay", replay_share=0.5)
    live = Live()
    first, edit = training_on(bare, live, 0)
    assert first == training_on(replay, live, 0)[0]
    live.name, live.learned = first.name, {0: edit}
    without, mixed = training_on(bare, live, 1)[0], training_on(replay, live, 1)[0]
    assert without.name != mixed.name
    assert (len(without.examples), len(mixed.examples)) == (4, 8)
    assert set(mixed.examples[4:]) == set(edit.examples)


class Interrupted(Exception):
    """What a killed process stands for."""


@pytest.mark.parametrize("chain", ["reference", "gate+replay"])
def test_an_interrupted_sequence_goes_on_where_it_was_and_ends_the_same(room: Room, tmp_path: Path, chain: str) -> None:
    ours = {"replay_share": 0.5, "gate": NO_ANCHORS}
    turn = room.turn(chain, **({} if chain == "reference" else ours))
    whole = Room(tmp_path / "whole", room.model)
    steps: list[str] = []
    wanted = played(whole.workshop(steps.append), turn)
    first = [place for place, said in enumerate(steps) if said.startswith("step 1 of")][1]

    def interrupt(said: str) -> None:
        reported.append(said)
        if len(reported) == first + 2:
            raise Interrupted

    reported: list[str] = []
    with pytest.raises(Interrupted):
        played(room.workshop(interrupt), turn)
    again: list[str] = []
    assert timeless(played(room.workshop(again.append), turn)) == timeless(wanted)
    assert again == steps[first:], "the finished edit is not trained again, the one under way from its beginning"


def test_a_gate_that_allows_no_loss_scales_down_or_turns_down(room: Room) -> None:
    items = known_to_the_base(room)
    places = tuple(range(len(items)))
    anything = played(room.workshop(), room.turn("gate", gate=GateSettings(max_drop=1), items=items, gated=places))
    assert anything.sequence.accepted == (True,) * 3
    strict = GateSettings(max_drop=0)
    found = played(room.workshop(), room.turn("gate", gate=strict, items=items, gated=places, reported=places))
    for edit in found.edits[:1]:
        assert edit.attempts[0].outcome is Outcome.FORGETS
        assert [attempt.scale for attempt in edit.attempts][:2] == [1.0, 0.75]
        assert f"anchors fell from {len(items)}" in edit.attempts[0].reason
    turned_down = [place for place, accepted in enumerate(found.sequence.accepted) if not accepted]
    assert turned_down
    for place in turned_down:
        assert found.versions[place + 1] == found.versions[place]
        assert found.sequence.rows[place + 1] == found.sequence.rows[place]
    assert found.lost[0] == 0


def test_an_edit_that_was_scaled_down_is_what_the_next_goes_on_from(room: Room) -> None:
    workshop, turn = room.workshop(), room.turn()
    first, second = turn.trainings[:2]
    half = workshop.scaled(first, 0.5)
    children = [second.model_copy(update={"parent": first.name_at(scale)}) for scale in (0.5, 1.0)]
    assert first.name_at(1.0) == first.name
    assert len({child.name for child in children}) == 2
    assert len({workshop.train(child).adapter for child in children} | {half, workshop.train(first).adapter}) == 4
    assert room.workshop().train(children[0]) == workshop.train(children[0])


class FailsOnce(Workshop):
    """Its second training has no numbers, as one whose loss is not finite."""

    names: tuple[str, ...] = ()

    def train(self, training: Training) -> Trained:
        self.names = tuple(dict.fromkeys((*self.names, training.name)))
        if self.names.index(training.name) == 1:
            raise TrainingFailed("training failed: NOT_FINITE")
        return super().train(training)


def test_an_edit_whose_training_fails_is_turned_down_and_the_sequence_goes_on(room: Room) -> None:
    found = played(FailsOnce(room.folder, room.model), room.turn())
    assert found.sequence.accepted == (True, False, True)
    assert found.edits[1].reason == "training failed: NOT_FINITE"
    assert found.versions[2] == found.versions[1] != found.versions[3]


def settings_of(tmp_path: Path, **more: object) -> ContinualSettings:
    return ContinualSettings.model_validate({"data": tmp_path / "data.json", **more})


def test_chains_are_asked_the_same_anchors_and_the_gate_asks_others(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, anchors_asked=20, gate={"anchors": 15})
    alone = Training(base="0" * 64, examples=(Example(text="a"),), recipe=STRONG, seed=1)
    trainings = {(procedure_of(chain), one.key): alone for chain in CHAINS for one in PASSAGES}
    loaded = Loaded(PASSAGES, {}, (), "0" * 64)
    turns = [
        turn_of(settings, chain, 0, PASSAGES, trainings=trainings, loaded=loaded, pool=range(40)) for chain in CHAINS
    ]
    assert len({(turn.reported, turn.gated) for turn in turns}) == 1
    assert (len(turns[0].reported), len(turns[0].gated)) == (20, 15)
    assert not set(turns[0].reported) & set(turns[0].gated)
    assert [bool(turn.gate) for turn in turns] == [False, False, False, True, True]
    assert [turn.replay_share for turn in turns] == [0.0, 0.0, 0.5, 0.0, 0.5]


def test_the_gate_asks_no_anchor_that_is_rehearsed(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, anchors_asked=5, gate={"anchors": 30})
    alone = Training(base="0" * 64, examples=(Example(text="a"),), recipe=STRONG, seed=1)
    loaded = Loaded(PASSAGES, {}, (), "0" * 64, frozenset(range(0, 40, 2)))
    trainings = {(procedure_of("gate"), one.key): alone for one in PASSAGES}
    turn = turn_of(settings, "gate", 0, PASSAGES, trainings=trainings, loaded=loaded, pool=range(40))
    assert turn.gated
    assert not set(turn.gated) & loaded.rehearsed
    assert set(turn.uncounted) == set(turn.reported) & loaded.rehearsed


def test_what_gates_ask_is_reported_of_no_chain_and_without_a_gate_everything_is(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    for one in PASSAGES:
        assert len(settings.judged(one)) == 2
        assert settings.judged(one) == settings.model_copy(update={"chains": ("gate",)}).judged(one)
        assert settings_of(tmp_path, chains=["bare", "reference"]).judged(one) == ()
    single = PASSAGES[0].model_copy(update={"questions": PASSAGES[0].questions[:1]})
    assert settings_of(tmp_path, gate={"questions": 0.9}).judged(single) == ()


def test_a_gate_marks_what_it_asks_and_the_matrix_the_rest(room: Room) -> None:
    """The base answers one question rightly, by chance, and training on other words ends that."""
    (said,) = room.workshop().answers(BASE, PASSAGES[0].prompts()[3:4], TOKENS)
    lucky = Question(question=PASSAGES[0].questions[3].question, answer=words(said)[0])
    first = PASSAGES[0].model_copy(update={"questions": (*PASSAGES[0].questions[:3], lucky)})
    gate = GateSettings(anchors=0, min_scale=1)

    def one(*judged: int) -> Played:
        passages = (first, *PASSAGES[1:])
        places = (judged, (0, 2), (1, 3))
        return played(room.workshop(), room.turn("gate", passages=passages, gate=gate, judged=places))

    strict, blind = one(3), one(0)
    assert (strict.sequence.accepted[0], blind.sequence.accepted[0]) == (False, True)
    assert strict.edits[0].reason == "1 -> 0 of 1 of its own questions"
    assert strict.sequence.questions == blind.sequence.questions == (3, 2, 2)
    assert strict.sequence.rows[0][0] == 0, "what the gate asks is in no figure"
    assert blind.sequence.rows[0][0] == pytest.approx(1 / 3)


def test_a_published_sequence_too_long_for_one_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="at most 8 passages, or leave reference out"):
        run(settings_of(tmp_path, length=9))


def test_sequences_share_no_passage_while_there_are_enough(tmp_path: Path) -> None:
    passages = [passage(f"p{i}") for i in range(7)]
    settings = settings_of(tmp_path, length=3, sequences=3)
    first, second, third = sequences_of(passages, settings)
    assert not {p.key for p in first} & {p.key for p in second}
    assert len({p.key for p in third}) == 3
    assert {p.key for p in (*first, *second, *third)} == {p.key for p in passages}
    assert sequences_of(passages[::-1], settings) == [first, second, third], "the seed decides, not the file's order"
    with pytest.raises(InvalidConfig, match="8 passages are needed, and there are 7"):
        sequences_of(passages, settings_of(tmp_path, length=8))


def test_the_command_makes_a_table_of_all_chains_and_makes_it_again_from_disk(
    model: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = [one.model_dump(mode="json") for one in PASSAGES]
    (tmp_path / "data.json").write_text(json.dumps(told))
    edits = [{"title": p.title, "context": p.context, "completions": [p.context]} for p in PASSAGES]
    (tmp_path / "edits.json").write_text(json.dumps(edits))
    settings = settings_of(
        tmp_path,
        edits=tmp_path / "edits.json",
        model=model,
        length=2,
        sequences=1,
        answer_tokens=TOKENS,
        anchors_asked=0,
        gate=NO_ANCHORS,
        seal=SealProcedure(rehearsal=0, recipe=STRONG),
        reference={"epochs": 1, "sampled_pads": 2},
        folder=tmp_path / "results",
        workers=1,
    )
    table = run(settings)
    assert [chain.chain for chain in table.chains] == list(CHAINS)
    assert [played.sequence.arm for played in table.sequences] == list(CHAINS)
    assert all(chain.edits == 2 and chain.questions == 4 for chain in table.chains)
    assert table.judged == 4
    assert "scale" not in str(table.settings["seal"]) + str(table.settings["reference"]), "whole updates answer"
    assert set(table.differences) == set(CHAINS) - {"reference"}
    first = {found.sequence.arm: found.edits[0].training for found in table.sequences}
    assert len({first[chain] for chain in CHAINS if chain != "reference"}) == 1

    def at_once(_: object, work: Callable[[Workshop, Turn], Played], turns: Sequence[Turn]) -> Iterator[object]:
        workshop = Workshop(work_folder(settings.folder), model, progress=pytest.fail)
        yield from ((turn, work(workshop, turn)) for turn in turns)

    monkeypatch.setattr(continual, "each", at_once)
    assert run(settings) == table, "read from disk: a step of training fails"


def outcome(chain: str, rows: list[list[float]]) -> Played:
    """A sequence of two passages with this matrix."""
    sequence = EditSequence(
        arm=chain,
        order=0,
        passages=("a", "b"),
        titles=("A", "B"),
        questions=(4, 4),
        accepted=(True, True),
        rows=tuple(map(tuple, rows)),
        empty=(0, 1, 3),
    )
    edits = tuple(
        Edited(passage=key, training=key, accepted=True, scale=scale, examples=1)
        for key, scale in (("a", 1), ("b", 0.5))
    )
    return Played(sequence=sequence, edits=edits, versions=("base", "1", "2"), answers={}, anchors=10, lost=(0, 2, 5))


def test_figures_are_those_of_the_definitions() -> None:
    ours = outcome("gate", [[0.0, 0.5], [0.75, 0.5], [0.5, 1.0]])
    theirs = outcome("reference", [[0.0, 0.5], [1.0, 0.0], [0.0, 0.5]])
    found = chain_figures("gate", [ours], seed=0)
    means = {name: figure.mean for name, figure in found.figures.items()}
    assert means == {
        "unedited_mean": 0.25,
        "learned": 0.875,
        "forgetting": 0.125,
        "backward_transfer": -0.25,
        "final_mean": 0.75,
        "gain": 0.5,
    }
    assert found.after_further == (0.875, 0.5)
    assert (found.accepted, found.scaled, found.empty, found.questions) == (2, 1, 3, 8)
    assert found.anchors_lost == (0.0, 0.2, 0.5)
    assert (found.figures["final_mean"].low, found.figures["final_mean"].high) == (0.5, 1.0), "passages drawn again"
    against = differences({"reference": [theirs], "gate": [ours]}, seed=0)
    assert set(against) == {"gate"}
    assert against["gate"]["final_mean"].mean == 0.5
    assert against["gate"]["forgetting"].mean == pytest.approx(0.125 - 0.5)
    assert differences({"gate": [ours]}, seed=0) == {}


def test_a_passage_of_two_sequences_is_drawn_again_as_one() -> None:
    def sequence(*keys: str) -> EditSequence:
        rows = ((0.0, 0.0),) * 3
        return EditSequence(
            arm="bare",
            order=0,
            passages=keys,
            titles=keys,
            questions=(1, 1),
            accepted=(True, True),
            rows=rows,
            empty=(0, 0, 0),
        )

    pairs = [(sequence("a", "b"), [0.1, 0.2]), (sequence("b", "c"), [0.3, 0.4]), (sequence("c", "a"), [0.5])]
    assert by_passage(pairs) == [[0.1], [0.2, 0.3], [0.4, 0.5]]
