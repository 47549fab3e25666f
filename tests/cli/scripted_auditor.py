"""An AuditorService that answers from a script, on a real gRPC server in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import grpc

from common import errors
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import auditor_pb2_grpc, student_pb2, teacher_pb2, types_pb2
from common.rpc.interceptors import CallInterceptor

EDIT = "3fa9c1" + "a" * 58
OTHER = "b7d2e0" + "c" * 58
LIVE = "81c0d2" + "d" * 58
FAQ_SCORE = pb.TaskScore(task_id="faq", score=pb.Score(questions=7, correct=3))
HASH = "5b" * 32


def recorded_events(run_id: str = "run-1") -> list[pb.RunEvent]:
    """A whole run, numbered with gaps as a ledger that serves several runs numbers it."""
    score = pb.Score(questions=7, correct=3)
    none = pb.Score(questions=7)
    edit = types_pb2.Digest(sha256=EDIT)
    told: list[pb.RunEvent] = [
        pb.RunEvent(run_started=pb.RunStarted(tasks=1, rounds=1, candidates=2, seeds=1, start_version="base")),
        pb.RunEvent(round_started=pb.RoundStarted(round=1, parent_version="base", policy_version="base")),
        pb.RunEvent(
            version_scored=pb.VersionScored(
                version="base", task_id="faq", split=pb.SPLIT_HOLDOUT, score=none, purpose="baseline"
            )
        ),
        pb.RunEvent(edit_proposed=pb.EditProposed(round=1, task_id="faq", edit=edit, examples=12)),
        pb.RunEvent(proposal_failed=pb.ProposalFailed(round=1, task_id="faq", index=1, reason="EMPTY_EDIT")),
        pb.RunEvent(
            candidate_trained=pb.CandidateTrained(
                round=1, task_id="faq", edit=edit, seed=2**62, version=student_pb2.Version(version=LIVE, seconds=8.4)
            )
        ),
        pb.RunEvent(candidate_scored=pb.CandidateScored(task_id="faq", edit=edit, before=none, after=score)),
        pb.RunEvent(
            filter_decided=pb.FilterDecided(task_id="faq", verdicts=[pb.EditVerdict(edit=edit, kept=True, gain=0.43)])
        ),
        pb.RunEvent(update_trained=pb.UpdateTrained(round=1, edits=[edit], version=student_pb2.Version(version=LIVE))),
        pb.RunEvent(
            update_judged=pb.UpdateJudged(
                version=LIVE,
                edits=[edit],
                accepted=True,
                gates=[pb.Gate(kind=pb.GATE_KIND_CONFIRMATION, passed=True, figures={"gain": 0.4})],
                holdout_before=none,
                holdout_after=score,
            )
        ),
        pb.RunEvent(version_promoted=pb.VersionPromoted(version=LIVE, previous_version="base", decided_by="loop")),
        pb.RunEvent(policy_learned=pb.PolicyLearned(round=1, skipped="[one] kept edit is too few")),
        pb.RunEvent(round_finished=pb.RoundFinished(round=1, live_version=LIVE, edits_proposed=2, edits_kept=1)),
        pb.RunEvent(run_finished=pb.RunFinished(run=finished_run(run_id))),
    ]
    for position, event in enumerate(told):
        event.seq = 10 + 3 * position
        event.run_id = run_id
        event.time.FromSeconds(1_770_000_000 + position)
    return told


def finished_run(run_id: str) -> pb.Run:
    run = pb.Run(
        run_id=run_id,
        state=pb.RUN_STATE_FINISHED,
        rounds_done=1,
        task_ids=["faq"],
        edits_proposed=2,
        edits_accepted=1,
        edits_rejected=1,
        start_version="base",
        live_version=LIVE,
        base_holdout=pb.Score(questions=7, correct=1),
        live_holdout=pb.Score(questions=7, correct=4),
        retention_before=pb.Score(questions=62, correct=62),
        retention_after=pb.Score(questions=62, correct=60),
        settings=pb.RunSettings(max_answer_tokens=64),
    )
    run.start_time.FromSeconds(1_770_000_000)
    run.end_time.FromSeconds(1_770_000_125)
    return run


def results(correct_before: str = "1000000", correct_after: str = "1111000") -> list[pb.QuestionResult]:
    """Holdout results from two strings of marks."""
    return [
        pb.QuestionResult(
            item_id=f"q{n:02d}",
            task_id="faq",
            split=pb.SPLIT_HOLDOUT,
            question=f"What is figure {n}?",
            accepted_answers=[f"figure {n}"],
            answer_before="no idea",
            answer_after=f"figure {n}" if after == "1" else "",
            score_before=float(before),
            score_after=float(after),
            version_before="base",
            version_after=LIVE,
        )
        for n, (before, after) in enumerate(zip(correct_before, correct_after, strict=True), start=1)
    ]


def summary(digest: str = EDIT, state: pb.EditState.ValueType = pb.EDIT_STATE_ACCEPTED) -> pb.EditSummary:
    return pb.EditSummary(
        edit=types_pb2.Digest(sha256=digest, size_bytes=2_000),
        run_id="run-1",
        round=1,
        task_id="faq",
        state=state,
        reason="gain above [threshold]",
        gain=0.43,
        examples=2,
        prompt_variant="self-qa",
        policy_version="base",
    )


def record() -> pb.EditRecord:
    question = types_pb2.Conversation(
        messages=[
            types_pb2.Message(role=types_pb2.ROLE_USER, content=[types_pb2.ContentPart(text="How long?")]),
            types_pb2.Message(role=types_pb2.ROLE_ASSISTANT, content=[types_pb2.ContentPart(text="22 days")]),
        ]
    )
    return pb.EditRecord(
        summary=summary(),
        edit=types_pb2.SelfEdit(
            digest=types_pb2.Digest(sha256=EDIT),
            document_id="faq",
            revision="1",
            examples=[types_pb2.Example(text="The trial lasts 22 days."), types_pb2.Example(conversation=question)],
            recipe=types_pb2.Recipe(rank=32, learning_rate=1e-3, schedule=types_pb2.SCHEDULE_LINEAR),
        ),
        origin=teacher_pb2.EditOrigin(
            model="small", backend="vllm", policy_version="base", prompt_variant="self-qa", completions=9
        ),
        title="Frequently asked [questions]",
        versions=[
            student_pb2.Version(version=LIVE, adapter=types_pb2.Digest(sha256=LIVE, size_bytes=5_000_000), seed=7)
        ],
        reward_results=results(),
        holdout_results=results(),
        forgotten=results("1", "0"),
        gates=[pb.Gate(kind=pb.GATE_KIND_REWARD, passed=True, reason="gain", figures={"gain": 0.43})],
        accepted_version=LIVE,
        ledger=[pb.LedgerReference(seq=19, type="edit_proposed", hash=HASH)],
    )


class ScriptedAuditor(auditor_pb2_grpc.AuditorServiceServicer):
    """`cuts` holds how many recorded events each stream sends before it breaks; behind the last cut streams are whole.

    `overlap` sends that many events again which the watcher has already seen.
    """

    def __init__(
        self,
        events: list[pb.RunEvent] | None = None,
        cuts: list[int] | None = None,
        overlap: int = 0,
        quiet_seconds: float = 0.0,
    ) -> None:
        """quiet_seconds: the first stream says nothing for so long after its third event."""
        self.events = events if events is not None else recorded_events()
        self.cuts = list(cuts or [])
        self.overlap = overlap
        self.quiet_seconds = quiet_seconds
        self.watched_after: list[int] = []
        self.requests: list[object] = []
        self.live = LIVE
        self.intact = True

    async def GetStatus(self, request: object, context: object) -> pb.AuditorServiceGetStatusResponse:
        return pb.AuditorServiceGetStatusResponse(
            teacher=teacher_pb2.TeacherServiceGetStatusResponse(model="small", backend="vllm"),
            ledger_seq=49,
            ledger_head=HASH,
        )

    async def StartRun(self, request: pb.StartRunRequest, context: object) -> pb.StartRunResponse:
        self.requests.append(request)
        small = [i for i, task in enumerate(request.tasks) if len(task.tau) < 4]
        if small:
            raise errors.InvalidRequest([errors.Violation(f"tasks[{i}].tau", "too few questions") for i in small])
        for event in self.events:
            event.run_id = request.run_id
        return pb.StartRunResponse(run=pb.Run(run_id=request.run_id, state=pb.RUN_STATE_QUEUED))

    async def WatchRun(self, request: pb.WatchRunRequest, context: object) -> AsyncIterator[pb.WatchRunResponse]:
        if request.run_id not in {event.run_id for event in self.events}:
            raise errors.NotFound(f"no run {request.run_id}")
        self.watched_after.append(request.after_seq)
        seen = sum(event.seq <= request.after_seq for event in self.events)
        left = self.cuts.pop(0) if self.cuts else len(self.events) + self.overlap
        for event in self.events[max(0, seen - self.overlap) :]:
            if not left:
                raise errors.Unavailable("cut off by the script")
            left -= 1
            moving = types_pb2.Progress(phase="training", done=left, total=9)
            progress = pb.RunProgress(phase="training", task_id="faq", progress=moving)
            yield pb.WatchRunResponse(event=pb.RunEvent(run_id=request.run_id, progress=progress))
            yield pb.WatchRunResponse(event=event)
            if event.seq == self.events[2].seq and len(self.watched_after) == 1:
                await asyncio.sleep(self.quiet_seconds)

    async def GetRun(self, request: pb.GetRunRequest, context: object) -> pb.GetRunResponse:
        last = self.events[-1].WhichOneof("event")
        run = finished_run(request.run_id)
        run.last_seq = self.events[-1].seq
        if last == "run_failed":
            run.state, run.error = pb.RUN_STATE_FAILED, self.events[-1].run_failed.detail
        return pb.GetRunResponse(run=run, holdout_results=results())

    async def ListRuns(self, request: pb.ListRunsRequest, context: object) -> pb.ListRunsResponse:
        return pb.ListRunsResponse(runs=[finished_run("run-1")])

    async def CancelRun(self, request: pb.CancelRunRequest, context: object) -> pb.CancelRunResponse:
        return pb.CancelRunResponse(run=pb.Run(run_id=request.run_id, state=pb.RUN_STATE_CANCELLED))

    async def ListEdits(self, request: pb.ListEditsRequest, context: object) -> pb.ListEditsResponse:
        """Two pages of one edit each."""
        self.requests.append(request)
        if not request.page_token:
            return pb.ListEditsResponse(edits=[summary()], next_page_token="second")
        return pb.ListEditsResponse(edits=[summary(OTHER, pb.EDIT_STATE_REJECTED)])

    async def GetEdit(self, request: pb.GetEditRequest, context: object) -> pb.GetEditResponse:
        if not EDIT.startswith(request.edit):
            raise errors.NotFound("no such edit", ids={"edit": request.edit})
        return pb.GetEditResponse(record=record())

    async def ListVersions(
        self, request: pb.AuditorServiceListVersionsRequest, context: object
    ) -> pb.AuditorServiceListVersionsResponse:
        return pb.AuditorServiceListVersionsResponse(
            versions=[
                pb.LineageEntry(
                    version=LIVE, parent_version="base", number=1, live=True, task_ids=["faq"], task_scores=[FAQ_SCORE]
                ),
                pb.LineageEntry(version="base", previous=True),
            ],
            forgetting=pb.Forgetting(tasks=1, average_forgetting=0.2, backward_transfer=-0.1),
        )

    async def Ask(self, request: pb.AskRequest, context: object) -> pb.AskResponse:
        self.requests.append(request)
        version = request.version or self.live
        number = request.question.removesuffix("?").rpartition(" ")[2]
        if request.fallback_to_parent:
            return pb.AskResponse(answer="Paris", version=version, answered_by="base")
        answer = "no idea" if version == "base" else f"figure {number}"
        return pb.AskResponse(answer=answer, version=version, answered_by=version)

    async def ApproveEdit(self, request: pb.ApproveEditRequest, context: object) -> pb.ApproveEditResponse:
        self.requests.append(request)
        return pb.ApproveEditResponse(edit=summary())

    async def RejectEdit(self, request: pb.RejectEditRequest, context: object) -> pb.RejectEditResponse:
        self.requests.append(request)
        return pb.RejectEditResponse(edit=summary(state=pb.EDIT_STATE_REJECTED))

    async def Promote(self, request: pb.PromoteRequest, context: object) -> pb.PromoteResponse:
        raise errors.NotPossible("version 81c0d2 did not pass the retention gate")

    async def Rollback(self, request: pb.RollbackRequest, context: object) -> pb.RollbackResponse:
        self.requests.append(request)
        self.live = request.version or "base"
        return pb.RollbackResponse(promoted=pb.VersionPromoted(version=self.live, previous_version=LIVE, rollback=True))

    async def VerifyLedger(self, request: pb.VerifyLedgerRequest, context: object) -> pb.VerifyLedgerResponse:
        if not self.intact:
            return pb.VerifyLedgerResponse(broken_at=17, detail="its hash does not fit")
        return pb.VerifyLedgerResponse(intact=True, events=49, head=HASH)


async def start_server(servicer: ScriptedAuditor, target: str = "127.0.0.1:0") -> tuple[grpc.aio.Server, str]:
    """A real server with the project's own error mapping. The caller stops it."""
    server = grpc.aio.server(interceptors=[CallInterceptor(60.0)])
    auditor_pb2_grpc.add_AuditorServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(target)
    await server.start()
    return server, f"127.0.0.1:{port}"


@contextmanager
def serving(servicer: ScriptedAuditor) -> Iterator[str]:
    """The target of a server in a thread of its own, so that commands can run their own event loop here."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server, target = asyncio.run_coroutine_threadsafe(start_server(servicer), loop).result(10)
    try:
        yield target
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
