"""Common knowledge that an update may damage: questions that the unedited model answers rightly (SEAL.md, defect 6).

The built-in retention suite and the questions of one more file in its format. All are asked of the base once; those it
has right are the pool, and of each version as many are asked as the settings say, drawn by the passage's name, the same
of every arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from auditor.graders.lexical import GRADERS, grade
from auditor.suite_files import built_in_suites, read_suite
from auditor.tasks import EvaluationItem
from benchmarks.method.versions import BASE
from benchmarks.method.workshop import Workshop
from common.canonical import derive_seed
from common.errors import InvalidConfig
from common.prompting import ask
from common.types import Prompt

TOKENS = 24


def read_anchors(file: Path) -> tuple[EvaluationItem, ...]:
    """The suite's questions and the file's. Raises InvalidConfig for one that is marked by a judge or a command."""
    items = [item for suite in (*built_in_suites(), read_suite(file)) for item in suite.items]
    for item in items:
        if item.grader.kind not in GRADERS:
            raise InvalidConfig(f"{file}: item {item.item_id}: anchors are marked by {', '.join(GRADERS)} alone")
    return tuple(items)


def prompts(items: Sequence[EvaluationItem], places: Sequence[int]) -> list[Prompt]:
    """The questions as they are put to a model, those at `places`."""
    return [Prompt(prompt_id=f"a{place}", conversation=ask("", items[place].question)) for place in places]


def pool(workshop: Workshop, items: Sequence[EvaluationItem]) -> tuple[int, ...]:
    """Places of the questions that the base answers rightly."""
    places = range(len(items))
    said = workshop.answers(BASE, prompts(items, places), TOKENS)
    return tuple(place for place in places if grade(said[place], items[place]))


def drawn(found: Sequence[int], count: int, seed: int, key: str) -> tuple[int, ...]:
    """So many places of the pool, or all, by the passage's name."""
    return tuple(sorted(sorted(found, key=lambda place: derive_seed("anchors", seed, key, place))[:count]))
