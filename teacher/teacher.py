"""The teacher put together: one generator, its policies, the proposer and the learner.

`start` runs before the gRPC server does, so that the generator's processes are spawned from a process without gRPC
threads. Everything random derives from the seeds of requests.
"""

from __future__ import annotations

import asyncio

from common.models.digest import base_digest
from common.models.resolve import resolve_model
from common.phase import HeavyPhase
from common.types import Digest, TaskKind
from teacher.backends import make_generator
from teacher.config import TeacherConfig
from teacher.generator import Generator
from teacher.learner import Learner
from teacher.memory import Memory
from teacher.messages import TeacherStatus
from teacher.policies import Policies
from teacher.prompts import PromptRenderer
from teacher.proposals import Proposals
from teacher.proposer import Proposer
from teacher.rehearsal import Rehearsal
from teacher.variants import VARIANTS
from teacher.writer import Author, Writer

KINDS = (TaskKind.KNOWLEDGE,)


class Teacher:
    """What the servicer talks to. Its parts exist after `start`."""

    proposer: Proposer
    learner: Learner
    policies: Policies

    def __init__(self, config: TeacherConfig, generator: Generator | None = None) -> None:
        self._config = config
        self._generator = generator or make_generator(config)
        self._digest = Digest(sha256="0" * 64)

    async def start(self) -> None:
        """Loads the model and the policy in use. Raises InvalidConfig, or Corrupt when that policy is damaged."""
        config = self._config
        await self._generator.start()
        folder = await asyncio.to_thread(
            resolve_model, config.model.model, revision=config.model.revision, cache_dir=config.model.cache_dir
        )
        self._digest = await asyncio.to_thread(base_digest, folder, cache_dir=config.model.cache_dir)
        renderer = await asyncio.to_thread(
            PromptRenderer.load, folder, style=config.proposer.style, system_prompt=config.model.system_prompt
        )
        asking = await asyncio.to_thread(
            PromptRenderer.load, folder, style=config.proposer.style, system_prompt=config.rehearsal.system_prompt
        )
        author = Author(config.model.model, self._digest, config.backend, self._generator.software())
        phase = HeavyPhase(config.heavy_lock)
        memory = Memory(config.store / "memory")
        self.policies = Policies(config.store, self._generator)
        await self.policies.ensure_loaded(self.policies.active().policy_version)
        self.policies.show()
        self.proposer = Proposer(
            Writer(
                self._generator,
                renderer,
                author=author,
                settings=config.proposer,
                screening=config.screening,
                rehearsal=Rehearsal(
                    self._generator,
                    asking,
                    model_digest=self._digest.sha256,
                    folder=config.store / "rehearsal",
                    settings=config.rehearsal,
                ),
            ),
            policies=self.policies,
            proposals=Proposals(config.store / "proposals"),
            memory=memory,
            phase=phase,
            settings=config.proposer,
        )
        self.learner = Learner(
            config.store / "learning",
            model=config.model,
            policies=self.policies,
            memory=memory,
            phase=phase,
            settings=config.learn,
        )

    def status(self) -> TeacherStatus:
        """Model, backend, policy, abilities."""
        active = self.policies.active()
        return TeacherStatus(
            model=self._config.model.model,
            model_digest=self._digest,
            backend=self._config.backend,
            policy_version=active.policy_version,
            policy_generation=active.policy_generation,
            kinds=KINDS,
            can_learn=self._config.learn.enabled,
            prompt_variants=tuple(VARIANTS),
            software=self._generator.software(),
        )

    async def close(self) -> None:
        """Frees the model and its processes."""
        await self._generator.close()
