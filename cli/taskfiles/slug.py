"""Identifiers made from titles."""

from __future__ import annotations

import re
import unicodedata

MAX_SLUG = 100


def slug(title: str) -> str:
    """Lower-case letters a-z, digits and single hyphens, 1..100 characters; "document" if nothing is left."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain)[:MAX_SLUG].strip("-") or "document"


def numbered(title: str, number: int) -> str:
    """A task's id: the slug of its title and its number in the file, which no other entry of the file has."""
    return f"{slug(title)}-{number:03d}"
