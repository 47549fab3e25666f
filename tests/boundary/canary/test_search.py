"""What a canary may turn into is found, and what is none is not."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from collections.abc import Callable
from urllib.parse import quote

import pytest

from tests.boundary.canary.canaries import Canaries
from tests.boundary.canary.search import hits

DISGUISES: dict[str, Callable[[str], bytes]] = {
    "plain": str.encode,
    "upper case": lambda word: word.upper().encode(),
    "JSON": lambda word: json.dumps({"é": word}).encode(),
    "URL": lambda word: quote(f"a key: {word}").encode(),
    "UTF-16": lambda word: word.encode("utf-16"),
    "UTF-16, big endian": lambda word: word.encode("utf-16-be"),
    "hex": lambda word: word.encode().hex().upper().encode(),
    "base64": lambda word: base64.b64encode(word.encode()),
    "base64, one in": lambda word: base64.b64encode(b"x" + word.encode() + b"yz"),
    "base64, two in": lambda word: base64.urlsafe_b64encode(b"xx" + word.encode()),
    "gzip": lambda word: b"head" + gzip.compress(f"the key is {word}, it says here".encode() * 3) + b"tail",
    "zlib": lambda word: b"head" + zlib.compress(f"the key is {word}, it says here".encode() * 3) + b"tail",
    "reversed": lambda word: word[::-1].encode(),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_word_is_found_in_disguise(disguise: str) -> None:
    canaries = Canaries()
    data = b"before " + DISGUISES[disguise](canaries.word()) + b" after"
    assert hits("here", "a file", data, canaries.forms())
    assert not hits("here", "a file", data, Canaries().forms())


def test_numbers_are_found_as_text_and_as_bytes() -> None:
    canaries = Canaries()
    number, fraction = canaries.number(), canaries.fraction()
    for data in (f"<{number}>".encode(), struct.pack("<d", float(number)), struct.pack("<d", fraction)):
        assert hits("here", "a file", b"\0" + data, canaries.forms())
    assert hits("here", "a file", json.dumps({"threshold": fraction}).encode(), canaries.forms())


def test_tokens_are_found_as_text_and_as_integers() -> None:
    canaries = Canaries()
    tokens = [5, 17, 301, 44, 9]
    forms = canaries.forms(tokens)
    for data in (json.dumps([1, *tokens[1:-1], 2]).encode(), struct.pack("<5q", 1, *tokens[1:-1], 2)):
        assert hits("here", "a file", data, forms)
