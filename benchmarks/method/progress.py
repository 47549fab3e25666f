"""What a benchmark says while it works: lines on standard error, so that standard output holds results alone."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """One line, at once."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
