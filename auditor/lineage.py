"""The lineage of the live version, and the names by which a version can be called."""

from __future__ import annotations

import re

from auditor.peers import BASE, StudentStatus
from auditor.projections import Projections
from auditor.views import LineageEntry, TaskScore, VersionView
from common.errors import InvalidRequest, NotFound, Violation

ALIASES = ("live", "shadow", "previous")


def lineage(views: Projections) -> list[LineageEntry]:
    """Versions that were judged for live or became it, newest first; "base" is number 0."""
    ancestors = {view.version for view in views.ancestry(views.live)}
    known = sorted((v for v in views.versions.values() if v.number), key=lambda v: -v.number)
    entries = [_entry(views, view, ancestors) for view in known]
    base = LineageEntry(
        version=BASE,
        live=views.live == BASE,
        previous=views.previous == BASE,
        task_scores=_task_scores(views, BASE),
    )
    return [*entries, base]


def _task_scores(views: Projections, version: str) -> tuple[TaskScore, ...]:
    found = views.task_scores.get(version, {})
    return tuple(TaskScore(task_id=task_id, score=score) for task_id, score in sorted(found.items()))


def _entry(views: Projections, view: VersionView, ancestors: set[str]) -> LineageEntry:
    judged = view.judged
    return LineageEntry(
        version=view.version,
        parent_version=view.parent,
        number=view.number,
        promote_time=view.promote_time,
        live=view.version == views.live,
        previous=view.version == views.previous,
        edits=view.edits,
        task_ids=view.task_ids,
        holdout=judged.holdout_after if judged else None,
        retention=judged.retention_after if judged else None,
        run_id=view.run_id,
        rolled_back=view.promote_time is not None and view.version not in ancestors,
        task_scores=_task_scores(views, view.version),
    )


def resolve_version(views: Projections, status: StudentStatus, name: str) -> str:
    """ "base", an alias, a lineage number, a digest or its first 6 characters or more -> the version.

    Raises NotFound, or InvalidRequest for what is none of these or names several.
    """
    if name == BASE:
        return BASE
    if name in ALIASES:
        alias = status.live if name == "live" else status.alias(name)
        if alias is None:
            raise NotFound(f"the alias {name} is not set", ids={"version": name})
        return alias.version
    if re.fullmatch(r"\d{1,5}", name):
        return _by_number(views, int(name))
    if not re.fullmatch(r"[0-9a-f]{6,64}", name):
        raise InvalidRequest([Violation("version", "neither base, alias, number, nor 6 characters of a digest")])
    known = {*views.versions, *(alias.version for alias in status.aliases)}
    found = [version for version in known if version.startswith(name)]
    if len(found) > 1:
        raise InvalidRequest([Violation("version", f"{name} is ambiguous; give more characters of the digest")])
    if not found:
        raise NotFound("no such version", ids={"version": name})
    return found[0]


def _by_number(views: Projections, number: int) -> str:
    if number == 0:
        return BASE
    for view in views.versions.values():
        if view.number == number:
            return view.version
    raise NotFound(f"no version has number {number}", ids={"version": str(number)})
