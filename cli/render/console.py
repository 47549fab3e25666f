"""The consoles: results on standard output, remarks and errors on standard error.

In a pipe rich leaves colours and moving parts out; lines are then not broken at 80 columns either.
"""

from __future__ import annotations

import sys

from rich.console import Console

PIPE_WIDTH = 160


def output() -> Console:
    return _console(stderr=False, terminal=sys.stdout.isatty())


def remarks() -> Console:
    return _console(stderr=True, terminal=sys.stderr.isatty())


def _console(*, stderr: bool, terminal: bool) -> Console:
    return Console(stderr=stderr, width=None if terminal else PIPE_WIDTH, highlight=False, soft_wrap=not terminal)
