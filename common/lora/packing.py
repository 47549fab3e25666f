"""Sequences of several adapters in one row without padding: positions start anew, and each sequence sees only itself.

The packed row goes through a transformers model as a batch of one; every layer but attention treats tokens one by one,
and attention is told where sequences begin by the keyword `packed`, which transformers hands down to its attention
functions. There, sequences are laid out in rows for the moment of the attention itself (their padding, causal and on
the right, reaches no real token), so that one kernel serves all of them.

Shapes: N tokens of the row, S sequences, L tokens of the longest of a group, H heads, D features of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from common.errors import InvalidConfig

IMPLEMENTATION = "seal_packed"
# Longest padding of a group of sequences that are attended to together, as a share of the longest.
WASTE = 0.25
# Tokens of the sequences that an architecture is tried with.
CHECK_LENGTHS = (24, 17, 5)
CHECK_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4}


@dataclass(frozen=True)
class _Group:
    """Sequences of about one length. rows_SL: where each token lies in the row; inverse_M: and back, in their order."""

    rows_SL: torch.Tensor
    inverse_M: torch.Tensor
    tokens_M: torch.Tensor

    def on(self, device: torch.device) -> _Group:
        return _Group(self.rows_SL.to(device), self.inverse_M.to(device), self.tokens_M.to(device))


@dataclass(frozen=True)
class Packed:
    """One packed row. `order_N` brings what the groups give, one after another, back into the row's order."""

    tokens_1N: torch.Tensor
    positions_1N: torch.Tensor
    groups: tuple[_Group, ...]
    order_N: torch.Tensor

    @property
    def places(self) -> int:
        """Of tokens and their padding, as attention sees them."""
        return sum(group.rows_SL.numel() for group in self.groups)

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], device: torch.device) -> Packed:
        lengths = [len(sequence) for sequence in sequences]
        starts = _starts(lengths)
        tokens = torch.tensor([token for sequence in sequences for token in sequence])
        positions = torch.cat([torch.arange(length) for length in lengths])
        groups = [_group([(starts[i], lengths[i]) for i in indices]) for indices in _alike(lengths)]
        order_N = torch.empty(len(tokens), dtype=torch.long)
        order_N[torch.cat([group.tokens_M for group in groups])] = torch.arange(len(tokens))
        return cls(
            tokens[None].to(device),
            positions[None].to(device),
            tuple(group.on(device) for group in groups),
            order_N.to(device),
        )


@contextmanager
def packed_attention(model: Any) -> Iterator[None]:
    """Within, the model takes `packed=` and attends within sequences."""
    before = model.config._attn_implementation
    model.set_attn_implementation(IMPLEMENTATION)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def check_packing(model: Any, device: torch.device) -> None:
    """Raises InvalidConfig unless packed sequences see exactly what they see by themselves.

    Layers that carry a state along the row (convolutions, recurrences), attention with sinks or a mask of its own: an
    architecture may hold what packing does not know, and would train on other sequences' tokens without a word.
    """
    sequences = [range(length) for length in CHECK_LENGTHS]
    with torch.inference_mode():
        alone = [
            model.get_decoder()(input_ids=torch.tensor([tokens], device=device), use_cache=False).last_hidden_state[0]
            for tokens in sequences
        ]
        with packed_attention(model):
            together = hidden_states(model, Packed.of(sequences, device))
    expected = torch.cat(alone)
    tolerance = CHECK_TOLERANCE.get(expected.dtype, 5e-2) * float(expected.abs().max())
    kind = getattr(model.config, "model_type", "unknown")
    if getattr(model.config, "attention_chunk_size", None):
        raise InvalidConfig(f"model: architecture {kind} attends in chunks, which packed training does not know")
    if not bool((together - expected).abs().max() <= tolerance):
        raise InvalidConfig(f"model: architecture {kind} mixes sequences that are packed into one row")


def hidden_states(model: Any, packed: Packed) -> torch.Tensor:
    """The decoder's last hidden states of every token (N x features). The model must be in packed_attention."""
    states: torch.Tensor = model.get_decoder()(
        input_ids=packed.tokens_1N, position_ids=packed.positions_1N, use_cache=False, packed=packed
    ).last_hidden_state
    return states[0]


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed: Packed | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """query 1 x H x N x D, key and value with as many heads or fewer -> 1 x N x H x D."""
    if packed is None:
        raise InvalidConfig("model: this architecture does not tell its attention layers where sequences begin")
    seen = []
    for group in packed.groups:
        qkv = [_Rows.apply(part[0].transpose(0, 1), group).transpose(1, 2) for part in (query, key, value)]  # type: ignore[no-untyped-call]
        rows = _causal(qkv, scaling=scaling, window=sliding_window, softcap=softcap)
        seen.append(_Tokens.apply(rows.transpose(1, 2), group))  # type: ignore[no-untyped-call]
    together = seen[0] if len(seen) == 1 else torch.cat(seen)
    return together.index_select(0, packed.order_N)[None], None


def _causal(
    qkv: Sequence[torch.Tensor], *, scaling: float | None, window: int | None, softcap: float | None
) -> torch.Tensor:
    """Causal attention of S rows (S x H x L x D), within a window where the layer has one, and a soft cap."""
    q, k, v = qkv
    length = q.shape[2]
    few = q.shape[1] != k.shape[1]
    if softcap is None and (window is None or window >= length):
        attended: torch.Tensor = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=length > 1, scale=scaling, enable_gqa=few
        )
        return attended
    distance_LL = torch.arange(length, device=q.device)[:, None] - torch.arange(length, device=q.device)
    allowed_LL = (distance_LL >= 0) & (distance_LL < (window or length))
    if few:
        # With a mask, the kernels that know grouped queries are slow ones on a GPU.
        k, v = (part.repeat_interleave(q.shape[1] // part.shape[1], dim=1) for part in (k, v))
    if softcap is None:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed_LL, scale=scaling)
    scores = (q @ k.transpose(2, 3)) * (scaling if scaling is not None else q.shape[-1] ** -0.5)
    scores = torch.tanh(scores / softcap) * softcap
    return scores.masked_fill(~allowed_LL, float("-inf")).softmax(dim=-1, dtype=torch.float32).to(v.dtype) @ v


class _Rows(torch.autograd.Function):
    """Tokens (N x ...) to rows (S x L x ...). Padding has no gradient, so going back nothing has to be added up."""

    @staticmethod
    def forward(ctx: Any, tokens: torch.Tensor, group: _Group) -> torch.Tensor:
        ctx.group, ctx.tokens = group, tokens.shape[0]
        return tokens.index_select(0, group.rows_SL.flatten()).view(*group.rows_SL.shape, *tokens.shape[1:])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        own = grads[0].flatten(0, 1).index_select(0, ctx.group.inverse_M)
        whole = own.new_zeros(ctx.tokens, *own.shape[1:])
        whole[ctx.group.tokens_M] = own
        return whole, None


class _Tokens(torch.autograd.Function):
    """Rows (S x L x ...) to the group's tokens (M x ...), padding left out."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, group: _Group) -> torch.Tensor:
        ctx.group, ctx.shape = group, rows.shape
        return rows.flatten(0, 1).index_select(0, group.inverse_M)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        group = ctx.group
        rows = grads[0].new_zeros(group.rows_SL.numel(), *grads[0].shape[1:])
        rows[group.inverse_M] = grads[0]
        return rows.view(ctx.shape), None


def _alike(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of sequences in groups whose padding is at most WASTE of the longest."""
    groups: list[list[int]] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and lengths[i] >= (1 - WASTE) * lengths[groups[-1][0]]:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _group(spans: Sequence[tuple[int, int]]) -> _Group:
    longest = max(length for _, length in spans)
    rows_SL = torch.zeros((len(spans), longest), dtype=torch.long)
    padding_SL = torch.ones((len(spans), longest), dtype=torch.bool)
    for row, (start, length) in enumerate(spans):
        # Padding repeats the sequence's own last token: another adapter's numbers, were they broken, stay away.
        rows_SL[row] = start + torch.arange(longest).clamp(max=length - 1)
        padding_SL[row, :length] = False
    inverse_M = (~padding_SL).flatten().nonzero()[:, 0]
    tokens_M = rows_SL.flatten()[inverse_M]
    return _Group(rows_SL, inverse_M, tokens_M)


def _starts(lengths: Sequence[int]) -> list[int]:
    starts = [0]
    for length in lengths[:-1]:
        starts.append(starts[-1] + length)
    return starts


ALL_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, _attend)
# Who attends to whom is the packed row's to say: no mask is made.
ALL_MASK_ATTENTION_FUNCTIONS.register(IMPLEMENTATION, lambda *_, **__: None)
