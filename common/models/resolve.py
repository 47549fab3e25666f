"""Turns a model setting into a folder of safetensors that torch and vLLM can open.

Safe to call from several processes at once: a conversion happens once, under a file lock, and appears by rename.
Called by every process that loads a model.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from filelock import FileLock

from common.errors import InvalidConfig
from common.files import sha256_file, sync_folder
from common.models.config import default_cache_dir

PACKAGE_PREFIX = "package:"
MODEL_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.txt", "tokenizer.model")


def resolve_model(setting: str, *, revision: str | None = None, cache_dir: Path | None = None) -> Path:
    """The folder that holds the model named by `setting`.

    A folder stands for itself; `package:NAME/FILE.gguf` is converted to float32 safetensors once and kept in
    `cache_dir`; anything else is a hub id, fetched (safetensors only) into the hub's own cache.
    Raises InvalidConfig that names what was not found.
    """
    if setting.startswith(PACKAGE_PREFIX):
        return _converted(_packaged_file(setting), cache_dir or default_cache_dir())
    folder = Path(setting).expanduser()
    if folder.is_dir():
        return _checked(folder.resolve(), setting)
    if folder.is_absolute() or setting.startswith((".", "~")) or setting.count("/") > 1:
        raise InvalidConfig(f"model: {setting} is not a folder")
    return _checked(_fetched(setting, revision), setting)


def _checked(folder: Path, setting: str) -> Path:
    if not (folder / "config.json").is_file():
        raise InvalidConfig(f"model: {setting} has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise InvalidConfig(f"model: {setting} has no safetensors file; other formats are not loaded")
    return folder


def _packaged_file(setting: str) -> Path:
    package, _, name = setting.removeprefix(PACKAGE_PREFIX).partition("/")
    # find_spec runs no code of a top-level package, unlike importing it.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InvalidConfig(f"model: {setting}: Python package {package!r} is not installed")
    root = Path(spec.submodule_search_locations[0]).resolve()
    file = (root / name).resolve()
    if not file.is_relative_to(root) or file.suffix != ".gguf" or not file.is_file():
        raise InvalidConfig(f"model: {setting}: the package has no GGUF file {name!r}")
    return file


def _fetched(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(MODEL_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InvalidConfig(
            f"model: {hub_id} is neither a folder nor a model that the hub serves here ({type(error).__name__})"
        ) from error


def _converted(gguf: Path, cache_dir: Path) -> Path:
    models = cache_dir / "models"
    target = models / f"{gguf.stem}-{sha256_file(gguf).sha256[:16]}"
    if target.is_dir():
        return target
    models.mkdir(parents=True, exist_ok=True)
    with FileLock(models / f".{target.name}.lock"):
        if not target.is_dir():
            _convert(gguf, target)
    return target


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
            trust_remote_code=False,
        )
        # A dense copy: nothing in it may say that it is still quantized.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(temporary)
        AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False).save_pretrained(
            temporary
        )
        _checked(temporary, str(gguf))
        _sync(temporary)
        temporary.chmod(0o755)
        temporary.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        gc.collect()


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o644)
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    sync_folder(folder)
