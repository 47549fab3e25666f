"""Proposes K edits for one context, each handed out as soon as it exists.

All prompts of all K edits go to the generator together; an edit that cannot be written fails alone. Called by the
servicer through common/jobs.py, so a proposal goes on when its caller goes away.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from common.canonical import derive_seed
from common.errors import InvalidRequest, NotPossible, Violation
from common.jobs import Publish
from common.metrics import queued
from common.phase import HeavyPhase
from common.tracing import note, span
from common.types import Progress, Sampling, TaskKind
from teacher import metrics
from teacher.config import ProposerSettings
from teacher.generator import PromptTooLong
from teacher.memory import Memory
from teacher.messages import FailedProposal, ProposedEdit, ProposeRequest
from teacher.policies import Policies
from teacher.proposals import Proposal, Proposals
from teacher.variants import VARIANTS
from teacher.writer import Writer, Written

EMPTY_EDIT = "EMPTY_EDIT"
PROGRESS_SECONDS = 3.0

ProposeEvent = ProposedEdit | FailedProposal | Progress


class Proposer:
    """Writes edits under the policy in use, or under the one that a request names."""

    def __init__(
        self,
        writer: Writer,
        *,
        policies: Policies,
        proposals: Proposals,
        memory: Memory,
        phase: HeavyPhase,
        settings: ProposerSettings,
    ) -> None:
        self._writer = writer
        self._policies = policies
        self._proposals = proposals
        self._memory = memory
        self._phase = phase
        self._settings = settings
        self._log = structlog.get_logger("proposer")

    def check(self, request: ProposeRequest) -> None:
        """Refuses what this teacher cannot do. Raises InvalidRequest or NotPossible."""
        unknown = [
            Violation(f"prompt_variants[{i}]", f"unknown; known are {', '.join(VARIANTS)}")
            for i, name in enumerate(request.prompt_variants)
            if name not in VARIANTS
        ]
        if unknown:
            raise InvalidRequest(unknown)
        if request.kind is TaskKind.FEW_SHOT or request.context.demonstrations is not None:
            raise NotPossible(
                "kind: this teacher writes edits for TASK_KIND_KNOWLEDGE alone; see GetStatus.kinds",
                reason="KIND_NOT_SUPPORTED",
            )
        if request.context.reference is not None:
            raise NotPossible(
                "context.reference: this teacher reads no store of its own; send context.text",
                reason="REFERENCE_NOT_SUPPORTED",
            )

    async def propose(self, request: ProposeRequest, publish: Publish[ProposeEvent]) -> None:
        """Publishes one outcome for each of the K edits, and progress in between. Raises SealError."""
        self.check(request)
        proposal = self._proposals.open(request, request.policy_version or self._policies.active().policy_version)
        missing = []
        for index in range(request.count):
            outcome = proposal.outcome(index)
            if outcome is None:
                missing.append(index)
            else:
                publish(outcome)
        if not missing:
            return
        await self._policies.ensure_loaded(proposal.policy_version)
        with queued(metrics.QUEUE) as begins:
            async with self._phase.hold("generating", waiting=lambda: publish(Progress(phase="waiting"), keep=False)):
                begins()
                await self._write_all(request, proposal, missing, publish)

    async def _write_all(
        self, request: ProposeRequest, proposal: Proposal, indexes: list[int], publish: Publish[ProposeEvent]
    ) -> None:
        done = request.count - len(indexes)
        tokens = 0
        started = time.monotonic()
        pending = {asyncio.create_task(self._write(request, proposal.policy_version, i)) for i in indexes}
        try:
            while pending:
                finished, pending = await asyncio.wait(
                    pending, timeout=PROGRESS_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                for task in finished:
                    outcome, written = task.result()
                    if written is not None:
                        tokens += written.tokens
                        if written.memory is not None:
                            self._memory.keep(written.memory)
                    proposal.record(outcome)
                    publish(outcome)
                    self._count(outcome, written, time.monotonic() - started)
                    done += 1
                figures = {"tokens_per_second": tokens / (time.monotonic() - started)} if tokens else {}
                publish(Progress(phase="generating", done=done, total=request.count, figures=figures), keep=False)
        finally:
            for task in pending:
                task.cancel()

    async def _write(
        self, request: ProposeRequest, policy_version: str, index: int
    ) -> tuple[ProposedEdit | FailedProposal, Written | None]:
        names = request.prompt_variants or self._settings.prompt_variants
        name = names[index % len(names)]
        try:
            with span("write", index=index, variant=name, policy=policy_version):
                written = await self._writer.write(
                    request.context,
                    VARIANTS[name],
                    sampling=resolve_sampling(request.sampling, self._settings.sampling),
                    recipe=request.recipe,
                    policy_version=policy_version,
                    seed=derive_seed(request.seed, index),
                )
                note("written", tokens=written.tokens, edit=written.edit.digest.sha256 if written.edit else None)
        except PromptTooLong as error:
            return FailedProposal(index=index, reason=error.reason), None
        if written.edit is None:
            return FailedProposal(index=index, reason=EMPTY_EDIT), written
        return ProposedEdit(index=index, edit=written.edit, origin=written.origin), written

    def _count(self, outcome: ProposedEdit | FailedProposal, written: Written | None, seconds: float) -> None:
        variant = written.origin.prompt_variant if written is not None else "unknown"
        reason = outcome.reason if isinstance(outcome, FailedProposal) else "written"
        metrics.EDITS.labels(variant, reason).inc()
        metrics.PROPOSE_SECONDS.observe(seconds)
        if written is not None:
            metrics.COMPLETION_TOKENS.inc(written.tokens)
            for cause, count in written.origin.screened_out.items():
                metrics.SCREENED_OUT.labels(cause).inc(count)
        if isinstance(outcome, ProposedEdit):
            metrics.EXAMPLES.observe(len(outcome.edit.examples))
        self._log.info(
            "edit",
            outcome=reason,
            index=outcome.index,
            variant=variant,
            edit=outcome.edit.digest.sha256 if isinstance(outcome, ProposedEdit) else "",
            examples=len(outcome.edit.examples) if isinstance(outcome, ProposedEdit) else 0,
            completions=written.origin.completions if written is not None else 0,
            screened_out=sum(written.origin.screened_out.values()) if written is not None else 0,
            seconds=round(seconds, 2),
        )


def resolve_sampling(asked: Sampling | None, default: Sampling) -> Sampling:
    """What a request asked for, its missing length taken from the default; the default when it asked for nothing."""
    if asked is None:
        return default
    return asked.model_copy(
        update={"max_new_tokens": asked.max_new_tokens or default.max_new_tokens, "seed": 0, "stop": asked.stop}
    )
