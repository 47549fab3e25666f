"""What training takes of a device's memory, measured on a small pass, and what there is.

So work that cannot fit is refused before it begins, with the figures, and candidates are trained together only as far
as they fit together. Bytes throughout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import torch

from common.errors import InvalidConfig
from common.lora.adapter_format import AdapterSpec
from common.lora.attachment import AttachedModel
from common.lora.checkpointing import decoder_layers
from common.lora.config import EngineConfig
from common.lora.forward import CHUNK
from common.lora.layers import Span
from common.lora.packing import Packed, hidden_states, packed_attention

PROBE = "memory-probe"
PROBE_TOKENS = 64
GIB = 1 << 30
# Of what is free: allocators need some room of their own.
SHARE = 0.85
# An adapter in training: its numbers, their gradients, and AdamW's two moments.
COPIES = 4
# Logits of a chunk, which become their own gradient, in the head's type and in float32.
LOGIT_COPIES = 3
# A soft cap keeps what it was given, and its gradient is another copy.
CAPPED_COPIES = 4
# The frozen base for answering, and for the way back.
PACKED_COPIES = 2
CGROUP = Path("/sys/fs/cgroup")


class TrainMemory:
    """The memory that training on one attached model takes. Used by Trainer.

    Two things are not counted, because a small pass does not show them: scores of every pair of tokens, which a soft
    cap on attention keeps (Gemma 2), and keys and values repeated for grouped heads beyond an attention window.
    """

    def __init__(self, attached: AttachedModel, config: EngineConfig) -> None:
        self._attached = attached
        self._config = config
        self._measured: dict[tuple[str, ...], int] = {}

    def available(self) -> int:
        """What training may take now, with the logits of a chunk taken off."""
        given = int(self._config.train_memory_gib * GIB)
        free = given or int(SHARE * free_bytes(self._attached.base.device))
        return max(0, free - self.logits())

    def logits(self) -> int:
        """Logits of a chunk of positions, in float32."""
        model = self._attached.model
        words = model.get_output_embeddings().weight.shape[0]
        capped = getattr(model.config, "final_logit_softcapping", None) is not None
        return int((CAPPED_COPIES if capped else LOGIT_COPIES) * CHUNK * words * 4)

    def adapter(self, spec: AdapterSpec) -> int:
        """An adapter of this spec while it is trained."""
        numbers = sum(rows * columns for rows, columns in self._attached.shapes(spec).values())
        return COPIES * numbers * self._attached.dtype.itemsize

    def token(self, spec: AdapterSpec, dropout: float) -> int:
        """What a token of such a job leaves in memory for the way back."""
        inputs = [shape[1] for name, shape in self._attached.shapes(spec).items() if name.endswith("lora_A.weight")]
        masks = sum(inputs) if dropout else 0
        own = (masks + len(inputs) * spec.rank) * self._attached.dtype.itemsize
        kept = self._base(spec) + own
        layers = len(decoder_layers(self._attached.model))
        if self._config.checkpointing:
            width = self._attached.model.get_input_embeddings().weight.shape[1]
            kept = kept // layers + layers * width * self._attached.model.dtype.itemsize
        return int(kept)

    def _base(self, spec: AdapterSpec) -> int:
        """A token of any adapter with these targets; measured the first time."""
        targets = spec.target_modules
        if targets not in self._measured:
            self._measured[targets] = -(-self._saved(targets) // PROBE_TOKENS)
        return self._measured[targets]

    def _saved(self, targets: tuple[str, ...]) -> int:
        """What autograd saves in a pass of PROBE_TOKENS tokens through an adapter of rank 1."""
        attached, base = self._attached, self._attached.base
        spec = AdapterSpec(rank=1, alpha=1.0, target_modules=targets, base=base.digest.sha256)
        weights = {parameter.untyped_storage().data_ptr() for parameter in attached.model.parameters()}
        saved: dict[int, int] = {}

        def count(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        packed = Packed.of([[0] * PROBE_TOKENS], base.device)
        whole = attached.layout.holding([Span(PROBE, 0, PROBE_TOKENS)], rows=PROBE_TOKENS, training=True)
        try:
            attached.attach(PROBE, spec, lambda _, shape: torch.zeros(shape))
            with packed_attention(attached.model), torch.enable_grad(), whole:
                with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
                    kept_alive = hidden_states(attached.model, packed)
                del kept_alive
        finally:
            attached.detach(PROBE)
        return sum(saved.values())


def check_packed_fit(model: Any) -> None:
    """Raises InvalidConfig when there is no memory for the frozen layers in packed order (common/lora/frozen.py)."""
    if model.device.type != "cpu" or model.dtype is not torch.float32:
        return
    linears = [module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)]
    needed = PACKED_COPIES * sum(weight.numel() * weight.itemsize for weight in linears)
    free = free_bytes(model.device)
    if needed > SHARE * free:
        raise InvalidConfig(
            f"engine.pack_weights: the base's packed copies take {needed / GIB:.1f} GiB and {free / GIB:.1f} are free; "
            "without them (false) training and answering are slower and take no more than the base"
        )


def free_bytes(device: torch.device) -> int:
    """What this process may still take: of the device, or of the machine within its container's limit."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return min(int(psutil.virtual_memory().available), _within_container())


def _within_container() -> int:
    """Up to the limit of the control group (version 2); without one, more than any machine has."""
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        cached = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return max(0, limit - used + int(cached.get("inactive_file", 0)))
    except (OSError, ValueError):
        return 1 << 62
