"""The whole loop on example documents, in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.commands.runs import Promotion
from cli.options import LARGEST

# The M-step reads the worked examples of every prompt again: on two cores a dozen pairs are a minute and a half.
DEMO_SETTINGS = ("teacher.learn.max_pairs=12",)


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(  # noqa: PLR0917 - a command's options are its parameters
    data: Annotated[
        Path | None, typer.Option("--data", metavar="PATH", help="Task file or folder [examples/support].")
    ] = None,
    documents: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The first N documents [2; all with --full].")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=100, metavar="N", help="Rounds over all documents [2; 1 with --full].")
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(min=1, max=64, metavar="K", help="Edits proposed a document and round [3; 2 with --full]."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=16, metavar="N", help="Trial trainings an edit.")] = 1,
    promotion: Annotated[Promotion | None, typer.Option(help="How kept edits become live [consolidated].")] = None,
    max_drop: Annotated[
        float,
        typer.Option(min=0, max=1, metavar="X", help="Allowed drop of retention, with confidence: it forgets much."),
    ] = 0.35,
    level: Annotated[
        float, typer.Option(min=0, max=1, metavar="P", help="Chance of error that a decision allows.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST, metavar="S", help="Everything random derives from it.")] = 0,
    learn: Annotated[bool | None, typer.Option("--learn/--no-learn", help="Teacher learns from kept edits.")] = None,
    full: Annotated[bool, typer.Option("--full", help="All documents, promoted as one update, in one round.")] = False,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings of the services [seal.yaml].")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting, as in `seal up`; repeatable.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A new folder for the services' data; it is kept.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the data folder.")] = False,
    json_result: Annotated[bool, typer.Option("--json-result", help="The result as JSON on the last line.")] = False,
) -> None:
    """Show the whole loop: learn, prove, count what was forgotten, roll back.

    Starts all three services on free ports with a fresh data folder, learns the documents, compares base and live on
    questions that decided nothing but promotion, says what was kept and why, asks three questions before and after,
    rolls back and asks again. Every figure is measured while you watch.

    \b
    Examples:
      seal demo
      seal demo --documents 1 --rounds 1 --seed 7
      seal demo --full --json-result | tail -1
    """
    from cli.demo.choices import DemoChoices
    from cli.demo.scenario import demo as play
    from cli.execute import execute
    from cli.settings import RunChoices

    run = RunChoices(
        rounds=rounds or (1 if full else 2),
        candidates=candidates or (2 if full else 3),
        seeds=seeds,
        promotion=promotion or Promotion.consolidated,
        seed=seed,
        learn=learn,
        max_drop=max_drop,
        level=level,
        max_answer_tokens=32,
    )
    choices = DemoChoices(
        data=data,
        documents=documents or (None if full else 2),
        run=run,
        config=config,
        settings=(*DEMO_SETTINGS, *(settings or ())),
        folder=folder,
        keep=keep,
        json_result=json_result,
    )
    execute(play(choices), interrupted="demo stopped")
