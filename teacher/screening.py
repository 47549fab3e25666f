"""Decides which pieces of a completion may teach: those that stand in the context, once, in usable form.

No evaluation question and no key is known here; the context alone decides, so the screen is as useful with a strong
teacher as with a weak one. Every piece that is dropped is counted under one reason, which goes into the edit's origin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from pydantic import Field

from common.config import Config
from teacher.pieces import Candidate, Question, Statement
from teacher.wording import content, holds, names, numbers, overlap, repetition, words


class Reason(StrEnum):
    """Why a piece was dropped."""

    UNUSABLE = "unusable_length"
    DEGENERATE = "degenerate"
    INVENTED_NUMBER = "number_not_in_context"
    INVENTED_NAME = "name_not_in_context"
    UNGROUNDED = "not_grounded"
    VAGUE = "question_without_subject"
    REVEALING = "question_holds_answer"
    MISPLACED = "about_another_sentence"
    DUPLICATE = "near_duplicate"
    NOT_AMONG_BEST = "not_among_best"
    OVER_CAP = "over_cap"


class ScreeningSettings(Config):
    """How strict the screen is. `grounded` off leaves only form and duplicates."""

    grounded: bool = True
    answer_coverage: float = Field(
        default=0.75, ge=0, le=1, description="share of an answer's content words that must stand in its source"
    )
    statement_coverage: float = Field(
        default=0.4, ge=0, le=1, description="share of a statement's content words that must stand in its source"
    )
    duplicate_overlap: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="shared content words, as Jaccard similarity, from which two pieces are one",
    )
    max_repetition: float = Field(default=0.4, ge=0, le=1, description="largest share of repeated three-word runs")
    max_characters: int = Field(default=2_000, ge=80, le=16_000, description="longest piece")


@dataclass(frozen=True)
class Screened:
    """What may teach, with the place of each in the order given, and why the rest was dropped."""

    kept: tuple[Candidate, ...]
    positions: tuple[int, ...]
    dropped: Counter[str] = field(default_factory=Counter)


def screen(candidates: Sequence[Candidate], title: str, settings: ScreeningSettings) -> Screened:
    """Keeps, in order, every piece that nothing speaks against."""
    kept: list[Candidate] = []
    positions: list[int] = []
    dropped: Counter[str] = Counter()
    for position, candidate in enumerate(candidates):
        reason = fault(candidate, title, settings)
        if reason is None and any(same(candidate, earlier, settings.duplicate_overlap) for earlier in kept):
            reason = Reason.DUPLICATE
        if reason is None:
            kept.append(candidate)
            positions.append(position)
        else:
            dropped[reason.value] += 1
    return Screened(tuple(kept), tuple(positions), dropped)


def fault(candidate: Candidate, title: str, settings: ScreeningSettings) -> Reason | None:
    """What speaks against a piece by itself, or None."""
    text = f"{candidate.question} {candidate.answer}" if isinstance(candidate, Question) else candidate.text
    if len(text) > settings.max_characters or len(words(text)) < 3:
        return Reason.UNUSABLE
    if repetition(text) > settings.max_repetition:
        return Reason.DEGENERATE
    if isinstance(candidate, Question):
        return _question_fault(candidate, title, settings)
    return _statement_fault(candidate, title, settings) if settings.grounded else None


def same(left: Candidate, right: Candidate, threshold: float) -> bool:
    """Whether two pieces say nearly the same; questions that start with different words ask different things."""
    if isinstance(left, Question) and isinstance(right, Question):
        if words(left.question)[:1] != words(right.question)[:1]:
            return False
        return overlap(content(left.question), content(right.question)) >= threshold
    if isinstance(left, Statement) and isinstance(right, Statement):
        return overlap(content(left.text), content(right.text)) >= threshold
    return False


def _question_fault(candidate: Question, title: str, settings: ScreeningSettings) -> Reason | None:
    asked = content(candidate.question)
    if not candidate.question.rstrip().endswith("?") or not words(candidate.answer):
        return Reason.UNUSABLE
    if holds(candidate.question, candidate.answer):
        return Reason.REVEALING
    if not asked & (content(candidate.source) | content(title)):
        return Reason.VAGUE
    if not settings.grounded:
        return None
    reason = invented(f"{candidate.question}\n{candidate.answer}", f"{candidate.source}\n{title}")
    if reason is not None:
        return reason
    return None if _covered(candidate.answer, candidate.source, settings.answer_coverage) else Reason.UNGROUNDED


def _statement_fault(candidate: Statement, title: str, settings: ScreeningSettings) -> Reason | None:
    source = f"{candidate.source}\n{title}"
    reason = invented(candidate.text, source)
    if reason is not None:
        return reason
    return None if _covered(candidate.text, source, settings.statement_coverage) else Reason.UNGROUNDED


def invented(text: str, source: str) -> Reason | None:
    """Numbers and names that the source does not hold."""
    if numbers(text) - numbers(source):
        return Reason.INVENTED_NUMBER
    if names(text) - frozenset(words(source)):
        return Reason.INVENTED_NAME
    return None


def _covered(text: str, source: str, share: float) -> bool:
    """Whether enough of a text's content words stand in the source; without any, all its words in order."""
    needed = content(text)
    if not needed:
        return holds(source, text)
    return len(needed & content(source)) >= share * len(needed)
