"""Strings and numbers that occur nowhere else, and how they are found again whatever became of them.

All words of a kind share a random stem, so one search finds every one. A stem is of lower-case letters alone: no
escaping changes it, and normalized text (lower case, no punctuation) holds it still.
"""

from __future__ import annotations

import base64
import random
import secrets
import string
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

STEM = 14


@dataclass
class Canaries:
    """Gives out words, numbers and fractions; `forms` are the bytes that betray any of them."""

    stem: str = field(default_factory=lambda: "".join(secrets.choice(string.ascii_lowercase) for _ in range(STEM)))
    digits: str = field(default_factory=lambda: str(secrets.randbelow(9 * 10**10) + 10**10))
    words: int = 0
    fractions: list[float] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)

    def word(self) -> str:
        self.words += 1
        return f"{self.stem}{self.words:03d}"

    def number(self) -> str:
        """Fifteen digits, which a double holds exactly."""
        self.numbers.append(float(f"{self.digits}{len(self.numbers):04d}"))
        return f"{self.numbers[-1]:.0f}"

    def fraction(self) -> float:
        """Near a half, with all digits that a double has."""
        self.fractions.append(0.5 + random.SystemRandom().random() / 1_000)
        return self.fractions[-1]

    def forms(self, tokens: Sequence[int] = ()) -> dict[str, bytes]:
        """By name. tokens: of the stem, as the models read it."""
        found = {f"{name} {form}": data for name in (self.stem, self.digits) for form, data in _texts(name).items()}
        for number in (*self.numbers, *self.fractions):
            found[f"{number!r} as a double"] = struct.pack("<d", number)
        for fraction in self.fractions:
            found[f"{fraction!r}"] = repr(fraction).encode()
        # The first and the last token may have grown together with a neighbour.
        if inner := list(tokens)[1:-1]:
            found["tokens, written out"] = ",".join(map(str, inner)).encode()
            found["tokens, written out with spaces"] = ", ".join(map(str, inner)).encode()
            found["tokens of 32 bits"] = struct.pack(f"<{len(inner)}i", *inner)
            found["tokens of 64 bits"] = struct.pack(f"<{len(inner)}q", *inner)
        return found


def _texts(text: str) -> dict[str, bytes]:
    plain = text.encode()
    return {
        "as it is": plain,
        "reversed": plain[::-1],
        "in UTF-16": text.encode("utf-16-le")[:-1],  # big endian holds the same bytes, one further
        "in hex": plain.hex().encode(),
        **{f"in base64, {offset} bytes in": _base64(plain, offset) for offset in range(3)},
    }


def _base64(plain: bytes, offset: int) -> bytes:
    """What every base64 text that holds `plain` at this offset has in common; the letters are of both alphabets."""
    encoded = base64.b64encode(bytes(offset) + plain).rstrip(b"=")
    whole = (offset + len(plain)) // 3 * 4
    return encoded[-(-offset * 8 // 6) : whole]
