"""Adapters as bytes: PEFT's format, named by digest, refused when anything does not fit.

The digest of an adapter is the sha256 of its adapter_model.safetensors. That file's single metadata key "seal" holds
the canonical JSON of everything adapter_config.json says, so the digest covers the configuration too. Both PEFT and
vLLM load the folder as it is.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from common.canonical import canonical_json
from common.errors import Corrupt
from common.types import Domain, Sha256

WEIGHTS_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
METADATA_KEY = "seal"
HEADER_LENGTH_BYTES = 8


class AdapterSpec(Domain):
    """What an adapter is apart from its numbers. The update of a layer is scaled by alpha / rank."""

    rank: int = Field(ge=1, le=256)
    alpha: float = Field(gt=0, le=1024)
    target_modules: tuple[str, ...] = Field(min_length=1, max_length=32)
    base: Sha256

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank


@dataclass(frozen=True)
class Adapter:
    """LoRA factors by their PEFT names: `...lora_A.weight` (rank x in) and `...lora_B.weight` (out x rank), float32."""

    spec: AdapterSpec
    tensors: Mapping[str, torch.Tensor]

    def to_bytes(self) -> bytes:
        """The weights file. The same adapter always gives the same bytes."""
        tensors = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in self.tensors.items()}
        return bytes(save_tensors(tensors, metadata={METADATA_KEY: canonical_json(self.spec).decode()}))

    def config_json(self, base_model: str) -> bytes:
        """adapter_config.json for PEFT and vLLM. `base_model` only tells a reader where the base came from."""
        return canonical_json(
            {
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "base_model_name_or_path": base_model,
                "r": self.spec.rank,
                "lora_alpha": int(self.spec.alpha) if self.spec.alpha.is_integer() else self.spec.alpha,
                "target_modules": list(self.spec.target_modules),
                "lora_dropout": 0.0,
                "bias": "none",
                "inference_mode": True,
                "fan_in_fan_out": False,
                "init_lora_weights": True,
                "modules_to_save": None,
                "use_rslora": False,
                "use_dora": False,
            }
        )


def parse_adapter(weights: bytes, config: bytes, *, name: str) -> Adapter:
    """The adapter that the two files of version `name` hold. Raises Corrupt that names the file and what is wrong."""
    spec = _spec(weights, name)
    try:
        tensors = load_tensors(weights)
    except (SafetensorError, ValueError) as error:
        raise _corrupt(name, WEIGHTS_FILE, f"is truncated or not safetensors ({error})") from None
    _check_config(config, spec, name)
    _check_tensors(tensors, spec, name)
    return Adapter(spec, tensors)


def _spec(weights: bytes, name: str) -> AdapterSpec:
    header = _header(weights, name)
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or set(metadata) != {METADATA_KEY}:
        raise _corrupt(name, WEIGHTS_FILE, f"has no {METADATA_KEY!r} metadata: it was not written by this project")
    try:
        return AdapterSpec.model_validate_json(metadata[METADATA_KEY])
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors(include_input=False))
        raise _corrupt(name, WEIGHTS_FILE, f"has metadata that cannot be read ({fields or 'not JSON'})") from None


def _header(weights: bytes, name: str) -> dict[str, Any]:
    if len(weights) < HEADER_LENGTH_BYTES:
        raise _corrupt(name, WEIGHTS_FILE, f"is truncated: {len(weights)} bytes")
    (length,) = struct.unpack("<Q", weights[:HEADER_LENGTH_BYTES])
    if HEADER_LENGTH_BYTES + length > len(weights):
        raise _corrupt(name, WEIGHTS_FILE, "is truncated within its header, or not safetensors")
    try:
        header = json.loads(weights[HEADER_LENGTH_BYTES : HEADER_LENGTH_BYTES + length])
    except ValueError:
        raise _corrupt(name, WEIGHTS_FILE, "is not safetensors") from None
    if not isinstance(header, dict):
        raise _corrupt(name, WEIGHTS_FILE, "is not safetensors")
    return header


def _check_config(config: bytes, spec: AdapterSpec, name: str) -> None:
    try:
        said = json.loads(config)
        found = {"rank": said["r"], "alpha": float(said["lora_alpha"]), "target_modules": said["target_modules"]}
    except (ValueError, KeyError, TypeError):
        raise _corrupt(name, CONFIG_FILE, "cannot be read") from None
    for key, value in found.items():
        expected = getattr(spec, key)
        if value != (list(expected) if isinstance(expected, tuple) else expected):
            raise _corrupt(name, CONFIG_FILE, f"says another {key} than the weights file")


def _check_tensors(tensors: Mapping[str, torch.Tensor], spec: AdapterSpec, name: str) -> None:
    pairs = {key.rpartition(".lora_")[0] for key in tensors}
    expected = {f"{layer}.lora_{side}.weight" for layer in pairs for side in "AB"}
    if not tensors or set(tensors) != expected:
        odd = sorted(set(tensors) ^ expected)
        raise _corrupt(name, WEIGHTS_FILE, f"has tensors that make no pairs of factors: {', '.join(odd[:3]) or 'none'}")
    for key, tensor in sorted(tensors.items()):
        rank_axis = 0 if key.endswith("lora_A.weight") else 1
        if tensor.dim() != 2 or tensor.shape[rank_axis] != spec.rank or tensor.dtype != torch.float32:
            shape = "x".join(map(str, tensor.shape))
            raise _corrupt(
                name, WEIGHTS_FILE, f"tensor {key} is {tensor.dtype} {shape}, not float32 of rank {spec.rank}"
            )
        if key.removeprefix("base_model.model.").split(".")[-3] not in spec.target_modules:
            raise _corrupt(name, WEIGHTS_FILE, f"tensor {key} belongs to no target module")
        if not torch.isfinite(tensor).all():
            raise _corrupt(name, WEIGHTS_FILE, f"tensor {key} has values that are not finite")


def _corrupt(name: str, file: str, problem: str) -> Corrupt:
    return Corrupt(f"version {name}: {file} {problem}", reason="ADAPTER_CORRUPT", ids={"version": name, "file": file})
