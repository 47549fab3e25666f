"""Packed weights of the frozen base: the same numbers as torch's own layer, forward and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.errors import InvalidConfig
from common.lora import memory
from common.lora.adapter_format import AdapterSpec
from common.lora.attachment import AttachedModel
from common.lora.config import EngineConfig
from common.lora.engine import LoraEngine
from common.lora.frozen import FrozenLinear
from common.models.loading import load_model
from tests.support.tiny_model import tiny_config


def plain(bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(24, 40, bias=bias).requires_grad_(False)


@pytest.mark.parametrize("shape", [(24,), (7, 24), (2, 5, 24), (1, 300, 24)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_product_and_gradient_are_those_of_the_plain_layer(shape: tuple[int, ...], bias: bool, packed: bool) -> None:
    layer = plain(bias)
    frozen = FrozenLinear(layer, packed=packed)
    x = torch.randn(shape, requires_grad=True)
    weights = torch.randn(*shape[:-1], 40)
    (expected,) = torch.autograd.grad((layer(x) * weights).sum(), x)
    y = frozen(x)
    (found,) = torch.autograd.grad((y * weights).sum(), x)
    torch.testing.assert_close(y, layer(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_rows_that_do_not_lie_side_by_side() -> None:
    layer = plain()
    x = torch.randn(3, 5, 24).transpose(0, 1)
    torch.testing.assert_close(FrozenLinear(layer, packed=True)(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_are_computed_by_torch_itself(dtype: torch.dtype) -> None:
    layer = plain().to(dtype)
    x = torch.randn(4, 24, dtype=dtype)
    assert torch.equal(FrozenLinear(layer, packed=True)(x), layer(x))


def test_packed_weights_are_used_where_they_can_be() -> None:
    """Otherwise the tests above would compare the plain layer with itself."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        pytest.skip("this torch has no oneDNN")
    frozen = FrozenLinear(plain(), packed=True)
    x = torch.randn(4, 24)
    before = frozen(x)
    frozen.plain.weight.zero_()
    assert torch.equal(frozen(x), before)


@pytest.mark.parametrize("packed", [True, False])
def test_the_setting_decides_for_all_frozen_layers_and_the_head(tiny_folder: Path, packed: bool) -> None:
    engine = LoraEngine(load_model(tiny_config(tiny_folder)), EngineConfig(pack_weights=packed))
    frozen = [module for module in engine.base.model.modules() if isinstance(module, FrozenLinear)]
    assert engine.base.model.get_output_embeddings() in frozen
    assert {module.packed for module in frozen} == {packed}
    assert engine.attached.packed is packed


def test_copies_that_do_not_fit_are_refused_by_the_setting(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1_000)
    base = load_model(tiny_config(tiny_folder))
    with pytest.raises(InvalidConfig, match=r"engine.pack_weights: .* GiB"):
        LoraEngine(base)
    LoraEngine(base, EngineConfig(pack_weights=False))


def test_gradients_of_a_layer_that_a_step_does_not_reach_are_zero(tiny_folder: Path) -> None:
    """They are written over and not cleared between steps."""
    attached = AttachedModel(load_model(tiny_config(tiny_folder)))
    spec = AdapterSpec(rank=2, alpha=2.0, target_modules=("q_proj",), base=attached.base.digest.sha256)
    attached.attach("v", spec, lambda _, shape: torch.ones(shape))
    _, grad_P = attached.train("v", dropout=0.0, generator=torch.Generator())
    reached, left_out = (layer.factors["v"] for layer in list(attached.layers("v").values())[:2])
    grad_P.fill_(3.0)
    attached.forget_gradients("v")
    reached.empty = False
    attached.settle_gradients("v")
    for factors, value in ((reached, 3.0), (left_out, 0.0)):
        assert factors.grad_a_RI is not None
        assert factors.grad_b_OR is not None
        assert bool((factors.grad_a_RI == value).all())
        assert bool((factors.grad_b_OR == value).all())
