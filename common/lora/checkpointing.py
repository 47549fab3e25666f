"""Gradient checkpointing: decoder layers keep only what they were given, and run once more on the way back.

About a third more arithmetic for a fraction of the memory. Source: Chen et al., "Training Deep Nets with Sublinear
Memory Cost" (arXiv 1604.06174).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from common.lora.attachment import AttachedModel


def decoder_layers(model: Any) -> list[Any]:
    """The layers that can be run again: none for an architecture that does not offer it."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


@contextmanager
def checkpointed(attached: AttachedModel) -> Iterator[None]:
    """Within, going back through the model runs its layers again, with the dropout that they drew before."""

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        generators = attached.generators()
        return nullcontext(), _replaying(generators, [generator.get_state() for generator in generators])

    layers = decoder_layers(attached.model)
    attached.model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
    for layer in layers:
        # transformers looks at the layer's own mode only; its parts stay in evaluation mode.
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
        attached.model.gradient_checkpointing_disable()


@contextmanager
def _replaying(generators: Sequence[torch.Generator], states: Sequence[torch.Tensor]) -> Iterator[None]:
    """Within, the generators draw again what they drew from these states on."""
    now = [generator.get_state() for generator in generators]
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state)
    try:
        yield
    finally:
        for generator, state in zip(generators, now, strict=True):
            generator.set_state(state)
