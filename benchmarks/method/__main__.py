"""`python -m benchmarks.method ASKED.json`: one benchmark of the method, from what was asked to files and a table.

`seal bench` starts it (cli/benching.py). Progress goes to standard error, the table to standard output; with --json one
object goes there and the table to standard error. What is refused is said in --refusal's file, or on standard error.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from benchmarks.method import asked as asking
from benchmarks.method.asked import Asked
from cli.failure import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from common.errors import InvalidConfig, SealError
from common.files import write_atomically

MOST_PROBLEMS = 8  # that are said; a wrong file has one in every entry


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.method", description=__doc__)
    parser.add_argument("asked", type=Path, help="written by `seal bench`")
    parser.add_argument("--refusal", type=Path, help="a file for what is refused, as JSON")
    told = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, end_quietly)
    try:
        carry_out(asking.read(told.asked))
    except SealError as error:
        _refuse(error, told.refusal)


def carry_out(asked: Asked) -> None:
    """Raises SealError; InvalidConfig before anything is trained."""
    if asked.plan:
        sys.stderr.write("Counting; nothing is trained.\n")  # the imports take seconds
        sys.stderr.flush()
    from benchmarks.method import planned, runs

    if asked.plan:
        counted = runs.plan(asked)
        say(planned.table_of(counted), counted.figures(), as_json=asked.as_json)
        return
    done = runs.run(asked)
    say(f"{done.report}\n\n{done.files}", done.figures, as_json=asked.as_json)


def say(text: str, figures: dict[str, Any], *, as_json: bool) -> None:
    """Standard output holds one of the two."""
    (sys.stderr if as_json else sys.stdout).write(f"{text}\n")
    if as_json:
        sys.stdout.write(f"{json.dumps(figures, ensure_ascii=False)}\n")


def _refuse(error: SealError, file: Path | None) -> NoReturn:
    wrong = isinstance(error, InvalidConfig)
    problems = error.message.splitlines()
    more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
    refusal = {
        "what": "\n".join([*problems[:MOST_PROBLEMS], *more]),
        "next_step": "Set it right and start again: `seal bench COMMAND --help` shows the forms."
        if wrong
        else "What is finished is kept: the same command goes on there.",
        "code": EXIT_USAGE if wrong else EXIT_FAILED,
        "reason": error.reason,
    }
    if file is None:
        sys.stderr.write(f"{refusal['what']}\n{refusal['next_step']}\n")
    else:
        write_atomically(file, json.dumps(refusal).encode())
    sys.exit(int(str(refusal["code"])))


def end_quietly(number: int, frame: FrameType | None) -> NoReturn:
    """Leaves by the way of an exception, so that a crew's processes are ended too."""
    sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
