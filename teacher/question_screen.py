"""Which questions belong to the sentence that they were written about, best first.

A sentence as the answer is always true; what can go wrong is that the question asks for something else. So its words
must come from the sentence, must fit no other sentence better, and must leave something to be answered. Of what passes,
each sentence keeps its best few. Used by the sentence-wise variant; counts reasons as teacher/screening.py does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from teacher.pieces import Candidate, Question
from teacher.screening import Reason, Screened, ScreeningSettings, invented, same
from teacher.wording import content, repetition, words

FEWEST_WORDS, MOST_WORDS = 3, 25
LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Ranked:
    """A question that passed, with its place among the candidates and how well it fits."""

    score: float
    place: int
    question: Question


def screen_questions(
    candidates: Sequence[Candidate], title: str, sources: Sequence[str], settings: ScreeningSettings, *, best: int
) -> Screened:
    """The best `best` questions of each sentence, in the order of the candidates. `sources` are all the sentences."""
    passed: dict[str, list[Ranked]] = defaultdict(list)
    dropped: Counter[str] = Counter()
    screen = _Screen(title, sources, settings)
    for place, candidate in enumerate(candidates):
        assert isinstance(candidate, Question)
        verdict = screen.judge(candidate)
        if isinstance(verdict, Reason):
            dropped[verdict.value] += 1
        else:
            passed[candidate.source].append(Ranked(verdict, place, candidate))
    chosen: list[Ranked] = []
    for ranked in passed.values():
        kept: list[Ranked] = []
        for entry in sorted(ranked, key=lambda r: (-r.score, r.place)):
            if any(same(entry.question, other.question, settings.duplicate_overlap) for other in kept):
                dropped[Reason.DUPLICATE.value] += 1
            elif len(kept) == best:
                dropped[Reason.NOT_AMONG_BEST.value] += 1
            else:
                kept.append(entry)
        chosen += kept
    chosen.sort(key=lambda r: r.place)
    return Screened(tuple(r.question for r in chosen), tuple(r.place for r in chosen), dropped)


class _Screen:
    """Judges the questions of one context."""

    def __init__(self, title: str, sources: Sequence[str], settings: ScreeningSettings) -> None:
        self._title = content(title)
        self._own = {source: content(source) - self._title for source in sources}
        self._everything = "\n".join((title, *sources))
        self._settings = settings

    def judge(self, candidate: Question) -> float | Reason:
        """How well a question fits its sentence, above 0, or why it may not teach.

        The score is precision x sqrt(hits): the share of the question's own words (those beyond the title) that the
        sentence holds, and how many they are.
        """
        asked = content(candidate.question) - self._title
        hits = asked & self._own[candidate.source]
        return self._malformed(candidate.question) or self._unfit(candidate, asked, hits) or _score(asked, hits)

    def _malformed(self, question: str) -> Reason | None:
        if not FEWEST_WORDS <= len(words(question)) <= MOST_WORDS or not question.endswith("?"):
            return Reason.UNUSABLE
        return Reason.DEGENERATE if repetition(question) > self._settings.max_repetition else None

    def _unfit(self, candidate: Question, asked: frozenset[str], hits: frozenset[str]) -> Reason | None:
        if any(len(asked & other) > len(hits) for other in self._own.values()):
            return Reason.MISPLACED
        if not hits:
            return Reason.VAGUE
        if hits >= self._own[candidate.source]:
            return Reason.REVEALING
        if not self._settings.grounded:
            return None
        if len(hits) < LEAST_SHARE * len(asked):
            return Reason.UNGROUNDED
        return invented(candidate.question, self._everything)


def _score(asked: frozenset[str], hits: frozenset[str]) -> float:
    return float(len(hits) / len(asked) * len(hits) ** 0.5)
