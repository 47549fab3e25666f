"""When an answer counts as none. The auditor's graders, gates and measures and the student's fallback mean the same."""

from __future__ import annotations

import re


def is_empty(answer: str) -> bool:
    """Whether an answer has no word at all."""
    return re.search(r"\w", answer) is None
