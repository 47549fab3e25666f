"""`seal status`: what runs, on which models, and which versions answer."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape

from cli.render.edit import pairs, recipe_words
from cli.render.figures import NOTHING, short
from common.contract.seal.v1 import auditor_pb2 as pb


def status(found: pb.AuditorServiceGetStatusResponse, target: str) -> RenderableType:
    """A service that could not be asked is named as missing."""
    teacher, student = found.teacher, found.student
    aliases = ", ".join(f"{alias.name} {short(alias.version)}" for alias in student.aliases)
    return Group(
        "[bold]Teacher[/]" if found.HasField("teacher") else "[bold red]Teacher: does not answer[/]",
        pairs(
            [
                ("  model", f"{escape(teacher.model)} ({escape(teacher.backend)})" if teacher.model else NOTHING),
                ("  policy", short(teacher.policy_version)),
                ("  variants", escape(", ".join(teacher.prompt_variants))),
            ]
        ),
        "[bold]Student[/]" if found.HasField("student") else "[bold red]Student: does not answer[/]",
        pairs(
            [
                ("  model", escape(student.model)),
                ("  versions", escape(aliases) or ("live base" if student.model else NOTHING)),
                ("  recipe", recipe_words(student.default_recipe) if student.model else NOTHING),
            ]
        ),
        f"[bold]Auditor[/] at {escape(target)}",
        pairs(
            [
                ("  run", escape(found.active_run_id) or "none active"),
                ("  ledger", f"{found.ledger_seq:,} events, head {found.ledger_head}"),
            ]
        ),
    )
