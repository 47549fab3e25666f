"""Recorded completions as training examples: as published, and in the form in which questions are asked later.

`reference_documents` is the published reading (SEAL.md): plain texts under the title, the passage one more. `asked`
makes questions out of statements by rule, so that a model can use what it learned when asked: a part of the statement
(a name or number, its subject, its last phrase) is replaced by what would be asked for it; the answer is that part, its
clause or its sentence. Nothing is invented: every answer stands in a statement or in the passage. Pure functions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from pydantic import Field

from common.config import Config
from common.prompting import question_and_answer
from common.types import Example
from teacher.parsing import SEPARATOR, documents, pairs, sentences
from teacher.pieces import Candidate, Question, Statement, example_of

MAX_DOCUMENTS = 30  # of an edit (SEAL.md: later versions cap there)
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
HEADING = re.compile(r"^\*\*[^*]+(?::\*\*|\*\*:)\s*|\*\*")
WORD = re.compile(r"\w+")
SHORT_WORD = 3  # letters; shorter ones say little about what a clause is about
ALIKE = 0.5  # of a clause's telling words, for a clause of the passage to say the same
AnswerForm = Literal["part", "clause", "sentence", "passage"]
PRONOUNS = frozenset(re.findall("[a-z]+", "it this that these they he she we there its their his her such some many"))


class FormSettings(Config):
    """What a completion becomes."""

    plain: bool = Field(default=False, description="its statements and the passage as plain text under the title")
    asked: bool = Field(default=True, description="questions made of statements and passage by rule, with answers")
    per_statement: int = Field(default=2, ge=0, le=8)
    per_sentence: int = Field(default=4, ge=0, le=8)
    answer: AnswerForm = Field(
        default="part",
        description="how much of its sentence an answer says; passage: the clause of the passage that says the same",
    )
    fronted: bool = Field(
        default=False,
        description="each question once more, of the whole statement, with what is asked for at its beginning",
    )


class Made(NamedTuple):
    """A question within its clause, one made of the whole statement with the question word in front, the part that they
    ask for, and the clause that it stands in."""

    question: str
    fronted: str
    part: str
    clause: str


def reference_documents(completion: str, title: str, context: str) -> list[str]:
    """The published reading of a completion: its questions with their answers, if it is made of them; or its blocks
    between `---` lines, or each line that is not empty.

    Every document stands under the title; the passage itself is the last one.
    """
    blocks = SEPARATOR.split(completion)
    pieces = [f"Question: {question}\nAnswer: {answer}" for question, answer in pairs(completion, finished=True)]
    pieces = pieces or (blocks if len(blocks) > 1 else completion.split("\n"))
    kept = [piece.strip() for piece in pieces if piece.strip()][:MAX_DOCUMENTS]
    return [f"{title}\n{piece}" for piece in (*kept, context)]


def statements(completion: str) -> list[str]:
    """What a completion states, without list marks and headings; the same statement once.

    A line that was cut off is left out, and one that asks or only announces.
    """
    finished = completion.rstrip().endswith((".", "!", "?", '"'))
    found = (HEADING.sub("", line) for line in documents(completion, finished=finished))
    return list(dict.fromkeys(line for line in found if line and not line.endswith(("?", ":"))))[:MAX_DOCUMENTS]


def pieces_of(completions: Sequence[str], context: str) -> list[Candidate]:
    """What completions say, each once: their questions with answers, or the statements of those that have none."""
    found: dict[Candidate, None] = {}
    for completion in completions:
        written: list[Candidate] = [Question(*pair, context) for pair in pairs(completion, finished=True)]
        found |= dict.fromkeys(written or [Statement(text, context) for text in statements(completion)])
    return list(found)


def formed(pieces: Sequence[Candidate], title: str, context: str, forms: FormSettings) -> list[Example]:
    """Written questions as they are; statements, and the passage with them, in the forms that are set."""
    examples = [example_of(piece, title) for piece in pieces if isinstance(piece, Question)]
    stated = [piece.text for piece in pieces if isinstance(piece, Statement)]
    if not stated and examples:
        return examples
    examples += plain(stated, title, context) if forms.plain else []
    if forms.asked:
        examples += asked(
            stated,
            title,
            context,
            per_statement=forms.per_statement,
            per_sentence=forms.per_sentence,
            answer=forms.answer,
            fronted=forms.fronted,
        )
    return examples


def plain(stated: Sequence[str], title: str, context: str) -> list[Example]:
    """The statements and the passage as plain text under the title."""
    return [Example(text=f"{title}\n{text}") for text in (*stated, context)]


def asked(
    stated: Sequence[str],
    title: str,
    context: str,
    *,
    per_statement: int = 2,
    per_sentence: int = 4,
    answer: AnswerForm = "part",
    fronted: bool = False,
) -> list[Example]:
    """Questions made of the statements and of the passage's sentences, at most so many of each, with their answers."""
    sources = {**dict.fromkeys(stated, per_statement), **dict.fromkeys(sentences(context), per_sentence)}
    clauses = [made.clause for sentence in sentences(context) for made in questions(sentence, title)]
    examples: dict[tuple[str, ...], Example] = {}
    for source, most in sources.items():
        for made in questions(source, title)[:most]:
            said = {"part": f"{made.part}.", "clause": made.clause, "sentence": source}.get(answer)
            said = said or same_said(made, clauses)
            for question in (made.question, made.fronted) if fronted else (made.question,):
                example = question_and_answer(title, question, said, source)
                examples.setdefault(example.texts, example)
    return list(examples.values())


def same_said(made: Made, clauses: Sequence[str]) -> str:
    """The clause that names the part and has most words of its own clause; the own one where none has half of them."""
    own = _telling(made.clause)
    alike = {clause: len(own & _telling(clause)) for clause in clauses if made.part.lower() in clause.lower()}
    best = max(alike, key=alike.__getitem__, default=made.clause)
    return best if alike.get(best, 0) >= ALIKE * len(own) else made.clause


def _telling(text: str) -> set[str]:
    return {word for word in WORD.findall(text.lower()) if len(word) > SHORT_WORD or word.isdigit()}


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
