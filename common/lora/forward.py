"""Forward passes that compute no more than is asked for: hidden states once, logits only at chosen positions.

Shapes: B sequences, T tokens of the longest, N chosen positions of the batch, V words of the vocabulary, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.errors import InvalidConfig

CHECK_TOKENS = 4
CHUNK = 512


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right. Padding is masked out of attention and never chosen."""

    tokens_BT: torch.Tensor
    attention_BT: torch.Tensor

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]], device: torch.device) -> Batch:
        longest = max(map(len, sequences))
        tokens_BT = torch.zeros((len(sequences), longest), dtype=torch.long)
        attention_BT = torch.zeros_like(tokens_BT)
        for row, sequence in enumerate(sequences):
            tokens_BT[row, : len(sequence)] = torch.tensor(sequence)
            attention_BT[row, : len(sequence)] = 1
        return cls(tokens_BT.to(device), attention_BT.to(device))


class LogitModel:
    """Decoder and output head of a causal LM, run apart."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._softcap: float | None = getattr(model.config, "final_logit_softcapping", None)
        self._check()

    def logits(self, batch: Batch, chosen_N: torch.Tensor) -> torch.Tensor:
        """Float32 logits (N x V) of the next token after each chosen position of the flattened batch (B*T)."""
        hidden_BTD = self._model.get_decoder()(
            input_ids=batch.tokens_BT, attention_mask=batch.attention_BT, use_cache=False
        ).last_hidden_state
        return self._head(hidden_BTD.flatten(0, 1).index_select(0, chosen_N))

    def backward(
        self, hidden_ND: torch.Tensor, chosen_M: torch.Tensor, targets_M: torch.Tensor, weights_M: torch.Tensor
    ) -> torch.Tensor:
        """Gradients of the weighted cross-entropy at chosen positions, down into whatever made the hidden states.

        Logits are made and given up again CHUNK positions at a time, and become their own gradient: those of a whole
        row would be the largest thing in memory. Returns the cross-entropy at each position (M), in nats.
        """
        seen_MD = hidden_ND.index_select(0, chosen_M)
        grad_MD = torch.empty_like(seen_MD, requires_grad=False)
        losses = []
        for low in range(0, len(chosen_M), CHUNK):
            high = low + CHUNK
            chunk = seen_MD[low:high].detach().requires_grad_()
            logits_NV = self._head(chunk)
            # Nothing that made the logits reads them again on the way back.
            values_NV = logits_NV.detach()
            losses.append(_cross_entropy_(values_NV, targets_M[low:high], weights_M[low:high]))
            (grad_MD[low:high],) = torch.autograd.grad(logits_NV, chunk, values_NV)
        seen_MD.backward(grad_MD)  # type: ignore[no-untyped-call]
        return torch.cat(losses)

    def _head(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        logits_NV: torch.Tensor = self._model.get_output_embeddings()(hidden_ND)
        logits_NV = logits_NV if logits_NV.dtype is torch.float64 else logits_NV.float()
        if self._softcap is not None:
            logits_NV = torch.tanh(logits_NV / self._softcap) * self._softcap
        return logits_NV

    def _check(self) -> None:
        """Some architectures do more than this between decoder and logits: better refused here than wrong later."""
        batch = Batch.of([list(range(CHECK_TOKENS))], self._device)
        with torch.inference_mode():
            apart = self.logits(batch, torch.arange(CHECK_TOKENS, device=self._device))
            whole = self._model(input_ids=batch.tokens_BT, attention_mask=batch.attention_BT, use_cache=False).logits[0]
        if not torch.allclose(apart, whole.to(apart.dtype), rtol=1e-2, atol=1e-3):
            kind = getattr(self._model.config, "model_type", "unknown")
            raise InvalidConfig(f"model: architecture {kind} computes its logits in a way that is not supported")


def _cross_entropy_(logits_NV: torch.Tensor, targets_N: torch.Tensor, weights_N: torch.Tensor) -> torch.Tensor:
    """Cross-entropy at each position (N); in the logits' place stands the gradient of its weighted sum by them."""
    targets_N1, weights_N1 = targets_N[:, None], weights_N[:, None].to(logits_NV.dtype)
    target_N1 = logits_NV.gather(1, targets_N1)
    highest_N1, likeliest_N1 = logits_NV.max(dim=1, keepdim=True)
    torch.softmax(logits_NV, dim=1, out=logits_NV)
    # The likeliest word's probability is never small, so its logarithm keeps all digits.
    loss_N1 = highest_N1 - target_N1 - logits_NV.gather(1, likeliest_N1).log()
    logits_NV.mul_(weights_N1).scatter_add_(1, targets_N1, -weights_N1)
    return loss_N1[:, 0]


def chosen_positions(rows: Sequence[Sequence[int]], width: int) -> torch.Tensor:
    """Positions in each row of a batch `width` tokens wide, as indices into the flattened batch."""
    flat = [row * width + position for row, positions in enumerate(rows) for position in positions]
    return torch.tensor(flat, dtype=torch.long)


def passes(lengths: Sequence[int], *, budget: int) -> list[list[int]]:
    """Cuts sequences into forward passes: longest first, at most `budget` padded tokens each.

    A sequence longer than the budget gets a pass of its own. Returns indices into `lengths`.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    cut: list[list[int]] = []
    current: list[int] = []
    for index in order:
        if current and lengths[current[0]] * (len(current) + 1) > budget:
            cut.append(current)
            current = []
        current.append(index)
    return [*cut, current] if current else cut
