"""A linear layer of the frozen base, computed with the fastest kernels at hand.

A CPU's matrix product first brings the weights into its kernel's own order, every time; weights that never change can
be brought into it once (oneDNN's packed layout, which torch offers to compiled models by the operators used here).
Where those operators are missing, or for any other type or device, the layer is
torch's own. The packed weights stand beside the plain ones: one more copy for answering, and another for training.

Shapes: leading dimensions flattened to N tokens, I inputs, O outputs.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

# The kernel's layout may depend on how many tokens it is told to expect; one serves all.
EXPECTED_TOKENS = 256
CHECK_TOLERANCE = 1e-4


class FrozenLinear(torch.nn.Module):
    """Stands where a torch.nn.Linear stood. Its weights have no gradient; its input may."""

    def __init__(self, plain: torch.nn.Linear, *, packed: bool) -> None:
        super().__init__()
        self.plain = plain
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.packed = packed and plain.weight.device.type == "cpu" and _packing_works()
        self._forward: torch.Tensor | None = None
        self._backward: torch.Tensor | None = None

    @property
    def weight(self) -> torch.Tensor:
        return self.plain.weight

    @property
    def bias(self) -> torch.Tensor | None:
        return self.plain.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: leading dimensions x I -> leading dimensions x O."""
        if torch.is_grad_enabled() and x.requires_grad:
            y: torch.Tensor = _Frozen.apply(x, self)  # type: ignore[no-untyped-call]
            return y
        return self.product(x)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """The same without any record for a way back."""
        if not self._fits(x):
            return torch.nn.functional.linear(x, self.plain.weight, self.plain.bias)
        if self._forward is None:
            self._forward = _pack(self.plain.weight)
        return _packed_product(x, self._forward, self.plain.bias)

    def prepare(self) -> None:
        """Makes now what training will need, so that the memory that is left can be told."""
        if self.packed and self.plain.weight.dtype is torch.float32:
            self._forward = _pack(self.plain.weight) if self._forward is None else self._forward
            self._backward = _pack(self.plain.weight.T.contiguous()) if self._backward is None else self._backward

    def gradient(self, grad: torch.Tensor) -> torch.Tensor:
        """Gradient of the input (leading dimensions x I) from that of the output (leading dimensions x O)."""
        if not self._fits(grad):
            return grad @ self.plain.weight
        if self._backward is None:
            self._backward = _pack(self.plain.weight.T.contiguous())
        return _packed_product(grad, self._backward, None)

    def _fits(self, x: torch.Tensor) -> bool:
        return self.packed and x.dtype is torch.float32 and self.plain.weight.dtype is torch.float32


class _Frozen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: FrozenLinear) -> torch.Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        return ctx.layer.gradient(grads[0]), None


def _pack(weight_OI: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach(), EXPECTED_TOKENS)
    return packed


def _packed_product(x: torch.Tensor, packed: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    if x.dim() == 1:
        return _packed_product(x[None], packed, bias)[0]
    y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return y


@cache
def _packing_works() -> bool:
    """Whether this torch has the operators, and they give what its own layer gives."""
    x, weight, bias = torch.randn(3, 2, 8), torch.randn(16, 8), torch.randn(16)
    try:
        with torch.no_grad():
            found = _packed_product(x, _pack(weight), bias)
    except (AttributeError, RuntimeError):
        return False
    return bool((found - torch.nn.functional.linear(x, weight, bias)).abs().max() < CHECK_TOLERANCE)
