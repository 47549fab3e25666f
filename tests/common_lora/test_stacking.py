"""Stacked products: the same as adapter by adapter, whatever rows and ranks the adapters have."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.lora.frozen import FrozenLinear
from common.lora.layers import Factors, Layout, LoraLinear, Span
from common.lora.stacking import Stack

CPU = torch.device("cpu")


def layer_with(ranks: list[int]) -> LoraLinear:
    plain = torch.nn.Linear(6, 4, bias=False).double().requires_grad_(False)
    layer = LoraLinear(FrozenLinear(plain, packed=False), Layout())
    for k, rank in enumerate(ranks):
        a, b = torch.randn(rank, 6).double(), torch.randn(4, rank).double()
        layer.factors[f"v{k}"] = Factors(a, b, scale=1.0 + k)
    return layer


def spans_of(counts: list[int], first: int) -> list[Span]:
    spans, start = [], first
    for k, count in enumerate(counts):
        if count:
            spans.append(Span(f"v{k}", start, start + count))
        start += count
    return spans


@settings(max_examples=150, deadline=None)
@given(
    versions=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=6),
    base_rows=st.integers(0, 3),
    width=st.integers(1, 3),
)
def test_stacked_products_are_those_of_a_loop(versions: list[tuple[int, int, int]], base_rows: int, width: int) -> None:
    """Two states of one batch: in the second, some rows (perhaps all of an adapter) have ended."""
    torch.manual_seed(0)
    layer = layer_with([rank for rank, _, _ in versions])
    stack = None
    for tokens, counts in ((width, [a for _, a, _ in versions]), (1, [min(a, b) for _, a, b in versions])):
        spans, rows = spans_of(counts, base_rows), base_rows + sum(counts)
        if not rows:
            break
        stack = Stack.of(spans, tokens, CPU, stack)
        x = torch.randn(rows, tokens, 6).double()
        with layer.layout.holding(spans, rows=rows, width=tokens):
            expected = layer(x)
        with layer.layout.holding(spans, rows=rows, width=tokens, stack=stack):
            torch.testing.assert_close(layer(x), expected, rtol=1e-10, atol=1e-10)


def test_what_is_stacked_and_what_is_not() -> None:
    even = Stack.of(spans_of([2, 2, 2], 1), 3, CPU)
    assert even is not None
    assert (even.names, even.each, even.start, even.rows_M) == (("v0", "v1", "v2"), 6, 3, None)
    uneven = Stack.of(spans_of([2, 1, 2], 0), 1, CPU)
    assert uneven is not None
    assert uneven.rows_M is not None
    assert Stack.of(spans_of([2], 0), 1, CPU) is None
    assert Stack.of(spans_of([9, 1, 1, 1], 0), 1, CPU) is None
    assert Stack.of([Span("v0", 0, None)], 1, CPU) is None
    later = Stack.of(spans_of([2, 0, 1], 0), 1, CPU, even)
    assert later is not None
    assert later.names == even.names
    few = Stack.of(spans_of([1, 1], 0), 1, CPU, Stack(tuple(f"v{k}" for k in range(5)), 1))
    assert few is not None
    assert few.names == ("v0", "v1")


def test_adapters_are_float32_on_a_bfloat16_base() -> None:
    """As on a GPU; even rows and uneven ones."""
    layer = layer_with([2, 3])
    layer.base.plain.bfloat16()
    for factors in layer.factors.values():
        factors.a_RI, factors.b_OR = factors.a_RI.float(), factors.b_OR.float()
    for counts in ([2, 2], [2, 1]):
        spans = spans_of(counts, 1)
        x = torch.randn(1 + sum(counts), 6).bfloat16()
        with layer.layout.holding(spans, rows=len(x)):
            expected = layer(x)
        with layer.layout.holding(spans, rows=len(x), stack=Stack.of(spans, 1, CPU)):
            found = layer(x)
        assert found.dtype is torch.bfloat16
        torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)
        assert not torch.equal(found, layer.base(x))
