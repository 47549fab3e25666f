"""Packed weights of the frozen base: the same numbers as torch's own layer, forward and back."""

from __future__ import annotations

import pytest
import torch

from common.lora.frozen import FrozenLinear


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
