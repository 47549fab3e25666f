"""vLLM's LoRA arithmetic on CPU, put right and made fast.

vLLM 0.32 computes LoRA on CPU with functions (vllm/lora/ops/torch_ops/lora_ops.py) that index the adapters' weights by
token. That copies whole factors for every token, gigabytes for a batch of prompts; and a token without an adapter,
index -1, gets the adapter in the last slot: in a batch that mixes versions, the base model answers as a policy. Here
tokens in a row that share an adapter are multiplied at once, and tokens without one are left alone.

A worker installs this through common/vllm_engine/cpu_worker.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

PATCHED_MODULE = "vllm.lora.punica_wrapper.punica_cpu"


def runs(indices: torch.Tensor, lengths: torch.Tensor) -> Iterator[tuple[int, slice]]:
    """(adapter's slot, rows) of each run of tokens that has an adapter."""
    start = 0
    for index, length in zip(indices.tolist(), lengths.tolist(), strict=True):
        if index >= 0:
            yield index, slice(start, start + length)
        start += length


def sgmv_shrink(inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, *metadata: Any) -> None:
    """output[rows] = scaling x inputs[rows] A^T. `metadata`: starts, lengths, slots, three counts, scaling."""
    _, lengths, indices, _, _, _, scaling = metadata
    _shrink(inputs, weights, output, runs(indices, lengths), scaling)


def bgmv_shrink(
    inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, indices: torch.Tensor, scaling: float = 1.0
) -> None:
    """As sgmv_shrink, with one slot a token."""
    _shrink(inputs, weights, output, _runs_of(indices), scaling)


def sgmv_expand(inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, *metadata: Any) -> None:
    """output[rows] += inputs[rows] B^T. `metadata`: starts, lengths, slots, three counts, whether to add."""
    _, lengths, indices, _, _, _, add = metadata
    _expand(inputs, weights, output, runs(indices, lengths), add)


def bgmv_expand(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    output: torch.Tensor,
    indices: torch.Tensor,
    add_inputs: bool = True,
) -> None:
    """As sgmv_expand, with one slot a token."""
    _expand(inputs, weights, output, _runs_of(indices), add_inputs)


def sgmv_expand_slice(inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, *metadata: Any) -> None:
    """As sgmv_expand, into some columns. `metadata`: as there, with offset and width before the last."""
    _, lengths, indices, _, _, _, offset, width, add = metadata
    _expand(inputs, weights, output[:, offset : offset + width], runs(indices, lengths), add)


def bgmv_expand_slice(  # noqa: PLR0917 - vLLM's signature
    inputs: torch.Tensor,
    weights: torch.Tensor,
    output: torch.Tensor,
    indices: torch.Tensor,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = True,
) -> None:
    """As bgmv_expand, into some columns."""
    columns = output[:, slice_offset : slice_offset + slice_size]
    _expand(inputs, weights, columns, _runs_of(indices), add_inputs)


def _runs_of(indices: torch.Tensor) -> Iterator[tuple[int, slice]]:
    return runs(*torch.unique_consecutive(indices, return_counts=True))


def _shrink(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    output: torch.Tensor,
    parts: Iterator[tuple[int, slice]],
    scaling: float,
) -> None:
    for index, rows in parts:
        factor = _factor(weights, index).to(output.dtype)
        output[rows, : factor.shape[0]] = scaling * (inputs[rows].to(output.dtype) @ factor.T)


def _expand(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    output: torch.Tensor,
    parts: Iterator[tuple[int, slice]],
    add: bool,
) -> None:
    for index, rows in parts:
        factor = _factor(weights, index).to(output.dtype)
        # The model's layer may be padded to another width than the adapter's.
        width = min(factor.shape[0], output.shape[1])
        result = inputs[rows].to(output.dtype) @ factor[:width].T
        if add:
            output[rows, :width] += result
        else:
            output[rows, :width] = result


def _factor(weights: torch.Tensor, index: int) -> torch.Tensor:
    factor = weights[index]
    return factor.squeeze(0) if factor.dim() == 3 else factor


REPLACEMENTS = (sgmv_shrink, bgmv_shrink, sgmv_expand, bgmv_expand, sgmv_expand_slice, bgmv_expand_slice)


def install() -> None:
    """Replaces vLLM's functions in this process. Raises ImportError when this vLLM has no such functions."""
    from importlib import import_module

    module = import_module(PATCHED_MODULE)
    for replacement in REPLACEMENTS:
        if not hasattr(module, replacement.__name__):
            raise ImportError(f"{PATCHED_MODULE} has no {replacement.__name__}: this vLLM computes LoRA otherwise")
        setattr(module, replacement.__name__, replacement)
