"""Loads one causal language model with its tokenizer: the frozen base of a process.

Only safetensors are read and no code from a model folder is ever run. Called once by each process that trains or
answers with torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from common.errors import InvalidConfig
from common.models.config import ModelConfig
from common.models.digest import base_digest
from common.models.resolve import resolve_model
from common.types import Digest


@dataclass(frozen=True)
class BaseModel:
    """A frozen model in evaluation mode, its tokenizer, and the digest that names both.

    `model` is a transformers causal LM, `tokenizer` a fast tokenizer with a chat template; both are untyped upstream.
    """

    model: Any
    tokenizer: Any
    digest: Digest
    folder: Path
    config: ModelConfig

    @property
    def device(self) -> torch.device:
        return torch.device(self.config.device)

    @property
    def max_positions(self) -> int:
        """Longest sequence in tokens that the model was made for."""
        return int(getattr(self.model.config, "max_position_embeddings", 1 << 30))


def load_model(config: ModelConfig) -> BaseModel:
    """Loads the configured model and sets torch's thread count. Raises InvalidConfig when it cannot be used."""
    folder = resolve_model(config.model, revision=config.revision, cache_dir=config.cache_dir)
    if config.threads:
        torch.set_num_threads(config.threads)
    # A nearly converged update is full of denormal numbers, which x86 computes many times slower.
    torch.set_flush_denormal(True)
    if config.device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise InvalidConfig(f"model.device: {config.device} is not available here")
        # The same job is to give the same adapter; where no such kernel exists, torch warns.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
    transformers_logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, config.precision),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidConfig(f"model: {config.model} cannot be loaded: {error}") from error
    if not getattr(tokenizer, "chat_template", None):
        raise InvalidConfig(f"model: {config.model} has no chat template; an instruction-tuned model is needed")
    if getattr(model.config, "attn_logit_softcapping", None):
        # The fast attention kernels leave the cap out without a word.
        model.set_attn_implementation("eager")
    model.requires_grad_(False)
    model.eval()
    model.to(config.device)
    return BaseModel(
        model=model,
        tokenizer=tokenizer,
        digest=base_digest(folder, cache_dir=config.cache_dir),
        folder=folder,
        config=config,
    )
