"""Which part of which job goes into a training pass, and what a pass is to predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from common.lora.layers import Span
from common.lora.render import Rendered
from common.lora.update import Update


@dataclass
class Share:
    """What of one job's next step goes into a pass."""

    update: Update
    examples: list[Rendered] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(len(example.tokens) for example in self.examples)


@dataclass
class Aims:
    """What a pass predicts: whose tokens are whose, the positions that count, their weights, and how many a share."""

    spans: list[Span] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


def aims_of(shares: Sequence[Share]) -> Aims:
    aims, start = Aims(), 0
    for share in shares:
        first, before = start, len(aims.positions)
        for example in share.examples:
            # Position t predicts token t + 1.
            aims.positions += [start + t for t, counted in enumerate(example.counted[1:]) if counted]
            start += len(example.tokens)
        aims.spans.append(Span(share.update.slot, first, start))
        aims.counts.append(len(aims.positions) - before)
        targets = sum(example.targets for example in share.update.pending)
        aims.weights += [1.0 / targets] * aims.counts[-1]
    return aims


def cut_into_passes(updates: Sequence[Update], budget: int, room: int) -> list[list[Share]]:
    """Each job's next step, in as few passes as hold it: `room` tokens each, more only for one job's share.

    A step that is larger than the budget is cut as it would be cut if its job were alone: where the cuts lie decides
    which numbers its dropout draws.
    """
    passes: list[list[Share]] = []
    used = 0
    for update in updates:
        for share in shares_of(update, budget):
            if not passes or used + share.tokens > room:
                passes.append([])
                used = 0
            passes[-1].append(share)
            used += share.tokens
    return passes


def shares_of(update: Update, budget: int) -> list[Share]:
    """One job's next step in shares of at most `budget` tokens, more only for a single example."""
    shares: list[Share] = []
    used = budget
    for example in update.pending:
        if used + len(example.tokens) > budget:
            shares.append(Share(update))
            used = 0
        shares[-1].examples.append(example)
        used += len(example.tokens)
    return shares


def step_tokens(update: Update) -> int:
    """Tokens of a job's next step."""
    return sum(len(example.tokens) for example in update.pending)
