"""The frozen base with adapters attached to its linear layers by PEFT.

One base stands in memory; adapters come and go by name, and at most one is active. Nothing here trains or generates:
trainer, answering and liveness do, on this. One thread at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.functional import delete_adapter, set_adapter
from peft.tuners.lora import LoraLayer

from common.errors import Corrupt, InvalidRequest, Violation
from common.lora.adapter_format import WEIGHTS_FILE, Adapter, AdapterSpec
from common.models.loading import BaseModel

FILE_PREFIX = "base_model.model."  # PEFT's names start here; vLLM expects the same
PEFT_PREFIX = "lora_"


class AttachedModel:
    """A base model to which adapters can be attached. Owns the model's PEFT layers."""

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self.model: Any = base.model
        head = base.model.get_output_embeddings()
        # A base that had adapters before keeps PEFT's wrappers: the layer itself then stands under .base_layer.
        self._linears: dict[str, tuple[int, int]] = {
            name.removesuffix(".base_layer"): (module.in_features, module.out_features)
            for name, module in base.model.named_modules()
            if isinstance(module, torch.nn.Linear) and module is not head and PEFT_PREFIX not in name
        }
        self._specs: dict[str, AdapterSpec] = {}

    @property
    def linear_names(self) -> tuple[str, ...]:
        """Names of linear layers that an adapter may target (q_proj, ...)."""
        return tuple(sorted({name.rpartition(".")[2] for name in self._linears}))

    @property
    def attached(self) -> tuple[str, ...]:
        return tuple(self._specs)

    def shapes(self, spec: AdapterSpec) -> dict[str, tuple[int, int]]:
        """PEFT name to shape of every factor that an adapter of this spec has on this model."""
        shapes = {}
        for layer, (inputs, outputs) in self._linears.items():
            if layer.rpartition(".")[2] in spec.target_modules:
                shapes[f"{FILE_PREFIX}{layer}.lora_A.weight"] = (spec.rank, inputs)
                shapes[f"{FILE_PREFIX}{layer}.lora_B.weight"] = (outputs, spec.rank)
        return dict(sorted(shapes.items()))

    def attach(self, name: str, spec: AdapterSpec, *, dropout: float = 0.0) -> None:
        """Adds a new adapter under `name`, inactive, with PEFT's default numbers. Raises InvalidRequest."""
        unknown = sorted(set(spec.target_modules) - set(self.linear_names))
        if unknown:
            reason = f"the model has no linear layer {', '.join(unknown)}; it has {', '.join(self.linear_names)}"
            raise InvalidRequest([Violation("recipe.target_modules", reason)])
        config = LoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha,
            target_modules=list(spec.target_modules),
            lora_dropout=dropout,
            bias="none",
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            inject_adapter_in_model(config, self.model, name)
        # PEFT would keep one configuration an adapter for ever on the model; ours stands in _specs.
        del self.model.peft_config
        self._specs[name] = spec
        for _, layer in self._layers(name):
            layer.lora_A[name].float()
            layer.lora_B[name].float()
        self.activate(None)

    def load(self, name: str, adapter: Adapter) -> int:
        """Attaches `adapter` under `name`; returns the number of tensors bound. Raises Corrupt when it does not fit."""
        self.check_fit(name, adapter)
        self.attach(name, adapter.spec)
        self.copy_in(name, adapter.tensors)
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

    def copy_in(self, name: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Overwrites the numbers of an attached adapter."""
        with torch.no_grad():
            for key, parameter in self.factors(name).items():
                parameter.copy_(tensors[key])

    def detach(self, name: str) -> None:
        """Removes an adapter and frees its memory."""
        if self._specs.pop(name, None) is not None:
            self.activate(None)
            delete_adapter(self.model, name, prefix=PEFT_PREFIX, layer_cls=LoraLayer)

    def activate(self, name: str | None, *, train: bool = False) -> None:
        """Makes one adapter answer, or none (the bare base)."""
        set_adapter(self.model, [] if name is None else name, inference_mode=not train, layer_cls=LoraLayer)
        self.model.eval()
        if train and name is not None:
            for _, layer in self._layers(name):
                layer.lora_dropout[name].train()

    def factors(self, name: str) -> dict[str, torch.nn.Parameter]:
        """The live parameters of an attached adapter by their PEFT names, sorted."""
        found = {}
        for path, layer in self._layers(name):
            found[f"{FILE_PREFIX}{path}.lora_A.weight"] = layer.lora_A[name].weight
            found[f"{FILE_PREFIX}{path}.lora_B.weight"] = layer.lora_B[name].weight
        return dict(sorted(found.items()))

    def export(self, name: str) -> Adapter:
        """A copy of an attached adapter's numbers."""
        tensors = {
            key: parameter.detach().to("cpu", torch.float32, copy=True) for key, parameter in self.factors(name).items()
        }
        return Adapter(self._specs[name], tensors)

    def _layers(self, name: str) -> Iterator[tuple[str, Any]]:
        for path, module in self.model.named_modules():
            if isinstance(module, LoraLayer) and name in module.lora_A:
                yield path, module

    def layers(self, name: str) -> dict[str, Any]:
        """PEFT layers that carry this adapter, by their path in the model."""
        return dict(self._layers(name))


def _unfit(name: str, problem: str) -> Corrupt:
    return Corrupt(
        f"version {name}: {WEIGHTS_FILE} {problem}",
        reason="ADAPTER_UNFIT",
        ids={"version": name, "file": WEIGHTS_FILE},
    )
