"""Benchmarks of the method: what SEAL would do on one's own model and documents, against the published procedure."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.options import LARGEST_SEED

bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)


class Procedure(StrEnum):
    seal = "seal"
    reference = "reference"


class Device(StrEnum):
    cpu = "cpu"
    cuda = "cuda"


Data = Annotated[
    Path,
    typer.Argument(metavar="DATA", help="A list of {title, context, questions: [{question, answer}]}, as JSON."),
]
Edits = Annotated[
    Path | None,
    typer.Option("--edits", metavar="FILE", help="Recorded edits: a list of {title, context, completions}."),
]
Arms = Annotated[
    list[str] | None,
    typer.Option(
        "--arms",
        metavar="NAME",
        help="unedited, in-context, passage, recorded, own:VARIANT, policy:VERSION; repeatable, or with commas "
        "[all that --edits leaves possible].",
    ),
]
Procedures = Annotated[
    list[Procedure] | None,
    typer.Option("--procedure", help="Ours or the published one; repeatable [both, in one table]."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="MODEL", help="Hub id, folder of safetensors, or package:NAME/FILE.gguf [SmolLM2-135M]."
    ),
]
On = Annotated[Device | None, typer.Option("--device", help="Where it trains and answers [cpu].")]
First = Annotated[
    int | None, typer.Option("--passages", min=1, metavar="N", help="Only the first N passages of DATA [all].")
]
LeaveOut = Annotated[
    Path | None,
    typer.Option("--leave-out", metavar="FILE", help="Passages in this file are not used: those one has tuned on."),
]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, max=LARGEST_SEED, metavar="S", help="All that is random derives from it.")
]
AnswerTokens = Annotated[
    int | None, typer.Option("--answer-tokens", min=1, max=512, metavar="N", help="Longest answer [32].")
]
Anchors = Annotated[
    Path | None,
    typer.Option("--anchors", metavar="FILE", help="Common knowledge that may be lost, as a suite [298 questions]."),
]
AnchorsAsked = Annotated[
    int | None,
    typer.Option("--anchors-asked", min=0, metavar="N", help="Of each version, those that the base has right [60]."),
]
TeacherFile = Annotated[
    Path | None,
    typer.Option("--teacher", metavar="FILE", help="Settings of the teacher, for the arms own: and policy:."),
]
Fallback = Annotated[
    bool, typer.Option("--fallback", help="Also count the parent's answer where one is empty, in a column of its own.")
]
Results = Annotated[
    Path, typer.Option("--results", metavar="FOLDER", help="Everything finished is kept here, and found again.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, max=64, metavar="N", help="Processes [one a core; one on a GPU].")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other setting, as seal.recipe.epochs=3; repeatable."),
]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Only count tokens and minutes.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output and nothing else.")]

DEFAULT_RESULTS = Path(".seal/bench")


def register(app: typer.Typer) -> None:
    app.add_typer(bench, name="bench")


@bench.callback()
def group() -> None:
    """Measure the method on your model and your documents.

    Each command trains, asks, and compares with the unedited model and with the published procedure, in one run. Each
    may be stopped at any moment: the same command goes on where it stopped. A table, a picture and result.json with
    intervals and every answer are in FOLDER/passages, FOLDER/corpus or FOLDER/continual.

    \b
    Examples:
      seal bench passages squad.json --edits edits.json --plan
      seal bench passages squad.json --edits edits.json
      seal bench corpus squad.json --edits edits.json --n 24
      seal bench continual squad.json --edits edits.json --length 4 --sequences 4
    """


@bench.command()
def passages(
    context: typer.Context,
    data: Data,
    *,
    edits: Edits = None,
    arms: Arms = None,
    procedure: Procedures = None,
    model: Model = None,
    device: On = None,
    count: First = None,
    leave_out: LeaveOut = None,
    seed: Seed = None,
    answer_tokens: AnswerTokens = None,
    anchors: Anchors = None,
    anchors_asked: AnchorsAsked = None,
    teacher: TeacherFile = None,
    fallback: Fallback = False,
    results: Results = DEFAULT_RESULTS,
    workers: Workers = None,
    settings: Settings = None,
    plan: PlanOnly = False,
    as_json: AsJson = False,
) -> None:
    """One passage at a time: every update starts from the bare model.

    Arms: unedited; in-context, with the passage in the prompt, which retrieval could reach at best; passage, trained
    on the passage alone; recorded, edits that another model wrote (--edits); own:VARIANT, edits that the model writes
    itself; policy:VERSION, those of a teacher that has learned. A wrong file is refused before anything is trained.

    \b
    Examples:
      seal bench passages squad.json
      seal bench passages squad.json --edits edits.json --passages 8 --procedure seal
      seal bench passages mine.json --model ./my-model --device cuda --set reference.sampled_pads=0
      seal bench passages squad.json --arms unedited,own:implications --teacher teacher.yaml
    """
    from cli.benching import bench_as_told

    bench_as_told(context)


@bench.command()
def corpus(
    context: typer.Context,
    data: Data,
    *,
    n: Annotated[int, typer.Option("--n", min=2, metavar="N", help="Passages that one update learns.")],
    edits: Edits = None,
    arms: Arms = None,
    procedure: Procedures = None,
    model: Model = None,
    device: On = None,
    count: First = None,
    leave_out: LeaveOut = None,
    seed: Seed = None,
    answer_tokens: AnswerTokens = None,
    anchors: Anchors = None,
    anchors_asked: AnchorsAsked = None,
    teacher: TeacherFile = None,
    fallback: Fallback = False,
    results: Results = DEFAULT_RESULTS,
    workers: Workers = None,
    settings: Settings = None,
    plan: PlanOnly = False,
    as_json: AsJson = False,
) -> None:
    """N passages at once: one update on the union of their edits.

    The same arms as `seal bench passages`. DATA with more than N passages makes several updates of N.

    \b
    Examples:
      seal bench corpus squad.json --edits edits.json --n 24
      seal bench corpus squad.json --n 8 --passages 8 --arms unedited,in-context,passage
    """
    from cli.benching import bench_as_told

    bench_as_told(context)


@bench.command()
def continual(
    context: typer.Context,
    data: Data,
    *,
    length: Annotated[int, typer.Option("--length", min=2, metavar="L", help="Passages learned one after another.")],
    sequences: Annotated[int, typer.Option("--sequences", min=1, metavar="S", help="Sequences of L passages.")],
    edits: Edits = None,
    arms: Annotated[
        list[str] | None,
        typer.Option("--arms", metavar="NAME", help="Whose edits: recorded, passage, own:VARIANT, policy:VERSION."),
    ] = None,
    chains: Annotated[
        list[str] | None,
        typer.Option(
            "--chain", metavar="NAME", help="reference, bare, replay, gate, gate+replay; repeatable, or commas [all]."
        ),
    ] = None,
    procedure: Procedures = None,
    model: Model = None,
    device: On = None,
    count: First = None,
    leave_out: LeaveOut = None,
    seed: Seed = None,
    answer_tokens: AnswerTokens = None,
    anchors: Anchors = None,
    anchors_asked: AnchorsAsked = None,
    teacher: TeacherFile = None,
    results: Results = DEFAULT_RESULTS,
    workers: Workers = None,
    settings: Settings = None,
    plan: PlanOnly = False,
    as_json: AsJson = False,
) -> None:
    """One passage after another: what is learned, and what of it the later edits leave.

    After every edit all questions about all passages are asked: the forgetting matrix. Chains: reference, the published
    procedure, merged after each edit; and ours with the gate and with replay, with either, and with neither (bare).

    \b
    Examples:
      seal bench continual squad.json --edits edits.json --length 4 --sequences 4
      seal bench continual squad.json --edits edits.json --length 8 --sequences 2 --chain reference,gate+replay
    """
    from cli.benching import bench_as_told

    bench_as_told(context)
