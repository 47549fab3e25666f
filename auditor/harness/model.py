"""The model class through which lm_eval speaks to a student: its requests become raw prompts and scored options.

lm_eval is imported here: import this module where a task is used. Source of every convention: HFLM and TemplateLM of
lm-evaluation-harness; whatever concerns tokens (joint tokenization, spaces, empty contexts) is the student's affair.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from lm_eval.api.model import LM

from auditor.harness.asking import Voice, Wish, choices_of, cut, wish_of
from common.versions import OptionScore


class StudentModel(LM):  # type: ignore[misc] # lm_eval is optional
    """One version of a student. Runs on a thread of its own; `voice` does the asking."""

    def __init__(self, voice: Voice) -> None:
        super().__init__()
        self._voice = voice

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """(nats, whether greedy decoding would say it) of each (context, continuation)."""
        pairs = [(str(context), str(continuation)) for context, continuation in (r.args for r in requests)]
        choices = choices_of(pairs)
        found: dict[tuple[str, str], OptionScore] = {}
        for choice, scores in zip(choices, self._voice.score(choices), strict=True):
            found |= {(choice.context, option): score for option, score in zip(choice.options, scores, strict=True)}
        return [(found[pair].log_likelihood, found[pair].greedy) for pair in pairs]

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        """Nats of each text as a whole, of at most 16,384 characters and the model's room; longer ones are refused."""
        whole = [(("", str(text)),) for (text,) in (r.args for r in requests)]
        choices = [choices_of(pair)[0] for pair in whole]
        return [scores[0].log_likelihood for scores in self._voice.score(choices)]

    def generate_until(self, requests: list[Any]) -> list[str]:
        """What follows each context, up to the first of its stops."""
        wishes: defaultdict[Wish, list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            wishes[wish_of(request.args[1])].append(place)
        texts: dict[int, str] = {}
        for wish, places in wishes.items():
            written = self._voice.write([str(requests[place].args[0]) for place in places], wish.sampling)
            texts |= {place: cut(text, wish.stops) for place, text in zip(places, written, strict=True)}
        return [texts[place] for place in range(len(requests))]
