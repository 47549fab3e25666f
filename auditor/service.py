"""Wires the auditor together: channels, ledger, projections, run manager, decisions. auditor/__main__.py calls it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial

import structlog
from grpc import aio
from sqlalchemy.exc import OperationalError

from auditor import metrics
from auditor.asking import Asking
from auditor.clients import GrpcStudent, GrpcTeacher
from auditor.config import AuditorConfig, Retries
from auditor.crew import Crew
from auditor.decisions import Decisions
from auditor.graders.desk import Graders
from auditor.harness.offered import open_measures
from auditor.ledger.chain import Verdict
from auditor.ledger.store import Ledger
from auditor.moves import Moves
from auditor.policy.model import PolicyModel
from auditor.policy.rules_file import configured_rules
from auditor.projections import Views
from auditor.recorder import Recorder
from auditor.runs import Runs
from auditor.spread_student import SpreadStudent
from auditor.suite_files import built_in_suites
from auditor.watch import Watchers
from common.boundary.identities import Role
from common.canonical import digest_of
from common.errors import SealError
from common.rpc.client import open_channel
from common.software import software
from common.tracing.client import client_interceptors

PACKAGES = ("seal-services", "grpcio", "protobuf", "pydantic", "sqlalchemy", "alembic")
ONCE = Retries(attempts=1)


@dataclass(frozen=True)
class Auditor:
    """All parts of a running auditor. Open one with `Auditor.open`, inside an event loop."""

    recorder: Recorder
    views: Views
    moves: Moves
    crew: Crew
    runs: Runs
    decisions: Decisions
    asking: Asking
    # For status pages and people: no waiting for a peer that is away.
    quick_teacher: GrpcTeacher
    quick_student: GrpcStudent
    _watchers: Watchers
    _channels: tuple[aio.Channel, ...]
    _spread: SpreadStudent | None
    _verify_seconds: float
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    def open(cls, config: AuditorConfig) -> Auditor:
        """Opens ledger, graders, channels. Raises InvalidConfig, or NotPossible when another process has the ledger."""
        measures = open_measures(config.lm_eval)
        built_in = built_in_suites()
        suites = (*built_in, *(measure.suite for measure in measures.values()))
        rules = configured_rules(config.policy)
        policy_model = PolicyModel(config.policy.model) if config.policy.model else None
        watchers = Watchers()
        recorder = Recorder(Ledger.open(config.database, password_file=config.database_password_file), watchers)
        views = Views(recorder)
        graders = Graders(recorder, config.judges, config.commands)
        tracing = client_interceptors(config.tracing)
        dial = partial(open_channel, max_message_mib=config.max_message_mib, tls=config.tls, interceptors=tracing)
        teacher_channel = dial(config.teacher.target, expects=Role.TEACHER)
        dial_student = partial(dial, expects=Role.STUDENT)
        student_channel = dial_student(config.student.target)
        anyone = GrpcStudent(student_channel, config.timeouts, config.retries)
        spread = SpreadStudent.open(config, anyone, dial_student) if config.student.replicas != 1 else None
        quick = config.timeouts.model_copy(update={"answer": config.timeouts.ask})
        quick_student = GrpcStudent(student_channel, quick, ONCE)
        moves = Moves(recorder, views, quick_student)
        crew = Crew(
            teacher=GrpcTeacher(teacher_channel, config.timeouts, config.retries),
            student=spread or anyone,
            recorder=recorder,
            views=views,
            moves=moves,
            graders=graders,
            config_sha256=digest_of([config.model_dump(mode="json"), digest_of(rules).sha256]).sha256,
            rules=rules,
            policy_model=policy_model,
            max_kept_per_context=config.filter.max_kept_per_context,
            reward_levels=config.rewards.levels,
            software=software(PACKAGES),
            measures=measures,
            built_in=built_in,
        )
        return cls(
            recorder=recorder,
            views=views,
            moves=moves,
            crew=crew,
            runs=Runs(crew, watchers, defaults=config.settings, suites=suites, max_queued=config.max_queued_runs),
            decisions=Decisions(recorder, views, moves),
            asking=Asking(
                spread.for_users(quick_student, quick) if spread else quick_student,
                views,
                config.settings.max_answer_tokens,
            ),
            quick_teacher=GrpcTeacher(teacher_channel, config.timeouts, ONCE),
            quick_student=quick_student,
            _watchers=watchers,
            _channels=(teacher_channel, student_channel),
            _spread=spread,
            _verify_seconds=config.verify_ledger_hours * 3600,
        )

    async def start(self) -> None:
        """Reads the ledger, and goes on with what an earlier process left unfinished."""
        views = await self.views.current()
        metrics.ledger_was_read()
        structlog.get_logger("auditor").info("ledger open", seq=views.seq, head=views.head, runs=len(views.runs))
        self._tasks.append(asyncio.create_task(self.views.keep_current(self._watchers), name="projections"))
        self._tasks.append(asyncio.create_task(self._settle(), name="settle"))
        if self._verify_seconds:
            self._tasks.append(asyncio.create_task(self._keep_verifying(), name="verify"))
        await self.runs.start()

    async def _settle(self) -> None:
        """Once the student answers; should it stay away, the next run or move of live settles."""
        try:
            await self.moves.settle(self.crew.student)
        except SealError as error:
            structlog.get_logger("auditor").warning("live was not compared with the ledger", reason=error.reason)

    async def stop(self) -> None:
        """Leaves what is under way to the next start."""
        await self.runs.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._spread is not None:
            await self._spread.close()
        for channel in self._channels:
            await channel.close()
        await self.crew.graders.close()
        if self.crew.policy_model is not None:
            await self.crew.policy_model.close()
        await asyncio.to_thread(self.recorder.close)
        self.recorder.ledger.close()

    async def verify_ledger(self, expected_seq: int, expected_hash: str) -> Verdict:
        """On a thread of its own: a long chain must not hold up the appends."""
        verdict = await asyncio.to_thread(self.recorder.ledger.verify, expected_seq, expected_hash)
        # What a caller expects may itself be wrong; the metric tells of the chain alone.
        if verdict.intact or not (expected_seq or expected_hash):
            metrics.verified(verdict)
        return verdict

    async def _keep_verifying(self) -> None:
        """Checks the whole chain at the start, and again whenever the time has come."""
        log = structlog.get_logger("auditor")
        while True:
            try:
                verdict = await self.verify_ledger(0, "")
                if not verdict.intact:
                    log.error("the ledger is damaged", seq=verdict.broken_at, detail=verdict.detail)
            except OperationalError as error:
                log.warning("the ledger could not be checked", error=type(error.orig).__name__)
            await asyncio.sleep(self._verify_seconds)
