"""Answers prompts with any number of versions in one batch: each row of it has its own adapter, or none (the base).

A batch holds rows of about one length, a version's together, padded on the left; padding is masked out, and a sequence
leaves its batch as soon as it has ended. Sampling draws from a generator of each prompt's own, so a text does not
depend on which prompts shared its batch (beyond the last bits that a batch's shape leaves in floating point).

Shapes: B sequences, T tokens, V words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from transformers import DynamicCache

from common.canonical import derive_seed
from common.errors import Cancelled, InvalidRequest, Violation
from common.lora.attachment import AttachedModel
from common.lora.forward import passes
from common.lora.layers import Span
from common.lora.render import Renderer
from common.lora.residency import BASE_VERSION
from common.lora.stacking import Stack
from common.types import Prompt, Sampling
from common.versions import FinishReason

DEFAULT_NEW_TOKENS = 128


@dataclass(frozen=True)
class GeneratedText:
    """`index` is the prompt's place in the request; `tokens` counts the text's tokens, without its end of turn."""

    index: int
    text: str
    tokens: int
    finish_reason: FinishReason


@dataclass
class _Sequence:
    index: int
    version: str
    prompt: tuple[int, ...]
    generator: torch.Generator
    tokens: list[int] = field(default_factory=list)


class Answerer:
    """Generates on an attached model. Used by LoraEngine."""

    def __init__(self, attached: AttachedModel, renderer: Renderer, token_budget: int) -> None:
        self._attached = attached
        self._renderer = renderer
        self._budget = token_budget
        self._device = attached.base.device

    def render(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, limit: int | None = None
    ) -> list[tuple[int, ...]]:
        """Token ids of all prompts. `limit`: tokens of prompt and answer, where that is less than the model's.

        Raises InvalidRequest naming each that leaves no room for its answer, holds a control token, or has no form.
        """
        positions = self._attached.base.max_positions
        room = min(positions, limit or positions) - new_tokens(sampling)
        questions = [
            self._renderer.question(prompt.conversation, f"prompts[{i}].conversation", room=max(1, room))
            for i, prompt in enumerate(prompts)
        ]
        rendered = [tokens for tokens, _ in questions]
        violations = [violation for _, refused in questions for violation in refused]
        violations += [
            Violation(
                f"prompts[{i}].conversation", f"has {len(tokens)} tokens; with its answer there is room for {room}"
            )
            for i, tokens in enumerate(rendered)
            if len(tokens) > room
        ]
        if violations:
            raise InvalidRequest(violations)
        return rendered

    def generate(
        self,
        versions: Sequence[str],
        prompts: Sequence[Prompt],
        rendered: Sequence[tuple[int, ...]],
        sampling: Sampling,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[str, GeneratedText]]:
        """(version, answer) in the order in which they end; the versions are attached.

        Raises Cancelled at the next token once `cancelled()` says so.
        """
        asked = [(version, i) for i in range(len(rendered)) for version in versions]
        lengths = [len(rendered[i]) + new_tokens(sampling) for _, i in asked]
        for cut in passes(lengths, budget=self._budget):
            # Rows of one version stand together, so that its factors are read once a layer.
            rows = sorted((asked[place] for place in cut), key=lambda row: versions.index(row[0]))
            sequences = [
                _Sequence(
                    i,
                    version,
                    rendered[i],
                    torch.Generator().manual_seed(derive_seed(sampling.seed, prompts[i].prompt_id)),
                )
                for version, i in rows
            ]
            try:
                yield from self._batch(sequences, sampling, cancelled)
            finally:
                self._attached.unstack()

    @torch.inference_mode()
    def _batch(
        self, running: list[_Sequence], sampling: Sampling, cancelled: Callable[[], bool]
    ) -> Iterator[tuple[str, GeneratedText]]:
        tokens_BT, attention_BT = self._left_padded(running)
        positions_BT = (attention_BT.cumsum(1) - 1).clamp(min=0)
        cache = DynamicCache(config=self._attached.model.config)
        spans = _spans(running)
        stack = Stack.of(spans, tokens_BT.shape[1], self._device)
        for step in range(new_tokens(sampling)):
            if cancelled():
                raise Cancelled("answering was called off")
            with self._attached.layout.holding(spans, rows=len(running), width=tokens_BT.shape[1], stack=stack):
                logits_BV = self._attached.model(
                    input_ids=tokens_BT,
                    attention_mask=attention_BT,
                    position_ids=positions_BT,
                    past_key_values=cache,
                    use_cache=True,
                    logits_to_keep=1,
                ).logits[:, -1]
            drawn = self._draw(logits_BV, running, sampling)
            staying = []
            for row, (sequence, token) in enumerate(zip(running, drawn, strict=True)):
                ended = self._ended(sequence, token, sampling)
                if ended is None:
                    staying.append(row)
                else:
                    yield sequence.version, ended
            if not staying:
                return
            if len(staying) < len(running):
                keep = torch.tensor(staying, device=self._device)
                cache.batch_select_indices(keep)
                attention_BT, positions_BT = attention_BT[keep], positions_BT[keep]
                running = [running[row] for row in staying]
                spans = _spans(running)
            if step == 0 or len(staying) < len(drawn):
                # From now on a row is one token.
                stack = Stack.of(spans, 1, self._device, stack)
            tokens_BT = torch.tensor([[sequence.tokens[-1]] for sequence in running], device=self._device)
            attention_BT = torch.cat([attention_BT, attention_BT.new_ones((len(running), 1))], dim=1)
            positions_BT = positions_BT[:, -1:] + 1

    def _ended(self, sequence: _Sequence, token: int, sampling: Sampling) -> GeneratedText | None:
        """Takes up the drawn token; the finished text if the sequence ends with it."""
        if token in self._renderer.stop_tokens:
            return self._finish(sequence, FinishReason.STOP)
        sequence.tokens.append(token)
        if sampling.stop:
            text = self._renderer.decode(sequence.tokens)
            cuts = [text.find(stop) for stop in sampling.stop if stop in text]
            if cuts:
                return GeneratedText(sequence.index, text[: min(cuts)], len(sequence.tokens), FinishReason.STOP)
        if len(sequence.tokens) >= new_tokens(sampling):
            return self._finish(sequence, FinishReason.LENGTH)
        return None

    def _finish(self, sequence: _Sequence, reason: FinishReason) -> GeneratedText:
        text = self._renderer.decode(sequence.tokens)
        return GeneratedText(sequence.index, text, len(sequence.tokens), reason)

    def _left_padded(self, sequences: Sequence[_Sequence]) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(len(sequence.prompt) for sequence in sequences)
        tokens_BT = torch.zeros((len(sequences), longest), dtype=torch.long)
        attention_BT = torch.zeros_like(tokens_BT)
        for row, sequence in enumerate(sequences):
            tokens_BT[row, longest - len(sequence.prompt) :] = torch.tensor(sequence.prompt)
            attention_BT[row, longest - len(sequence.prompt) :] = 1
        return tokens_BT.to(self._device), attention_BT.to(self._device)

    @staticmethod
    def _draw(logits_BV: torch.Tensor, sequences: Sequence[_Sequence], sampling: Sampling) -> list[int]:
        if sampling.temperature == 0:
            return list(logits_BV.argmax(dim=-1).tolist())
        return [
            _sample(logits_V, sampling, sequence.generator)
            for logits_V, sequence in zip(logits_BV.float().cpu(), sequences, strict=True)
        ]


def _spans(rows: Sequence[_Sequence]) -> list[Span]:
    """Rows of one version after another; the base's have no span."""
    spans: list[Span] = []
    for row, sequence in enumerate(rows):
        if sequence.version == BASE_VERSION:
            continue
        if spans and spans[-1].name == sequence.version and spans[-1].end == row:
            spans[-1] = Span(sequence.version, spans[-1].start, row + 1)
        else:
            spans.append(Span(sequence.version, row, row + 1))
    return spans


def new_tokens(sampling: Sampling) -> int:
    """Longest answer in tokens that a request asks for."""
    return sampling.max_new_tokens or DEFAULT_NEW_TOKENS


def _sample(logits_V: torch.Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One draw at the temperature from the smallest set of tokens that holds `top_p` of the probability."""
    probabilities_V, order_V = (logits_V / sampling.temperature).softmax(dim=-1).sort(descending=True, stable=True)
    before_V = probabilities_V.cumsum(dim=-1) - probabilities_V
    probabilities_V = probabilities_V.masked_fill(before_V >= sampling.top_p, 0.0)
    return int(order_V[torch.multinomial(probabilities_V, 1, generator=generator)])
