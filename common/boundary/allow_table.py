"""The allow table: what is not here is refused.

Three things are derived from it and nothing else decides: the authorization interceptor (common/rpc/authorization.py)
from RPCS, the NetworkPolicies of deploy/k8s from `edges()`, and the tests of both. An RPC that a service has and the
table does not name is refused to everybody.

Roles are certificates' (common/boundary/identities.py); places are what has an address: the three services, those who
call them, and what they need that is no RPC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from common.boundary.identities import Role

_AUDITOR = frozenset({Role.AUDITOR})
_OPERATOR = frozenset({Role.OPERATOR})
_RUNS = frozenset({Role.OPERATOR, Role.SCHEDULER})
_ASKS = frozenset({Role.OPERATOR, Role.APPLICATION})
EVERYBODY = frozenset(Role)

# The application may ask the live version and nothing else: common/boundary/request_rules.py reads the request.
LIVE_ONLY = frozenset({Role.APPLICATION})

RPCS: Mapping[str, frozenset[Role]] = {
    "/seal.v1.TeacherService/GetStatus": _AUDITOR,
    "/seal.v1.TeacherService/ProposeEdits": _AUDITOR,
    "/seal.v1.TeacherService/Learn": _AUDITOR,
    "/seal.v1.TeacherService/SetPolicy": _AUDITOR,
    "/seal.v1.TeacherService/ListPolicies": _AUDITOR,
    "/seal.v1.StudentService/GetStatus": _AUDITOR,
    "/seal.v1.StudentService/Train": _AUDITOR,
    "/seal.v1.StudentService/Answer": _AUDITOR | LIVE_ONLY,
    "/seal.v1.StudentService/LogLikelihood": _AUDITOR,
    "/seal.v1.StudentService/SetAlias": _AUDITOR,
    "/seal.v1.StudentService/ListVersions": _AUDITOR,
    "/seal.v1.StudentService/VerifyVersion": _AUDITOR,
    "/seal.v1.StudentService/Discard": _AUDITOR,
    "/seal.v1.AuditorService/GetStatus": _RUNS,
    "/seal.v1.AuditorService/StartRun": _RUNS,
    "/seal.v1.AuditorService/WatchRun": _RUNS,
    "/seal.v1.AuditorService/GetRun": _RUNS,
    "/seal.v1.AuditorService/ListRuns": _RUNS,
    "/seal.v1.AuditorService/CancelRun": _RUNS,
    "/seal.v1.AuditorService/ListEdits": _OPERATOR,
    "/seal.v1.AuditorService/GetEdit": _OPERATOR,
    "/seal.v1.AuditorService/ListVersions": _OPERATOR,
    "/seal.v1.AuditorService/Ask": _ASKS,
    "/seal.v1.AuditorService/ApproveEdit": _OPERATOR,
    "/seal.v1.AuditorService/RejectEdit": _OPERATOR,
    "/seal.v1.AuditorService/Promote": _OPERATOR,
    "/seal.v1.AuditorService/Rollback": _OPERATOR,
    "/seal.v1.AuditorService/VerifyLedger": _OPERATOR,
    # What every service has. On the port for probes health answers anybody; it says nothing but SERVING or not.
    "/grpc.health.v1.Health/Check": EVERYBODY,
    "/grpc.health.v1.Health/Watch": EVERYBODY,
    "/grpc.health.v1.Health/List": EVERYBODY,
    # Off by default (setting `reflection`).
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": _OPERATOR,
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": _OPERATOR,
}


class Place(StrEnum):
    """What has an address in a cluster."""

    TEACHER = "teacher"
    STUDENT = "student"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    APPLICATION = "application"
    SCHEDULER = "scheduler"
    DNS = "dns"
    POSTGRES = "postgres"
    OBJECT_STORE = "object-store"
    PROMETHEUS = "prometheus"
    TRACES = "traces"
    JUDGE = "judge"
    TEACHER_API = "teacher-api"
    EGRESS_PROXY = "egress-proxy"


class Transport(StrEnum):
    TCP = "TCP"
    UDP = "UDP"


class Address(StrEnum):
    """How a policy names the far end: pods by label, or a block of addresses that the cluster's owner writes down."""

    PODS = "pods"
    CIDR = "cidr"


@dataclass(frozen=True)
class Edge:
    """One way a connection may be opened. `component`: the kustomize component that opens it; empty: the base."""

    source: Place
    target: Place
    port: int
    why: str
    transport: Transport = Transport.TCP
    address: Address = Address.PODS
    component: str = ""


SERVICES = {"TeacherService": Place.TEACHER, "StudentService": Place.STUDENT, "AuditorService": Place.AUDITOR}
GRPC_PORTS = {Place.TEACHER: 50051, Place.STUDENT: 50052, Place.AUDITOR: 50053}
# Plaintext, health alone; kubelets reach pods whatever the policies say, so no edge opens these.
HEALTH_PORTS = {Place.TEACHER: 50061, Place.STUDENT: 50062, Place.AUDITOR: 50063}
METRICS_PORTS = {Place.TEACHER: 9101, Place.STUDENT: 9102, Place.AUDITOR: 9103}
DNS_PORT, POSTGRES_PORT, OBJECT_STORE_PORT, TRACES_PORT, HTTPS_PORT, PROXY_PORT = 53, 5432, 443, 4317, 443, 3128

_RESOLVING = (Place.TEACHER, Place.STUDENT, Place.AUDITOR, Place.SCHEDULER)

# Everything that is no RPC.
NAMED_EDGES: tuple[Edge, ...] = (
    *(
        Edge(place, Place.DNS, DNS_PORT, "names of services", transport)
        for place in _RESOLVING
        for transport in Transport
    ),
    *(Edge(Place.PROMETHEUS, place, port, "scrape", component="monitoring") for place, port in METRICS_PORTS.items()),
    *(Edge(place, Place.TRACES, TRACES_PORT, "OTLP", component="tracing") for place in METRICS_PORTS),
    Edge(Place.AUDITOR, Place.POSTGRES, POSTGRES_PORT, "the ledger", component="postgres"),
    Edge(
        Place.STUDENT,
        Place.OBJECT_STORE,
        OBJECT_STORE_PORT,
        "adapters, edits, aliases",
        address=Address.CIDR,
        component="object-store",
    ),
    Edge(Place.AUDITOR, Place.JUDGE, HTTPS_PORT, "a judge's endpoint", address=Address.CIDR, component="judge-egress"),
    Edge(
        Place.TEACHER,
        Place.TEACHER_API,
        HTTPS_PORT,
        "a hosted teacher or a model hub",
        address=Address.CIDR,
        component="teacher-egress",
    ),
    # NetworkPolicies know addresses, not names: where names are wanted, a proxy that knows them stands between.
    Edge(Place.AUDITOR, Place.EGRESS_PROXY, PROXY_PORT, "a judge by host name", component="egress-proxy"),
    Edge(Place.TEACHER, Place.EGRESS_PROXY, PROXY_PORT, "a model hub by host name", component="egress-proxy"),
)


def edges() -> tuple[Edge, ...]:
    """Every connection that may be opened: one for each caller of any RPC of a service, and the named ones."""
    calls: dict[tuple[Place, Place], list[str]] = {}
    for method, roles in RPCS.items():
        service, rpc = method.removeprefix("/seal.v1.").split("/") if method.startswith("/seal.v1.") else ("", "")
        for role in roles if service else ():
            calls.setdefault((Place(role), SERVICES[service]), []).append(rpc)
    by_rpc = [
        Edge(source, target, GRPC_PORTS[target], ", ".join(sorted(rpcs))) for (source, target), rpcs in calls.items()
    ]
    return (*by_rpc, *NAMED_EDGES)
