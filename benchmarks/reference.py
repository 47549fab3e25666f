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
from common.lora.resuming import Checkpoint, State, restore, state_of
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

    def on(self, device: torch.device, dtype: torch.dtype) -> Row:
        """Where a model of this precision computes."""
        return Row(
            tokens_1T=self.tokens_1T.to(device),
            positions_1T=self.positions_1T.to(device),
            mask_11TT=self.mask_11TT.to(device, dtype).clamp(min=torch.finfo(dtype).min),
            targets_T=self.targets_T.to(device),
            weights_T=self.weights_T.to(device),
        )


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
    row = row.on(model.device, model.dtype)
    logits_TV = model(
        input_ids=row.tokens_1T, attention_mask=row.mask_11TT, position_ids=row.positions_1T, use_cache=False
    ).logits[0]
    losses_T = torch.nn.functional.cross_entropy(logits_TV.float(), row.targets_T, reduction="none")
    return (losses_T * row.weights_T).sum()


def published_loss(model: Any, tokens: Sequence[int], *, pad: int, width: int) -> torch.Tensor:
    """As transformers computes it from a row that the tokenizer has padded: labels are the tokens, pads included."""
    real = list(tokens[:width])
    padded_1T = torch.tensor([[*real, *[pad] * (width - len(real))]], device=model.device)
    seen_1T = torch.tensor([[1] * len(real) + [0] * (width - len(real))], device=model.device)
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
    losses: list[float] | None = None,
    checkpoint: Checkpoint | None = None,
) -> Factors:
    """The adapter that the published procedure makes of the documents (token ids). `model` is as before afterwards.

    report: step, steps, loss. losses: takes every step's, those before an interruption (`checkpoint`) too. Steps are
    HF Trainer's: AdamW without decay, linear decay without warm-up, clipping.
    """
    peft, factors = attach(model, procedure, derive_seed("reference-init", seed))
    optimizer = torch.optim.AdamW(factors.values(), lr=procedure.learning_rate, weight_decay=0.0)
    order = torch.Generator().manual_seed(derive_seed("reference-order", seed))
    drawing = torch.Generator().manual_seed(derive_seed("reference-pads", seed))
    plan = shuffled_batches(len(documents), 1, procedure.epochs, order)
    steps = [place for epoch in plan for (place,) in epoch]
    losses = [] if losses is None else losses
    if checkpoint is not None and (found := checkpoint.load()) is not None:
        restore(found, optimizer, factors)
        drawing.set_state(found["pads"])
        losses += found["losses"].tolist()
    for step in range(len(losses), len(steps)):
        rate = procedure.learning_rate * learning_rate_factor(Schedule.LINEAR, step, len(steps), 0)
        optimizer.param_groups[0]["lr"] = rate
        loss = step_loss(peft, documents[steps[step]], drawing, pad=pad, procedure=procedure)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(factors.values(), procedure.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        if checkpoint is not None and len(losses) < len(steps):
            checkpoint.keep(lambda: _state(optimizer, factors, drawing, losses))
        report(len(losses), len(steps), losses[-1])
    trained = {_plain(name): parameter.detach().to("cpu", copy=True) for name, parameter in factors.items()}
    peft.unload()
    return trained


def step_loss(
    model: Any, tokens: Sequence[int], drawing: torch.Generator, *, pad: int, procedure: Procedure
) -> torch.Tensor:
    """Of one row: as published, or from the pads drawn for it."""
    if not procedure.sampled_pads:
        return published_loss(model, tokens, pad=pad, width=procedure.width)
    kept = sampled(pads_of(len(tokens), procedure), procedure, drawing)
    return sampled_loss(model, row_of(tokens, kept, pad=pad, procedure=procedure))


def _state(
    optimizer: torch.optim.Optimizer,
    factors: Mapping[str, torch.nn.Parameter],
    drawing: torch.Generator,
    losses: Sequence[float],
) -> State:
    """Everything that the next step depends on, and the losses so far."""
    so_far = torch.tensor(losses, dtype=torch.float64)
    return {**state_of(optimizer, factors), "pads": drawing.get_state(), "losses": so_far}


@torch.no_grad()
def merge(model: Any, factors: Mapping[str, torch.Tensor], procedure: Procedure = PUBLISHED) -> None:
    """Adds the adapter to the weights for good, as the reference does after every edit."""
    for name in sorted(factors):
        if not name.endswith(".lora_A"):
            continue
        layer = name.removesuffix(".lora_A")
        weight = model.get_submodule(layer).weight
        update = factors[f"{layer}.lora_B"].to(weight.device) @ factors[name].to(weight.device)
        weight.add_(update, alpha=procedure.alpha / procedure.rank)


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
