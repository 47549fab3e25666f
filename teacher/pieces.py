"""The pieces of a self-edit while it is written: statements, and questions with their answers.

Variants read them out of completions, screening drops those that may not teach, the writer makes examples of the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from common.prompting import question_and_answer
from common.types import Example, LossMask

GROUNDING_CHARACTERS = 4_096


@dataclass(frozen=True)
class Statement:
    """A document that says something about its source, a part of the context."""

    text: str
    source: str


@dataclass(frozen=True)
class Question:
    """A question with its answer, both about a part of the context."""

    question: str
    answer: str
    source: str


Candidate = Statement | Question
ItemT = TypeVar("ItemT")


def example_of(candidate: Candidate, title: str) -> Example:
    """The training example of a piece: a document under the title, or a conversation as questions are asked.

    Documents count with all their tokens, conversations with the answer alone.
    """
    grounding = candidate.source[:GROUNDING_CHARACTERS]
    if isinstance(candidate, Question):
        return question_and_answer(title, candidate.question, candidate.answer, grounding=grounding)
    return Example(text=f"{title}\n{candidate.text}", loss_mask=LossMask.ALL, grounding=grounding)


def spread(items: Sequence[ItemT], cap: int, source: Callable[[ItemT], str]) -> list[ItemT]:
    """At most `cap` items in order; when there are more, every source gives its first before any gives its second."""
    turns: Counter[str] = Counter()
    ranked = []
    for place, item in enumerate(items):
        ranked.append((turns[source(item)], place))
        turns[source(item)] += 1
    return [items[place] for place in sorted(place for _, place in sorted(ranked)[:cap])]
