"""Trains candidates on one parent version and stores what they become.

The parent is looked up once. A candidate that any replica has trained before is answered from the store; one that fails
does so alone; each is stored as soon as it has ended, so that a request asked again trains only what is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import structlog

from common.canonical import digest_of
from common.errors import Corrupt, InvalidRequest, Violation
from common.jobs import Publish
from common.lora.adapter_format import Adapter
from common.lora.engine import LoraEngine
from common.lora.interpolation import interpolated
from common.lora.outcomes import FailedJob, Outcome, TrainProgress
from common.lora.residency import BASE_VERSION
from common.lora.update import TrainJob
from common.types import Digest, Recipe, Software
from common.versions import FailedCandidate, TrainedCandidate, Version
from student import metrics
from student.messages import TrainEvent
from student.recipes import RecipeBook
from student.replay import Mixture, ReplayPool
from student.requests import TrainCandidate, TrainRequest
from student.store import VersionStore
from student.versions import Versions
from student.workroom import Desk, Workroom

Result = TrainedCandidate | FailedCandidate


@dataclass(frozen=True)
class _Plan:
    """key: what training makes; scaled_key: what is asked for, the same unless the candidate is to be scaled down."""

    candidate: TrainCandidate
    parent: Adapter | None
    recipe: Recipe
    mixture: Mixture
    key: Digest
    scaled_key: Digest


class Training:
    """Carries out Train requests."""

    def __init__(
        self,
        *,
        engine: LoraEngine,
        store: VersionStore,
        versions: Versions,
        recipes: RecipeBook,
        workroom: Workroom,
        software: Software,
    ) -> None:
        self._engine = engine
        self._store = store
        self._versions = versions
        self._recipes = recipes
        self._workroom = workroom
        self._software = software
        self._log = structlog.get_logger("training")

    def check(self, request: TrainRequest) -> None:
        """Raises InvalidRequest naming everything that is beyond the student's limits."""
        violations = [
            violation
            for place, candidate in enumerate(request.candidates)
            for violation in self._recipes.violations(candidate.edit, f"candidates[{place}].edit")
        ]
        limit = self._recipes.limits.max_candidates
        if len(request.candidates) > limit:
            violations.append(Violation("candidates", f"are {len(request.candidates)}; at most {limit} are allowed"))
        if violations:
            raise InvalidRequest(violations)

    async def train(self, request: TrainRequest, publish: Publish[TrainEvent]) -> None:
        """One event a candidate, and progress. Raises NotFound for the parent or a replayed edit."""
        self.check(request)
        parent = (await asyncio.to_thread(self._versions.resolve, request.parent_version)).version
        await self._workroom.run("training", lambda desk: self._work(request, parent, desk), publish)

    def _work(self, request: TrainRequest, parent: str, desk: Desk[Result]) -> None:
        adapter = None if parent == BASE_VERSION else self._store.adapter(parent)
        pool = ReplayPool(self._store.edit, request.replay)
        missing = []
        for candidate in request.candidates:
            self._store.put_edit(candidate.edit)
            plan = self._plan(candidate, parent, adapter, pool)
            if not self._answered_from_store(plan, request.alone, desk):
                missing.append(plan)
        batches = [[plan] for plan in missing] if request.alone else [missing] if missing else []
        for place, batch in enumerate(batches):
            self._train(batch, parent, adapter, desk, done=place if request.alone else 0, total=len(missing))

    def _plan(self, candidate: TrainCandidate, parent: str, adapter: Adapter | None, pool: ReplayPool) -> _Plan:
        recipe = self._recipes.resolve(candidate.edit, adapter.spec if adapter else None)
        content = {
            "parent": parent,
            "edit": candidate.edit.digest.sha256,
            "recipe": recipe.model_dump(mode="json"),
            "seed": candidate.seed,
            # The same words on another base, or rendered otherwise, are another candidate.
            "base": self._engine.base.digest.sha256,
            "rendering": self._engine.renderer.digest.sha256,
        }
        if self._software.precision != "float32":
            content["precision"] = self._software.precision
        if pool.key is not None:
            content["replay"] = pool.key
        key = digest_of(content)
        scaled_key = key if candidate.scale == 1 else digest_of({**content, "scale": candidate.scale})
        return _Plan(candidate, adapter, recipe, pool.mix(candidate.edit, candidate.seed), key, scaled_key)

    def _answered_from_store(self, plan: _Plan, alone: bool, desk: Desk[Result]) -> bool:
        try:
            version, reused = self._stored(plan, alone)
        except Corrupt as error:
            metrics.CANDIDATES.labels("failed").inc()
            desk.say(
                FailedCandidate(candidate_id=plan.candidate.candidate_id, reason=error.reason, detail=error.message)
            )
            return True
        if version is None:
            return False
        metrics.CANDIDATES.labels("reused" if reused else "scaled").inc()
        desk.say(TrainedCandidate(candidate_id=plan.candidate.candidate_id, version=version, reused=reused))
        return True

    def _stored(self, plan: _Plan, alone: bool) -> tuple[Version | None, bool]:
        """What is asked for and whether it was there, or what can be made without training. Raises Corrupt."""
        wanted = self._store.trained(plan.scaled_key.sha256)
        if wanted is not None and (wanted.trained_alone or not alone):
            return wanted, True
        whole = self._store.trained(plan.key.sha256)
        if plan.candidate.scale < 1 and whole is not None and (whole.trained_alone or not alone):
            return self._scaled(plan, whole), False
        return None, False

    def _scaled(self, plan: _Plan, whole: Version) -> Version:
        """The version asked for, from what training made: itself, or interpolated towards the parent."""
        scale = plan.candidate.scale
        if scale == 1:
            return whole
        adapter = interpolated(plan.parent, self._store.adapter(whole.version), scale)
        made = whole.model_copy(
            update={"candidate_key": plan.scaled_key.sha256, "scale": scale, "create_time": datetime.now(UTC)}
        )
        return self._store.put(adapter, made)

    def _train(
        self, plans: Sequence[_Plan], parent: str, adapter: Adapter | None, desk: Desk[Result], *, done: int, total: int
    ) -> None:
        by_key = {plan.key.sha256: plan for plan in plans}
        jobs = [
            TrainJob(key, plan.mixture.examples, plan.recipe, plan.candidate.seed, adapter)
            for key, plan in by_key.items()
        ]

        def report(progress: TrainProgress) -> None:
            metrics.TRAINING_SPEED.set(progress.tokens_per_second)
            metrics.PADDING_SHARE.set(progress.padding_share)
            desk.progress(
                done + progress.job,
                total,
                loss=progress.loss,
                tokens_per_second=progress.tokens_per_second,
                step=progress.step,
                steps=progress.steps,
            )

        def ended(outcome: Outcome) -> None:
            # Two candidates of one request may be the same update under two names.
            for plan in plans:
                if plan.key.sha256 == outcome.job_id:
                    desk.say(self._result(outcome, plan, parent))

        self._engine.train(jobs, report, desk.cancelled, ended)

    def _result(self, outcome: Outcome, plan: _Plan, parent: str) -> Result:
        candidate_id = plan.candidate.candidate_id
        if isinstance(outcome, FailedJob):
            metrics.CANDIDATES.labels("failed").inc()
            self._log.warning("candidate failed", candidate_id=candidate_id, reason=outcome.reason)
            return FailedCandidate(candidate_id=candidate_id, reason=outcome.reason, detail=outcome.detail)
        made = Version(
            version="",
            parent_version=parent,
            candidate_key=plan.key.sha256,
            edit=plan.candidate.edit.digest,
            recipe=plan.recipe,
            seed=plan.candidate.seed,
            trained_alone=outcome.alone,
            create_time=datetime.now(UTC),
            tensors=len(outcome.adapter.tensors),
            tokens_trained=outcome.tokens,
            first_loss=outcome.first_loss,
            last_loss=outcome.last_loss,
            seconds=outcome.seconds,
            software=self._software,
            replay_share=plan.mixture.replay_share,
        )
        try:
            version = self._store.put(outcome.adapter, made)
            wanted = self._scaled(plan, version)
        except Corrupt as error:
            metrics.CANDIDATES.labels("failed").inc()
            return FailedCandidate(candidate_id=candidate_id, reason=error.reason, detail=error.message)
        metrics.CANDIDATES.labels("trained").inc()
        metrics.TRAINED_TOKENS.inc(outcome.tokens)
        metrics.TRAINING_SECONDS.observe(outcome.seconds)
        metrics.TRAINING_LOSS.labels("first").set(outcome.first_loss)
        metrics.TRAINING_LOSS.labels("last").set(outcome.last_loss)
        self._log.info(
            "candidate trained", candidate_id=candidate_id, version=version.version, seconds=round(outcome.seconds, 1)
        )
        return TrainedCandidate(candidate_id=candidate_id, version=wanted)
