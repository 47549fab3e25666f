"""Linear layers on which many adapters stand at once, each for the tokens that are its own.

A LoraLinear adds scale * B A x to what the frozen layer says, for spans of tokens: the rows of a batch (or the stretch
of a packed row) that one adapter answers for. While adapters are trained, gradients go straight into buffers of each
adapter; the frozen layer has none. LoRA: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv
2106.09685).

Shapes: N tokens of all leading dimensions flattened, I inputs, O outputs, R the adapter's rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from common.errors import InvalidConfig


@dataclass
class Factors:
    """One adapter's numbers on one layer. Gradients are added to `grad_*` where those are there."""

    a_RI: torch.Tensor
    b_OR: torch.Tensor
    scale: float
    grad_a_RI: torch.Tensor | None = None
    grad_b_OR: torch.Tensor | None = None
    dropout: float = 0.0
    # Draws the dropout of this adapter alone, so that it does not depend on who else is in the batch.
    generator: torch.Generator | None = None


@dataclass(frozen=True)
class Span:
    """Rows [start, end) of the batch that the adapter called `name` answers for; end None: to the last."""

    name: str
    start: int
    end: int | None


@dataclass
class Layout:
    """Whose tokens are whose, read by every layer of a model while it runs. No spans: the bare base.

    rows: how many rows the batch has, of one length; every token of a packed row is a row of its own. 0: not said,
    because one adapter answers for everything.
    """

    spans: Sequence[Span] = ()
    rows: int = 0
    width: int = 1
    training: bool = False
    # Carries gradients to the first layers, whose inputs need none themselves.
    anchor: torch.Tensor = field(default_factory=lambda: torch.zeros((), requires_grad=True))

    @contextmanager
    def holding(
        self, spans: Sequence[Span], *, rows: int = 0, width: int = 1, training: bool = False
    ) -> Iterator[None]:
        """Within, tokens belong as `spans` says to a batch of `rows` x `width` tokens; after, as before."""
        before = (self.spans, self.rows, self.width, self.training)
        self.spans, self.rows, self.width, self.training = spans, rows, width, training
        try:
            yield
        finally:
            self.spans, self.rows, self.width, self.training = before

    def stretch(self, span: Span, tokens: int) -> tuple[int, int | None]:
        """Where a span's tokens lie among a layer's. Raises InvalidConfig when the layer was given others."""
        if self.rows and tokens != self.rows * self.width:
            raise InvalidConfig(
                f"model: a linear layer sees {tokens} of {self.rows * self.width} tokens; such layers (of a mixture of "
                "experts, for instance) cannot carry adapters: leave them out of the recipe's target_modules"
            )
        return span.start * self.width, None if span.end is None else span.end * self.width


class LoraLinear(torch.nn.Module):
    """Stands in a model where `base_layer` stood."""

    def __init__(self, base_layer: torch.nn.Linear, layout: Layout) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.in_features, self.out_features = base_layer.in_features, base_layer.out_features
        self.factors: dict[str, Factors] = {}
        self.layout = layout

    @property
    def weight(self) -> torch.Tensor:
        return self.base_layer.weight

    @property
    def bias(self) -> torch.Tensor | None:
        return self.base_layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: leading dimensions x I -> leading dimensions x O."""
        tokens = x.numel() // self.in_features
        own = [
            (self.factors[span.name], *self.layout.stretch(span, tokens))
            for span in self.layout.spans
            if span.name in self.factors
        ]
        if not own:
            y: torch.Tensor = self.base_layer(x)
            return y
        if self.layout.training:
            trained: torch.Tensor = _Trained.apply(x, self.layout.anchor, self.base_layer, own)  # type: ignore[no-untyped-call]
            return trained
        y = self.base_layer(x)
        x_NI, y_NO = x.flatten(0, -2), y.flatten(0, -2)
        for factors, start, end in own:
            low_NR = x_NI[start:end].to(factors.a_RI.dtype) @ factors.a_RI.T
            _add_product(y_NO[start:end], low_NR, factors.b_OR.T, factors.scale)
        return y


class _Trained(torch.autograd.Function):
    """The layer with its adapters, whose gradients it adds up in their buffers instead of returning them."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, anchor: torch.Tensor, base: torch.nn.Linear, own: Any) -> torch.Tensor:
        y = torch.nn.functional.linear(x, base.weight, base.bias)
        x_NI, y_NO = x.flatten(0, -2), y.flatten(0, -2)
        lows, masks = [], []
        for factors, start, end in own:
            seen_NI = x_NI[start:end].to(factors.a_RI.dtype)
            mask_NI = _dropout_mask(seen_NI, factors)
            low_NR = (seen_NI if mask_NI is None else seen_NI * mask_NI) @ factors.a_RI.T
            _add_product(y_NO[start:end], low_NR, factors.b_OR.T, factors.scale)
            lows.append(low_NR)
            masks.append(mask_NI)
        ctx.save_for_backward(x, base.weight, *lows, *masks)
        ctx.own = own
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x, weight_OI, *kept = ctx.saved_tensors
        lows, masks = kept[: len(ctx.own)], kept[len(ctx.own) :]
        grad_NO = grads[0].flatten(0, -2)
        x_NI = x.flatten(0, -2)
        grad_x_NI = grad_NO @ weight_OI if ctx.needs_input_grad[0] else None
        for (factors, start, end), low_NR, mask_NI in zip(ctx.own, lows, masks, strict=True):
            own_NO = grad_NO[start:end].to(factors.b_OR.dtype)
            seen_NI = x_NI[start:end].to(factors.a_RI.dtype)
            grad_low_NR = (own_NO @ factors.b_OR).mul_(factors.scale)
            if factors.grad_a_RI is not None and factors.grad_b_OR is not None:
                factors.grad_b_OR.addmm_(own_NO.T, low_NR, alpha=factors.scale)
                factors.grad_a_RI.addmm_(grad_low_NR.T, seen_NI if mask_NI is None else seen_NI * mask_NI)
            if grad_x_NI is None:
                continue
            if mask_NI is None:
                _add_product(grad_x_NI[start:end], grad_low_NR, factors.a_RI, 1.0)
            else:
                grad_x_NI[start:end] += ((grad_low_NR @ factors.a_RI) * mask_NI).to(grad_x_NI.dtype)
        return (None if grad_x_NI is None else grad_x_NI.view_as(x)), None, None, None


def _add_product(sum_NO: torch.Tensor, left_NR: torch.Tensor, right_RO: torch.Tensor, scale: float) -> None:
    """sum += scale * left @ right, in one call where the types allow it."""
    if sum_NO.dtype == left_NR.dtype:
        sum_NO.addmm_(left_NR, right_RO, alpha=scale)
    else:
        sum_NO += ((left_NR @ right_RO) * scale).to(sum_NO.dtype)


def _dropout_mask(x_NI: torch.Tensor, factors: Factors) -> torch.Tensor | None:
    if factors.dropout == 0 or factors.generator is None:
        return None
    kept = 1.0 - factors.dropout
    return torch.empty_like(x_NI).bernoulli_(kept, generator=factors.generator).div_(kept)
