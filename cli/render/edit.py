"""`seal show EDIT`: where an edit came from, what it did, and why it stands or fell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from cli.render.events import gate_line
from cli.render.figures import NOTHING, change, moment, number, plural, right, seconds, short, signed, size
from cli.render.tables import edit_state, table
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import student_pb2, teacher_pb2, types_pb2

SHOWN_EXAMPLES = 5


def edit_record(record: pb.EditRecord, *, all_examples: bool = False) -> RenderableType:
    """Everything that is known of an edit, from its origin to its last line in the ledger."""
    parts: list[RenderableType | None] = [
        _head(record),
        Text(),
        _origin(record.origin),
        _examples(record.edit, everything=all_examples),
    ]
    parts += [_versions(record.versions), _scores(record), _gates(record)]
    parts += [
        _questions("Reward questions (decided the filter)", record.reward_results),
        _questions("Holdout questions (decided promotion)", record.holdout_results),
        _questions("Forgotten: right before, wrong after", record.forgotten),
        _ledger(record),
    ]
    return Group(*(part for part in parts if part is not None))


def pairs(rows: Sequence[tuple[str, str]]) -> Table:
    """Names and values in two columns; rows without a value are left out."""
    made = Table.grid(padding=(0, 2))
    made.add_column(style="dim", no_wrap=True)
    made.add_column(overflow="fold")
    for label, value in rows:
        if value and value != NOTHING:
            made.add_row(label, value)
    return made


def _head(record: pb.EditRecord) -> RenderableType:
    summary = record.summary
    return Group(
        f"[bold]Edit {summary.edit.sha256}[/]  {edit_state(summary.state)}",
        pairs(
            [
                ("why", escape(summary.reason)),
                ("gain", f"{signed(summary.gain)} on reward questions"),
                ("task", f"{escape(summary.task_id)}: {escape(record.title)}"),
                ("document", f"{escape(record.edit.document_id)}, revision {escape(record.edit.revision)}"),
                ("context", record.context.sha256),
                ("run", f"{escape(summary.run_id)}, round {summary.round}"),
                ("proposed", moment(summary.create_time)),
                ("in version", short(record.accepted_version)),
                ("decided by", escape(record.decided_by)),
                ("configuration", record.config_sha256),
                ("auditor", _software(record.auditor_software)),
            ]
        ),
    )


def _origin(origin: teacher_pb2.EditOrigin) -> RenderableType:
    dropped = ", ".join(f"{key} {origin.screened_out[key]}" for key in sorted(origin.screened_out))
    return Group(
        "[bold]Made by the teacher[/]",
        pairs(
            [
                ("model", f"{escape(origin.model)} ({escape(origin.backend)})"),
                ("model digest", origin.model_digest.sha256),
                ("policy", origin.policy_version),
                ("prompt variant", escape(origin.prompt_variant)),
                ("sampling", _sampling(origin.sampling)),
                ("completions", f"{origin.completions}" + (f"; dropped: {escape(dropped)}" if dropped else "")),
                ("prompts", f"{plural(len(origin.prompts), 'prompt')}, digest {origin.prompts_digest.sha256}"),
                ("completions digest", origin.completions_digest.sha256),
                ("rationale", escape(origin.rationale)),
                ("software", _software(origin.software)),
            ]
        ),
        Text(),
    )


def _sampling(sampling: types_pb2.Sampling) -> str:
    return (
        f"temperature {number(sampling.temperature)}, top-p {number(sampling.top_p)}, "
        f"at most {sampling.max_new_tokens} tokens, seed {sampling.seed}"
    )


def _software(software: types_pb2.Software) -> str:
    versions = ", ".join(f"{key} {software.versions[key]}" for key in sorted(software.versions))
    figures = (software.device, software.precision, plural(software.threads, "thread"))
    place = ", ".join(filter(None, figures)) if software.device else ""
    return escape("; ".join(part for part in (versions, place) if part))


def _examples(edit: types_pb2.SelfEdit, *, everything: bool) -> RenderableType:
    shown = edit.examples if everything else edit.examples[:SHOWN_EXAMPLES]
    left = len(edit.examples) - len(shown)
    lines: list[RenderableType] = [
        f"[bold]{plural(len(edit.examples), 'training example')}[/], asked for: {recipe_words(edit.recipe)}"
    ]
    lines += [Text(f"  {position}. {line}") for position, line in enumerate(map(_example, shown), start=1)]
    if left:
        lines.append(f"  ... and {left} more (--examples shows all)")
    return Group(*lines, Text())


def _example(example: types_pb2.Example) -> str:
    if example.HasField("text"):
        return " ".join(example.text.split())
    turns = (
        f"{types_pb2.Role.Name(message.role).removeprefix('ROLE_').lower()}: "
        + " ".join("".join(part.text for part in message.content).split())
        for message in example.conversation.messages
    )
    return " | ".join(turns)


def recipe_words(recipe: types_pb2.Recipe) -> str:
    """The directives that are set; "the student's defaults" if none is."""
    return ", ".join(_directives(recipe)) or "the student's defaults"


def _directives(recipe: types_pb2.Recipe) -> Iterator[str]:
    for field, value in recipe.ListFields():
        label = field.name.replace("_", " ")
        if field.enum_type is not None:
            yield f"{label} {types_pb2.Schedule.Name(value).removeprefix('SCHEDULE_').lower()}"
        elif field.is_repeated:
            yield f"{label} {escape(' '.join(value))}"
        else:
            yield f"{label} {number(value)}"


def _versions(versions: Sequence[student_pb2.Version]) -> RenderableType | None:
    if not versions:
        return None
    parts: list[RenderableType] = [f"[bold]Trained as {plural(len(versions), 'adapter')}[/]"]
    return Group(*parts, *(_version(version) for version in versions), Text())


def _version(version: student_pb2.Version) -> RenderableType:
    replay = f"; {version.replay_share:.0%} replayed" if version.replay_share else ""
    scaled = f"; scaled down to {version.scale:.0%} towards its parent" if 0 < version.scale < 1 else ""
    loss = f"loss {number(version.first_loss)} → {number(version.last_loss)}"
    return Group(
        f"  {version.version}",
        pairs(
            [
                ("    parent", short(version.parent_version)),
                (
                    "    made",
                    f"seed {version.seed}, {'alone' if version.trained_alone else 'beside others'}{replay}{scaled}",
                ),
                ("    training", f"{seconds(version.seconds)}, {plural(version.tokens_trained, 'token')}, {loss}"),
                ("    size", f"{size(version.adapter.size_bytes)}, {plural(version.tensors, 'tensor')}"),
                ("    recipe", ", ".join(_directives(version.recipe))),
                ("    software", _software(version.software)),
            ]
        ),
    )


def _scores(record: pb.EditRecord) -> RenderableType:
    return Group(
        "[bold]Before and after[/]",
        pairs(
            [
                ("reward", change(record.reward_before, record.reward_after)),
                ("holdout", change(record.holdout_before, record.holdout_after)),
                ("retention", change(record.retention_before, record.retention_after)),
            ]
        ),
        Text(),
    )


def _gates(record: pb.EditRecord) -> RenderableType | None:
    if not record.gates:
        return None
    return Group("[bold]Gates[/]", *(f"  {gate_line(gate)}" for gate in record.gates), Text())


def _questions(title: str, results: Sequence[pb.QuestionResult]) -> RenderableType | None:
    if not results:
        return None
    made = table(
        "", "question", "answer before", "answer after", "accepted", "versions", title=f"{title}: {len(results)}"
    )
    for result in results:
        mark = {(False, True): "[green]+[/]", (True, False): "[red]-[/]"}.get(
            (right(result.score_before), right(result.score_after)), "="
        )
        made.add_row(
            f"{mark} {number(result.score_before)} → {number(result.score_after)}{_disputed(result)}",
            escape(result.question),
            escape(result.answer_before.strip()) or "[dim](empty)[/]",
            escape(result.answer_after.strip()) or "[dim](empty)[/]",
            escape(" / ".join(result.accepted_answers)),
            f"{short(result.version_before)} → {short(result.version_after)}",
        )
    return made


def _disputed(result: pb.QuestionResult) -> str:
    """Where a judge's mark is not that of the contains grader, the latter's beside it."""
    disputed = (result.HasField("lexical_before") and right(result.lexical_before) != right(result.score_before)) or (
        result.HasField("lexical_after") and right(result.lexical_after) != right(result.score_after)
    )
    if not disputed:
        return ""
    return f"\n[yellow]judge; by words {number(result.lexical_before)} → {number(result.lexical_after)}[/]"


def _ledger(record: pb.EditRecord) -> RenderableType | None:
    if not record.ledger:
        return None
    made = table(">no.", "time", "what", "hash", title="In the ledger")
    for line in record.ledger:
        made.add_row(str(line.seq), moment(line.time), escape(line.type), line.hash)
    return made
