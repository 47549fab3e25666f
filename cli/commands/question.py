"""Ask the live model, or any of its versions."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import DEFAULT_AUDITOR, AuditorOption, JsonOption, TlsOption


def register(app: typer.Typer) -> None:
    app.command()(ask)


def ask(  # noqa: PLR0917 - a command's options are its parameters
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="1 to 4,096 characters.")],
    topic: Annotated[str, typer.Option(metavar="TEXT", help="What it is about: a document's title.")] = "",
    version: Annotated[
        str, typer.Option(metavar="V", help="base, live, previous, a number or digest of `seal versions`.")
    ] = "",
    max_tokens: Annotated[int, typer.Option(min=0, max=4096, metavar="N", help="Longest answer; 0: default.")] = 0,
    temperature: Annotated[float, typer.Option(min=0, max=2, metavar="T", help="0 is the most likely answer.")] = 0.0,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="If the answer is empty, show the parent version's; it is named.")
    ] = False,
    auditor: AuditorOption = DEFAULT_AUDITOR,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a question. Neither it nor the answer is stored.

    \b
    Examples:
      seal ask "How long is the free trial?" --topic "Marlquay frequently asked questions"
      seal ask "How long is the free trial?" --version base
      seal ask "How long is the free trial?" --fallback
    """
    from cli import asking
    from cli.execute import execute
    from common.contract.seal.v1 import auditor_pb2, types_pb2

    sampling = types_pb2.Sampling(temperature=temperature, max_new_tokens=max_tokens)
    request = auditor_pb2.AskRequest(
        version=version, topic=topic, question=question, sampling=sampling, fallback_to_parent=fallback
    )
    execute(asking.ask(auditor, request, as_json=as_json))
