"""Trains many adapters at once on one frozen base (SEAL's inner update, and the teacher's M-step).

The sequences of several jobs stand packed in one row, each job's tokens together, so that the base runs over all of
them at once while every job has its own factors, gradients, optimizer, schedule and clip norm. Jobs are taken up
longest first, as many as the token budget and the memory hold; one that has ended makes room for the next (continuous
batching). A job that fails never touches the others: nothing is ever summed over jobs, and a pass that was too large is
run again job by job. Trained alone, the same (parent, examples, recipe, seed, kind of device, threads, base packed
or not) gives the same bytes; in company, the same to the last bits that a batch's shape leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch

from common.errors import Cancelled, InvalidConfig, InvalidRequest
from common.lora.attachment import AttachedModel
from common.lora.checkpointing import checkpointed, decoder_layers
from common.lora.config import EngineConfig
from common.lora.forward import LogitModel
from common.lora.memory import TrainMemory
from common.lora.outcomes import FailedJob, Outcome, Report, too_large, unless_no_memory
from common.lora.packing import Packed, hidden_states, packed_attention
from common.lora.render import ExampleRefused, Rendered, Renderer, checked
from common.lora.shares import Share, aims_of, cut_into_passes, shares_of
from common.lora.update import TrainJob, Update, set_
from common.lora.workload import Workload


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
        self._tokens = self._places = 0  # of the training under way, as attention saw them
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
        self._tokens = self._places = 0
        work = Workload(
            self._attached,
            self._memory,
            self._budget,
            lambda progress: report(replace(progress, padding_share=1 - self._tokens / self._places)),
            ended,
        )
        for number, job in enumerate(jobs):
            try:
                work.wait(number, job, self._rendered(job))
            except (ExampleRefused, InvalidRequest) as error:
                work.end(number, FailedJob(job.job_id, error.reason, error.message))
            except RuntimeError as error:
                unless_no_memory(error)
                work.end(number, too_large(job, "the device has not enough memory to measure a pass"))
        work.ready(len(jobs))
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

    def _round(self, work: Workload) -> None:
        """One step of every job that is under way, in as few passes as the budget allows."""
        updates = list(work.active.values())
        losses = {update.slot: 0.0 for update in updates}
        again: dict[str, Update] = {}
        for shares in cut_into_passes(updates, self._budget, work.room()):
            for share in shares:
                share.update.alone = share.update.alone and len(shares) == 1
            if not self._passed(shares, losses):
                again |= {share.update.slot: share.update for share in shares}
        for update in again.values():
            # By itself it may fit. Its dropout was drawn once already, so its bytes are not those of a job alone.
            update.alone = False
            update.forget_gradients()
            losses[update.slot] = 0.0
            if not all(self._passed([share], losses) for share in shares_of(update, self._budget)):
                losses.pop(update.slot)
        for number, update in list(work.active.items()):
            if update.slot in losses:
                work.step(number, update, losses[update.slot])
            else:
                work.leave(number, update, too_large(update.job, "the device has not enough memory"))

    def _passed(self, shares: Sequence[Share], losses: dict[str, float]) -> bool:
        """Runs a pass and adds each share's loss to its job's; False when the device has not enough memory."""
        started = time.perf_counter()
        try:
            for share, loss in zip(shares, self._pass(shares), strict=True):
                losses[share.update.slot] += loss
        except RuntimeError as error:
            unless_no_memory(error)
            return False
        spent, tokens = time.perf_counter() - started, sum(share.tokens for share in shares)
        for share in shares:
            share.update.seconds += spent * share.tokens / tokens
        return True

    def _pass(self, shares: Sequence[Share]) -> list[float]:
        """Adds gradients of the mean loss a counted token of each job's step; returns each share's summed loss."""
        packed = Packed.of([example.tokens for share in shares for example in share.examples], self._device)
        self._tokens += packed.tokens_1N.numel()
        self._places += packed.places
        aims = aims_of(shares)
        chosen_M = torch.tensor(aims.positions, device=self._device)
        targets_M = packed.tokens_1N[0].index_select(0, chosen_M + 1)
        weights_M = torch.tensor(aims.weights, device=self._device, dtype=self._attached.dtype)
        with self._attached.layout.holding(aims.spans, rows=packed.tokens_1N.shape[1], training=True):
            hidden_ND = hidden_states(self._attached.model, packed)
            losses_M = self._logits.backward(hidden_ND, chosen_M, targets_M, weights_M)
        return [float(part.double().sum()) for part in torch.split(losses_M, aims.counts)]
