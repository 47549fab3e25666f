"""All questions of all passages, put to one version: in the same words, graded alike, whoever answers.

Answers are plain greedy output of at most ANSWER_TOKENS tokens; they are kept as texts, to be graded again at will.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch

from auditor.graders.lexical import grade
from benchmarks.passages import Passage
from common.lora.render import Renderer
from common.silence import is_empty
from common.types import Domain, Prompt

ANSWER_TOKENS = 32


class Answers(Domain):
    """texts: of each passage, in the order of the passages, an answer to each question."""

    texts: tuple[tuple[str, ...], ...]

    @property
    def empty(self) -> int:
        return sum(is_empty(text) for texts in self.texts for text in texts)

    def shares(self, passages: Sequence[Passage]) -> tuple[float, ...]:
        """Of each passage the share of questions answered right."""
        return tuple(
            fmean(grade(text, item) for text, item in zip(texts, passage.items(), strict=True))
            for texts, passage in zip(self.texts, passages, strict=True)
        )


def prompts_of(passages: Sequence[Passage]) -> list[Prompt]:
    """Every question, passage by passage."""
    return [prompt for passage in passages for prompt in passage.prompts()]


def by_passage(passages: Sequence[Passage], texts: Sequence[str]) -> Answers:
    """Answers to `prompts_of(passages)`, sorted to their passages."""
    rest = iter(texts)
    return Answers(texts=tuple(tuple(next(rest) for _ in passage.questions) for passage in passages))


@torch.inference_mode()
def answer_greedily(model: Any, renderer: Renderer, prompts: Sequence[Prompt], *, pad: int) -> list[str]:
    """What a bare transformers model says to each prompt, rendered as the student renders it."""
    rendered = [renderer.prompt(prompt.conversation) for prompt in prompts]
    longest = max(len(tokens) for tokens in rendered)
    tokens_BT = torch.tensor([[pad] * (longest - len(tokens)) + list(tokens) for tokens in rendered])
    seen_BT = torch.tensor([[0] * (longest - len(tokens)) + [1] * len(tokens) for tokens in rendered])
    written_BT = model.generate(
        input_ids=tokens_BT,
        attention_mask=seen_BT,
        do_sample=False,
        max_new_tokens=ANSWER_TOKENS,
        eos_token_id=sorted(renderer.stop_tokens),
        pad_token_id=pad,
    )
    return [_spoken(row, renderer) for row in written_BT[:, longest:].tolist()]


def _spoken(tokens: list[int], renderer: Renderer) -> str:
    end = next((place for place, token in enumerate(tokens) if token in renderer.stop_tokens), None)
    return renderer.decode(tokens[:end])
