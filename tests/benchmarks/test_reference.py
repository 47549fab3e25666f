"""The published loss from a few sampled pads: its gradient against the full row's, on a tiny model and on SmolLM2."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.passages import read_passages
from benchmarks.reference import (
    PUBLISHED,
    Procedure,
    attach,
    merge,
    pads_of,
    published_loss,
    row_of,
    sampled,
    sampled_loss,
    step_loss,
    train_edit,
)
from common.models.config import ModelConfig
from common.models.loading import load_model
from student.config import DEFAULT_MODEL
from tests.support.tiny_model import make_tiny_model, tiny_config

PASSAGES = Path(__file__).resolve().parents[2] / "examples" / "squad" / "passages.json"
NARROW = replace(PUBLISHED, width=96, sampled_pads=8)
TOKENS = (5, 9, 11, 7, 30, 12, 8, 41, 6)
PAD = 2


class Gradients:
    """Gradients of one adapter whose B is not zero, so that A's count too."""

    def __init__(self, model: Any, procedure: Procedure) -> None:
        self.procedure = procedure
        self.peft, self.factors = attach(model, procedure, seed=3)
        generator = torch.Generator().manual_seed(4)
        with torch.no_grad():
            for name, factor in self.factors.items():
                if "lora_B" in name:
                    factor.copy_(torch.randn(factor.shape, generator=generator) * 0.01)

    def full(self, tokens: Sequence[int], pad: int) -> torch.Tensor:
        return self._of(published_loss(self.peft, tokens, pad=pad, width=self.procedure.width))

    def of_pads(self, tokens: Sequence[int], kept: Sequence[int], pad: int) -> torch.Tensor:
        return self._of(sampled_loss(self.peft, row_of(tokens, kept, pad=pad, procedure=self.procedure)))

    def of_samples(self, tokens: Sequence[int], draws: int, pad: int) -> Iterator[torch.Tensor]:
        generator = torch.Generator().manual_seed(5)
        for _ in range(draws):
            kept = sampled(pads_of(len(tokens), self.procedure), self.procedure, generator)
            yield self.of_pads(tokens, kept, pad)

    def _of(self, loss: torch.Tensor) -> torch.Tensor:
        loss.backward()  # type: ignore[no-untyped-call]
        gradient = torch.cat([f.grad.flatten() for f in self.factors.values() if f.grad is not None]).double()
        for factor in self.factors.values():
            factor.grad = None
        return gradient


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.fixture
def tiny(tmp_path: Path) -> Any:
    return load_model(tiny_config(make_tiny_model(tmp_path / "model"))).model


def test_all_pads_at_once_are_the_published_loss(tiny: Any) -> None:
    gradients = Gradients(tiny, NARROW)
    full = gradients.full(TOKENS, PAD)
    assert distance(gradients.of_pads(TOKENS, pads_of(len(TOKENS), NARROW), PAD), full) < 1e-4


def test_the_mean_of_many_samples_nears_the_published_gradient(tiny: Any) -> None:
    gradients = Gradients(tiny, NARROW)
    full = gradients.full(TOKENS, PAD)
    samples = list(gradients.of_samples(TOKENS, 256, PAD))
    single = math.sqrt(sum(distance(sample, full) ** 2 for sample in samples) / len(samples))
    mean = distance(torch.stack(samples).mean(0), full)
    assert single > 0
    # Of 256 independent draws a sixteenth is expected to remain.
    assert mean < single / 8


def test_a_document_as_long_as_the_row_has_no_pads(tiny: Any) -> None:
    procedure = replace(NARROW, width=len(TOKENS))
    gradients = Gradients(tiny, procedure)
    assert list(pads_of(len(TOKENS), procedure)) == []
    assert distance(gradients.of_pads(TOKENS, [], PAD), gradients.full(TOKENS, PAD)) < 1e-4


def test_training_leaves_the_weights_alone_and_merging_does_what_the_adapter_did(tiny: Any) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.state_dict().items()}
    prompt = torch.tensor([list(TOKENS)])
    short = replace(NARROW, epochs=3)
    factors = train_edit(tiny, [TOKENS, TOKENS[::-1]], pad=PAD, seed=1, procedure=short)
    again = train_edit(tiny, [TOKENS, TOKENS[::-1]], pad=PAD, seed=1, procedure=short)
    assert all(torch.equal(tiny.state_dict()[name], tensor) for name, tensor in before.items())
    assert all(torch.equal(factors[name], again[name]) for name in factors)
    peft, attached = attach(tiny, short, seed=0)
    with torch.no_grad():
        for name, parameter in attached.items():
            plain = name.removeprefix("base_model.model.").removesuffix(".default.weight")
            parameter.copy_(factors[plain])
        adapted = peft(prompt).logits
    peft.unload()
    assert not torch.allclose(tiny(prompt).logits, adapted, atol=1e-4)
    merge(tiny, factors, short)
    assert torch.allclose(tiny(prompt).logits, adapted, atol=1e-4)


@pytest.mark.parametrize("procedure", [NARROW, replace(NARROW, sampled_pads=0)], ids=["sampled", "full"])
def test_rows_are_computed_where_the_model_is_and_in_its_precision(tiny: Any, procedure: Procedure) -> None:
    # torch refuses to mix the meta device, which computes shapes alone, with any other.
    tiny.set_attn_implementation("eager")  # the other one looks into the mask
    gradients = Gradients(tiny.to("meta", torch.bfloat16), procedure)
    generator = torch.Generator().manual_seed(5)
    loss = step_loss(gradients.peft, TOKENS, generator, pad=PAD, procedure=procedure)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.device.type == "meta"
    assert all(f.grad is not None and f.grad.device.type == "meta" for f in gradients.factors.values())


def test_a_row_in_half_precision_sees_what_it_saw() -> None:
    row = row_of(TOKENS, [20, 30], pad=PAD, procedure=NARROW)
    half = row.on(torch.device("cpu"), torch.float16)
    assert half.mask_11TT.dtype is torch.float16
    assert half.mask_11TT.isfinite().all()
    assert torch.equal(half.mask_11TT == 0, row.mask_11TT == 0)
    assert torch.equal(half.weights_T, row.weights_T)


def test_without_sampling_a_step_is_the_published_row(tiny: Any) -> None:
    whole = replace(NARROW, sampled_pads=0)
    wanted = published_loss(tiny, TOKENS, pad=PAD, width=whole.width)
    found = step_loss(tiny, TOKENS, torch.Generator(), pad=PAD, procedure=whole)
    assert torch.equal(found, wanted)


def test_an_update_in_bfloat16_stays_near_that_in_float32(tiny: Any) -> None:
    short = replace(NARROW, epochs=2)
    exact = train_edit(tiny, [TOKENS], pad=PAD, seed=1, procedure=short)
    coarse = train_edit(tiny.to(torch.bfloat16), [TOKENS], pad=PAD, seed=1, procedure=short)
    assert all(factor.dtype is torch.float32 and factor.device.type == "cpu" for factor in coarse.values())
    assert distance(torch.cat([coarse[name].flatten() for name in exact]).double(),
                    torch.cat([factor.flatten() for factor in exact.values()]).double()) < 0.05  # fmt: skip


@pytest.mark.model
@pytest.mark.timeout(900)
def test_32_pads_stand_for_2048_on_the_real_model() -> None:
    base = load_model(ModelConfig(model=DEFAULT_MODEL))
    passage = read_passages(PASSAGES)[0]
    pad = int(base.tokenizer.eos_token_id)
    first = passage.context.split(". ")[0]
    tokens = base.tokenizer(f"{passage.title}\n{first}.")["input_ids"]
    gradients = Gradients(base.model, PUBLISHED)
    full = gradients.full(tokens, pad)
    exact = distance(gradients.of_pads(tokens, pads_of(len(tokens), PUBLISHED), pad), full)
    samples = list(gradients.of_samples(tokens, 32, pad))
    single = math.sqrt(sum(distance(sample, full) ** 2 for sample in samples) / len(samples))
    mean = distance(torch.stack(samples).mean(0), full)
    print(f"relative distance from the full row's gradient: all pads {exact:.1e}, 32 pads {single:.3f}, "
          f"mean of 32 draws {mean:.4f}")  # fmt: skip
    assert exact < 1e-3
    assert single < 0.5
    assert mean < single / 3
