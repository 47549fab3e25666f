"""Which weights a benchmark works on: their folder and their digest, without loading them."""

from __future__ import annotations

from pathlib import Path

from common.models.config import ModelConfig
from common.models.digest import base_digest
from common.models.resolve import resolve_model


def folder_of(model: ModelConfig) -> Path:
    """Raises InvalidConfig for a model that is not there."""
    return resolve_model(model.model, revision=model.revision, cache_dir=model.cache_dir)


def digest_of_weights(model: ModelConfig) -> str:
    """SHA-256, computed once and kept beside the converted models. Raises InvalidConfig."""
    return base_digest(folder_of(model), cache_dir=model.cache_dir).sha256
