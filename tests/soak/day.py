"""The work of a simulated day: a run each quarter of an hour, and what users and operators ask meanwhile.

Every run is about a document that was not there before, as it is where documents come in; its edits are really judged,
kept and promoted, so that ledger, lineage and retention grow as they do in a year of use. The services below the
auditor are scripted and instant; the day's waiting is left out, the day's work is not.
"""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict

from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import auditor_pb2_grpc
from common.errors import SealError
from common.rpc.client import remote_errors
from tests.fuzz.corpus import Corpus
from tests.fuzz.driver import NAME, Rpc, rpcs_of
from tests.support.forgetful_services import facts_of

MINUTES_A_RUN = 15
DEADLINE = 300.0
# Of each RPC of teacher and student, between two runs; but a run has one M-step, each of which leaves a policy behind.
CALLS_A_RUN = 12
SELDOM = {"Learn": 1}
ASKED_A_RUN = 5


def hours(runs: int) -> float:
    return runs * MINUTES_A_RUN / 60


def run_request(number: int) -> pb.StartRunRequest:
    """One document with ten questions, three candidates on two seeds, promotion, and a suite that must be kept."""
    name = f"topic{number}"
    questions = [
        {"item_id": f"q{i}", "question": question, "answers": [answer]}
        for i, (question, answer) in enumerate(facts_of(f"doc-{name}", 10))
    ]
    suite = [{"item_id": f"k{i}", "question": f"Known {i}?", "answers": [f"known{i}"]} for i in range(10)]
    context = {"document_id": f"doc-{name}", "revision": "1", "title": f"About {name}", "text": f"All of {name}."}
    content = {
        "run_id": f"run-{number}",
        "tasks": [{"task_id": name, "kind": "TASK_KIND_KNOWLEDGE", "context": context, "tau": questions}],
        "settings": {
            "rounds": 1,
            "candidates": 3,
            "seeds": 2,
            "promotion": "PROMOTION_MODE_SEQUENTIAL",
            "retention": {"suites": ["known"], "max_drop": 0.4},
            "health": {"anchors": 4},
            "seed": number,
        },
        "suites": [{"suite_id": "known", "title": "Known", "items": suite}],
    }
    return ParseDict(content, pb.StartRunRequest())


def known() -> dict[str, str]:
    """What the scripted base answers."""
    return {f"Known {i}?": f"known{i}" for i in range(10)}


class Auditing:
    """An operator of the auditor: orders runs, watches them, reads what came of them, asks the live model."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub: Any = auditor_pb2_grpc.AuditorServiceStub(channel)
        self.promoted = 0
        self.failed = 0

    async def run(self, number: int) -> None:
        request = run_request(number)
        await self._stub.StartRun(request, timeout=DEADLINE)
        async for seen in self._stub.WatchRun(pb.WatchRunRequest(run_id=request.run_id), timeout=DEADLINE):
            kind = seen.event.WhichOneof("event")
            self.promoted += kind == "version_promoted"
            self.failed += kind == "run_failed"
        await self._stub.GetRun(pb.GetRunRequest(run_id=request.run_id), timeout=DEADLINE)
        edits = await self._stub.ListEdits(pb.ListEditsRequest(run_id=request.run_id), timeout=DEADLINE)
        for edit in edits.edits:
            await self._stub.GetEdit(pb.GetEditRequest(edit=edit.edit.sha256), timeout=DEADLINE)
        await self._stub.ListVersions(pb.AuditorServiceListVersionsRequest(page_size=20), timeout=DEADLINE)
        await self._stub.ListRuns(pb.ListRunsRequest(page_size=20), timeout=DEADLINE)
        for question in range(ASKED_A_RUN):
            await self._stub.Ask(pb.AskRequest(question=f"Known {question}?"), timeout=DEADLINE)
        try:
            with remote_errors():
                await self._stub.GetRun(pb.GetRunRequest(run_id="no-such-run"), timeout=DEADLINE)
        except SealError:
            pass

    async def events(self) -> int:
        """How many the ledger has; raises AssertionError when it is not intact."""
        verdict = await self._stub.VerifyLedger(pb.VerifyLedgerRequest(), timeout=DEADLINE)
        assert verdict.intact, verdict.detail
        return int(verdict.events)


class Calling:
    """A peer of the real teacher or student: valid calls with new ids, streams read to their end."""

    def __init__(self, service: str, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._rpcs = rpcs_of((service,))
        self._names: deque[str] = deque(maxlen=48)
        self._corpus = Corpus(random.Random(service), self._names)

    async def between_runs(self) -> None:
        for rpc in self._rpcs:
            for _ in range(SELDOM.get(rpc.name, CALLS_A_RUN)):
                try:
                    with remote_errors():
                        await self._call(rpc)
                except SealError as error:
                    # Some name what is not there: such calls are part of every day.
                    if error.reason == "INTERNAL":
                        raise

    async def _call(self, rpc: Rpc) -> None:
        request = self._corpus.request(rpc.name, rpc.request)
        raw: Any = {"request_serializer": type(request).SerializeToString, "response_deserializer": bytes}
        if rpc.streams:
            answers = [a async for a in self._channel.unary_stream(rpc.path, **raw)(request, timeout=DEADLINE)]
        else:
            answers = [await self._channel.unary_unary(rpc.path, **raw)(request, timeout=DEADLINE)]
        self._names.extend(name.decode() for answer in answers for name in NAME.findall(answer)[:4])
