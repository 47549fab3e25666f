"""What screening compares: words, content words, numbers and names of a text. Pure functions.

Languages with spaces between words are covered; stems and function words are English.
"""

from __future__ import annotations

import re

WORD = re.compile(r"[^\W_]+(?:[.,:'@/’_-]+[^\W_]+)*")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")
SUFFIXES = ("ing", "ed", "es", "s", "er")
FUNCTION_WORDS = frozenset(
    re.findall(
        "[a-z]+",
        """a about after all also an and any are as at be been before being but by can could did do does during each
        for from had has have he her here him his how i if in into is it its itself just may me might more most much
        must my no nor not of off on once one only or other our out over own per shall she should so some such than that
        the their them then there these they this those through to too under until up upon us very via was we were what
        when where whether which while who whom whose why will with within without would you your called kind name many
        long often new now type""",
    )
)
COUNTED = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NUMBER_WORDS = {word: str(value) for value, word in enumerate(re.findall("[a-z]+", COUNTED))}


def words(text: str) -> list[str]:
    """Words in order, lower case, without surrounding punctuation; 10:42 and a@b.example stay whole, 1,900 is 1900."""
    plain = THOUSANDS.sub("", text.lower())
    return [word.removesuffix("'s").removesuffix("’s") for word in WORD.findall(plain)]


def stem(word: str) -> str:
    """Cuts one English ending, if three letters remain."""
    for suffix in SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            return word[: -len(suffix)]
    return word


def content(text: str) -> frozenset[str]:
    """Stems of the words that carry meaning."""
    return frozenset(stem(word) for word in words(text) if word not in FUNCTION_WORDS)


def numbers(text: str) -> frozenset[str]:
    """All figures of a text, and small numbers written as words, in one notation."""
    figures = set(NUMBER.findall(THOUSANDS.sub("", text)))
    return frozenset(figures | {NUMBER_WORDS[word] for word in words(text) if word in NUMBER_WORDS and word != "one"})


def names(text: str) -> frozenset[str]:
    """Words written with a capital where no sentence begins, and words that hold figures; lower case."""
    found: set[str] = set()
    previous_end = ""
    position = 0
    for match in WORD.finditer(text):
        between = text[position : match.start()]
        starts = position == 0 or bool(re.search(r"[.!?:\n\"“]", between)) or previous_end in ".!?"
        word = match.group()
        if (word[0].isupper() and not starts) or (any(c.isdigit() for c in word) and any(c.isalpha() for c in word)):
            found.add(word.lower().removesuffix("'s").removesuffix("’s"))
        position = match.end()
        previous_end = word[-1]
    return frozenset(found - FUNCTION_WORDS)


def holds(text: str, part: str) -> bool:
    """Whether the words of `part` stand in `text` one after another; never for a part without words."""
    haystack, needle = words(text), words(part)
    return bool(needle) and any(
        haystack[start : start + len(needle)] == needle for start in range(len(haystack) - len(needle) + 1)
    )


def overlap(left: frozenset[str], right: frozenset[str]) -> float:
    """Jaccard similarity, 0..1; 1 for two empty sets."""
    union = left | right
    return len(left & right) / len(union) if union else 1.0


def repetition(text: str) -> float:
    """Share of three-word runs that occurred before in the text, 0..1: high when a model is stuck."""
    tokens = words(text)
    runs = [tuple(tokens[i : i + 3]) for i in range(len(tokens) - 2)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
