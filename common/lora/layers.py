"""Linear layers on which many adapters stand at once, each for the tokens that are its own.

A LoraLinear adds scale * B A x to what the frozen layer says, for spans of tokens: the rows of a batch (or the stretch
of a packed row) that one adapter answers for. While adapters are trained, gradients go straight into buffers of each
adapter; the frozen layer has none. LoRA: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv
2106.09685).

Shapes: N tokens of all leading dimensions flattened, n of them one adapter's, I inputs, O outputs, R its rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from common.errors import InvalidConfig
from common.lora.frozen import FrozenLinear
from common.lora.stacking import Stack, StackedFactors


@dataclass
class Factors:
    """One adapter's numbers on one layer. Gradients are added to `grad_*` where those are there."""

    a_RI: torch.Tensor
    b_OR: torch.Tensor
    scale: float
    grad_a_RI: torch.Tensor | None = None
    grad_b_OR: torch.Tensor | None = None
    # Nothing has been added yet: what stands in the gradients is of no account.
    empty: bool = True
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
    because one adapter answers for everything. stack: the spans, where their products can be made in one call.
    """

    spans: Sequence[Span] = ()
    rows: int = 0
    width: int = 1
    training: bool = False
    stack: Stack | None = None
    # Carries gradients to the first layers, whose inputs need none themselves.
    anchor: torch.Tensor = field(default_factory=lambda: torch.zeros((), requires_grad=True))

    @contextmanager
    def holding(
        self,
        spans: Sequence[Span],
        *,
        rows: int = 0,
        width: int = 1,
        training: bool = False,
        stack: Stack | None = None,
    ) -> Iterator[None]:
        """Within, tokens belong as `spans` says to a batch of `rows` x `width` tokens; after, as before."""
        before = (self.spans, self.rows, self.width, self.training, self.stack)
        self.spans, self.rows, self.width, self.training, self.stack = spans, rows, width, training, stack
        try:
            yield
        finally:
            self.spans, self.rows, self.width, self.training, self.stack = before

    def stretch(self, span: Span, tokens: int) -> tuple[int, int | None]:
        """Where a span's tokens lie among a layer's. Raises InvalidConfig when the layer was given others."""
        if self.rows and tokens != self.rows * self.width:
            raise InvalidConfig(
                f"model: a linear layer sees {tokens} of {self.rows * self.width} tokens; such layers (of a mixture of "
                "experts, for instance) cannot carry adapters: leave them out of the recipe's target_modules"
            )
        return span.start * self.width, None if span.end is None else span.end * self.width


class LoraLinear(torch.nn.Module):
    """Stands in a model where `base` stood."""

    def __init__(self, base: FrozenLinear, layout: Layout) -> None:
        super().__init__()
        self.base = base
        self.in_features, self.out_features = base.in_features, base.out_features
        self.factors: dict[str, Factors] = {}
        self.stacked: StackedFactors | None = None
        self.layout = layout

    @property
    def weight(self) -> torch.Tensor:
        return self.base.weight

    @property
    def bias(self) -> torch.Tensor | None:
        return self.base.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: leading dimensions x I -> leading dimensions x O."""
        tokens = x.numel() // self.in_features
        own = [
            (self.factors[span.name], *self.layout.stretch(span, tokens))
            for span in self.layout.spans
            if span.name in self.factors
        ]
        if not own:
            y: torch.Tensor = self.base(x)
            return y
        if self.layout.training:
            trained: torch.Tensor = _Trained.apply(x, self.layout.anchor, self.base, own)  # type: ignore[no-untyped-call]
            return trained
        y = self.base(x)
        x_NI, y_NO = x.flatten(0, -2), y.flatten(0, -2)
        if (stack := self.layout.stack) is not None and all(name in self.factors for name in stack.names):
            if self.stacked is None or self.stacked.names != stack.names:
                self.stacked = StackedFactors.of(stack.names, [self.factors[name] for name in stack.names])
            self.stacked.add(stack, x_NI, y_NO)
            return y
        for factors, start, end in own:
            low_NR = x_NI[start:end].to(factors.a_RI.dtype) @ factors.a_RI.T
            _add_product(y_NO[start:end], low_NR, factors.b_OR.T, factors.scale)
        return y


class _Trained(torch.autograd.Function):
    """The layer with its adapters, whose gradients it adds up in their buffers instead of returning them."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, anchor: torch.Tensor, base: FrozenLinear, own: Any) -> torch.Tensor:
        y = base.product(x)
        spans = [(start, end) for _, start, end in own]
        lows, masks = [], []
        parts = zip(own, _parts(x.flatten(0, -2), spans), _parts(y.flatten(0, -2), spans), strict=True)
        for (factors, _, _), x_nI, y_nO in parts:
            seen_nI = x_nI.to(factors.a_RI.dtype)
            mask_nI = _dropout_mask(seen_nI, factors)
            masked_nI = seen_nI if mask_nI is None else seen_nI * mask_nI
            low_nR = torch.nn.functional.linear(masked_nI, factors.a_RI)
            _add_product(y_nO, low_nR, factors.b_OR.T, factors.scale)
            lows.append(low_nR)
            masks.append(mask_nI)
        ctx.save_for_backward(x, *lows, *masks)
        ctx.base, ctx.own, ctx.spans = base, own, spans
        return y

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x, *kept = ctx.saved_tensors
        lows, masks = kept[: len(ctx.own)], kept[len(ctx.own) :]
        grad_NO = grads[0].flatten(0, -2)
        grad_x_NI = ctx.base.gradient(grad_NO) if ctx.needs_input_grad[0] else None
        seen = _parts(x.flatten(0, -2), ctx.spans)
        given = _parts(grad_NO, ctx.spans)
        passed = [None] * len(seen) if grad_x_NI is None else _parts(grad_x_NI, ctx.spans)
        parts = zip(ctx.own, seen, given, passed, lows, masks, strict=True)
        for (factors, _, _), x_nI, grad_nO, grad_x_nI, low_nR, mask_nI in parts:
            own_nO = grad_nO.to(factors.b_OR.dtype)
            seen_nI = x_nI.to(factors.a_RI.dtype)
            grad_low_nR = own_nO @ factors.b_OR
            if factors.grad_a_RI is not None and factors.grad_b_OR is not None:
                masked_nI = seen_nI if mask_nI is None else seen_nI * mask_nI
                before = 0.0 if factors.empty else 1.0
                factors.grad_b_OR.addmm_(own_nO.T, low_nR, beta=before, alpha=factors.scale)
                factors.grad_a_RI.addmm_(grad_low_nR.T, masked_nI, beta=before, alpha=factors.scale)
                factors.empty = False
            if grad_x_nI is None:
                continue
            if mask_nI is None:
                _add_product(grad_x_nI, grad_low_nR, factors.a_RI, factors.scale)
            else:
                grad_own_nI = ((grad_low_nR @ factors.a_RI) * mask_nI).mul_(factors.scale)
                grad_x_nI.add_(grad_own_nI.to(grad_x_nI.dtype))
        return (None if grad_x_NI is None else grad_x_NI.view_as(x)), None, None, None


def _parts(tokens: torch.Tensor, spans: Sequence[tuple[int, int | None]]) -> Sequence[torch.Tensor]:
    """Views of the spans' tokens (N x ...): in one call where they follow one another from the first to the last."""
    ends = [0, *(end for _, end in spans)]
    if ends[-1] == tokens.shape[0] and ends[:-1] == [start for start, _ in spans]:
        sizes = [end - start for start, end in spans if end is not None]
        return list(torch.split(tokens, sizes))
    return [tokens[start:end] for start, end in spans]


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
