"""Learn: turns kept edits into a new policy.

Picks the pairs that the memory holds for them, has an M-step process train on them, loads the new policy into the
generator beside the old ones, and puts it in use when asked. A request leaves a job folder: killed at any moment, the
same request goes on from there and never makes two policies. Called by the servicer through common/jobs.py.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from common.canonical import derive_seed, digest_of
from common.errors import Conflict, InvalidRequest, NotFound, NotPossible, Violation
from common.jobs import Publish
from common.metrics import queued
from common.models.config import ModelConfig
from common.phase import HeavyPhase
from common.types import Digest, Domain, Progress
from teacher import metrics
from teacher.config import LearnSettings
from teacher.generator import BASE
from teacher.memory import Memory, Pair
from teacher.messages import LearnFrom, LearnRequest, Policy
from teacher.mstep import JOB_FILE, RESULT_FILE, MStepJob, MStepResult, TrainingPair
from teacher.mstep_process import MStepProcess
from teacher.policies import Policies
from teacher.store import name_of, read_record, write_record

LearnEvent = Policy | Progress


class _Opened(Domain):
    content: Digest


class Learner:
    """Runs M-steps, one at a time, under `root`."""

    def __init__(
        self,
        root: Path,
        *,
        model: ModelConfig,
        policies: Policies,
        memory: Memory,
        phase: HeavyPhase,
        settings: LearnSettings,
    ) -> None:
        self._root = root
        self._model = model.model_copy(update={"device": settings.device or model.device})
        self._policies = policies
        self._memory = memory
        self._phase = phase
        self._settings = settings
        self._log = structlog.get_logger("learner")

    async def learn(self, request: LearnRequest, publish: Publish[LearnEvent]) -> None:
        """Publishes progress, then the policy.

        Raises InvalidRequest for an edit that this teacher never wrote, NotPossible when the kept edits hold nothing to
        learn from or the M-step fails, and Conflict.
        """
        if not self._settings.enabled:
            raise NotPossible("this teacher does not learn; see GetStatus.can_learn", reason="LEARN_DISABLED")
        folder = self._open(request)
        version = self._finished(folder)
        if version is None:
            started = time.monotonic()
            self._prepare(request, folder)
            with queued(metrics.QUEUE) as begins:
                async with self._phase.hold("learning", waiting=lambda: publish(Progress(phase="waiting"), keep=False)):
                    begins()
                    version = await self._train(folder, publish)
            metrics.LEARN_SECONDS.observe(time.monotonic() - started)
        await self._policies.ensure_loaded(version)
        if request.activate:
            await self._policies.activate(f"learn-{name_of(request.request_id)}", version)
        policy = self._policies.describe(version, loaded=True)
        metrics.LEARN_LOSS.labels("first").set(policy.first_loss)
        metrics.LEARN_LOSS.labels("last").set(policy.last_loss)
        self._log.info("learned", policy_version=version, parent=policy.parent, pairs=policy.pairs)
        publish(policy)

    def _open(self, request: LearnRequest) -> Path:
        folder = self._root / name_of(request.request_id)
        opened = read_record(folder / "request.json", _Opened)
        if opened is None:
            opened = _Opened(content=digest_of(request))
            write_record(folder / "request.json", opened)
        if opened.content.sha256 != digest_of(request).sha256:
            raise Conflict("this request id was used with other content", ids={"request_id": request.request_id})
        return folder

    def _finished(self, folder: Path) -> str | None:
        """The policy that this request made before, if its bytes are still good."""
        result = read_record(folder / RESULT_FILE, MStepResult)
        if result is None or not self._policies.intact(result.policy_version):
            return None
        return result.policy_version

    def _prepare(self, request: LearnRequest, folder: Path) -> None:
        """Writes the job down unless it is; pairs and parent then stay the same however often it is repeated."""
        if (folder / JOB_FILE).exists():
            return
        parent = BASE if request.learn_from is LearnFrom.BASE else self._policies.active().policy_version
        pairs = self._choose(request)
        job = MStepJob(
            model=self._model,
            policies=self._policies.folders.path("x").parent.absolute(),
            parent=parent,
            recipe=request.recipe.over(self._settings.recipe),
            seed=request.seed,
            train_tokens=self._settings.train_tokens,
            kept_edits=len(request.kept),
            pairs=tuple(TrainingPair(prompt_ids=p.prompt_ids, completion_ids=p.completion_ids) for p in pairs),
        )
        write_record(folder / JOB_FILE, job)

    def _choose(self, request: LearnRequest) -> list[Pair]:
        """The pairs to learn from, in a fixed order. Raises InvalidRequest for unknown edits, NotPossible for none."""
        limit = request.recipe.over(self._settings.recipe).max_tokens or 0
        chosen: list[Pair] = []
        unknown: list[Violation] = []
        for place, kept in enumerate(request.kept):
            try:
                memory = self._memory.recall(kept.edit.sha256)
            except NotFound as error:
                unknown.append(Violation(f"kept[{place}].edit", error.message))
                continue
            usable = [
                pair
                for pair in memory.pairs
                if pair.kept >= self._settings.min_survival * pair.read
                and len(pair.prompt_ids) + len(pair.completion_ids) <= limit
            ]
            chosen += draw_pairs(
                usable, self._settings.max_pairs_per_edit, derive_seed(request.seed, "pairs", kept.edit.sha256)
            )
        if unknown:
            raise InvalidRequest(unknown)
        if not chosen:
            raise NotPossible(
                "kept: these edits hold no prompt and completion to learn from", reason="NOTHING_TO_LEARN"
            )
        return draw_pairs(chosen, self._settings.max_pairs, derive_seed(request.seed, "pairs"))

    async def _train(self, folder: Path, publish: Publish[LearnEvent]) -> str:
        process = MStepProcess(folder, timeout_seconds=self._settings.timeout_seconds)
        result = await process.run(lambda progress: publish(progress, keep=False))
        return result.policy_version


def draw_pairs(pairs: Sequence[Pair], most: int, seed: int) -> list[Pair]:
    """At most `most` of the pairs, in their order, the same for the same seed."""
    if len(pairs) <= most:
        return list(pairs)
    places = random.Random(seed).sample(range(len(pairs)), most)  # noqa: S311 - a draw that can be repeated
    return [pairs[place] for place in sorted(places)]
