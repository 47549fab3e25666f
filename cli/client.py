"""The auditor as commands see it: one method a question, each with a deadline, errors as Failures.

Used by every command but `seal up`. Open it with `async with auditor(target) as service`.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import grpc

from cli.connection import own_tls
from cli.failure import EXIT_USAGE, Failure
from common import errors
from common.boundary.identities import Role
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1.auditor_pb2_grpc import AuditorServiceStub
from common.operator import user_name
from common.rpc.client import open_channel
from common.rpc.status import from_rpc_error

QUICK_SECONDS = 30.0
START_SECONDS = 120.0
# Behind these a model may first have to finish what it is doing.
MODEL_SECONDS = 900.0
PAGE = 1_000
EntryT = TypeVar("EntryT")
STATUS_DETAILS = "grpc-status-details-bin"

NEXT_STEPS: dict[type[errors.SealError], str] = {
    errors.InvalidRequest: "Correct the above and try again.",
    errors.Unauthenticated: "Show a certificate of yours with --tls FOLDER (or SEAL_TLS).",
    errors.NotAllowed: "docs/security.md says who may do what; --tls FOLDER (or SEAL_TLS) chooses whose certificate.",
    errors.Overloaded: "The service is busy: try again in a moment.",
    errors.NotFound: "See `seal runs`, `seal edits` and `seal versions` for what there is.",
    errors.Conflict: "Choose another id with --run-id, or leave it out.",
    errors.StaleGeneration: "Somebody else moved it meanwhile; look at `seal versions` and try again.",
    errors.NotPossible: "See `seal status` and `seal runs` for the present state.",
    errors.Corrupt: "Run `seal verify`; the service's log says more.",
    errors.Unavailable: "See `seal status`; a service that died is named where `seal up` runs.",
    errors.Expired: "The services may be busy: `seal status` shows the active run, `seal versions` whether live moved.",
}


class NoAnswer(Failure):
    """No auditor listens at the target."""

    def __init__(self, target: str) -> None:
        next_step = "Start it with `seal up`, or name another with --auditor HOST:PORT (or SEAL_AUDITOR)."
        super().__init__(f"nothing answers at {target}", next_step, reason="UNAVAILABLE")


class Refused(Failure):
    """The auditor does not let this identity make this call."""


class NoTrust(NoAnswer):
    """Somebody listens at the target, and one of the two sides does not take the other's certificate."""

    def __init__(self, target: str, why: str) -> None:
        next_step = "Name the folder of your certificate with --tls (or SEAL_TLS); is it from the same authority?"
        Failure.__init__(self, f"{target} answers, but {why}", next_step, reason="UNAVAILABLE")


def new_id(prefix: str) -> str:
    """A request id that no other call has."""
    return f"{prefix}-{uuid.uuid4().hex}"


@contextmanager
def failures(target: str) -> Iterator[None]:
    """Turns a call's RpcError into a Failure that a person can act on."""
    try:
        yield
    except grpc.RpcError as error:
        raise failure_of(error, target) from error


def failure_of(error: grpc.RpcError, target: str) -> Failure:
    """The Failure for a failed call; NoAnswer if nobody was there to answer."""
    remote = from_rpc_error(error)
    if isinstance(remote, errors.Unavailable) and not _from_service(error):
        return _unreached(remote.message, target)
    if getattr(error, "code", lambda: None)() is grpc.StatusCode.UNIMPLEMENTED:
        return Failure(f"what answers at {target} is no auditor of this release", "Check --auditor.")
    if isinstance(remote, errors.NotAllowed):
        return Refused(remote.message, NEXT_STEPS[errors.NotAllowed], reason=remote.reason)
    code = EXIT_USAGE if isinstance(remote, errors.InvalidRequest) else 1
    unnamed = [f"{key} {value}" for key, value in remote.ids.items() if value not in remote.message]
    what = (remote.message or remote.reason) + (f" ({', '.join(unnamed)})" if unnamed else "")
    return Failure(what, NEXT_STEPS.get(type(remote), "The auditor's log says more."), code=code, reason=remote.reason)


def _unreached(message: str, target: str) -> NoAnswer:
    """gRPC says in words alone where a connection ended."""
    if "Hostname Verification" in message:
        return NoTrust(target, "its certificate is no auditor's of this trust domain")
    if "WRONG_VERSION_NUMBER" in message:
        return NoTrust(target, "in plain text: leave --tls out, or give the service a certificate")
    if "handshake failed" in message:
        return NoTrust(target, "its certificate is not signed by the authority in ca.crt, or has expired")
    connecting = "connections to all backends failing" in message
    if connecting and ("Socket closed" in message or "Connection reset" in message):
        how = "did not take this command's certificate" if own_tls() else "closed plain text: it may want mutual TLS"
        return NoTrust(target, how)
    return NoAnswer(target)


def _from_service(error: grpc.RpcError) -> bool:
    """Whether the service itself said so, and not the connection to it."""
    metadata = error.trailing_metadata() if isinstance(error, grpc.aio.AioRpcError) else ()
    return any(key == STATUS_DETAILS for key, _ in metadata or ())


class Auditor:
    """Calls of the AuditorService. Every method raises Failure and nothing else for what can go wrong remotely."""

    def __init__(self, channel: grpc.aio.Channel, target: str) -> None:
        self.stub = AuditorServiceStub(channel)
        self.target = target

    async def status(self) -> pb.AuditorServiceGetStatusResponse:
        with failures(self.target):
            return await self.stub.GetStatus(pb.AuditorServiceGetStatusRequest(), timeout=QUICK_SECONDS)

    async def start_run(self, request: pb.StartRunRequest) -> pb.Run:
        with failures(self.target):
            return (await self.stub.StartRun(request, timeout=START_SECONDS)).run

    async def run(self, run_id: str) -> pb.Run:
        with failures(self.target):
            return (await self.stub.GetRun(pb.GetRunRequest(run_id=run_id), timeout=QUICK_SECONDS)).run

    async def holdout_results(self, run_id: str) -> list[pb.QuestionResult]:
        """Every holdout question of a finished run, answered by the base and by the version live at its end."""
        with failures(self.target):
            response = await self.stub.GetRun(pb.GetRunRequest(run_id=run_id), timeout=QUICK_SECONDS)
        return list(response.holdout_results)

    async def cancel(self, run_id: str) -> pb.Run:
        with failures(self.target):
            return (await self.stub.CancelRun(pb.CancelRunRequest(run_id=run_id), timeout=START_SECONDS)).run

    async def runs(self, limit: int) -> list[pb.Run]:
        """The newest `limit` runs."""

        async def page(size: int, token: str) -> tuple[Iterable[pb.Run], str]:
            request = pb.ListRunsRequest(page_size=size, page_token=token)
            response = await self.stub.ListRuns(request, timeout=QUICK_SECONDS)
            return response.runs, response.next_page_token

        return await self._pages(page, limit)

    async def edits(
        self, *, run_id: str = "", state: pb.EditState.ValueType = pb.EDIT_STATE_UNSPECIFIED, limit: int = PAGE
    ) -> list[pb.EditSummary]:
        """The first `limit` edits of a run, or of all runs, in a state or in any."""

        async def page(size: int, token: str) -> tuple[Iterable[pb.EditSummary], str]:
            request = pb.ListEditsRequest(run_id=run_id, state=state, page_size=size, page_token=token)
            response = await self.stub.ListEdits(request, timeout=QUICK_SECONDS)
            return response.edits, response.next_page_token

        return await self._pages(page, limit)

    async def forgetting(self) -> pb.Forgetting:
        """What the live lineage forgot."""
        request = pb.AuditorServiceListVersionsRequest(page_size=1)
        response = await self.stub.ListVersions(request, timeout=QUICK_SECONDS)
        return pb.Forgetting.FromString(response.forgetting.SerializeToString())

    async def versions(self, limit: int = PAGE) -> list[pb.LineageEntry]:
        """The newest `limit` versions of the lineage."""

        async def page(size: int, token: str) -> tuple[Iterable[pb.LineageEntry], str]:
            request = pb.AuditorServiceListVersionsRequest(page_size=size, page_token=token)
            response = await self.stub.ListVersions(request, timeout=QUICK_SECONDS)
            return response.versions, response.next_page_token

        return await self._pages(page, limit)

    async def _pages(
        self, page: Callable[[int, str], Awaitable[tuple[Iterable[EntryT], str]]], limit: int
    ) -> list[EntryT]:
        found: list[EntryT] = []
        token = ""
        while len(found) < limit:
            with failures(self.target):
                entries, token = await page(min(PAGE, limit - len(found)), token)
            found += entries
            if not token:
                break
        return found

    async def edit(self, edit: str) -> pb.EditRecord:
        with failures(self.target):
            return (await self.stub.GetEdit(pb.GetEditRequest(edit=edit), timeout=QUICK_SECONDS)).record

    async def ask(self, request: pb.AskRequest) -> pb.AskResponse:
        with failures(self.target):
            return await self.stub.Ask(request, timeout=MODEL_SECONDS)

    async def approve(self, edit: str, reason: str) -> pb.EditSummary:
        request = pb.ApproveEditRequest(request_id=new_id("approve"), edit=edit, reason=reason)
        with failures(self.target):
            return (await self.stub.ApproveEdit(request, timeout=MODEL_SECONDS)).edit

    async def reject(self, edit: str, reason: str) -> pb.EditSummary:
        request = pb.RejectEditRequest(request_id=new_id("reject"), edit=edit, reason=reason)
        with failures(self.target):
            return (await self.stub.RejectEdit(request, timeout=MODEL_SECONDS)).edit

    async def promote(self, version: str, reason: str) -> pb.VersionPromoted:
        request = pb.PromoteRequest(request_id=new_id("promote"), version=version, reason=reason)
        with failures(self.target):
            return (await self.stub.Promote(request, timeout=MODEL_SECONDS)).promoted

    async def rollback(self, version: str, reason: str) -> pb.VersionPromoted:
        request = pb.RollbackRequest(request_id=new_id("rollback"), version=version, reason=reason)
        with failures(self.target):
            return (await self.stub.Rollback(request, timeout=MODEL_SECONDS)).promoted

    async def verify(self, expected_seq: int, expected_hash: str) -> pb.VerifyLedgerResponse:
        request = pb.VerifyLedgerRequest(expected_seq=expected_seq, expected_hash=expected_hash)
        with failures(self.target):
            return await self.stub.VerifyLedger(request, timeout=MODEL_SECONDS)


@asynccontextmanager
async def auditor(target: str) -> AsyncIterator[Auditor]:
    """The auditor at host:port, for as long as the block lasts."""
    try:
        channel = open_channel(target, tls=own_tls(), expects=Role.AUDITOR)
    except errors.InvalidConfig as error:
        raise Failure(error.message, "`seal certificates FOLDER` renews certificates.", reason=error.reason) from None
    try:
        yield Auditor(channel, target)
    finally:
        await channel.close()


def default_reason(action: str) -> str:
    """What is recorded when the operator gives no reason."""
    return f"{action} by {user_name()} with the command line"
