"""Hands each answer to its item's grader, and remembers in the ledger what was costly to find out.

A mark is remembered under (question, keys, answer, grader with its settings, what the grader is made of) and, for a
command, which is told it, the item's id; graders that are quick functions of those are simply called again. What was
found stays found when a later answer cannot be marked. An answer without a letter or digit is wrong whatever the
grader, but for choice, whose options may be signs.
auditor/examiner.py calls `mark`; auditor/runs.py calls `check` before a run is accepted.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import aclosing

from auditor.graders.choice import ChoiceMarker
from auditor.graders.command import CommandMarker
from auditor.graders.config import CommandConfig, JudgeConfig
from auditor.graders.judge import JudgeMarker
from auditor.graders.lexical import GRADERS, LexicalMarker
from auditor.graders.patterns import PatternMarker, runaway
from auditor.graders.port import Marker, Submission
from auditor.keys import GraderKind
from auditor.recorder import Recorder
from auditor.requests import StartRun
from auditor.tasks import EvaluationItem
from common.canonical import digest_of
from common.errors import InvalidRequest, NotPossible, Violation
from common.silence import is_empty

CONFIGURED = {GraderKind.JUDGE: "judge", GraderKind.COMMAND: "command"}
SAVED_AT_ONCE = 32


class Graders:
    """All graders of this auditor."""

    def __init__(
        self, recorder: Recorder, judges: Mapping[str, JudgeConfig], commands: Mapping[str, CommandConfig]
    ) -> None:
        """Raises InvalidConfig for a judge whose key cannot be read or a command that cannot be shut in."""
        self._recorder = recorder
        lexical = LexicalMarker()
        self._built_in: dict[GraderKind, Marker] = {
            **dict.fromkeys(GRADERS, lexical),
            GraderKind.REGEX: PatternMarker(),
            GraderKind.CHOICE: ChoiceMarker(),
        }
        self._configured: dict[GraderKind, Mapping[str, Marker]] = {
            GraderKind.JUDGE: {name: JudgeMarker(name, config) for name, config in judges.items()},
            GraderKind.COMMAND: {name: CommandMarker(name, config) for name, config in commands.items()},
        }

    async def close(self) -> None:
        for markers in self._configured.values():
            for marker in markers.values():
                await marker.close()

    async def check(self, request: StartRun) -> None:
        """Raises InvalidRequest that names every item that could not be marked."""
        places = [
            (f"{part}[{i}].{name}[{j}]", item)
            for part, lists in (
                ("tasks", [(("tau", task.tau), ("retention", task.retention)) for task in request.tasks]),
                ("suites", [(("items", suite.items),) for suite in request.suites]),
            )
            for i, named in enumerate(lists)
            for name, items in named
            for j, item in enumerate(items)
        ]
        violations = await asyncio.to_thread(lambda: [v for path, item in places for v in self._violations(path, item)])
        if violations:
            raise InvalidRequest(violations)

    def _violations(self, path: str, item: EvaluationItem) -> list[Violation]:
        try:
            self._marker(item)
        except NotPossible as error:
            return [Violation(f"{path}.grader", error.message)]
        if item.grader.kind is GraderKind.REGEX and any(runaway(pattern) for pattern in item.answers):
            return [Violation(f"{path}.answers", "a regular expression takes too long on some texts; make it stricter")]
        return []

    def _marker(self, item: EvaluationItem) -> Marker:
        """Raises NotPossible(GRADER_UNKNOWN)."""
        kind, name = item.grader.kind, item.grader.name
        if kind not in CONFIGURED:
            return self._built_in[kind]
        known = self._configured[kind]
        if (marker := known.get(name)) is not None:
            return marker
        if not name and len(known) == 1:
            return next(iter(known.values()))
        noun = CONFIGURED[kind]
        if not known:
            what = f"the auditor has no {noun}; its configuration names them under {noun}s"
        elif name:
            what = f"the auditor has no {noun} of this name; it has {', '.join(sorted(known))}"
        else:
            what = f"the auditor has several {noun}s; name one of {', '.join(sorted(known))}"
        raise NotPossible(what, reason="GRADER_UNKNOWN", ids={"item_id": item.item_id})

    async def mark(self, submissions: Sequence[Submission]) -> list[float]:
        """Marks, in order. Raises SealError when one cannot be found."""
        marks: dict[int, float] = {}
        waiting: dict[Marker, list[int]] = defaultdict(list)
        for place, submission in enumerate(submissions):
            if is_silent(submission.answer, submission.item):
                marks[place] = 0.0
            else:
                waiting[self._marker(submission.item)].append(place)
        for marker, places in waiting.items():
            handed = [submissions[place] for place in places]
            found = await (self._remembered(marker, handed) if marker.identity else self._quick(marker, handed))
            marks.update(zip(places, found, strict=True))
        return [marks[place] for place in range(len(submissions))]

    async def _quick(self, marker: Marker, submissions: Sequence[Submission]) -> list[float]:
        found = {place: mark async for place, mark in marker.mark(submissions)}
        return [found[place] for place in range(len(submissions))]

    async def _remembered(self, marker: Marker, submissions: Sequence[Submission]) -> list[float]:
        """Equal answers to equal questions are marked once, ever."""
        keys = [mark_key(submission, marker.identity) for submission in submissions]
        ledger = self._recorder.ledger
        known = await self._recorder.run(ledger.recall_grades, keys)
        fresh = {key: s for key, s in zip(keys, submissions, strict=True) if key not in known}
        names, unmarked = list(fresh), list(fresh.values())
        unsaved: list[tuple[str, str, float]] = []
        try:
            async with aclosing(marker.mark(unmarked)) as marked:
                async for place, mark in marked:
                    known[names[place]] = mark
                    unsaved.append((names[place], unmarked[place].sha256, mark))
                    if len(unsaved) >= SAVED_AT_ONCE:
                        await self._recorder.run(ledger.remember_grades, unsaved)
                        unsaved = []
        finally:
            if unsaved:
                await self._recorder.run(ledger.remember_grades, unsaved)
        return [known[key] for key in keys]


def is_silent(answer: str, item: EvaluationItem | None) -> bool:
    """Whether an answer says nothing at all. A chosen option says something, be it a sign."""
    return is_empty(answer) and (item is None or item.grader.kind is not GraderKind.CHOICE)


def mark_key(submission: Submission, identity: str) -> str:
    """What a mark is remembered under: all that the grader is told. Its name is left out: its identity says more."""
    item = submission.item
    settings = item.grader.model_copy(update={"name": ""})
    told = {
        "question": item.question,
        "keys": sorted(item.answers),
        "answer": submission.sha256,
        "grader": settings.model_dump(mode="json"),
        "identity": identity,
    }
    if item.grader.kind is GraderKind.COMMAND:
        told["item_id"] = item.item_id
    return digest_of(told).sha256
