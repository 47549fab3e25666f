"""Proves that a version answers, and not the base or another version in its name (DESIGN.md, liveness proof).

Three independent looks: the file again (digest, tensors), the live parameters (equal to the file's), and probes whose
log-probabilities are compared with the base's and the parent's. While a probe runs, every adapter layer is watched: it
must have added exactly scaling * B A x with the file's own factors. Used by LoraEngine before answers count.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from common.errors import Corrupt, SealError
from common.lora.adapter_format import Adapter
from common.lora.attachment import FILE_PREFIX, AttachedModel
from common.lora.likelihood import Scorer
from common.lora.proof import Liveness, LivenessProof
from common.lora.render import Renderer
from common.lora.residency import BASE_VERSION, LoadAdapter, Residents
from common.types import Conversation, Digest, Role

PROBES = (
    "Topic: Geography\nWhich city is the capital of France?",
    "Write one sentence about the sea.",
    "Seven plus five equals twelve. Is that right?",
)
REFERENCE = "liveness-reference"
# Below this, two runs that differ only in the order of float32 sums may already differ.
SMALLEST_DISTANCE = 1e-5
NOISE_FACTOR = 3.0
# Noise of a layer's output, of its norm: roundings to the layer's type, and sums in another order.
ROUNDINGS = 8.0
SUM_ORDER = 1e-5
# Of the update: what may be off.
OFF = 0.05
OFF_ALONG = 0.25


@dataclass
class _Watched:
    """Layers that ran with the right update, and the first one that did not."""

    right: set[str] = field(default_factory=set)
    wrong: str = ""


class LivenessProver:
    """Proves versions on one attached model. Probe results of base and parents are kept, a version's own never."""

    def __init__(
        self, attached: AttachedModel, residents: Residents, scorer: Scorer, renderer: Renderer, load: LoadAdapter
    ) -> None:
        self._attached = attached
        self._residents = residents
        self._scorer = scorer
        self._load = load
        self._probes = [renderer.prompt(Conversation.of((Role.USER, text))) for text in PROBES]
        self._known: dict[str, torch.Tensor] = {}

    def prove(self, version: str, parent: str = BASE_VERSION) -> LivenessProof:
        """The proof for `version`, whose training started at `parent`. Raises NotFound for an unknown version only."""
        if version == BASE_VERSION:
            return LivenessProof(version=version, liveness=Liveness.BASE)
        try:
            adapter = self._load(version)
            self._residents.ensure(version)
        except Corrupt as error:
            return LivenessProof(version=version, liveness=Liveness.INVALID, detail=error.message)
        counts: dict[str, Any] = {
            "version": version,
            "adapter": Digest(sha256=version),
            "tensors_in_file": len(adapter.tensors),
            "tensors_bound": self._bound(version, adapter),
        }
        if counts["tensors_bound"] != counts["tensors_in_file"]:
            # What is attached is not what the file holds; the next use attaches the file anew.
            self._residents.release(version)
            detail = f"{counts['tensors_bound']} of {counts['tensors_in_file']} tensors are bound as in the file"
            return LivenessProof(**counts, liveness=Liveness.INVALID, detail=detail)
        return self._probe(version, parent, adapter, counts)

    @property
    def probes(self) -> tuple[tuple[int, ...], ...]:
        """Token ids of the probes."""
        return tuple(self._probes)

    def probed(self, version: str) -> torch.Tensor:
        """What `version` makes of the probes: log-probability of each token after a probe's first, in one row, nats."""
        if version == BASE_VERSION:
            return self._reference(BASE_VERSION)
        with self._residents.active(version):
            return self._scorer.token_log_probs(self._probes)

    def _bound(self, version: str, adapter: Adapter) -> int:
        """Live parameters that equal the file's tensors."""
        factors = self._attached.factors(version)
        return sum(
            name in factors and torch.equal(factors[name].cpu().float(), tensor)
            for name, tensor in adapter.tensors.items()
        )

    def _probe(self, version: str, parent: str, adapter: Adapter, counts: dict[str, Any]) -> LivenessProof:
        with self._residents.active(version):
            with self._watching(version, adapter) as watched:
                first = self._scorer.token_log_probs(self._probes)
            second = self._scorer.token_log_probs(self._probes)
        missing = len(adapter.tensors) // 2 - len(watched.right)
        noise = _distance(first, second)
        from_base = _distance(first, self._reference(BASE_VERSION))
        try:
            from_parent, detail = _distance(first, self._reference(parent)), ""
        except SealError:
            from_parent, detail = from_base, f"parent {parent} cannot be read: compared with the base alone"
        figures = {
            "probe_distance_from_base": from_base,
            "probe_distance_from_parent": from_parent,
            "probe_noise": noise,
        }
        threshold = max(SMALLEST_DISTANCE, NOISE_FACTOR * noise)
        if watched.wrong or missing:
            detail = (
                f"layer {watched.wrong} ran with another update" if watched.wrong else f"{missing} layers did not run"
            )
            return LivenessProof(**counts, **figures, liveness=Liveness.INVALID, detail=detail)
        if from_parent <= threshold:
            detail = "the probes equal the parent's within noise"
            return LivenessProof(**counts, **figures, liveness=Liveness.INERT, detail=detail)
        if from_base <= threshold and not _is_zero(adapter):
            detail = "the probes equal the base's, not the version's"
            return LivenessProof(**counts, **figures, liveness=Liveness.INVALID, detail=detail)
        return LivenessProof(**counts, **figures, liveness=Liveness.LIVE, detail=detail)

    def _reference(self, version: str) -> torch.Tensor:
        """Probe log-probabilities of base or parent. Kept: a version never changes, and there are few parents."""
        if version not in self._known:
            if version != BASE_VERSION:
                # Not among the residents: it would push out a version that was proven for an answer.
                self._attached.load(REFERENCE, self._load(version))
            try:
                with self._attached.active(None if version == BASE_VERSION else REFERENCE):
                    self._known[version] = self._scorer.token_log_probs(self._probes)
            finally:
                self._attached.detach(REFERENCE)
        return self._known[version]

    def forget(self, version: str) -> None:
        self._known.pop(version, None)

    @contextmanager
    def _watching(self, version: str, adapter: Adapter) -> Iterator[_Watched]:
        """Checks each adapter layer on the last token of the first probe while the model runs."""
        watched = _Watched()
        hooks = [
            layer.register_forward_hook(self._check(path, adapter.tensors, adapter.spec.scaling, watched))
            for path, layer in self._attached.layers(version).items()
        ]
        try:
            yield watched
        finally:
            for hook in hooks:
                hook.remove()

    @staticmethod
    def _check(path: str, tensors: Mapping[str, torch.Tensor], scaling: float, watched: _Watched) -> Any:
        a_RI, b_OR = (tensors[f"{FILE_PREFIX}{path}.lora_{side}.weight"] for side in "AB")

        def check(layer: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            x_I = inputs[0][0, -1]
            update_O = (x_I.float().cpu() @ a_RI.T @ b_OR.T) * scaling
            plain_O = layer.base(x_I).float().cpu()
            noise = (ROUNDINGS * torch.finfo(output.dtype).eps + SUM_ORDER) * float(plain_O.norm())
            if is_there(output[0, -1].float().cpu() - plain_O, update_O, noise):
                watched.right.add(path)
            else:
                watched.wrong = watched.wrong or path

        return check


def is_there(added_O: torch.Tensor, update_O: torch.Tensor, noise: float) -> bool:
    """Whether a layer added this update and nothing else, as far as numbers with this noise can tell.

    Along the update's own direction the noise of many outputs averages out: even in bfloat16 an update is missed that
    is small beside what the layer says anyway.
    """
    norm = float(update_O.norm())
    off = float((added_O - update_O).norm())
    along = abs(float(added_O @ update_O) - norm**2)
    return off <= OFF * norm + noise and along <= norm * (OFF_ALONG * norm + noise / math.sqrt(len(update_O)))


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def _is_zero(adapter: Adapter) -> bool:
    """Whether the adapter adds nothing at all: every B is zero."""
    return not any(bool(t.any()) for name, t in adapter.tensors.items() if name.endswith("lora_B.weight"))
