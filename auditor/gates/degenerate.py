"""The gate on answers that are none: empty, repeating themselves, or cut off. Pure.

What counts is the rise against the version that an update is compared with: a small model runs into the length limit
and into loops by itself. Each of the three shares is bounded alone, so that fewer loops cannot pay for silence.
auditor/health.py calls this with all answers that judging has anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

from auditor.findings import Gate, GateKind
from auditor.graders import lexical
from common.silence import is_empty
from common.types import Domain
from common.versions import FinishReason

# An answer loops when its end says the same words over and over: at least so many times, over at least so many words.
COPIES, LOOP_WORDS = 3, 6
# ... or, in a text without spaces, when so many characters at its end are copies of a short piece.
LOOP_CHARACTERS, PIECE_CHARACTERS, PIECE_COPIES = 24, 12, 4
# A longer answer repeats itself also when fewer than half of its runs of three words are different ones.
TRIGRAM_WORDS, DISTINCT_TRIGRAMS = 20, 0.5
# Fewer answers than this decide nothing.
DECIDING_ANSWERS = 5
KINDS = ("empty", "repeated", "truncated")


class Given(Domain):
    """One answer as judging sees it. finish: a FinishReason, or empty where it was not noted."""

    text: str
    finish: str = ""


class Shares(Domain):
    """How many of how many answers are degenerate, each kind by itself; an empty answer is counted as that alone."""

    answers: int = 0
    empty: int = 0
    repeated: int = 0
    truncated: int = 0

    def share(self, kind: str) -> float:
        """0..1; 0 of nothing is 0."""
        return float(getattr(self, kind)) / self.answers if self.answers else 0.0


def shares_of(answers: Sequence[Given]) -> Shares:
    """Counts each answer under every kind that it is of."""
    spoken = [given for given in answers if not is_empty(given.text)]
    return Shares(
        answers=len(answers),
        empty=len(answers) - len(spoken),
        repeated=sum(repeats(given.text) for given in spoken),
        truncated=sum(given.finish == FinishReason.LENGTH for given in spoken),
    )


def repeats(text: str) -> bool:
    """Whether an answer ends in a loop, or says much the same all along."""
    words = lexical.words(text)
    # The last word may have been cut off by the length limit.
    if any(_loops(tail, COPIES, LOOP_WORDS, len(tail) // COPIES) for tail in (words, words[:-1])):
        return True
    characters = "".join(text.split())
    if _loops(characters, PIECE_COPIES, LOOP_CHARACTERS, PIECE_CHARACTERS):
        return True
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return len(words) >= TRIGRAM_WORDS and len(set(trigrams)) < DISTINCT_TRIGRAMS * len(trigrams)


def _loops(tokens: Sequence[str], copies: int, length: int, longest: int) -> bool:
    """Whether the end is `copies` or more of one piece of at most `longest` tokens, over `length` tokens or more.

    The last copy may be a part of one.
    """
    for piece in range(1, longest + 1):
        equal = 0
        while equal + piece < len(tokens) and tokens[-1 - equal] == tokens[-1 - equal - piece]:
            equal += 1
        if equal + piece >= max(copies * piece, length):
            return True
    return False


def degenerate_gate(before: Shares, after: Shares, max_rise: float) -> Gate:
    """No share may rise by more than `max_rise`. before, after: of the same prompts."""
    # A hair of slack: 0.1 of ten answers is one answer, also in floating point.
    rises = {kind: after.share(kind) - before.share(kind) for kind in KINDS}
    failed = [kind for kind, rise in rises.items() if rise > max_rise + 1e-9 and after.answers >= DECIDING_ANSWERS]
    said = [f"{kind} {getattr(before, kind)} -> {getattr(after, kind)}" for kind in failed or KINDS]
    figures = {f"{kind}_before": float(getattr(before, kind)) for kind in KINDS}
    figures |= {f"{kind}_after": float(getattr(after, kind)) for kind in KINDS}
    return Gate(
        kind=GateKind.DEGENERATE,
        passed=not failed,
        reason=f"{', '.join(said)} of {after.answers} answers",
        figures={**figures, "answers": float(after.answers), "max_rise": max_rise},
    )
