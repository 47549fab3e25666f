"""Several adapters' low-rank products in one call each, where their rows stand side by side.

Loops over adapters cost a call each, in every layer and for every token; with the factors stacked (K adapters, padded
with zeros to the largest rank R) and the same number of rows n for each, one batched product serves all. Rows of
adapters that have fewer are repeated for the product and left out of its result.

Shapes: K adapters, n rows each, R the largest rank, I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from common.lora.layers import Factors, Span

# Rows that are computed for nothing, at most, as a share of all; beyond it a loop is cheaper.
WASTE = 0.5


@dataclass(frozen=True)
class Stack:
    """Which adapters are stacked, and where their tokens stand among a layer's.

    start: the first token, when all have the same number side by side; otherwise `rows_M` gathers them (K * n) and
    `kept_M` says which of these are no repetition, standing at `places_M`.
    """

    names: tuple[str, ...]
    each: int
    start: int = 0
    rows_M: torch.Tensor | None = None
    kept_M: torch.Tensor | None = None
    places_M: torch.Tensor | None = None

    @classmethod
    def of(cls, spans: Sequence[Span], width: int, device: torch.device, before: Stack | None = None) -> Stack | None:
        """The stack of these spans of rows of `width` tokens; None where stacking does not pay.

        before: the stack until now. While half of its adapters still have rows it stays as it is: those that have
        none cost less than stacking anew.
        """
        own = {span.name: (span.start * width, span.end * width) for span in spans if span.end is not None}
        if len(own) < 2 or len(own) < len(spans):
            return None
        stays = before is not None and own.keys() <= set(before.names) and 2 * len(own) >= len(before.names)
        names = before.names if before is not None and stays else tuple(own)
        each = max(end - start for start, end in own.values())
        tokens = sum(end - start for start, end in own.values())
        if tokens < (1 - WASTE) * each * len(names):
            return None
        stretches = [own.get(name, (0, 0)) for name in names]
        if tokens == each * len(names) and all(one[1] == other[0] for one, other in pairwise(stretches)):
            return cls(names, each, stretches[0][0])
        rows_Kn = torch.tensor([[max(start, min(start + i, end - 1)) for i in range(each)] for start, end in stretches])
        kept_Kn = torch.tensor([[start + i < end for i in range(each)] for start, end in stretches])
        kept_M = kept_Kn.flatten().nonzero()[:, 0]
        places_M = rows_Kn.flatten()[kept_M]
        return cls(names, each, 0, rows_Kn.flatten().to(device), kept_M.to(device), places_M.to(device))


@dataclass(frozen=True)
class StackedFactors:
    """Factors of several adapters on one layer; each B holds its adapter's scale."""

    names: tuple[str, ...]
    a_KIR: torch.Tensor
    b_KRO: torch.Tensor

    @classmethod
    def of(cls, names: Sequence[str], factors: Sequence[Factors]) -> StackedFactors:
        rank = max(one.a_RI.shape[0] for one in factors)
        first = factors[0]
        a_KIR = first.a_RI.new_zeros(len(factors), first.a_RI.shape[1], rank)
        b_KRO = first.b_OR.new_zeros(len(factors), rank, first.b_OR.shape[0])
        for k, one in enumerate(factors):
            own = one.a_RI.shape[0]
            a_KIR[k, :, :own] = one.a_RI.T
            b_KRO[k, :own] = one.b_OR.T * one.scale
        return cls(tuple(names), a_KIR, b_KRO)

    def add(self, stack: Stack, x_NI: torch.Tensor, y_NO: torch.Tensor) -> None:
        """Adds every adapter's product to the rows of y that are its own."""
        count = len(self.names)
        if stack.rows_M is None or stack.kept_M is None or stack.places_M is None:
            own = slice(stack.start, stack.start + count * stack.each)
            seen_KnI = x_NI[own].to(self.a_KIR.dtype).view(count, stack.each, -1)
            low_KnR = torch.bmm(seen_KnI, self.a_KIR)
            if y_NO.dtype == low_KnR.dtype:
                y_NO[own].view(count, stack.each, -1).baddbmm_(low_KnR, self.b_KRO)
            else:
                y_NO[own] += torch.bmm(low_KnR, self.b_KRO).flatten(0, 1).to(y_NO.dtype)
            return
        seen_KnI = x_NI.index_select(0, stack.rows_M).to(self.a_KIR.dtype).view(count, stack.each, -1)
        added_MO = torch.bmm(torch.bmm(seen_KnI, self.a_KIR), self.b_KRO).flatten(0, 1).index_select(0, stack.kept_M)
        y_NO.index_add_(0, stack.places_M, added_MO.to(y_NO.dtype))
