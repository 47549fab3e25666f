"""Trains many adapters at once on one frozen base (SEAL's inner update, and the teacher's M-step).

The sequences of several jobs stand packed in one row, each job's tokens together, so that the base runs over all of
them at once while every job has its own factors, gradients, optimizer, schedule and clip norm. Jobs are taken up
longest first, as many as the token budget holds; one that has ended makes room for the next (continuous batching). A
job that fails never touches the others: nothing is ever summed over jobs. Trained alone, the same (parent, examples,
recipe, seed, kind of device, threads) gives the same bytes; in company, the same to the last bits that a batch's shape
leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from common.errors import Cancelled, InvalidRequest
from common.lora.adapter_format import AdapterSpec
from common.lora.attachment import AttachedModel
from common.lora.config import EngineConfig
from common.lora.forward import LogitModel
from common.lora.layers import Span
from common.lora.packing import Packed, hidden_states, packed_attention
from common.lora.render import ExampleRefused, Rendered, Renderer, checked
from common.lora.update import NotFinite, TrainedAdapter, TrainJob, Update, set_
from common.types import Recipe

NON_FINITE = "NON_FINITE_LOSS"


@dataclass(frozen=True)
class FailedJob:
    """Why a job has no adapter: a constant for machines and a sentence without any content of the examples."""

    job_id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class TrainProgress:
    """How far a job is; `job` of `jobs` have ended, `loss` is the last step's."""

    job_id: str
    job: int
    jobs: int
    step: int
    steps: int
    loss: float
    tokens_per_second: float


Outcome = TrainedAdapter | FailedJob
Report = Callable[[TrainProgress], None]


@dataclass
class _Share:
    """What of one job's next step goes into a pass."""

    update: Update
    examples: list[Rendered] = field(default_factory=list)


class Trainer:
    """Runs jobs on an attached model. Used by LoraEngine."""

    def __init__(self, attached: AttachedModel, logits: LogitModel, renderer: Renderer, config: EngineConfig) -> None:
        self._attached = attached
        self._logits = logits
        self._renderer = renderer
        self._budget = config.train_tokens
        self._device = attached.base.device

    def train(
        self,
        jobs: Sequence[TrainJob],
        report: Report = lambda _: None,
        cancelled: Callable[[], bool] = lambda: False,
        ended: Callable[[Outcome], None] = lambda _: None,
    ) -> list[Outcome]:
        """One result or failure a job, in order. Raises Cancelled at the next step once `cancelled()` says so."""
        work = _Work(self._attached, self._budget, report, ended)
        for number, job in enumerate(jobs):
            try:
                work.waiting.append((number, job, self._rendered(job)))
            except (ExampleRefused, InvalidRequest) as error:
                work.end(number, FailedJob(job.job_id, error.reason, error.message))
        work.total = len(jobs)
        # Longest first: what is long would otherwise be trained alone at the end.
        work.waiting.sort(key=lambda entry: (-_total_tokens(entry[1], entry[2]), entry[0]))
        try:
            with packed_attention(self._attached.model), torch.enable_grad():
                while work.active or work.waiting:
                    work.fill()
                    if work.active and cancelled():
                        raise Cancelled("training was called off")
                    self._round(work)
        finally:
            for update in work.active.values():
                self._attached.detach(update.slot)
        return [work.outcomes[number] for number in range(len(jobs))]

    def _rendered(self, job: TrainJob) -> list[Rendered]:
        limit = min(set_(job.recipe.max_tokens), self._attached.base.max_positions)
        return [
            checked(example, max_tokens=limit)
            if isinstance(example, Rendered)
            else self._renderer.example(example, max_tokens=limit)
            for example in job.examples
        ]

    def _round(self, work: _Work) -> None:
        """One step of every job that is under way, in as few passes as the budget allows."""
        losses = dict.fromkeys(work.active, 0.0)
        too_large: set[int] = set()
        for shares in cut_into_passes(list(work.active.values()), self._budget):
            for share in shares:
                share.update.alone = share.update.alone and len(shares) == 1
            try:
                for number, loss in zip(work.numbers(shares), self._pass(shares), strict=True):
                    losses[number] += loss
            except torch.OutOfMemoryError:
                too_large.update(work.numbers(shares))
        for number, update in list(work.active.items()):
            if number in too_large:
                detail = "the device has not enough memory for this update"
                work.leave(number, update, FailedJob(update.job.job_id, "OUT_OF_MEMORY", detail))
            else:
                work.step(number, update, losses[number])

    def _pass(self, shares: Sequence[_Share]) -> list[float]:
        """Adds gradients of the mean loss a counted token of each job's step; returns each share's summed loss."""
        packed = Packed.of([example.tokens for share in shares for example in share.examples], self._device)
        aims = _aims(shares)
        chosen_M = torch.tensor(aims.positions, device=self._device)
        targets_M = packed.tokens_1N[0].index_select(0, chosen_M + 1)
        weights_M = torch.tensor(aims.weights, device=self._device, dtype=self._attached.dtype)
        with self._attached.layout.holding(aims.spans, training=True):
            hidden_ND = hidden_states(self._attached.model, packed)
            losses_M = self._logits.backward(hidden_ND, chosen_M, targets_M, weights_M)
        return [float(part.double().sum()) for part in torch.split(losses_M, aims.counts)]


@dataclass
class _Aims:
    """What a pass predicts: whose tokens are whose, the positions that count, their weights, and how many a share."""

    spans: list[Span] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)


def _aims(shares: Sequence[_Share]) -> _Aims:
    aims, start = _Aims(), 0
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


class _Work:
    """Jobs that wait, jobs under way by their number, and what the others came to."""

    def __init__(self, attached: AttachedModel, budget: int, report: Report, ended: Callable[[Outcome], None]) -> None:
        self._attached = attached
        self._budget = budget
        self._report = report
        self._ended = ended
        self.waiting: list[tuple[int, TrainJob, list[Rendered]]] = []
        self.active: dict[int, Update] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.total = 0

    def fill(self) -> None:
        """Takes up waiting jobs as long as a step of each still fits into the budget; one at least."""
        used = float(sum(_step_tokens(update) for update in self.active.values()))
        for entry in list(self.waiting):
            number, job, examples = entry
            mean = sum(len(e.tokens) for e in examples) / len(examples) * set_(job.recipe.batch_size)
            if self.active and used + mean > self._budget:
                return
            self.waiting.remove(entry)
            slot = f"training-{number}"
            try:
                self.active[number] = Update(job, examples, self._attached, slot)
                used += mean
            except InvalidRequest as error:
                self._attached.detach(slot)
                self.end(number, FailedJob(job.job_id, error.reason, error.message))

    def numbers(self, shares: Sequence[_Share]) -> list[int]:
        by_slot = {update.slot: number for number, update in self.active.items()}
        return [by_slot[share.update.slot] for share in shares]

    def step(self, number: int, update: Update, loss: float) -> None:
        """Lets a job take its step, and end if that was its last or broke it."""
        try:
            update.advance(loss)
            job = update.job
            speed = update.tokens / max(update.seconds, 1e-9)
            self._report(
                TrainProgress(job.job_id, len(self.outcomes), self.total, update.step, update.steps, update.loss, speed)
            )
            if update.ended:
                self.leave(number, update, update.result())
        except NotFinite as error:
            self.leave(number, update, FailedJob(update.job.job_id, NON_FINITE, str(error)))

    def end(self, number: int, outcome: Outcome) -> None:
        self.outcomes[number] = outcome
        self._ended(outcome)

    def leave(self, number: int, update: Update, outcome: Outcome) -> None:
        del self.active[number]
        self._attached.detach(update.slot)
        self.end(number, outcome)


def cut_into_passes(updates: Sequence[Update], budget: int) -> list[list[_Share]]:
    """Each job's next step, in as few passes as hold it.

    A step that is larger than the budget is cut as it would be cut if its job were alone: where the cuts lie decides
    which numbers its dropout draws.
    """
    passes: list[list[_Share]] = []
    used = budget
    for update in updates:
        for share in _shares(update, budget):
            tokens = sum(len(example.tokens) for example in share.examples)
            if used + tokens > budget:
                passes.append([])
                used = 0
            passes[-1].append(share)
            used += tokens
    return passes


def _shares(update: Update, budget: int) -> list[_Share]:
    shares: list[_Share] = []
    used = budget
    for example in update.pending:
        if used + len(example.tokens) > budget:
            shares.append(_Share(update))
            used = 0
        shares[-1].examples.append(example)
        used += len(example.tokens)
    return shares


def _step_tokens(update: Update) -> int:
    return sum(len(example.tokens) for example in update.pending)


def _total_tokens(job: TrainJob, examples: Sequence[Rendered]) -> int:
    return sum(len(example.tokens) for example in examples) * set_(job.recipe.epochs)


def effective_recipe(recipe: Recipe, parent: AdapterSpec | None) -> Recipe:
    """The recipe as it will be trained: on a parent, the lineage's rank, alpha and targets stand."""
    if parent is None:
        return recipe.model_copy(update={"target_modules": tuple(sorted(set(recipe.target_modules)))})
    return recipe.model_copy(
        update={"rank": parent.rank, "alpha": parent.alpha, "target_modules": parent.target_modules}
    )
