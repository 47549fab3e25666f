"""The workshop on a tiny model: each training and answer once and whole on disk; what is stored is what answers."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.method.versions import BASE, Padding, Training, published_procedure, published_recipe
from benchmarks.method.workshop import TrainingFailed, Workshop
from benchmarks.reference import Procedure, merge, train_edit
from common.errors import Corrupt, InvalidConfig, SealError
from common.lora.adapter_folder import AdapterFolders
from common.lora.engine import LoraEngine
from common.models.config import ModelConfig
from common.models.loading import load_model
from common.types import Example, Prompt, Recipe, Sampling
from tests.support.examples import BY_HEART, EXAMPLES, RECIPE, prompts
from tests.support.tiny_model import make_tiny_model, tiny_config

PROCEDURE = Procedure(rank=4, alpha=8, learning_rate=1e-2, epochs=2, width=96, sampled_pads=8)
DOCUMENTS = ("Pack my box with five dozen liquor jugs.", "The quick brown fox jumps over the lazy dog.")
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return tiny_config(make_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))


@pytest.fixture
def workshop(tmp_path: Path, model: ModelConfig) -> Workshop:
    return Workshop(tmp_path / "work", model)


def masked(base: str, recipe: Recipe = RECIPE, **other: Any) -> Training:
    return Training.model_validate({"base": base, "examples": EXAMPLES, "recipe": recipe, "seed": 1, **other})


def padded(base: str, **other: Any) -> Training:
    return Training.model_validate(
        {
            "base": base,
            "examples": [Example(text=text) for text in DOCUMENTS],
            "recipe": published_recipe(PROCEDURE),
            "seed": 2,
            "padding": Padding(width=PROCEDURE.width, sampled=PROCEDURE.sampled_pads),
            **other,
        }
    )


def files(folder: Path) -> dict[str, bytes]:
    """Everything that stands under a folder, by path."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


class Counted(Workshop):
    """Says how many steps of training it took."""

    def __init__(self, folder: Path, model: ModelConfig) -> None:
        self.said: list[str] = []
        super().__init__(folder, model, self.said.append)


@pytest.mark.parametrize("make", [masked, padded])
def test_a_training_is_done_once(tmp_path: Path, model: ModelConfig, make: Any) -> None:
    first = Counted(tmp_path, model)
    training = make(first.base_digest)
    trained = first.train(training)
    assert len(first.said) == 4
    stored = files(tmp_path)
    assert first.train(training) == trained
    later = Counted(tmp_path, model)
    assert later.train(training) == trained
    assert (len(first.said), later.said) == (4, [])
    assert files(tmp_path) == stored


def test_everything_that_decides_a_training_is_in_its_name() -> None:
    base = "0" * 64
    others = [
        masked(base),
        masked("1" * 64),
        masked(base, seed=2),
        masked(base, recipe=RECIPE.model_copy(update={"learning_rate": 2e-2})),
        masked(base, examples=EXAMPLES[:-1]),
        masked(base, examples=EXAMPLES[::-1]),
        masked(base, parent=masked(base).name),
        masked(base, padding=Padding()),
        masked(base, padding=Padding(sampled=16)),
        masked(base, padding=Padding(width=1_024)),
    ]
    names = [training.name for training in others]
    assert len(set(names)) == len(names)
    assert masked(base).name == names[0]


def test_a_procedure_comes_back_from_the_training_that_it_was_put_in() -> None:
    assert published_procedure(padded("0" * 64)) == PROCEDURE


def test_a_training_for_another_base_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(SealError, match="another base"):
        workshop.train(masked("1" * 64))
    assert not (tmp_path / "work" / "trainings").exists()


@pytest.mark.parametrize(
    "other", [{"dtype": "bfloat16"}, {"device": "cuda", "dtype": "float32"}, {"system_prompt": "Answer in one word."}]
)
def test_work_under_other_settings_of_the_model_is_not_taken_for_ones_own(
    workshop: Workshop, tmp_path: Path, model: ModelConfig, other: dict[str, str]
) -> None:
    workshop.answers(BASE, prompts(), 4)
    with pytest.raises(InvalidConfig, match="take another folder"):
        Workshop(tmp_path / "work", model.model_copy(update=other)).answers(BASE, prompts(), 4)
    Workshop(tmp_path / "work", model.model_copy(update={"threads": 2})).answers(BASE, prompts(), 4)


def test_a_chain_too_long_to_be_stored_is_refused_before_it_is_trained(tmp_path: Path, model: ModelConfig) -> None:
    workshop = Counted(tmp_path, model)
    wide = published_recipe(replace(PROCEDURE, rank=200, epochs=1))
    first = padded(workshop.base_digest, recipe=wide)
    workshop.train(first)
    steps = len(workshop.said)
    with pytest.raises(InvalidConfig, match="rank 400"):
        workshop.train(padded(workshop.base_digest, recipe=wide, parent=first.name))
    assert len(workshop.said) == steps


def test_answers_are_the_engines_and_are_kept_by_version_and_prompts(
    workshop: Workshop, tmp_path: Path, model: ModelConfig
) -> None:
    adapter = workshop.train(masked(workshop.base_digest, recipe=BY_HEART)).adapter
    asked = prompts()
    engine = LoraEngine(load_model(model), load=AdapterFolders(tmp_path / "work" / "adapters").get)
    for version in (BASE, adapter):
        written = {text.index: text.text for _, text in engine.answer([version], asked, Sampling(max_new_tokens=16))}
        assert list(workshop.answers(version, asked, 16)) == [written[place] for place in range(len(asked))]
    assert workshop.answers(adapter, asked, 16)[0] == "Thirty days."
    kept = files(tmp_path / "work" / "answers")
    assert len(kept) == 2
    renamed = [Prompt(prompt_id=f"other-{place}", conversation=one.conversation) for place, one in enumerate(asked)]
    assert workshop.answers(adapter, renamed, 16) == workshop.answers(adapter, asked, 16)
    assert files(tmp_path / "work" / "answers") == kept
    workshop.answers(adapter, asked, 15)
    workshop.answers(adapter, asked[:2], 16)
    assert len(files(tmp_path / "work" / "answers")) == 4


def test_what_a_padded_chain_stores_says_what_the_merged_weights_say(
    workshop: Workshop, tmp_path: Path, model: ModelConfig
) -> None:
    first = padded(workshop.base_digest)
    second = padded(workshop.base_digest, seed=3, parent=first.name, examples=(first.examples[1],))
    stored = [workshop.train(training).adapter for training in (first, second)]
    engine = LoraEngine(load_model(model), load=AdapterFolders(tmp_path / "work" / "adapters").get)
    base = load_model(model)
    tokens_1T = torch.tensor([base.tokenizer(DOCUMENTS[0])["input_ids"]])
    before = base.model(tokens_1T).logits
    for training, adapter in zip((first, second), stored, strict=True):
        merge(base.model, _factors(base, training), PROCEDURE)
        merged = base.model(tokens_1T).logits
        assert not torch.allclose(merged, before, atol=1e-2)
        before = merged
        with torch.inference_mode(), engine.residents.active(adapter):
            assert torch.allclose(engine.attached.model(tokens_1T).logits, merged, atol=1e-4)
    _, chained = (AdapterFolders(tmp_path / "work" / "adapters").get(name) for name in stored)
    assert (chained.spec.rank, chained.spec.scaling) == (2 * PROCEDURE.rank, PROCEDURE.alpha / PROCEDURE.rank)


def _factors(base: Any, training: Training) -> dict[str, torch.Tensor]:
    """By the reference alone, on the weights as they are now."""
    documents = [list(base.tokenizer(example.text)["input_ids"]) for example in training.examples]
    return train_edit(base.model, documents, pad=base.tokenizer.eos_token_id, seed=training.seed, procedure=PROCEDURE)


@pytest.mark.parametrize("make", [masked, padded])
def test_scaled_versions_lie_between_the_parent_and_the_child(
    workshop: Workshop, tmp_path: Path, model: ModelConfig, make: Any
) -> None:
    parent = make(workshop.base_digest)
    child = make(workshop.base_digest, seed=5, parent=parent.name)
    adapters = [workshop.train(training).adapter for training in (parent, child)]
    engine = LoraEngine(load_model(model), load=AdapterFolders(tmp_path / "work" / "adapters").get)
    tokens_1T = torch.tensor([engine.base.tokenizer(DOCUMENTS[0])["input_ids"]])

    def logits(version: str) -> torch.Tensor:
        with torch.inference_mode(), engine.residents.active(version):
            found: torch.Tensor = engine.attached.model(tokens_1T).logits
        return found

    assert workshop.scaled(parent, 1.0) == adapters[0]
    assert workshop.scaled(child, 1.0) == adapters[1]
    assert torch.equal(logits(workshop.scaled(parent, 0.0)), logits(BASE))
    assert torch.allclose(logits(workshop.scaled(child, 0.0)), logits(adapters[0]), atol=1e-4)
    half = logits(workshop.scaled(child, 0.5))
    assert not torch.allclose(half, logits(adapters[0]), atol=1e-2)
    assert not torch.allclose(half, logits(adapters[1]), atol=1e-2)


def test_a_parent_that_was_never_trained_is_named(workshop: Workshop) -> None:
    missing = padded(workshop.base_digest).name
    with pytest.raises(SealError, match=missing):
        workshop.train(padded(workshop.base_digest, parent=missing))


def die_while_training(folder: Path, model: ModelConfig, training: Training) -> None:
    def die(said: str) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    Workshop(folder, model, die).train(training)


def die_before_renaming(folder: Path, model: ModelConfig, training: Training) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    pytest.MonkeyPatch().setattr(Path, "replace", die)
    Workshop(folder, model).train(training)


@pytest.mark.parametrize("die", [die_while_training, die_before_renaming])
def test_a_killed_process_leaves_nothing_half(tmp_path: Path, model: ModelConfig, die: Any) -> None:
    folder = tmp_path / "work"
    training = padded(Workshop(folder, model).base_digest)
    process = SPAWN.Process(target=die, args=(folder, model, training))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (folder / "trainings" / f"{training.name}.json").exists()
    trained = Workshop(folder, model).train(training)
    assert trained == Workshop(folder, model).train(training)
    assert trained.adapter == Workshop(tmp_path / "elsewhere", model).train(training).adapter


def train_and_answer(folder: Path, model: ModelConfig, base: str, together: Barrier) -> None:
    workshop = Workshop(folder, model)
    together.wait()
    for training in chain(base):
        workshop.answers(workshop.train(training).adapter, prompts(), 8)


def chain(base: str) -> Sequence[Training]:
    return padded(base), padded(base, seed=3, parent=padded(base).name), masked(base)


def test_two_processes_in_one_folder_do_not_disturb_one_another(tmp_path: Path, model: ModelConfig) -> None:
    alone = Workshop(tmp_path / "alone", model)
    together = SPAWN.Barrier(2)
    arguments = (tmp_path / "shared", model, alone.base_digest, together)
    processes = [SPAWN.Process(target=train_and_answer, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for training in chain(alone.base_digest):
        alone.answers(alone.train(training).adapter, prompts(), 8)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    shared, expected = files(tmp_path / "shared"), files(tmp_path / "alone")
    assert shared.keys() == expected.keys()
    assert all(data == expected[name] for name, data in shared.items() if not name.startswith("trainings"))


def test_a_spoiled_file_is_named_with_what_to_do(workshop: Workshop, tmp_path: Path) -> None:
    workshop.answers(BASE, prompts(), 4)
    (file,) = (tmp_path / "work" / "answers").iterdir()
    file.write_bytes(file.read_bytes()[:9])
    with pytest.raises(Corrupt, match=rf"{file.name} cannot be read: remove it"):
        workshop.answers(BASE, prompts(), 4)


def test_a_template_without_a_system_role_is_refused_with_what_to_set(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model", layers=1)
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    template = folder / "chat_template.jinja"
    template.write_text(refusing + template.read_text())
    with pytest.raises(InvalidConfig, match=r"model\.system_prompt= leaves it out"):
        Workshop(tmp_path / "a", tiny_config(folder, system_prompt="Be brief.")).answers(BASE, prompts(), 4)
    assert Workshop(tmp_path / "b", tiny_config(folder)).answers(BASE, prompts(), 4)


def test_a_model_without_the_layers_of_the_published_procedure_is_refused(workshop: Workshop) -> None:
    elsewhere = published_recipe(replace(PROCEDURE, target_modules=("c_attn",)))
    with pytest.raises(InvalidConfig, match="no layers c_attn"):
        workshop.train(padded(workshop.base_digest, recipe=elsewhere))


def test_a_published_update_without_numbers_is_not_stored(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, losses: list[float], **__: object) -> dict[str, torch.Tensor]:
        losses += [1.0, 1.0]
        return {"q_proj.lora_A": torch.full((1, 1), torch.nan)}

    monkeypatch.setattr("benchmarks.method.workshop.train_edit", broken)
    with pytest.raises(TrainingFailed, match="not finite"):
        workshop.train(padded(workshop.base_digest))
    assert list((tmp_path / "work" / "adapters").iterdir()) == []
