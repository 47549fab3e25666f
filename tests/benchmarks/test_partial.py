"""A training that is interrupted goes on where it was kept, to the same bytes, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from benchmarks.method.partial import Partial
from benchmarks.method.versions import BASE, Padding, Training, published_recipe
from benchmarks.method.workshop import Workshop
from benchmarks.reference import Procedure
from common.errors import Corrupt
from common.models.config import ModelConfig
from common.types import Example
from tests.support.examples import EXAMPLES, RECIPE
from tests.support.tiny_model import make_tiny_model, tiny_config

PUBLISHED = published_recipe(Procedure(rank=4, alpha=8, learning_rate=1e-2, epochs=3))
TEXTS = ("Pack my box with five dozen liquor jugs.", "The quick brown fox jumps over the lazy dog.")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    return tiny_config(make_tiny_model(tmp_path_factory.mktemp("tiny") / "model"))


class Interrupted(Exception):
    pass


def interrupt_at(step: int) -> Callable[[str], None]:
    def progress(said: str) -> None:
        if said.startswith(f"step {step} "):
            raise Interrupted

    return progress


def padded(base: str, sampled: int = 8, parent: str = BASE) -> Training:
    return Training(
        base=base,
        examples=tuple(Example(text=text) for text in TEXTS),
        recipe=PUBLISHED,
        seed=2,
        padding=Padding(width=96, sampled=sampled),
        parent=parent,
    )


def all_pads(base: str) -> Training:
    return padded(base, sampled=0)


def masked(base: str) -> Training:
    """With dropout, weight decay and warm-up: everything that a step can depend on."""
    more = {"dropout": 0.3, "epochs": 3, "weight_decay": 0.01, "warmup_steps": 2}
    return Training(base=base, examples=EXAMPLES, recipe=RECIPE.model_copy(update=more), seed=1)


@pytest.mark.parametrize("make", [padded, all_pads, masked])
def test_an_interrupted_training_gives_the_same_bytes(tmp_path: Path, model: ModelConfig, make: Any) -> None:
    training = make(Workshop(tmp_path, model).base_digest)
    whole = Workshop(tmp_path / "whole", model).train(training)
    folder = tmp_path / "work"
    kept = folder / "partial" / f"{training.name}.safetensors"
    for step in (1, 4):
        with pytest.raises(Interrupted):
            Workshop(folder, model, interrupt_at(step), keep_seconds=0).train(training)
        assert kept.exists()
    torch.rand(7)
    said: list[str] = []
    resumed = Workshop(folder, model, said.append, keep_seconds=0).train(training)
    assert said == ["step 5 of 6", "step 6 of 6"]
    assert resumed.model_copy(update={"seconds": whole.seconds}) == whole
    assert list(kept.parent.iterdir()) == []


def test_a_child_goes_on_from_its_own_steps_and_its_parents_weights(tmp_path: Path, model: ModelConfig) -> None:
    base = Workshop(tmp_path, model).base_digest
    parent, child = padded(base), padded(base, parent=padded(base).name)
    adapters = []
    for name, progress in (("whole", None), ("work", interrupt_at(3))):
        workshop = Workshop(tmp_path / name, model, keep_seconds=0)
        workshop.train(parent)
        if progress is not None:
            with pytest.raises(Interrupted):
                Workshop(tmp_path / name, model, progress, keep_seconds=0).train(child)
        adapters.append(workshop.train(child).adapter)
    assert adapters[0] == adapters[1]


def test_a_short_training_writes_no_state(tmp_path: Path, model: ModelConfig) -> None:
    seen: list[bool] = []
    workshop = Workshop(tmp_path, model, lambda said: seen.append((tmp_path / "partial").exists()), keep_seconds=600)
    workshop.train(masked(workshop.base_digest))
    assert seen == [False] * 6


def test_time_spent_before_an_interruption_counts(tmp_path: Path) -> None:
    file = tmp_path / "partial" / "t.safetensors"
    file.parent.mkdir()
    file.write_bytes(save({"step": torch.tensor([3.0])}, {"seconds": "90.5"}))
    partial = Partial(file, keep_seconds=0)
    assert (partial.load() or {})["step"].tolist() == [3.0]
    partial.keep(lambda: {"step": torch.tensor([4.0])})
    again = Partial(file)
    assert (again.load() or {})["step"].tolist() == [4.0]
    assert partial.seconds > 90.5
    assert 90.5 < again.seconds < 90.5 + 60


@pytest.mark.parametrize("spoiled", [b"", b"{}", b"x" * 200])
def test_a_state_that_cannot_be_read_is_named_with_what_to_do(tmp_path: Path, spoiled: bytes) -> None:
    file = tmp_path / "t.safetensors"
    file.write_bytes(spoiled)
    with pytest.raises(Corrupt, match=r"t\.safetensors cannot be read .* remove it"):
        Partial(file).load()
