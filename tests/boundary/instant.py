"""All three services, real servers with mutual TLS, behind servicers that answer every RPC at once and note it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message_factory import GetMessageClass

from cli.certificates import Authority
from common.boundary.identities import Role
from common.config import ServiceConfig
from common.contract.seal.v1 import (
    auditor_pb2,
    auditor_pb2_grpc,
    student_pb2,
    student_pb2_grpc,
    teacher_pb2,
    teacher_pb2_grpc,
)
from common.rpc.limits import CallLimits
from common.rpc.server import running
from common.tls.settings import TlsSettings

SERVICES: Mapping[Role, tuple[ServiceDescriptor, type, Callable[[Any, grpc.aio.Server], None]]] = {
    Role.TEACHER: (
        teacher_pb2.DESCRIPTOR.services_by_name["TeacherService"],
        teacher_pb2_grpc.TeacherServiceServicer,
        teacher_pb2_grpc.add_TeacherServiceServicer_to_server,
    ),
    Role.STUDENT: (
        student_pb2.DESCRIPTOR.services_by_name["StudentService"],
        student_pb2_grpc.StudentServiceServicer,
        student_pb2_grpc.add_StudentServiceServicer_to_server,
    ),
    Role.AUDITOR: (
        auditor_pb2.DESCRIPTOR.services_by_name["AuditorService"],
        auditor_pb2_grpc.AuditorServiceServicer,
        auditor_pb2_grpc.add_AuditorServiceServicer_to_server,
    ),
}
MANY = CallLimits(calls_per_second=100_000, burst=100_000)


@dataclass(frozen=True)
class Rpc:
    """One RPC of one service, as a descriptor says."""

    role: Role
    method: MethodDescriptor

    @property
    def path(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def request(self) -> Any:
        return GetMessageClass(self.method.input_type)()

    @property
    def response(self) -> Any:
        return GetMessageClass(self.method.output_type)()

    async def call(self, channel: grpc.aio.Channel, request: Any = None, *, timeout: float = 20.0) -> Any:
        """The first response."""
        kind = channel.unary_stream if self.method.server_streaming else channel.unary_unary
        stub: Any = kind(
            self.path,
            request_serializer=type(self.request).SerializeToString,
            response_deserializer=type(self.response).FromString,
        )
        begun = stub(self.request if request is None else request, timeout=timeout)
        if not self.method.server_streaming:
            return await begun
        responses = [response async for response in begun]
        return responses[0]


def rpcs() -> list[Rpc]:
    """Every RPC that the contract has."""
    return [Rpc(role, method) for role, (service, _, _) in SERVICES.items() for method in service.methods]


@dataclass
class Instant:
    """Running services. `reached` counts the calls that a servicer saw, by path."""

    authority: Authority
    folder: Path
    targets: dict[Role, str] = field(default_factory=dict)
    reached: Counter[str] = field(default_factory=Counter)
    # Streams wait for it behind their first response; it is set until a test clears it.
    flowing: asyncio.Event = field(default_factory=asyncio.Event)

    def certificate(self, role: Role, name: str = "") -> TlsSettings:
        """Of this authority; made when it is first asked for."""
        folder = self.folder / f"{role}-{name}"
        if not folder.exists():
            self.authority.issue(folder, role, name)
        return TlsSettings.of_folder(folder)


@asynccontextmanager
async def instant_services(
    folder: Path, *, limits: CallLimits = MANY, reload_seconds: float = 10.0, grace_seconds: float = 10.0
) -> AsyncIterator[Instant]:
    """The three services, each with its own certificate."""
    services = Instant(Authority.create(), folder)
    services.flowing.set()
    async with AsyncExitStack() as stack:
        for role, (described, _, add) in SERVICES.items():
            tls = services.certificate(role).model_copy(update={"reload_seconds": reload_seconds})
            config = ServiceConfig(listen="127.0.0.1:0", tls=tls, limits=limits, grace_seconds=grace_seconds)
            servicer = servicer_of(role, services)
            server = await stack.enter_async_context(
                running(config, service=described.full_name, add=_adding(add, servicer))
            )
            services.targets[role] = server.target
        yield services


def _adding(add: Callable[[Any, grpc.aio.Server], None], servicer: object) -> Callable[[grpc.aio.Server], None]:
    return lambda server: add(servicer, server)


def servicer_of(role: Role, services: Instant) -> object:
    described, base, _ = SERVICES[role]
    answers = {method.name: _answer(Rpc(role, method), services) for method in described.methods}
    return type("Instant", (base,), answers)()


def _answer(rpc: Rpc, services: Instant) -> Callable[[Any, Any, Any], Any]:
    async def unary(self: object, request: Any, context: Any) -> Any:
        services.reached[rpc.path] += 1
        return rpc.response

    async def streaming(self: object, request: Any, context: Any) -> AsyncIterator[Any]:
        services.reached[rpc.path] += 1
        yield rpc.response
        await services.flowing.wait()
        for _ in range(2):
            yield rpc.response

    return streaming if rpc.method.server_streaming else unary
