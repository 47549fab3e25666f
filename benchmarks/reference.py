"""The published inner update as it is: what SEAL's reference code does with one edit, defects included (SEAL.md).

A fresh LoRA on q and v, batch 1, and the loss on every token of a row that is padded to 2,048 with end-of-text. On two
cores such a row takes half a minute. Pads are masked as keys, so each pad's loss depends on the real tokens alone: with
`sampled_pads` a row holds the real tokens and that many pads at their true positions, each weighted so that the loss is
the published one in expectation (tests/benchmarks/test_reference.py holds its gradient against the full row's). The
update is merged into the weights. Plain torch, transformers and PEFT; nothing of this project's engine trains here.

Shapes: T tokens of a row, n of them real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from common.canonical import derive_seed
from common.lora.schedule import learning_rate_factor, shuffled_batches
from common.types import Schedule

Factors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Procedure:
    """SEAL.md's figures. sampled_pads 0: all pads, as published."""

    rank: int = 32
    alpha: int = 64
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    learning_rate: float = 1e-3
    epochs: int = 10
    max_grad_norm: float = 1.0
    width: int = 2_048
    sampled_pads: int = 32


PUBLISHED = Procedure()


@dataclass(frozen=True)
class Row:
    """One document as it is trained: what is seen, what it is to say next, and how much that counts.

    mask_11TT is added to the attention's scores; weights_T sum to one.
    """

    tokens_1T: torch.Tensor
    positions_1T: torch.Tensor
    mask_11TT: torch.Tensor
    targets_T: torch.Tensor
    weights_T: torch.Tensor


def pads_of(real: int, procedure: Procedure) -> range:
    """Positions of the pads whose loss counts: the last one has nothing to predict."""
    return range(min(real, procedure.width), procedure.width - 1)


def sampled(pads: range, procedure: Procedure, generator: torch.Generator) -> list[int]:
    """Positions of the pads that stand for all, drawn without replacement."""
    if not procedure.sampled_pads or len(pads) <= procedure.sampled_pads:
        return list(pads)
    drawn = torch.randperm(len(pads), generator=generator)[: procedure.sampled_pads]
    return sorted(pads[int(place)] for place in drawn)


def row_of(tokens: Sequence[int], kept: Sequence[int], *, pad: int, procedure: Procedure) -> Row:
    """The real tokens and the pads at the positions `kept`."""
    real = list(tokens[: procedure.width])
    n, pads = len(real), len(pads_of(len(real), procedure))
    padded = n < procedure.width
    targets = [*real[1:], *([pad] if padded else [])]
    rows = len(targets)
    weights = [1.0] * rows + [pads / len(kept) if kept else 0.0] * len(kept)
    size = rows + len(kept)
    positions = [*range(rows), *kept]
    seen_TT = torch.zeros((size, size), dtype=torch.bool)
    seen_TT[:rows, :rows] = torch.ones((rows, rows), dtype=torch.bool).tril()
    seen_TT[rows:, :rows] = True
    mask_TT = torch.zeros((size, size)).masked_fill(~seen_TT, torch.finfo(torch.float32).min)
    return Row(
        tokens_1T=torch.tensor([[*real[:rows], *[pad] * len(kept)]]),
        positions_1T=torch.tensor([positions]),
        mask_11TT=mask_TT[None, None],
        targets_T=torch.tensor([*targets, *[pad] * len(kept)]),
        weights_T=torch.tensor(weights) / (procedure.width - 1),
    )


def sampled_loss(model: Any, row: Row) -> torch.Tensor:
    """The published loss in expectation, in nats a token of the padded row."""
    logits_TV = model(
        input_ids=row.tokens_1T, attention_mask=row.mask_11TT, position_ids=row.positions_1T, use_cache=False
    ).logits[0]
    losses_T = torch.nn.functional.cross_entropy(logits_TV.float(), row.targets_T, reduction="none")
    return (losses_T * row.weights_T).sum()


def published_loss(model: Any, tokens: Sequence[int], *, pad: int, width: int) -> torch.Tensor:
    """As transformers computes it from a row that the tokenizer has padded: labels are the tokens, pads included."""
    real = list(tokens[:width])
    padded_1T = torch.tensor([[*real, *[pad] * (width - len(real))]])
    seen_1T = torch.tensor([[1] * len(real) + [0] * (width - len(real))])
    loss: torch.Tensor = model(input_ids=padded_1T, attention_mask=seen_1T, labels=padded_1T, use_cache=False).loss
    return loss


def attach(model: Any, procedure: Procedure, seed: int) -> tuple[Any, dict[str, torch.nn.Parameter]]:
    """A fresh adapter by PEFT, drawn from `seed`, and its factors by name. Change nothing else until `detach`."""
    config = LoraConfig(
        r=procedure.rank,
        lora_alpha=procedure.alpha,
        target_modules=list(procedure.target_modules),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft: Any = get_peft_model(model, config)
    return peft, {name: p for name, p in peft.named_parameters() if p.requires_grad}


def train_edit(
    model: Any,
    documents: Sequence[Sequence[int]],
    *,
    pad: int,
    seed: int,
    procedure: Procedure = PUBLISHED,
    report: Callable[[int, int, float], None] = lambda step, steps, loss: None,
) -> Factors:
    """The adapter that the published procedure makes of the documents (token ids). `model` is as before afterwards.

    report: step, steps, loss. Steps are HF Trainer's: AdamW without decay, linear decay without warm-up, clipping.
    """
    peft, factors = attach(model, procedure, derive_seed("reference-init", seed))
    optimizer = torch.optim.AdamW(factors.values(), lr=procedure.learning_rate, weight_decay=0.0)
    order = torch.Generator().manual_seed(derive_seed("reference-order", seed))
    drawing = torch.Generator().manual_seed(derive_seed("reference-pads", seed))
    plan = shuffled_batches(len(documents), 1, procedure.epochs, order)
    steps = [place for epoch in plan for (place,) in epoch]
    for step, place in enumerate(steps):
        tokens = documents[place]
        kept = sampled(pads_of(len(tokens), procedure), procedure, drawing)
        rate = procedure.learning_rate * learning_rate_factor(Schedule.LINEAR, step, len(steps), 0)
        optimizer.param_groups[0]["lr"] = rate
        loss = sampled_loss(peft, row_of(tokens, kept, pad=pad, procedure=procedure))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(factors.values(), procedure.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        report(step + 1, len(steps), float(loss.detach()))
    trained = {_plain(name): parameter.detach().clone() for name, parameter in factors.items()}
    peft.unload()
    return trained


@torch.no_grad()
def merge(model: Any, factors: Mapping[str, torch.Tensor], procedure: Procedure = PUBLISHED) -> None:
    """Adds the adapter to the weights for good, as the reference does after every edit."""
    for name in sorted(factors):
        if not name.endswith(".lora_A"):
            continue
        layer = name.removesuffix(".lora_A")
        update = factors[f"{layer}.lora_B"] @ factors[name]
        model.get_submodule(layer).weight.add_(update, alpha=procedure.alpha / procedure.rank)


def tokens_trained(documents: Sequence[Sequence[int]], procedure: Procedure = PUBLISHED) -> int:
    """Tokens computed for one edit, sampled pads included."""
    rows = [
        min(len(tokens), procedure.width)
        + min(procedure.sampled_pads or procedure.width, len(pads_of(len(tokens), procedure)))
        for tokens in documents
    ]
    return sum(rows) * procedure.epochs


def _plain(name: str) -> str:
    """PEFT's name of a factor as the layer's own, with .lora_A or .lora_B."""
    return name.removeprefix("base_model.model.").removesuffix(".default.weight")
