"""How a command fails: one line what is wrong, one line what to do next, and an exit code.

Raised anywhere below a command; cli/main.py prints it and nothing else. Imports nothing heavy.
"""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class Failure(Exception):
    """`what` names the path or field that is wrong (several lines where there are several problems)."""

    def __init__(self, what: str, next_step: str = "", *, code: int = EXIT_FAILED, reason: str = "FAILED") -> None:
        super().__init__(what)
        self.what = what
        self.next_step = next_step
        self.code = code
        self.reason = reason


class BadInput(Failure):
    """The caller wrote something that cannot be used: exit code 2."""

    def __init__(self, what: str, next_step: str = "") -> None:
        super().__init__(what, next_step, code=EXIT_USAGE, reason="BAD_INPUT")
