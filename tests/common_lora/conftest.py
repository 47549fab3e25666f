"""A tiny model for the engine's tests, and examples to train it on."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.lora.engine import LoraEngine
from common.models.loading import BaseModel, load_model
from tests.support.tiny_model import make_tiny_model, tiny_config


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_base(tiny_folder: Path) -> BaseModel:
    """Loaded once; engines attach to it and detach again."""
    return load_model(tiny_config(tiny_folder))


@pytest.fixture
def engine(tiny_folder: Path) -> LoraEngine:
    """An engine on a base of its own, so that what a test attaches is its own affair."""
    return LoraEngine(load_model(tiny_config(tiny_folder)))
