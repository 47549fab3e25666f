"""`seal`: the command line. Answers `--help` at once: a command's libraries are imported when it runs.

Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cli.commands import bench, certificates, decisions, demo, edits, question, runs, state, up, versions
from cli.failure import EXIT_FAILED, Failure

PACKAGE = "seal-services"
EPILOG = "Commands explain themselves: seal run --help"

app = typer.Typer(
    name="seal",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # rich alone would take half of the time that --help may
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(asked: bool) -> None:
    """Prints the release and ends; the generated contract and the services are of the same one."""
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"seal {version(PACKAGE)}")
        except PackageNotFoundError:
            print("seal (a source tree that is not installed)")
        raise typer.Exit


@app.callback()
def seal(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the release and exit.")
    ] = False,
) -> None:
    """A language model that keeps itself up to date, safely.

    A teacher proposes training examples for a document, a student trains an adapter on each, an auditor asks
    questions, keeps what helped, promotes it, and writes down why.

    \b
    The first minutes:
      seal up                        start all three services here (leave it running)
      seal run examples/support      learn a folder of documents, in another terminal
      seal edits                     what was kept, what was rejected, and why
      seal show 3fa9c1               everything about one edit
      seal ask "How long is the free trial?" --topic "Marlquay frequently asked questions"
      seal rollback                  undo the last promotion
    """


for module in (up, runs, edits, question, versions, decisions, state, demo, bench, certificates):
    module.register(app)


def main() -> None:
    """Entry point. A Failure becomes one line what is wrong, one line what to do next, and an exit code."""
    try:
        app()
    except Failure as failure:
        _report(failure.what, failure.next_step)
        sys.exit(failure.code)
    except BrokenPipeError:
        # The reader of a pipe went away, as `| head` does; Python would complain once more while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(EXIT_FAILED)


def _report(what: str, next_step: str) -> None:
    for line in what.splitlines() or [""]:
        print(f"seal: {line}", file=sys.stderr)
    if next_step:
        print(f"      {next_step}", file=sys.stderr)


if __name__ == "__main__":
    main()
