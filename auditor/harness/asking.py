"""What lm_eval's requests are in the contract's terms: prompts with sampling and stops, contexts with options. Pure.

auditor/harness/model.py calls this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from common.canonical import digest_of
from common.errors import InvalidRequest, Violation
from common.types import Sampling
from common.versions import OptionScore

# Of Sampling.stop.
MAX_STOPS, MAX_STOP_CHARACTERS = 8, 64
DEFAULT_NEW_TOKENS = 256  # lm_eval's
LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
# Of no effect on one greedy answer.
IDLE_WHEN_GREEDY = frozenset({"top_p", "top_k", "min_p"})


class Voice(Protocol):
    """A version that can be asked, from a thread that may wait."""

    def write(self, texts: Sequence[str], sampling: Sampling) -> list[str]:
        """What follows each raw text."""
        ...

    def score(self, choices: Sequence[Choice]) -> list[tuple[OptionScore, ...]]:
        """Each choice's options, scored in its order."""
        ...


@dataclass(frozen=True)
class Choice:
    """A raw text, and texts that may follow it."""

    context: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """How a text is to be written, and every string at which it ends: more than a student may take."""

    sampling: Sampling
    stops: tuple[str, ...]


def wish_of(generation: Mapping[str, object]) -> Wish:
    """A task's generation_kwargs. Raises InvalidRequest for what the contract does not have.

    Source: normalize_gen_kwargs of lm-evaluation-harness, whose defaults and precedence these are.
    """
    rest = dict(generation)
    until = rest.pop("until", None) or []
    stops = tuple(dict.fromkeys(str(stop) for stop in (until if isinstance(until, list) else [until]) if stop))
    lengths = [value for name in LENGTHS if (value := rest.pop(name, None)) is not None]
    length = int(str(lengths[0])) if lengths else DEFAULT_NEW_TOKENS
    temperature = float(str(rest.pop("temperature", None) or 0.0))
    if rest.pop("do_sample", None) is False:
        temperature = 0.0
    top_p = float(str(rest.pop("top_p", None) or 1.0))
    greedy = temperature == 0.0
    unknown = {name for name in rest if not (greedy and name in IDLE_WHEN_GREEDY)}
    unknown -= {"num_beams"} if rest.get("num_beams") == 1 else set()
    if unknown:
        raise InvalidRequest([Violation(f"generation_kwargs.{name}", "is not supported") for name in sorted(unknown)])
    if not 1 <= length <= 4_096 or not 0 <= temperature <= 2:
        raise InvalidRequest([Violation("generation_kwargs", "needs 1..4,096 new tokens and a temperature of 0..2")])
    sampling = Sampling(
        temperature=temperature, top_p=1.0 if greedy else top_p, max_new_tokens=length, stop=sendable(stops), seed=0
    )
    return Wish(sampling, stops)


def check(texts: Sequence[str], options: Sequence[str] = ()) -> None:
    """Raises InvalidRequest for texts that the contract has no room for."""
    for name, found, least, most in (("prompt", texts, 0, 65_536), ("option", options, 1, 16_384)):
        for text in found:
            if not least <= len(text) <= most:
                raise InvalidRequest([Violation(name, f"has {len(text)} characters; {least}..{most:,} can be asked")])


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before each stop, one after another, as lm_eval cuts: where stops overlap, their order decides."""
    for stop in stops:
        text = text.split(stop, maxsplit=1)[0]
    return text


def sendable(stops: Sequence[str]) -> tuple[str, ...]:
    """Stops at which a student may end a text without changing what `cut` makes of it: enough, not all of them.

    One that begins with another adds nothing. Of those that overlap otherwise the student could not tell which counts.
    """
    needed = [stop for stop in stops if not any(stop != other and stop.startswith(other) for other in stops)]
    apart = [stop for stop in needed if not any(_overlap(stop, other) or _overlap(other, stop) for other in needed)]
    return tuple(stop for stop in apart if len(stop) <= MAX_STOP_CHARACTERS)[:MAX_STOPS]


def _overlap(first: str, second: str) -> bool:
    """Whether the second can begin within the first, after its start."""
    return first != second and any(
        first[k:].startswith(second) or second.startswith(first[k:]) for k in range(1, len(first))
    )


def choices_of(pairs: Sequence[tuple[str, str]], most: int = 64) -> list[Choice]:
    """(context, continuation) pairs as choices, those of one context together, each once.

    A choice's options stand in the order of their digests: a data set may always put the right one first.
    """
    by_context: dict[str, dict[str, None]] = {}
    for context, continuation in pairs:
        by_context.setdefault(context, {})[continuation] = None
    choices = []
    for context, found in by_context.items():
        options = sorted(found, key=lambda option: digest_of([context, option]).sha256)
        choices += [Choice(context, tuple(options[i : i + most])) for i in range(0, len(options), most)]
    return choices
