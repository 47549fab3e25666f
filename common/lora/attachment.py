"""The frozen base with adapters attached to its linear layers.

One base stands in memory; adapters come and go by name. Any number may be attached; which of them answers for which
tokens is the layout's to say (common/lora/layers.py). Nothing here trains or generates: trainer, answering and liveness
do, on this. One thread at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from common.errors import Corrupt, InvalidRequest, Violation
from common.lora.adapter_format import WEIGHTS_FILE, Adapter, AdapterSpec
from common.lora.frozen import FrozenLinear
from common.lora.layers import Factors, Layout, LoraLinear, Span
from common.models.loading import BaseModel

FILE_PREFIX = "base_model.model."  # PEFT's names start here; vLLM expects the same


@dataclass(frozen=True)
class _Attached:
    """An adapter's numbers in one piece, of which every layer's factors are views."""

    spec: AdapterSpec
    flat_P: torch.Tensor


class AttachedModel:
    """A base model to which adapters can be attached. Puts a LoraLinear where each linear layer but the head stood.

    pack_weights: on a CPU, hold the frozen weights once more in the order in which they are computed fastest; a model
    to which adapters were attached before stays as it is.
    """

    def __init__(self, base: BaseModel, *, pack_weights: bool = True) -> None:
        self.base = base
        self.model: Any = base.model
        self.dtype = torch.float64 if base.model.dtype is torch.float64 else torch.float32
        self._layers = _wrap(base.model, pack_weights)
        self.layout = next(iter(self._layers.values())).layout
        self._adapters: dict[str, _Attached] = {}

    @property
    def linear_names(self) -> tuple[str, ...]:
        """Names of linear layers that an adapter may target (q_proj, ...)."""
        return tuple(sorted({name.rpartition(".")[2] for name in self._layers}))

    @property
    def attached(self) -> tuple[str, ...]:
        return tuple(self._adapters)

    def shapes(self, spec: AdapterSpec) -> dict[str, tuple[int, int]]:
        """PEFT name to shape of every factor that an adapter of this spec has on this model."""
        shapes = {}
        for path, layer in self._targets(spec):
            shapes[f"{FILE_PREFIX}{path}.lora_A.weight"] = (spec.rank, layer.in_features)
            shapes[f"{FILE_PREFIX}{path}.lora_B.weight"] = (layer.out_features, spec.rank)
        return dict(sorted(shapes.items()))

    @property
    def packed(self) -> bool:
        """Whether the frozen layers are computed with packed weights."""
        return any(layer.base.packed for layer in self._layers.values())

    def prepare(self) -> None:
        """Makes what training needs beside the adapters, once."""
        for module in self.model.modules():
            if isinstance(module, FrozenLinear):
                module.prepare()

    def attach(self, name: str, spec: AdapterSpec, numbers: Callable[[str, tuple[int, int]], torch.Tensor]) -> None:
        """Adds an adapter; `numbers` gives each factor by PEFT name and shape, asked in the order of the names.

        Raises InvalidRequest for a layer that the model does not have.
        """
        unknown = sorted(set(spec.target_modules) - set(self.linear_names))
        if unknown:
            reason = f"the model has no linear layer {', '.join(unknown)}; it has {', '.join(self.linear_names)}"
            raise InvalidRequest([Violation("recipe.target_modules", reason)])
        flat_P, views = self._buffer(spec)
        for key, view in views.items():
            view.copy_(numbers(key, (view.shape[0], view.shape[1])))
        for path, layer in self._targets(spec):
            layer.factors[name] = Factors(
                views[f"{FILE_PREFIX}{path}.lora_A.weight"], views[f"{FILE_PREFIX}{path}.lora_B.weight"], spec.scaling
            )
        self._adapters[name] = _Attached(spec, flat_P)
        self.unstack()

    def load(self, name: str, adapter: Adapter) -> int:
        """Attaches `adapter` under `name`; returns the number of tensors bound. Raises Corrupt when it does not fit."""
        self.check_fit(name, adapter)
        self.attach(name, adapter.spec, lambda key, _: adapter.tensors[key])
        return len(self.factors(name))

    def check_fit(self, name: str, adapter: Adapter) -> None:
        """Raises Corrupt unless the adapter was made for this base and has exactly the factors its spec asks for."""
        if adapter.spec.base != self.base.digest.sha256:
            raise _unfit(name, f"was trained on base {adapter.spec.base}, not on {self.base.digest.sha256}")
        expected = self.shapes(adapter.spec)
        found = {key: tuple(tensor.shape) for key, tensor in adapter.tensors.items()}
        if found != expected:
            odd = sorted(set(expected.items()) ^ set(found.items()))
            raise _unfit(name, f"does not fit the model's layers: {', '.join(sorted({key for key, _ in odd})[:3])}")

    def train(self, name: str, *, dropout: float, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Gives an attached adapter room for gradients: all its numbers in one piece (P), and theirs, zero (P)."""
        attached = self._adapters[name]
        grad_P, grads = self._buffer(attached.spec)
        for path, layer in self.layers(name).items():
            factors = layer.factors[name]
            factors.grad_a_RI = grads[f"{FILE_PREFIX}{path}.lora_A.weight"]
            factors.grad_b_OR = grads[f"{FILE_PREFIX}{path}.lora_B.weight"]
            factors.dropout, factors.generator = dropout, generator
        return attached.flat_P, grad_P

    def forget_gradients(self, name: str) -> None:
        """The next pass writes the gradients of an adapter anew, where it would have added to them."""
        for layer in self.layers(name).values():
            layer.factors[name].empty = True

    def settle_gradients(self, name: str) -> None:
        """Gradients of layers that no pass has reached are zero."""
        for layer in self.layers(name).values():
            factors = layer.factors[name]
            if factors.empty and factors.grad_a_RI is not None and factors.grad_b_OR is not None:
                factors.grad_a_RI.zero_()
                factors.grad_b_OR.zero_()

    def generators(self) -> list[torch.Generator]:
        """What draws the dropout of those adapters that the layout holds now."""
        factors = (
            next(layer.factors[span.name] for layer in self._layers.values() if span.name in layer.factors)
            for span in self.layout.spans
        )
        return [f.generator for f in factors if f.dropout and f.generator is not None]

    def detach(self, name: str) -> None:
        """Removes an adapter and frees its memory."""
        if self._adapters.pop(name, None) is not None:
            self.unstack()
            for layer in self._layers.values():
                layer.factors.pop(name, None)

    def unstack(self) -> None:
        """Frees what was stacked for answering."""
        for layer in self._layers.values():
            layer.stacked = None

    def active(self, name: str | None) -> AbstractContextManager[None]:
        """Within, one adapter answers for everything, or none (the bare base)."""
        return self.layout.holding(() if name is None else (Span(name, 0, None),))

    def factors(self, name: str) -> dict[str, torch.Tensor]:
        """The live numbers of an attached adapter by their PEFT names, sorted."""
        found = {}
        for path, layer in self.layers(name).items():
            found[f"{FILE_PREFIX}{path}.lora_A.weight"] = layer.factors[name].a_RI
            found[f"{FILE_PREFIX}{path}.lora_B.weight"] = layer.factors[name].b_OR
        return dict(sorted(found.items()))

    def export(self, name: str) -> Adapter:
        """A copy of an attached adapter's numbers."""
        tensors = {key: tensor.detach().to("cpu", copy=True) for key, tensor in self.factors(name).items()}
        return Adapter(self._adapters[name].spec, tensors)

    def layers(self, name: str) -> dict[str, LoraLinear]:
        """Layers that carry this adapter, by their path in the model."""
        return {path: layer for path, layer in self._layers.items() if name in layer.factors}

    def _targets(self, spec: AdapterSpec) -> Iterator[tuple[str, LoraLinear]]:
        for path, layer in self._layers.items():
            if path.rpartition(".")[2] in spec.target_modules:
                yield path, layer

    def _buffer(self, spec: AdapterSpec) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Zeros for all factors in one piece, and the views of it by PEFT name."""
        shapes = self.shapes(spec)
        sizes = [rows * columns for rows, columns in shapes.values()]
        flat_P = torch.zeros(sum(sizes), dtype=self.dtype, device=self.base.device)
        pieces = flat_P.split(sizes)  # type: ignore[no-untyped-call]
        return flat_P, {key: piece.view(shape) for (key, shape), piece in zip(shapes.items(), pieces, strict=True)}


def _wrap(model: Any, pack_weights: bool) -> dict[str, LoraLinear]:
    """Every linear layer but the head as a LoraLinear, by its path; those of a model wrapped before stay."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}
    if layers:
        return layers
    layout, head = Layout(), model.get_output_embeddings()
    layout.anchor = layout.anchor.detach().to(model.device).requires_grad_()
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    for name, linear in linears.items():
        parent, _, attribute = name.rpartition(".")
        layers[name] = LoraLinear(FrozenLinear(linear, packed=pack_weights), layout)
        setattr(model.get_submodule(parent), attribute, layers[name])
    if isinstance(head, torch.nn.Linear):
        model.set_output_embeddings(FrozenLinear(head, packed=pack_weights))
    return layers


def _unfit(name: str, problem: str) -> Corrupt:
    return Corrupt(
        f"version {name}: {WEIGHTS_FILE} {problem}",
        reason="ADAPTER_UNFIT",
        ids={"version": name, "file": WEIGHTS_FILE},
    )
