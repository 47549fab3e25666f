"""Scores texts with whatever version is active: log-likelihoods, and next-token distributions for the KL from the base.

Shapes: N scored positions, V words. Everything is in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from common.errors import Cancelled, InvalidRequest, Violation
from common.lora.forward import Batch, LogitModel, chosen_positions, passes
from common.lora.render import Renderer, TurnsRefused
from common.types import Conversation


@dataclass(frozen=True)
class ScoredText:
    """Log-likelihood of a continuation: sum over its tokens, how many, and whether greedy decoding would say it."""

    log_likelihood: float
    tokens: int
    greedy: bool


@dataclass(frozen=True)
class Continuation:
    """A prompt and one text that the assistant may answer it with; `path` names it in error messages."""

    conversation: Conversation
    text: str
    path: str = "continuation"


class Scorer:
    """Scores on whatever adapter is active. Used by LoraEngine and by the liveness proof."""

    def __init__(
        self, logits: LogitModel, renderer: Renderer, device: torch.device, budget: int, max_positions: int
    ) -> None:
        self._logits = logits
        self._renderer = renderer
        self._device = device
        self._budget = budget
        self._max_positions = max_positions

    def render(self, continuations: Sequence[Continuation]) -> list[tuple[tuple[int, ...], int]]:
        """Token ids of prompt and continuation, and where the continuation begins. Raises InvalidRequest."""
        rendered = []
        for continuation in continuations:
            self._refuse(self._renderer.refused(continuation.conversation, continuation.path))
            try:
                tokens, start = self._renderer.continued(
                    continuation.conversation, continuation.text, room=self._max_positions
                )
            except TurnsRefused as error:
                raise InvalidRequest([Violation(continuation.path, error.message)]) from None
            if len(tokens) == start:
                raise InvalidRequest([Violation(continuation.path, "has no token")])
            rendered.append((tokens, start))
        self._check_lengths([(c.path, tokens) for c, (tokens, _) in zip(continuations, rendered, strict=True)])
        return rendered

    def render_prompts(self, conversations: Sequence[Conversation], path: str) -> list[tuple[int, ...]]:
        """Token ids of whole prompts. Raises InvalidRequest that names those too long for the model."""
        rendered = []
        for place, conversation in enumerate(conversations):
            tokens, refused = self._renderer.question(
                conversation, f"{path}[{place}].conversation", room=self._max_positions
            )
            self._refuse(refused)
            rendered.append(tokens)
        self._check_lengths([(f"{path}[{place}]", tokens) for place, tokens in enumerate(rendered)])
        return rendered

    def _check_lengths(self, named: Sequence[tuple[str, Sequence[int]]]) -> None:
        violations = [
            Violation(path, f"has {len(tokens)} tokens; the model takes {self._max_positions}")
            for path, tokens in named
            if len(tokens) > self._max_positions
        ]
        self._refuse(violations)

    def _refuse(self, violations: Sequence[Violation]) -> None:
        if violations:
            raise InvalidRequest(list(violations))

    @torch.inference_mode()
    def score(
        self, rendered: Sequence[tuple[tuple[int, ...], int]], cancelled: Callable[[], bool] = lambda: False
    ) -> list[ScoredText]:
        """Log-likelihoods of the continuations, in order."""
        scored: dict[int, ScoredText] = {}
        for cut in passes([len(tokens) for tokens, _ in rendered], budget=self._budget):
            check(cancelled)
            rows = [list(range(rendered[i][1] - 1, len(rendered[i][0]) - 1)) for i in cut]
            log_probs_NV, targets_N = self._log_probs([rendered[i][0] for i in cut], rows)
            chosen_N = log_probs_NV.gather(1, targets_N[:, None])[:, 0]
            right_N = log_probs_NV.argmax(dim=1) == targets_N
            start = 0
            for i, row in zip(cut, rows, strict=True):
                end = start + len(row)
                likelihood = float(chosen_N[start:end].double().sum())
                scored[i] = ScoredText(likelihood, len(row), bool(right_N[start:end].all()))
                start = end
        return [scored[i] for i in range(len(rendered))]

    @torch.inference_mode()
    def token_log_probs(self, sequences: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """Log-probability of every token after a sequence's first, all sequences in one row (N)."""
        log_probs_NV, targets_N = self._log_probs(sequences, [list(range(len(s) - 1)) for s in sequences])
        return log_probs_NV.gather(1, targets_N[:, None])[:, 0].double().cpu()

    @torch.inference_mode()
    def distributions(self, tokens: tuple[int, ...]) -> torch.Tensor:
        """Log-probabilities of the next token after each token of one sequence (T x V)."""
        batch = Batch.of([tokens], self._device)
        every = torch.arange(len(tokens), device=self._device)
        return self._logits.logits(batch, every).log_softmax(dim=-1)

    def _log_probs(
        self, sequences: Sequence[Sequence[int]], rows: Sequence[Sequence[int]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch = Batch.of(sequences, self._device)
        chosen_N = chosen_positions(rows, batch.tokens_BT.shape[1]).to(self._device)
        targets_N = batch.tokens_BT.flatten().index_select(0, chosen_N + 1)
        return self._logits.logits(batch, chosen_N).log_softmax(dim=-1), targets_N


def kl_per_token(version_TV: torch.Tensor, base_TV: torch.Tensor) -> float:
    """KL(version || base) of next-token log-probabilities, mean over tokens, in nats; never below 0."""
    kl = (version_TV.exp() * (version_TV - base_TV)).sum(dim=-1).double().mean()
    return max(0.0, float(kl))


def check(cancelled: Callable[[], bool]) -> None:
    """Raises Cancelled once the caller no longer wants the scores."""
    if cancelled():
        raise Cancelled("scoring was called off")
