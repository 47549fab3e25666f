"""Names a base model by its bytes: the digest that adapters, ledgers and status answers carry.

Hashing gigabytes takes seconds, so the result is remembered with each file's size and time of change, and believed only
while these still hold.
"""

from __future__ import annotations

import json
from pathlib import Path

from common.canonical import canonical_json, digest_of
from common.files import sha256_file, write_atomically
from common.models.config import default_cache_dir
from common.types import Digest

NAMED_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.model", "*.jinja", "merges.txt")
NAMED_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "vocab.json",
)


def base_digest(folder: Path, *, cache_dir: Path | None = None, fresh: bool = False) -> Digest:
    """sha256 over the sorted (name, sha256) of weight, tokenizer and configuration files; the size is their sum.

    `fresh` reads all bytes again, whatever is remembered.
    """
    files = _named(folder)
    stamps = {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in files}
    cache = (cache_dir or default_cache_dir()) / "digests" / f"{digest_of(str(folder.resolve())).sha256}.json"
    known = _remembered(cache, stamps)
    if known is not None and not fresh:
        return known
    hashes = [[file.name, sha256_file(file).sha256] for file in files]
    digest = Digest(sha256=digest_of(hashes).sha256, size_bytes=sum(size for size, _ in stamps.values()))
    write_atomically(cache, canonical_json({"files": stamps, "digest": digest.model_dump()}))
    return digest


def _named(folder: Path) -> list[Path]:
    found = {file for pattern in NAMED_PATTERNS for file in folder.glob(pattern)}
    found |= {folder / name for name in NAMED_FILES if (folder / name).is_file()}
    return sorted(found)


def _remembered(cache: Path, stamps: dict[str, list[int]]) -> Digest | None:
    try:
        known = json.loads(cache.read_bytes())
        return Digest.model_validate(known["digest"]) if known["files"] == stamps else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no cache, or not one of ours: hash again
