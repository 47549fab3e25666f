"""Common knowledge that an update may damage: questions that the unedited model answers rightly (SEAL.md, defect 6).

The built-in retention suite and the questions of one more file in its format. All are asked of the base once; those it
has right are the pool, and of each version as many are asked as the settings say, drawn by the passage's name, the same
of every arm. What our procedure rehearses is no anchor: it was trained on, so it is asked and not counted.
"""

from __future__ import annotations

import re
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
from teacher.rehearsal import read_questions

TOKENS = 24
WORD = re.compile(r"\w+")
# Words that questions of all kinds are made of.
FUNCTION = frozenset(
    re.findall(
        "[a-z]+",
        "what which who how many much where when is are was were do does did can we you our us it its there one has "
        "have be a an the of in on at to for by with from into and or as that this called name known",
    )
)
ALIKE = 0.6  # telling words that two questions share, of the one that has fewer, from which they ask the same
STEM = 5  # letters of a word by which it is known


def read_anchors(file: Path) -> tuple[EvaluationItem, ...]:
    """The suite's questions and the file's. Raises InvalidConfig for one that is marked by a judge or a command."""
    items = [item for suite in (*built_in_suites(), read_suite(file)) for item in suite.items]
    for item in items:
        if item.grader.kind not in GRADERS:
            raise InvalidConfig(f"{file}: item {item.item_id}: anchors are marked by {', '.join(GRADERS)} alone")
    return tuple(items)


def rehearsed(items: Sequence[EvaluationItem]) -> frozenset[int]:
    """Places of the questions that our procedure rehearses, in nearly the same words or the other way round: asking
    something of the same kind whose words hold the key."""
    known = [(question, _telling(question)) for question in read_questions()]
    return frozenset(
        place
        for place, item in enumerate(items)
        if any(
            alike(item.question, question) or (_telling(item.question) & telling and _holds(question, item))
            for question, telling in known
        )
    )


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


def alike(one: str, other: str) -> bool:
    """Whether two questions ask about the same, by their telling words. Rather too often than too seldom."""
    ours, theirs = _telling(one), _telling(other)
    return len(ours & theirs) >= ALIKE * min(len(ours), len(theirs))


def _telling(question: str) -> frozenset[str]:
    """Stems of its words, little ones left out."""
    words = frozenset(WORD.findall(question.lower()))
    return frozenset(word.removesuffix("s")[:STEM] for word in words - FUNCTION or words)


def _holds(question: str, item: EvaluationItem) -> bool:
    return any(re.search(rf"\b{re.escape(answer.lower())}\b", question.lower()) for answer in item.answers)
