"""A whole run between three real services, with canaries in every key: what each place holds afterwards.

`played` gives the hits. Used by the tests here and by `python -m tests.boundary`.
"""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict
from transformers import AutoTokenizer

from cli.certificates import Authority
from cli.launcher.ports import free_port
from common.boundary.identities import Role
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import auditor_pb2_grpc
from common.rpc.client import open_channel
from common.tls.settings import TlsSettings
from tests.boundary.canary.canaries import Canaries
from tests.boundary.canary.entry import AS_IT_IS, LEAKING
from tests.boundary.canary.evaluation import Evaluation
from tests.boundary.canary.recording import ANSWERED, RECEIVED, SENT
from tests.boundary.canary.search import Hit, hits, hits_in_folder
from tests.support.collector import collecting
from tests.support.openai_endpoint import serving
from tests.support.tiny_services import NAMES, Models, Start, services_started, settings_of
from tests.support.writing_model import TITLE

RUN_SECONDS = 240.0
OTHERS = ("teacher", "student")
# In a service's folder, not of its writing, or searched as a place of its own.
NOT_STORED = frozenset({"log.txt", "config.yaml", "tls"})


@dataclass(frozen=True)
class Scene:
    """What is left of a run. `folder` holds one folder a service, and `wire`."""

    folder: Path
    evaluation: Evaluation
    events: Sequence[pb.RunEvent]
    metrics: Mapping[str, bytes]
    traces: bytes
    live_question: Canaries
    tokenizer: Any

    def wire(self, service: str, kind: str) -> bytes:
        return (self.folder / "wire" / f"{service}.{kind}").read_bytes()

    def forms(self, canaries: Canaries) -> dict[str, bytes]:
        return canaries.forms(self.tokenizer(canaries.stem, add_special_tokens=False)["input_ids"])

    def crossings(self) -> list[Hit]:
        """Canaries of keys and rules outside the auditor. There may be none."""
        forms = self.forms(self.evaluation.keys)
        found = self._received(OTHERS, forms) + self._kept(OTHERS, forms)
        found += hits("auditor's log", "log.txt", self.log("auditor"), forms)
        return found + self._watched(forms)

    def questions_astray(self) -> list[Hit]:
        """Questions and options anywhere but in what the student is asked. There may be none."""
        forms = self.forms(self.evaluation.asked)
        found = self._received(("teacher",), forms) + self._kept(OTHERS, forms)
        return found + hits("auditor's log", "log.txt", self.log("auditor"), forms) + self._watched(forms)

    def live_questions_kept(self) -> list[Hit]:
        """What a live user asked, anywhere but on its way to the student and back. There may be none."""
        forms = self.forms(self.live_question)
        found = self._received(("teacher",), forms) + self._kept(NAMES, forms) + self._watched(forms)
        return found + hits("auditor's log", "log.txt", self.log("auditor"), forms)

    def log(self, service: str) -> bytes:
        return (self.folder / service / "log.txt").read_bytes()

    def _received(self, services: Sequence[str], forms: Mapping[str, bytes]) -> list[Hit]:
        found = []
        for service in services:
            for kind in (RECEIVED, SENT, ANSWERED):
                found += hits(f"{service} {kind}", kind, self.wire(service, kind), forms)
        return found

    def _kept(self, services: Sequence[str], forms: Mapping[str, bytes]) -> list[Hit]:
        found = []
        for service in services:
            if service in OTHERS:
                found += hits(f"{service} logged", "log.txt", self.log(service), forms)
            found += hits_in_folder(f"{service} stored", self.folder / service, forms, but=NOT_STORED)
        return found

    def _watched(self, forms: Mapping[str, bytes]) -> list[Hit]:
        found = []
        for service, page in self.metrics.items():
            found += hits(f"{service} metrics", "/metrics", page, forms)
        return found + hits("traces", "spans", self.traces, forms)


async def played(folder: Path, models: Models, *, leaking: bool = False) -> Scene:
    """Runs it all. Raises what a service that does not start or a run that does not finish raises."""
    (folder / "wire").mkdir(parents=True)
    with serving(lambda _: "yes") as judge, collecting() as collector:
        stage = Stage(folder, models, LEAKING if leaking else AS_IT_IS, judge.base_url, collector.target)
        async with services_started([stage.start(name) for name in NAMES]):
            events = await stage.run()
    tokenizer = AutoTokenizer.from_pretrained(models.student)
    return Scene(folder, stage.evaluation, events, stage.metrics, collector.received, stage.live, tokenizer)


@dataclass
class Stage:
    """Where the services are told to be, and what is asked of them."""

    folder: Path
    models: Models
    mode: str
    judge_url: str
    collector: str
    authority: Authority = field(default_factory=Authority.create)
    evaluation: Evaluation = field(default_factory=Evaluation)
    live: Canaries = field(default_factory=Canaries)
    metrics: dict[str, bytes] = field(default_factory=lambda: dict.fromkeys(NAMES, b""))
    ports: Mapping[str, tuple[int, int]] = field(
        default_factory=lambda: {name: (free_port(), free_port()) for name in NAMES}
    )

    def start(self, name: str) -> Start:
        """The service itself, recorded."""
        grpc_port, metrics_port = self.ports[name]
        own = self.folder / name
        self.authority.issue(own / "tls", Role(name))
        settings = settings_of(name, own, self.models, f"127.0.0.1:{grpc_port}", f"127.0.0.1:{metrics_port}")
        settings |= {"log_level": "debug", "tracing": {"endpoint": self.collector}}
        if name == "auditor":
            settings |= self.evaluation.auditor_settings(own / "evaluation", self.judge_url)
            settings |= {peer: {"target": f"127.0.0.1:{self.ports[peer][0]}"} for peer in OTHERS}
        module = ("tests.boundary.canary.entry", name, str(self.folder / "wire"), self.mode)
        return Start(name, own, settings, module=module)

    async def run(self) -> list[pb.RunEvent]:
        """Everything that an operator and an application may ask for, around one run; metrics in it and after it."""
        async with self._dialled(Role.OPERATOR) as stub, self._dialled(Role.APPLICATION) as application:
            await stub.StartRun(ParseDict(self.evaluation.order("run"), pb.StartRunRequest()))
            watched = stub.WatchRun(pb.WatchRunRequest(run_id="run"), timeout=RUN_SECONDS)
            events = []
            async for response in watched:
                if response.event.seq:
                    events.append(response.event)
                if response.event.HasField("candidate_scored"):
                    await self._scrape()
            await _look_at_everything(stub)
            question = pb.AskRequest(topic=TITLE, question=f"What of {self.live.word()}?")
            await application.Ask(question)
            trained = [event.update_trained.version.version for event in events if event.HasField("update_trained")]
            for version in trained[-1:]:
                await stub.Promote(pb.PromoteRequest(request_id="on", version=version, reason="to see it answer"))
                await application.Ask(question)
                await stub.Rollback(pb.RollbackRequest(request_id="back", reason="seen"))
        await self._scrape()
        return events

    async def _scrape(self) -> None:
        for name in NAMES:
            self.metrics[name] += await asyncio.to_thread(_page, self.ports[name][1])

    @asynccontextmanager
    async def _dialled(self, role: Role) -> AsyncIterator[Any]:
        """The auditor, as somebody with a certificate of this role."""
        own = self.authority.issue(self.folder / "callers" / role, role, "alice" if role is Role.OPERATOR else "")
        target = f"127.0.0.1:{self.ports['auditor'][0]}"
        async with open_channel(target, tls=TlsSettings.of_folder(own), expects=Role.AUDITOR) as channel:
            yield auditor_pb2_grpc.AuditorServiceStub(channel)


async def _look_at_everything(stub: Any) -> None:
    await stub.GetStatus(pb.AuditorServiceGetStatusRequest())
    await stub.GetRun(pb.GetRunRequest(run_id="run"))
    await stub.ListRuns(pb.ListRunsRequest())
    for edit in (await stub.ListEdits(pb.ListEditsRequest())).edits:
        await stub.GetEdit(pb.GetEditRequest(edit=edit.edit.sha256))
    await stub.ListVersions(pb.AuditorServiceListVersionsRequest())
    await stub.VerifyLedger(pb.VerifyLedgerRequest())


def _page(port: int) -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        return bytes(page.read())
