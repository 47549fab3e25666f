"""Trains many adapters at once on one frozen base (SEAL's inner update, and the teacher's M-step).

The sequences of several jobs stand packed in one row, each job's tokens together, so that the base runs over all of
them at once while every job has its own factors, gradients, optimizer, schedule and clip norm. Jobs are taken up
longest first, as many as the token budget and the memory hold; one that has ended makes room for the next (continuous
batching). A job that fails never touches the others: nothing is ever summed over jobs, and a pass that was too large is
run again job by job. Trained alone, the same (parent, examples, recipe, seed, kind of device, threads) gives the same
bytes; in company, the same to the last bits that a batch's shape leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch

from common.errors import Cancelled, InvalidConfig, InvalidRequest
from common.lora.adapter_format import AdapterSpec
from common.lora.attachment import AttachedModel
from common.lora.checkpointing import checkpointed, decoder_layers
from common.lora.config import EngineConfig
from common.lora.forward import LogitModel
from common.lora.layers import Span
from common.lora.memory import GIB, TrainMemory
from common.lora.packing import Packed, hidden_states, packed_attention
from common.lora.render import ExampleRefused, Rendered, Renderer, checked
from common.lora.update import NotFinite, TrainedAdapter, TrainJob, Update, fresh_spec, set_
from common.types import Recipe

NON_FINITE = "NON_FINITE_LOSS"
OUT_OF_MEMORY = "OUT_OF_MEMORY"
SMALLER = "a smaller rank, batch size, max_tokens or train_tokens takes less, and so does gradient checkpointing"


@dataclass(frozen=True)
class FailedJob:
    """Why a job has no adapter: a constant for machines and a sentence without any content of the examples."""

    job_id: str
    reason: str
    detail: str


@dataclass(frozen=True)
class TrainProgress:
    """How far a job is; `job` of `jobs` have ended, `loss` is the last step's, the speed that of all jobs together."""

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

    @property
    def tokens(self) -> int:
        return sum(len(example.tokens) for example in self.examples)


@dataclass(frozen=True)
class _Waiting:
    """A job that was not taken up yet, and what it will take."""

    number: int
    job: TrainJob
    examples: Sequence[Rendered]
    needs: _Needs


@dataclass(frozen=True)
class _Needs:
    """Bytes of the adapter, bytes of a token, and tokens that one of the job's passes may have, at most."""

    adapter: int
    token: int
    share: int


class Trainer:
    """Runs jobs on an attached model. Used by LoraEngine."""

    def __init__(self, attached: AttachedModel, logits: LogitModel, renderer: Renderer, config: EngineConfig) -> None:
        self._attached = attached
        self._logits = logits
        self._renderer = renderer
        self._budget = config.train_tokens
        self._device = attached.base.device
        self._memory = TrainMemory(attached, config)
        self._checkpointing = config.checkpointing
        if config.checkpointing and not decoder_layers(attached.model):
            raise InvalidConfig("engine.checkpointing: this architecture's layers cannot be run again")

    def train(
        self,
        jobs: Sequence[TrainJob],
        report: Report = lambda _: None,
        cancelled: Callable[[], bool] = lambda: False,
        ended: Callable[[Outcome], None] = lambda _: None,
    ) -> list[Outcome]:
        """One result or failure a job, in order. Raises Cancelled at the next step once `cancelled()` says so."""
        if self._attached.model.dtype is torch.float16:
            raise InvalidConfig("model.dtype: float16 loses small gradients; train in bfloat16 or float32")
        self._attached.prepare()
        work = _Work(self._attached, self._memory, self._budget, report, ended)
        for number, job in enumerate(jobs):
            try:
                work.wait(number, job, self._rendered(job))
            except (ExampleRefused, InvalidRequest) as error:
                work.end(number, FailedJob(job.job_id, error.reason, error.message))
            except RuntimeError as error:
                _no_memory(error)
                work.end(number, _too_large(job, "the device has not enough memory to measure a pass"))
        work.total = len(jobs)
        # Longest first: what is long would otherwise be trained alone at the end.
        work.waiting.sort(key=lambda entry: (-_total_tokens(entry.job, entry.examples), entry.number))
        rerun = checkpointed(self._attached) if self._checkpointing else nullcontext()
        try:
            with packed_attention(self._attached.model), torch.enable_grad(), rerun:
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
        updates = list(work.active.values())
        losses = {update.slot: 0.0 for update in updates}
        too_large: dict[str, Update] = {}
        for shares in cut_into_passes(updates, self._budget, work.room()):
            for share in shares:
                share.update.alone = share.update.alone and len(shares) == 1
            if not self._passed(shares, losses):
                too_large |= {share.update.slot: share.update for share in shares}
        for update in too_large.values():
            # By itself it may fit. Its dropout was drawn once already, so its bytes are not those of a job alone.
            update.alone = False
            update.forget_gradients()
            losses[update.slot] = 0.0
            if not all(self._passed([share], losses) for share in _shares(update, self._budget)):
                losses.pop(update.slot)
        for number, update in list(work.active.items()):
            if update.slot in losses:
                work.step(number, update, losses[update.slot])
            else:
                work.leave(number, update, _too_large(update.job, "the device has not enough memory"))

    def _passed(self, shares: Sequence[_Share], losses: dict[str, float]) -> bool:
        """Runs a pass and adds each share's loss to its job's; False when the device has not enough memory."""
        started = time.perf_counter()
        try:
            for share, loss in zip(shares, self._pass(shares), strict=True):
                losses[share.update.slot] += loss
        except RuntimeError as error:
            _no_memory(error)
            return False
        spent, tokens = time.perf_counter() - started, sum(share.tokens for share in shares)
        for share in shares:
            share.update.seconds += spent * share.tokens / tokens
        return True

    def _pass(self, shares: Sequence[_Share]) -> list[float]:
        """Adds gradients of the mean loss a counted token of each job's step; returns each share's summed loss."""
        packed = Packed.of([example.tokens for share in shares for example in share.examples], self._device)
        aims = _aims(shares)
        chosen_M = torch.tensor(aims.positions, device=self._device)
        targets_M = packed.tokens_1N[0].index_select(0, chosen_M + 1)
        weights_M = torch.tensor(aims.weights, device=self._device, dtype=self._attached.dtype)
        with self._attached.layout.holding(aims.spans, rows=packed.tokens_1N.shape[1], training=True):
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

    def __init__(
        self,
        attached: AttachedModel,
        memory: TrainMemory,
        budget: int,
        report: Report,
        ended: Callable[[Outcome], None],
    ) -> None:
        self._attached = attached
        self._memory = memory
        self._available = memory.available()
        self._budget = budget
        self._report = report
        self._ended = ended
        self._started = time.perf_counter()
        self._tokens = 0
        self.waiting: list[_Waiting] = []
        self.active: dict[int, Update] = {}
        self._needs: dict[int, _Needs] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.total = 0

    def wait(self, number: int, job: TrainJob, examples: Sequence[Rendered]) -> None:
        """Puts a job in line, or ends it with the reason why it will never fit."""
        longest = max(len(example.tokens) for example in examples)
        batch = min(set_(job.recipe.batch_size), len(examples))
        share = max(longest, min(self._budget, batch * longest))
        spec = job.parent.spec if job.parent is not None else fresh_spec(job.recipe, self._attached.base.digest.sha256)
        token = self._memory.token(spec, set_(job.recipe.dropout))
        needs = _Needs(self._memory.adapter(spec), token, share)
        if (needed := _together([needs])) > self._available:
            detail = f"training takes about {needed / GIB:.1f} GiB and {self._available / GIB:.1f} are there"
            self.end(number, _too_large(job, detail))
            return
        self.waiting.append(_Waiting(number, job, examples, needs))

    def room(self) -> int:
        """Tokens of one pass of several jobs: the budget, or what memory the adapters leave."""
        if not self._needs:
            return self._budget
        left = self._available - sum(needs.adapter for needs in self._needs.values())
        return min(self._budget, left // max(needs.token for needs in self._needs.values()))

    def fill(self) -> None:
        """Takes up waiting jobs as long as a step of each still fits into budget and memory; one at least."""
        used = float(sum(_step_tokens(update) for update in self.active.values()))
        for entry in list(self.waiting):
            batch = min(set_(entry.job.recipe.batch_size), len(entry.examples))
            step = sum(len(e.tokens) for e in entry.examples) / len(entry.examples) * batch
            needed = _together([*self._needs.values(), entry.needs])
            if self.active and (used + step > self._budget or needed > self._available):
                return
            self.waiting.remove(entry)
            if self._take_up(entry):
                used += step

    def _take_up(self, entry: _Waiting) -> bool:
        slot = f"training-{entry.number}"
        try:
            self.active[entry.number] = Update(entry.job, entry.examples, self._attached, slot)
            self._needs[entry.number] = entry.needs
        except InvalidRequest as error:
            self.end(entry.number, FailedJob(entry.job.job_id, error.reason, error.message))
        except RuntimeError as error:
            _no_memory(error)
            self.end(entry.number, _too_large(entry.job, "the device has not enough memory for the adapter"))
        finally:
            if entry.number not in self.active:
                self._attached.detach(slot)
        return entry.number in self.active

    def step(self, number: int, update: Update, loss: float) -> None:
        """Lets a job take its step, and end if that was its last or broke it."""
        try:
            self._tokens += _step_tokens(update)
            update.advance(loss)
            speed = self._tokens / max(time.perf_counter() - self._started, 1e-9)
            self._report(
                TrainProgress(
                    update.job.job_id, len(self.outcomes), self.total, update.step, update.steps, update.loss, speed
                )
            )
            if update.ended:
                self.leave(number, update, update.result())
        except NotFinite as error:
            self.leave(number, update, FailedJob(update.job.job_id, NON_FINITE, str(error)))
        except RuntimeError as error:
            _no_memory(error)
            self.leave(number, update, _too_large(update.job, "the device has not enough memory for the optimizer"))

    def end(self, number: int, outcome: Outcome) -> None:
        self.outcomes[number] = outcome
        self._ended(outcome)

    def leave(self, number: int, update: Update, outcome: Outcome) -> None:
        del self.active[number], self._needs[number]
        self._attached.detach(update.slot)
        self.end(number, outcome)


def _together(needs: Sequence[_Needs]) -> int:
    """Bytes of jobs that are trained at once: their adapters, and one pass that holds the largest share of any."""
    return sum(one.adapter for one in needs) + max(one.share for one in needs) * max(one.token for one in needs)


def _no_memory(error: RuntimeError) -> None:
    """Raises the error again unless it says that memory has run out (the CPU's allocator has no type of its own)."""
    if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
        raise error


def _too_large(job: TrainJob, problem: str) -> FailedJob:
    return FailedJob(job.job_id, OUT_OF_MEMORY, f"{problem}; {SMALLER}")


def cut_into_passes(updates: Sequence[Update], budget: int, room: int) -> list[list[_Share]]:
    """Each job's next step, in as few passes as hold it: `room` tokens each, more only for one job's share.

    A step that is larger than the budget is cut as it would be cut if its job were alone: where the cuts lie decides
    which numbers its dropout draws.
    """
    passes: list[list[_Share]] = []
    used = 0
    for update in updates:
        for share in _shares(update, budget):
            if not passes or used + share.tokens > room:
                passes.append([])
                used = 0
            passes[-1].append(share)
            used += share.tokens
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
