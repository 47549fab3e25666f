"""An order over several replicas, each behind a real gRPC server: shared out, taken over, and passed on once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest

from auditor import spreading
from auditor.clients import GrpcStudent
from auditor.config import AuditorConfig, Retries, StudentPeer, Timeouts
from auditor.peers import AliasOrder, AnswerOrder, ScoreOrder, TrainCandidate, TrainOrder, prompt_of
from auditor.spread_student import SpreadStudent
from cli.certificates import Authority
from common.boundary.identities import Role
from common.config import ServiceConfig
from common.contract.seal.v1 import student_pb2, student_pb2_grpc, types_pb2
from common.errors import InvalidRequest, Overloaded, Unavailable, Violation
from common.lora.proof import Liveness, LivenessProof
from common.prompting import ask
from common.rpc import replicas as resolving
from common.rpc.client import open_channel
from common.rpc.replicas import Replicas, addresses_of
from common.rpc.server import running
from common.tls.settings import TlsSettings
from common.types import Progress, Sampling
from common.versions import Answer, AnswerPurpose, FailedCandidate, KlFromBase, TrainedCandidate
from tests.support.scripted_services import ScriptedStudent, edit_about

FAST = Retries(attempts=3, first_wait_seconds=0.02, longest_wait_seconds=0.1)
EDIT = edit_about("doc", "The plan", [("How long?", "Thirty days.")])


class Replica(ScriptedStudent):
    """One of several on a shared store. `meeting`: nobody trains before so many replicas are at it.

    `falls`: after so many candidates the process is gone, and so is every later call.
    """

    def __init__(self, first: Replica | None = None) -> None:
        super().__init__()
        if first is not None:
            self.adapters, self.trainings, self.alias = first.adapters, first.trainings, first.alias
        self.calls: list[Any] = []
        self.meeting: asyncio.Barrier | None = None
        self.falls: int | None = None
        self.began = asyncio.Event()

    async def Train(self, request: student_pb2.TrainRequest, context: Any) -> AsyncIterator[student_pb2.TrainResponse]:
        self.calls.append(request)
        self.began.set()
        await self._stand(context)
        if self.meeting is not None:
            await self.meeting.wait()
        async for event in super().Train(request, context):
            if event.WhichOneof("event") != "progress" and self.falls is not None:
                self.falls -= 1
            yield event
            await self._stand(context)

    async def Answer(
        self, request: student_pb2.AnswerRequest, context: Any
    ) -> AsyncIterator[student_pb2.AnswerResponse]:
        self.calls.append(request)
        async for event in super().Answer(request, context):
            yield event

    async def LogLikelihood(
        self, request: student_pb2.LogLikelihoodRequest, context: Any
    ) -> AsyncIterator[student_pb2.LogLikelihoodResponse]:
        self.calls.append(request)
        async for event in super().LogLikelihood(request, context):
            yield event

    async def _stand(self, context: Any) -> None:
        if self.falls is not None and self.falls <= 0:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")


def on_one_store(count: int) -> list[Replica]:
    first = Replica()  # type: ignore[abstract] # the auditor calls no other RPC
    return [first, *(Replica(first) for _ in range(count - 1))]  # type: ignore[abstract]


@asynccontextmanager
async def spread_over(
    replicas: list[Replica],
    *,
    most: int = 0,
    batch: int = 0,
    tls: TlsSettings | None = None,
    dial: Callable[[str], grpc.aio.Channel] = open_channel,
) -> AsyncIterator[SpreadStudent]:
    async with AsyncExitStack() as stack:
        ports = []
        for replica in replicas:
            server = await stack.enter_async_context(
                running(
                    ServiceConfig(listen="127.0.0.1:0", grace_seconds=0, tls=tls),
                    service="seal.v1.StudentService",
                    add=lambda server, replica=replica: student_pb2_grpc.add_StudentServiceServicer_to_server(  # type: ignore[misc]
                        replica, server
                    ),
                )
            )
            ports.append(server.target)
        target = "ipv4:" + ",".join(ports)
        config = AuditorConfig(
            student=StudentPeer(target=target, replicas=most, train_batch=batch),
            retries=FAST,
        )
        channel = await stack.enter_async_context(dial(target))
        anyone = GrpcStudent(channel, config.timeouts, config.retries)
        student = SpreadStudent.open(config, anyone, dial)
        stack.push_async_callback(student.close)
        yield student


def training(count: int) -> TrainOrder:
    candidates = tuple(TrainCandidate(candidate_id=f"c{i}", edit=EDIT, seed=i) for i in range(count))
    return TrainOrder(request_id="train", parent_version="base", candidates=candidates)


async def train(student: SpreadStudent, order: TrainOrder) -> list[TrainedCandidate | FailedCandidate]:
    return [event async for event in student.train(order, lambda _: None)]


async def test_all_replicas_train_at_the_same_time_and_each_candidate_once() -> None:
    replicas = on_one_store(3)
    # A replica that had to wait for another's end would never meet it.
    meeting = asyncio.Barrier(3)
    for replica in replicas:
        replica.meeting = meeting
    async with spread_over(replicas) as student:
        events = await train(student, training(7))
    assert sorted(event.candidate_id for event in events) == [f"c{i}" for i in range(7)]
    assert sorted(len(call.candidates) for replica in replicas for call in replica.calls) == [1, 3, 3]
    assert set(replicas[0].trainings.values()) == {1}


async def test_what_a_replica_leaves_undone_is_done_by_the_others_and_nothing_twice() -> None:
    replicas = on_one_store(3)
    replicas[1].falls = 1
    async with spread_over(replicas) as student:
        events = await train(student, training(9))
    assert sorted(event.candidate_id for event in events) == [f"c{i}" for i in range(9)]
    assert set(replicas[0].trainings.values()) == {1}
    taken_over = [call for replica in (replicas[0], replicas[2]) for call in replica.calls[1:]]
    assert sum(len(call.candidates) for call in taken_over) == 2


async def test_a_broken_stream_is_opened_again_at_its_replica_with_the_same_id() -> None:
    replicas = on_one_store(2)
    replicas[0].faults.breaks["Train"] = 1
    async with spread_over(replicas) as student:
        events = await train(student, training(6))
    assert len(events) == 6
    assert [len(replica.calls) for replica in replicas] == [2, 1]
    assert len({call.request_id for call in replicas[0].calls}) == 1


async def test_the_same_order_asked_again_is_cut_into_the_same_pieces() -> None:
    replicas = on_one_store(3)
    async with spread_over(replicas) as student:
        await train(student, training(6))
        again = await train(student, training(6))
    assert all(isinstance(event, TrainedCandidate) and event.reused for event in again)
    assert Counter(call.request_id for replica in replicas for call in replica.calls).most_common()[-1][1] == 2


async def test_a_small_batch_keeps_every_replica_busy_and_a_cap_leaves_some_free() -> None:
    replicas = on_one_store(3)
    async with spread_over(replicas, most=2, batch=1) as student:
        events = await train(student, training(5))
    assert len(events) == 5
    assert {len(call.candidates) for replica in replicas for call in replica.calls} == {1}
    assert sum(bool(replica.calls) for replica in replicas) == 2


async def test_an_order_that_no_replica_takes_fails_after_the_waits() -> None:
    replicas = on_one_store(2)
    for replica in replicas:
        replica.falls = 0
    async with spread_over(replicas) as student:
        with pytest.raises(Unavailable):
            await train(student, training(4))


async def test_work_that_breaks_whoever_begins_it_is_given_up() -> None:
    class Dying(Replica):
        async def Train(self, request: Any, context: Any) -> AsyncIterator[student_pb2.TrainResponse]:
            self.calls.append(request)
            yield student_pb2.TrainResponse(progress=types_pb2.Progress(phase="training"))
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    replicas: list[Replica] = [Dying(), Dying(), Dying()]  # type: ignore[abstract]
    async with spread_over(replicas) as student:
        with pytest.raises(Unavailable):
            await train(student, training(1))
    # Twice at a replica, and at as many as there are attempts.
    assert sum(len(replica.calls) for replica in replicas) == 2 * FAST.attempts


async def test_an_error_of_the_order_is_raised_as_it_is() -> None:
    class Refusing(Replica):
        async def Train(self, request: Any, context: Any) -> AsyncIterator[student_pb2.TrainResponse]:
            raise InvalidRequest([Violation("candidates[0].edit", "is too long")])
            yield student_pb2.TrainResponse()

    replicas: list[Replica] = [Refusing(), Refusing()]  # type: ignore[abstract]
    async with spread_over(replicas) as student:
        with pytest.raises(InvalidRequest, match="too long"):
            await train(student, training(2))


async def test_a_replica_with_more_than_enough_to_do_leaves_its_piece_to_another() -> None:
    class Busy(Replica):
        async def Train(self, request: Any, context: Any) -> AsyncIterator[student_pb2.TrainResponse]:
            self.calls.append(request)
            raise Overloaded("calls are too many", retry_seconds=0.01)
            yield student_pb2.TrainResponse()

    (free,) = on_one_store(1)
    busy = Busy()  # type: ignore[abstract]
    async with spread_over([busy, free]) as student:
        events = await train(student, training(4))
    assert len(events) == 4
    assert busy.calls
    assert not busy.trainings


async def test_replicas_are_known_by_their_role_at_whatever_address(tmp_path: Path) -> None:
    authority = Authority.create()
    # Their certificates name no address: pods have one only once they run.
    authority.issue(tmp_path / "student", Role.STUDENT, hosts=())
    authority.issue(tmp_path / "teacher", Role.TEACHER, hosts=())
    authority.issue(tmp_path / "auditor", Role.AUDITOR)
    own = TlsSettings.of_folder(tmp_path / "auditor")
    dial = partial(open_channel, tls=own, expects=Role.STUDENT)
    replicas = on_one_store(2)
    async with spread_over(replicas, tls=TlsSettings.of_folder(tmp_path / "student"), dial=dial) as student:
        assert len(await train(student, training(4))) == 4
    assert all(replica.calls for replica in replicas)
    impostors = on_one_store(2)
    async with spread_over(impostors, tls=TlsSettings.of_folder(tmp_path / "teacher"), dial=dial) as student:
        with pytest.raises(Unavailable):
            await train(student, training(4))
    assert not any(replica.calls for replica in impostors)


async def test_a_user_is_answered_by_the_replica_that_has_least_to_do() -> None:
    replicas = on_one_store(2)
    end = asyncio.Barrier(2)
    for replica in replicas:
        replica.meeting = end
    async with spread_over(replicas, most=1) as student:
        training_there = asyncio.create_task(train(student, training(1)))
        begun = [asyncio.create_task(replica.began.wait()) for replica in replicas]
        await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
        (busy,) = [replica for replica in replicas if replica.calls]
        users = student.for_users(student.anyone, Timeouts())
        order = AnswerOrder(
            request_id="ask",
            purpose=AnswerPurpose.LIVE,
            prompts=(prompt_of(ask("The plan", "How long?"), "q"),),
            versions=("live",),
            sampling=Sampling(max_new_tokens=8),
        )
        events = [event async for event in users.answer(order, lambda _: None)]
        assert not training_there.done()
        await end.wait()
        await training_there
        for task in begun:
            task.cancel()
    assert [type(event) for event in events] == [LivenessProof, Answer]
    assert [type(call).__name__ for call in busy.calls] == ["TrainRequest"]


async def test_versions_are_asked_at_different_replicas_and_every_event_comes_once() -> None:
    replicas = on_one_store(2)
    prompts = tuple(prompt_of(ask("The plan", f"How long, {i}?"), f"q{i}") for i in range(3))
    async with spread_over(replicas) as student:
        trained = await train(student, training(3))
        versions = ("base", *(event.version.version for event in trained if isinstance(event, TrainedCandidate)))
        for replica in replicas:
            replica.calls.clear()
        order = AnswerOrder(
            request_id="answer",
            purpose=AnswerPurpose.AUDIT,
            prompts=prompts,
            versions=versions,
            sampling=Sampling(max_new_tokens=8),
        )
        events = [event async for event in student.answer(order, lambda _: None)]
        scored = [
            event
            async for event in student.score(
                ScoreOrder(request_id="score", versions=versions, kl_prompts=prompts), lambda _: None
            )
        ]
    assert [len(replica.calls) for replica in replicas] == [2, 2]
    proofs = [event.version for event in events if isinstance(event, LivenessProof)]
    assert sorted(proofs) == sorted(versions)
    answered = [(event.version, event.prompt_id) for event in events if isinstance(event, Answer)]
    assert sorted(answered) == sorted((version, prompt.prompt_id) for version in versions for prompt in prompts)
    for version in versions:
        first = next(event for event in events if event.version == version)
        assert isinstance(first, LivenessProof)
    assert len([event for event in scored if isinstance(event, KlFromBase)]) == len(versions) * len(prompts)


async def test_an_alias_moves_at_any_replica_and_progress_is_that_of_the_whole_order() -> None:
    replicas = on_one_store(2)
    told: list[Progress] = []
    async with spread_over(replicas) as student:
        assert [event async for event in student.train(training(6), told.append)]
        moved = await student.set_alias(
            AliasOrder(request_id="move", name="live", version="base", expected_generation=0)
        )
        assert moved.generation == 1
        assert (await student.status()).live.generation == 1
    assert max(progress.total for progress in told) == 6


@pytest.mark.parametrize("spread", [True, False], ids=["spread", "one call"])
@pytest.mark.parametrize("rpc", ["answer", "score"])
async def test_a_version_that_proves_invalid_where_it_is_taken_over_is_said_to_be(rpc: str, spread: bool) -> None:
    """Its first proof was good; without the second one its answers would merely be incomplete."""
    calls = 0

    class Doubted(Replica):
        async def Answer(self, request: Any, context: Any) -> AsyncIterator[student_pb2.AnswerResponse]:
            async for proof in self.proofs(context):
                yield student_pb2.AnswerResponse(proof=proof)

        async def LogLikelihood(self, request: Any, context: Any) -> AsyncIterator[student_pb2.LogLikelihoodResponse]:
            async for proof in self.proofs(context):
                yield student_pb2.LogLikelihoodResponse(proof=proof)

        async def proofs(self, context: Any) -> AsyncIterator[student_pb2.LivenessProof]:
            nonlocal calls
            calls += 1
            taken_over = calls > 2  # a piece is asked twice where it began
            liveness = student_pb2.LIVENESS_INVALID if taken_over else student_pb2.LIVENESS_BASE
            yield student_pb2.LivenessProof(version="base", liveness=liveness)
            if not taken_over:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    replicas: list[Replica] = [Doubted(), Doubted()]  # type: ignore[abstract]
    prompts = (prompt_of(ask("The plan", "How long?"), "q"),)
    async with spread_over(replicas) as student:
        client = student if spread else student.anyone
        if rpc == "answer":
            asked = AnswerOrder(
                request_id="answer",
                purpose=AnswerPurpose.AUDIT,
                prompts=prompts,
                versions=("base",),
                sampling=Sampling(max_new_tokens=8),
            )
            events: list[Any] = [event async for event in client.answer(asked, lambda _: None)]
        else:
            scored = ScoreOrder(request_id="score", versions=("base",), kl_prompts=prompts)
            events = [event async for event in client.score(scored, lambda _: None)]
    assert [event.liveness for event in events if isinstance(event, LivenessProof)] == [
        Liveness.BASE,
        Liveness.INVALID,
    ]


async def test_one_that_is_leaving_takes_nobody_elses_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rollout: the old one still works on its piece when its name is gone and the new one's has come."""
    replicas = on_one_store(3)
    meeting = asyncio.Barrier(3)
    for replica in replicas:
        replica.meeting = meeting
    monkeypatch.setattr(spreading, "LOOK_AGAIN_SECONDS", 0.05)
    async with spread_over(replicas, batch=1) as student:
        all_three = sorted(replica.address for replica in await student.means.known())
        now = set(all_three[:2])

        async def addresses(target: str) -> set[str]:
            return set(now)

        monkeypatch.setattr(resolving, "addresses_of", addresses)
        monkeypatch.setattr(student.means.replicas, "_refresh_seconds", 0.0)
        monkeypatch.setattr(student.means.replicas, "_due", 0.0)
        work = asyncio.create_task(train(student, training(3)))
        begun = asyncio.as_completed([asyncio.create_task(replica.began.wait()) for replica in replicas])
        for _ in range(2):
            await next(begun)
        now.symmetric_difference_update({all_three[0], all_three[2]})
        async with asyncio.timeout(20):
            assert len(await work) == 3
    assert [len(replica.calls) for replica in replicas] == [1, 1, 1]


async def test_orders_that_begin_at_once_wait_for_the_first_answer_of_dns(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def addresses(target: str) -> set[str]:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return {"ipv4:127.0.0.1:1"}

    monkeypatch.setattr(resolving, "addresses_of", addresses)
    replicas = Replicas("dns:///student:50052", open_channel)
    one, two = await asyncio.gather(replicas.known(), replicas.known())
    assert one == two
    assert asked == 1
    await replicas.close()


async def test_replicas_that_come_are_found_and_those_that_go_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"ipv4:127.0.0.1:1", "ipv4:127.0.0.1:2"}

    async def addresses(target: str) -> set[str]:
        return set(now)

    monkeypatch.setattr(resolving, "addresses_of", addresses)
    replicas = Replicas("dns:///student:50052", open_channel, refresh_seconds=0)
    first = await replicas.known()
    now.remove("ipv4:127.0.0.1:1")
    now.add("ipv4:127.0.0.1:3")
    second = await replicas.known()
    assert [replica.address for replica in second] == ["ipv4:127.0.0.1:2", "ipv4:127.0.0.1:3"]
    assert second[0] is first[1]
    now.clear()
    assert await replicas.known() == second
    await replicas.close()


async def test_a_name_stands_for_its_addresses_and_a_list_for_itself() -> None:
    assert await addresses_of("ipv4:10.0.0.1:7,10.0.0.2:7") == {"ipv4:10.0.0.1:7", "ipv4:10.0.0.2:7"}
    assert await addresses_of("dns:///localhost:7") == {"ipv4:127.0.0.1:7"}
    assert await addresses_of("127.0.0.1:7") == {"ipv4:127.0.0.1:7"}
    assert await addresses_of("dns:///nobody.invalid:7") == set()
