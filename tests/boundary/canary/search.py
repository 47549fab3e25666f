"""Looks for canaries in bytes, in what is packed inside them, and in folders."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

PACKED = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]")
MOST_UNPACKED = 64 << 20


@dataclass(frozen=True)
class Hit:
    """A canary where none may be."""

    place: str
    source: str
    form: str
    around: str


def hits(place: str, source: str, data: bytes, forms: Mapping[str, bytes]) -> list[Hit]:
    """One hit a form and source, whatever number of times it stands there."""
    found: dict[str, Hit] = {}
    for view in views(data):
        # Letters of base64 have a case; all others may have lost theirs.
        lowered = view.lower()
        for form, needle in forms.items():
            hay = view if "base64" in form or "double" in form or "tokens" in form else lowered
            at = hay.find(needle)
            if at >= 0 and form not in found:
                around = view[max(0, at - 60) : at + len(needle) + 20]
                found[form] = Hit(place, source, form, around.decode("utf-8", "replace"))
    return list(found.values())


def views(data: bytes) -> Iterator[bytes]:
    """The bytes, and whatever gzip, zlib or zip hid in them."""
    yield data
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield from (archive.read(name) for name in archive.namelist())
    for start in PACKED.finditer(data):
        unpacked = _unpacked(data[start.start() :])
        if len(unpacked) > 32:
            yield unpacked


def _unpacked(data: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=47).decompress(data, MOST_UNPACKED)
    except zlib.error:
        return b""


def files(folder: Path) -> Iterator[Path]:
    """Every file below, whatever it is called. A name is searched with the content."""
    yield from (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def hits_in_folder(place: str, folder: Path, forms: Mapping[str, bytes], *, but: frozenset[str]) -> list[Hit]:
    """but: names, at the folder's top, of what is not the service's own writing."""
    found: list[Hit] = []
    for path in files(folder):
        name = path.relative_to(folder)
        if name.parts[0] not in but:
            found += hits(place, str(name), str(name).encode() + b"\n" + path.read_bytes(), forms)
    return found
