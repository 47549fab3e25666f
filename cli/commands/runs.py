"""Runs: start, watch, list, cancel."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_AUDITOR, LARGEST, AuditorOption, JsonOption, LimitOption, TlsOption

JUDGEMENT = "Judgement"


class Filter(StrEnum):
    positive = "positive"
    top_k = "top-k"
    solved = "solved"


class Promotion(StrEnum):
    none = "none"
    sequential = "sequential"
    consolidated = "consolidated"


class LearnFrom(StrEnum):
    base = "base"
    policy = "policy"


def register(app: typer.Typer) -> None:
    app.command()(run)
    app.command()(watch)
    app.command("runs")(list_runs)
    app.command()(cancel)


def run(  # noqa: PLR0917 - a command's options are its parameters
    tasks: Annotated[
        list[Path], typer.Argument(metavar="TASKS", help="Task files (.yaml), lists (.json), or folders of them.")
    ],
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N tasks.")] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=100, metavar="N", help="How often over all tasks, 1..100.")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, max=64, metavar="K", help="Edits proposed a task, 1..64.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, max=16, metavar="N", help="Trial trainings an edit, 1..16.")
    ] = None,
    keep: Annotated[Filter | None, typer.Option("--filter", help="Which edits are kept.")] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, max=64, metavar="N", help="With --filter top-k: how many a task.")
    ] = None,
    threshold: Annotated[float | None, typer.Option(min=-1, max=1, metavar="X", help="Gain to exceed, -1..1.")] = None,
    promotion: Annotated[Promotion | None, typer.Option(help="How kept edits become live.")] = None,
    learn: Annotated[bool | None, typer.Option("--learn/--no-learn", help="Teacher learns from kept edits.")] = None,
    learn_from: Annotated[LearnFrom | None, typer.Option(help="Where the teacher's learning starts.")] = None,
    variant: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Prompt variant; repeatable.")] = None,
    recipe: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Override of the training recipe; repeatable.")
    ] = None,
    suite: Annotated[list[str] | None, typer.Option(metavar="ID", help="Retention suite; repeatable.")] = None,
    suite_file: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Suites of your own (.yaml, or a folder); repeatable.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="X", help="Allowed drop of retention, 0..1, with confidence.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=LARGEST, metavar="N", help="Everything random derives from it.")
    ] = None,
    replay_share: Annotated[
        float | None, typer.Option(min=0, max=0.9, metavar="X", help="Share of replayed examples, 0..0.9.")
    ] = None,
    max_answer_tokens: Annotated[
        int | None, typer.Option(min=1, max=1024, metavar="N", help="Longest answer, 1..1024.")
    ] = None,
    pool_small_tasks: Annotated[
        bool | None, typer.Option("--pool-small-tasks/--refuse-small-tasks", help="Tasks of fewer than 4 questions.")
    ] = None,
    level: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, metavar="P", help="Chance of error that a decision allows.", rich_help_panel=JUDGEMENT
        ),
    ] = None,
    confirmation_seeds: Annotated[
        int | None,
        typer.Option(min=1, max=16, metavar="N", help="Fresh trainings to confirm on.", rich_help_panel=JUDGEMENT),
    ] = None,
    by_lower_bound: Annotated[
        bool | None,
        typer.Option("--by-lower-bound/--by-mean", help="What must exceed --threshold.", rich_help_panel=JUDGEMENT),
    ] = None,
    racing: Annotated[
        bool | None,
        typer.Option("--racing/--no-racing", help="No seeds for who cannot win.", rich_help_panel=JUDGEMENT),
    ] = None,
    cross_split: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="X", help="Share of updates audited anew.", rich_help_panel=JUDGEMENT),
    ] = None,
    min_scale: Annotated[
        float | None,
        typer.Option(min=0.01, max=1, metavar="X", help="Smallest scale of an update.", rich_help_panel=JUDGEMENT),
    ] = None,
    max_drift: Annotated[
        float | None,
        typer.Option(min=0, metavar="NATS", help="KL per token from the base; 0: any.", rich_help_panel=JUDGEMENT),
    ] = None,
    max_degenerate: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="X", help="Rise of broken answers' share.", rich_help_panel=JUDGEMENT),
    ] = None,
    anchors: Annotated[
        int | None,
        typer.Option(min=0, max=1000, metavar="N", help="Questions to re-measure the base.", rich_help_panel=JUDGEMENT),
    ] = None,
    accept_drift: Annotated[
        bool | None,
        typer.Option("--accept-drift", help="Measure anew though the base moved.", rich_help_panel=JUDGEMENT),
    ] = None,
    run_id: Annotated[str | None, typer.Option(metavar="ID", help="A name of your own for the run.")] = None,
    changed_since: Annotated[
        Path | None,
        typer.Option(metavar="STATE", help="Only documents that changed since this file says they were run."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Start it and return; see `seal watch`.")] = False,
    auditor: AuditorOption = DEFAULT_AUDITOR,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn documents: propose, train, question, keep, promote.

    Every file is checked before anything runs. Settings that you leave out are the auditor's. The run goes on when
    this command ends; Ctrl-C only stops watching.

    \b
    Examples:
      seal run examples/support
      seal run notes.yaml --rounds 2 --candidates 5 --promotion sequential
      seal run passages.json --limit 3 --json | jq -c .type
      seal run documents --changed-since state.json
    """
    from cli.changes import run_changed, usable_together
    from cli.execute import execute
    from cli.following import RunRequest, run_and_follow
    from cli.settings import RunChoices, run_settings
    from cli.taskfiles import load_suites, load_tasks

    usable_together(changed_since, run_id=run_id, detach=detach)
    request = RunRequest(
        tasks=load_tasks(tasks, limit=None if changed_since else limit),
        suites=load_suites(suite_file or []),
        settings=run_settings(
            RunChoices(
                rounds=rounds,
                candidates=candidates,
                seeds=seeds,
                filter=keep,
                top_k=top_k,
                threshold=threshold,
                promotion=promotion,
                learn=learn,
                learn_from=learn_from,
                variants=variant or (),
                recipe=recipe or (),
                suites=suite or (),
                max_drop=max_drop,
                seed=seed,
                replay_share=replay_share,
                max_answer_tokens=max_answer_tokens,
                pool_small_tasks=pool_small_tasks,
                level=level,
                confirmation_seeds=confirmation_seeds,
                filter_by_lower_bound=by_lower_bound,
                racing=racing,
                cross_split_share=cross_split,
                min_scale=min_scale,
                max_drift=max_drift,
                max_degenerate=max_degenerate,
                anchors=anchors,
                accept_drift=accept_drift,
            )
        ),
        run_id=run_id,
    )
    if changed_since is not None:
        execute(
            run_changed(auditor, request, changed_since, limit=limit, as_json=as_json),
            interrupted="stopped watching; the run goes on if it was started",
            next_step="The same command attaches to it, and only then are its documents noted.",
        )
        return
    execute(
        run_and_follow(auditor, request, detach=detach, as_json=as_json),
        interrupted=f"stopped watching; run {request.name} goes on if it was started",
        next_step=f"Follow it with `seal watch {request.name}`, stop it with `seal cancel {request.name}`.",
    )


def watch(
    run_id: Annotated[str | None, typer.Argument(metavar="RUN", help="Left out: the newest.")] = None,
    after: Annotated[int, typer.Option(min=0, max=LARGEST, metavar="SEQ", help="Only events after this number.")] = 0,
    auditor: AuditorOption = DEFAULT_AUDITOR,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Follow a run from its start to its end.

    A broken connection is opened again where it broke: no event is missing or shown twice.

    \b
    Examples:
      seal watch
      seal watch run-20260301-101500-7f3a --json > events.jsonl
    """
    from cli.execute import execute
    from cli.following import follow_command

    execute(
        follow_command(auditor, run_id, after_seq=after, as_json=as_json),
        interrupted="stopped watching; the run goes on",
        next_step="`seal watch` shows it again, `seal cancel RUN` stops it.",
    )


def list_runs(
    limit: LimitOption = 20,
    auditor: AuditorOption = DEFAULT_AUDITOR,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first.

    \b
    Example:
      seal runs --limit 5
    """
    from cli import asking
    from cli.execute import execute

    execute(asking.runs(auditor, limit, as_json=as_json))


def cancel(
    run_id: Annotated[str, typer.Argument(metavar="RUN")],
    auditor: AuditorOption = DEFAULT_AUDITOR,
    tls: TlsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stop a run. What it promoted stays; undo that with `seal rollback`.

    \b
    Example:
      seal cancel run-20260301-101500-7f3a
    """
    from cli import asking
    from cli.execute import execute

    execute(asking.cancel(auditor, run_id, as_json=as_json))
