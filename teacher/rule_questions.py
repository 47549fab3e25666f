"""Questions made of a sentence by rule, without a model.

A part of the sentence (a name or number, its subject, its last phrase) is replaced by what would be asked for it.
Nothing is invented: what is asked for, and every other word of the question, stands in the sentence. teacher/forms.py
is the caller. Pure functions.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

LONGEST_ANSWER_WORDS = 9
FEWEST_QUESTION_WORDS = 4
CLAUSE_WORDS = 7  # of a question beside what is asked for; a shorter clause takes its neighbour along
CLAUSE_END = re.compile(r"[,;:](?=\s)")
NUMBER = re.compile(r"\b\d+(?:st|nd|rd|th|s)\b|(?:[$€£]\s?)?\b\d(?:[\d,.:]*\d)?\b(?![.,:]?\w)%?")
NAME = re.compile(
    r"\b[A-Z][\w'’.-]*(?:\s+(?:of|the|de|and|for|von|van)(?=\s+[A-Z])|\s+[A-Z][\w'’.-]*|\s+\d+(?![\d%]))*"
)
VERB = re.compile(
    r"\b(?:is|are|was|were|be|has|have|had|can|could|may|might|will|would|should|must|does|do|did|became|began|"
    r"led|made|took|gave|saw|held|found|built|wrote|came|went|grew|fell|won|lost|said|thought|kept|includes?|"
    r"contains?|causes?|means|allows?|plays?|affects?|[a-z]{3,}ed)\b"
)
PREPOSITION = re.compile(
    r"\b(?:after|before|until|since|in|on|at|by|of|to|for|from|with|as|between|into|during|than|over|under|through|about)\b"
)
PRONOUNS = frozenset(re.findall("[a-z]+", "it this that these they he she we there its their his her such some many"))
LETTERS = re.compile("[a-z]+")
ASKING = frozenset(re.findall("[a-z]+", "who what which how many much money or year percentage decade century"))
KEPT = 0.5  # of a shortened question's words
FEWEST_TELLING = 2  # of its words that are more than little ones
LITTLE = 3  # letters


class Made(NamedTuple):
    """A question within its clause, one made of the whole statement with the question word in front, the part that they
    ask for, and the clause that it stands in."""

    question: str
    fronted: str
    part: str
    clause: str


def questions(statement: str, title: str = "") -> list[Made]:
    """What the statement answers, the most telling first; no part is asked for twice."""
    body = statement.strip().rstrip(".!")
    found: dict[str, Made] = {}
    for start, end, asking in _parts(body, title):
        part = body[start:end].strip(" ,;:")
        if not part or len(part.split()) > LONGEST_ANSWER_WORDS or part.lower() in PRONOUNS:
            continue
        first, last = _clause(body, start, end)
        question = _tidy(f"{body[first:start]}{asking}{body[end:last]}")
        if len(question.split()) >= FEWEST_QUESTION_WORDS:
            front = _fronted(body[:start], asking, body[end:])
            clause = f"{_capital(_tidy(body[first:last]))}."
            made = Made(f"{_capital(question)}?", f"{_capital(front)}?", part, clause)
            found.setdefault(part.lower(), made)
    return list(found.values())


def shortened(question: str, draw: random.Random) -> str:
    """The question with about half of its words left out, of those that do not say what kind of thing is asked for.

    Who asks otherwise shares some of its words, and no one knows which: learned from such remnants, a clause is found
    again by any of them. Two telling words stay at least, so a question of few words stays whole.
    """
    body = question.rstrip("?").split()
    left = [place for place, word in enumerate(body) if ASKING.isdisjoint(LETTERS.findall(word.lower()))]
    order = {place: draw.random() for place in left}
    telling = sorted((place for place in left if _telling(body[place])), key=order.__getitem__)
    kept = {place for place in left if order[place] < KEPT} | set(telling[:FEWEST_TELLING])
    said = [word for place, word in enumerate(body) if place in kept or place not in order]
    return f"{_capital(_tidy(re.sub('[()]', '', ' '.join(said))))}?"


def _telling(word: str) -> bool:
    return len(word.strip("(),.;:")) > LITTLE or any(letter.isdigit() for letter in word)


def _fronted(before: str, asking: str, after: str) -> str:
    """The question word first, with the preposition that stood before it."""
    words = before.split()
    preposition = words.pop() if words and PREPOSITION.fullmatch(words[-1].lower()) else ""
    return re.sub(r" (?=[,;:.)])", "", _tidy(" ".join((preposition, asking, *words, after))))


def _tidy(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip(" ,;:")


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _parts(body: str, title: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, what is asked for it) of what can be asked about."""
    for match in NUMBER.finditer(body):
        yield match.start(), match.end(), _number(match.group(), body[match.end() :])
    known = title.lower()
    for match in NAME.finditer(body):
        name = match.group()
        first = name.split()[0].lower()
        if name.lower() in known or name.lower() in PRONOUNS or PREPOSITION.fullmatch(first):
            continue
        if match.start() == 0 and " " not in name:
            continue
        yield match.start(), match.end(), "who or what"
    verb = VERB.search(body)
    if verb is not None and verb.start() > 0:
        yield 0, verb.start(), "Who or what "
    last = [match for match in PREPOSITION.finditer(body) if match.start() > len(body) // 3]
    if last:
        yield last[-1].end(), len(body), " what"
    elif verb is not None:
        yield verb.end(), len(body), " what"


def _clause(body: str, start: int, end: int) -> tuple[int, int]:
    """Where the clause round a part begins and ends: from comma to comma, or further where that says too little."""
    cuts = [0, *(match.end() for match in CLAUSE_END.finditer(body)), len(body)]
    first = max(cut for cut in cuts if cut <= start)
    last = min(cut for cut in cuts if cut >= end)
    while len(f"{body[first:start]} {body[end:last]}".split()) < CLAUSE_WORDS and (first, last) != (0, len(body)):
        if last < len(body):
            last = min(cut for cut in cuts if cut > last)
        else:
            first = max(cut for cut in cuts if cut < first)
    return first, last


def _number(figure: str, after: str) -> str:
    if re.fullmatch(r"1\d{3}|20\d{2}", figure):
        return "which year"
    if figure.endswith("%"):
        return "what percentage"
    if figure.endswith("0s"):
        return "which decade"
    if figure[0] in "$€£":
        return "how much money"
    if re.match(r"\s*(?:st|nd|rd|th)?\s*century", after) or figure.endswith(("st", "nd", "rd", "th")):
        return "which"
    return "how many"
