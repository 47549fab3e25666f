"""The engine stands on linear layers and a causal decoder, whatever the architecture calls itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import Gemma2Config, Gemma3TextConfig, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

from benchmarks.peft_loop import distance, start_of, train_with_peft
from common.lora.engine import LoraEngine
from common.lora.update import TrainedAdapter, TrainJob
from common.models.loading import load_model
from common.types import Sampling
from tests.support.examples import EXAMPLES, RECIPE, prompts
from tests.support.tiny_model import make_tiny_model, tiny_config

# Windows shorter than the examples, so that layers with one are told apart from those without.
WINDOW = 12
ARCHITECTURES: dict[str, tuple[Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "qwen2": (Qwen2Config, {}),
    "qwen3": (Qwen3Config, {}),
    "mistral": (MistralConfig, {"sliding_window": WINDOW}),
    "gemma2": (Gemma2Config, {"sliding_window": WINDOW, "query_pre_attn_scalar": 16}),
    "gemma3": (Gemma3TextConfig, {"sliding_window": WINDOW, "query_pre_attn_scalar": 16}),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_training_is_plain_training_on_every_architecture(tmp_path: Path, name: str) -> None:
    """Together, alone, and by PEFT on an untouched copy; in float64, where the reference has numbers in it."""
    architecture, more = ARCHITECTURES[name]
    folder = make_tiny_model(tmp_path / name, architecture=architecture, **more)
    base, untouched = load_model(tiny_config(folder)), load_model(tiny_config(folder)).model
    # transformers' Gemma 2 answers padded rows with NaN in float64.
    tolerance = 1e-3 if name == "gemma2" else 1e-10
    if name != "gemma2":
        base.model.double()
        untouched.double()
    engine = LoraEngine(base)
    jobs = [
        TrainJob(str(rank), EXAMPLES, RECIPE.model_copy(update={"rank": rank, "batch_size": rank}), rank)
        for rank in (2, 3)
    ]
    for job, outcome in zip(jobs, engine.train(jobs), strict=True):
        assert isinstance(outcome, TrainedAdapter), outcome
        assert not outcome.alone
        start = start_of(engine, job)
        (alone,) = engine.train([job])
        assert isinstance(alone, TrainedAdapter), alone
        rendered = [engine.renderer.example(example, max_tokens=256) for example in EXAMPLES]
        reference = train_with_peft(untouched, job, rendered)
        assert distance(outcome.adapter.tensors, alone.adapter.tensors, start) <= tolerance
        assert distance(outcome.adapter.tensors, reference, start) <= tolerance


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_versions_answer_in_one_batch_as_they_do_alone(tmp_path: Path, name: str) -> None:
    architecture, more = ARCHITECTURES[name]
    folder = make_tiny_model(tmp_path / name, architecture=architecture, **more)
    base = load_model(tiny_config(folder))
    adapters: dict[str, Any] = {}
    engine = LoraEngine(base, load=adapters.__getitem__)
    jobs = [TrainJob(f"v{seed}", EXAMPLES, RECIPE.model_copy(update={"epochs": 8}), seed) for seed in range(3)]
    for outcome in engine.train(jobs):
        assert isinstance(outcome, TrainedAdapter), outcome
        adapters[outcome.job_id] = outcome.adapter
    versions, sampling = ["base", *adapters], Sampling(max_new_tokens=12)
    together = {(version, text.index): text for version, text in engine.answer(versions, prompts(3), sampling)}
    assert len(together) == 12
    for version in versions:
        for _, text in engine.answer([version], prompts(3), sampling):
            assert together[version, text.index] == text
    assert len({text.text for text in together.values()}) > 3
