"""LoRA on CPU inside vLLM: the arithmetic, token by token, and nothing for tokens without an adapter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.vllm_engine import cpu_lora

SLOTS, RANK, WIDE = 2, 3, 5
SLOT_LISTS = st.lists(st.integers(min_value=-1, max_value=SLOTS - 1), min_size=1, max_size=12)


def metadata(slots: torch.Tensor) -> tuple[object, ...]:
    """What vLLM hands to the functions that work on runs of tokens."""
    indices, lengths = torch.unique_consecutive(slots, return_counts=True)
    starts = torch.cumsum(lengths, 0) - lengths
    return (starts, lengths, indices, len(indices), int(lengths.max()), len(slots))


@given(SLOT_LISTS, st.booleans())
@settings(deadline=None)
def test_each_token_gets_its_own_adapter_and_no_other(chosen: list[int], by_token: bool) -> None:
    torch.manual_seed(len(chosen))
    slots = torch.tensor(chosen)
    x = torch.randn(len(chosen), WIDE)
    a = torch.randn(SLOTS, 1, RANK, WIDE)
    b = torch.randn(SLOTS, 1, WIDE, RANK)
    shrunk = torch.zeros(len(chosen), RANK)
    expanded = torch.ones(len(chosen), WIDE)
    sliced = torch.ones(len(chosen), WIDE + 4)
    if by_token:
        cpu_lora.bgmv_shrink(x, a, shrunk, slots, 2.0)
        cpu_lora.bgmv_expand(shrunk, b, expanded, slots, True)
        cpu_lora.bgmv_expand_slice(shrunk, b, sliced, slots, 2, WIDE, True)
    else:
        cpu_lora.sgmv_shrink(x, a, shrunk, *metadata(slots), 2.0)
        cpu_lora.sgmv_expand(shrunk, b, expanded, *metadata(slots), True)
        cpu_lora.sgmv_expand_slice(shrunk, b, sliced, *metadata(slots), 2, WIDE, True)
    for row, slot in enumerate(chosen):
        added = 2.0 * (x[row] @ a[slot, 0].T) @ b[slot, 0].T if slot >= 0 else torch.zeros(WIDE)
        torch.testing.assert_close(expanded[row], 1 + added)
        torch.testing.assert_close(sliced[row, 2 : 2 + WIDE], 1 + added)
        assert sliced[row, :2].tolist() == [1, 1]


@pytest.mark.vllm
def test_the_functions_stand_where_vllm_looks_for_them() -> None:
    module = pytest.importorskip(cpu_lora.PATCHED_MODULE)
    cpu_lora.install()
    assert module.sgmv_shrink is cpu_lora.sgmv_shrink
