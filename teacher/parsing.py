"""Turns what a model wrote into pieces: documents, statements, question-and-answer pairs.

Rules of SEAL.md: a completion is split at `---`; without one, every non-empty line is a document of its own; list
bullets and numbers are stripped. What the length limit cut off is dropped, never trained on. Variants are the callers.
"""

from __future__ import annotations

import re

SEPARATOR = re.compile(r"^\s*-{3,}\s*$", re.MULTILINE)
BULLET = re.compile(r"^\s*(?:[-*•‣–]+|\(?\d{1,3}[.):]|\(?[a-zA-Z][.)])\s+")
LABEL = re.compile(r"^\s*[*_#>\s]*(question|answer|q|a)\s*\d{0,3}\s*[*_]*\s*[:.)]\s*[*_]*\s*(.*)$", re.IGNORECASE)
HEADING = re.compile(r"^\s*#{1,6}\s+|^[^.?!]{1,80}:\s*$")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])")
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|No|Nr|vs|etc|e\.g|i\.e|approx|Inc|Ltd|Jr|Sr|[A-Z])\.$")


def documents(completion: str, *, finished: bool) -> list[str]:
    """The documents of a completion: its blocks between `---` lines, or else its lines without list marks.

    An unfinished last document is left out, and so are headings ("Implications:").
    """
    blocks = SEPARATOR.split(completion)
    pieces = blocks if len(blocks) > 1 else completion.split("\n")
    if not finished:
        pieces = pieces[:-1]
    stripped = [BULLET.sub("", piece.strip()).strip() for piece in pieces]
    return [piece for piece in stripped if piece and not ("\n" not in piece and HEADING.match(piece))]


def pairs(completion: str, *, finished: bool) -> list[tuple[str, str]]:
    """Question-and-answer pairs of "Question: ... Answer: ..." lines, in either notation (Q:, **Question 1:**).

    A question without an answer yields nothing; an unfinished last line is left out.
    """
    lines = completion.split("\n")
    if not finished:
        lines = lines[:-1]
    found: list[tuple[str, str]] = []
    question = answer = ""
    part = ""
    for line in [*lines, "Question:"]:
        label = LABEL.match(BULLET.sub("", line))
        if label is None:
            text = line.strip()
            if not text or SEPARATOR.match(line):
                part = ""
            elif part == "a":
                answer = f"{answer} {text}".strip()
            elif part == "q":
                question = f"{question} {text}".strip()
            continue
        part = label.group(1)[0].lower()
        text = label.group(2).strip().strip("*_").strip()
        if part == "a":
            answer = text
        else:
            if question and answer:
                found.append((question, answer))
            question, answer = text, ""
    return found


def sentences(text: str) -> list[str]:
    """Sentences of a text in order; lines end sentences too, and common abbreviations do not."""
    found: list[str] = []
    for line in text.split("\n"):
        held = ""
        for piece in SENTENCE_END.split(BULLET.sub("", line).strip()):
            held = f"{held} {piece}".strip()
            if not ABBREVIATION.search(held):
                found.append(held)
                held = ""
        if held:
            found.append(held)
    return [sentence for sentence in found if sentence]


def passages(text: str, longest: int) -> list[str]:
    """A text in pieces of at most `longest` characters, cut between lines or sentences where that is possible."""
    pieces: list[str] = []
    held = ""
    for unit in _units(text, longest):
        if held and len(held) + len(unit) > longest:
            pieces.append(held.strip())
            held = ""
        held += unit
    return [piece for piece in [*pieces, held.strip()] if piece]


def _units(text: str, longest: int) -> list[str]:
    units: list[str] = []
    for line in text.splitlines(keepends=True):
        rest = line
        while len(rest) > longest:
            cut = max((m.end() for m in SENTENCE_END.finditer(rest, 0, longest)), default=0)
            cut = cut or rest.rfind(" ", 1, longest) + 1 or longest
            units.append(rest[:cut])
            rest = rest[cut:]
        units.append(rest)
    return units
