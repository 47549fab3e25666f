"""Where the allow table's places are in a cluster: by which labels a policy names them.

The services and the scheduler have namespaces of this project. The rest is the cluster's: its owner labels namespaces,
or writes down blocks of addresses. Read by the generator of the policies and by their evaluator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from common.boundary.allow_table import Place

NAMESPACE_NAME = "kubernetes.io/metadata.name"
POD_NAME = "app.kubernetes.io/name"

# The scheduler is a client, not a service. Whoever may create a Job in a namespace may mount every Secret there, so
# the namespace in which pipelines start runs holds the scheduler's certificate and no other.
NAMESPACES: Mapping[Place, str] = {
    Place.TEACHER: "seal-teacher",
    Place.STUDENT: "seal-student",
    Place.AUDITOR: "seal-auditor",
    Place.POSTGRES: "seal-auditor",
    Place.SCHEDULER: "seal-runs",
}
OWNED = tuple(dict.fromkeys(NAMESPACES.values()))


@dataclass(frozen=True)
class Placement:
    """Pods by the labels of their namespace and their own, or a block of addresses."""

    namespace: Mapping[str, str] = field(default_factory=dict)
    pods: Mapping[str, str] = field(default_factory=dict)
    cidr: str = ""


def _named(namespace: str, pod: str) -> Placement:
    return Placement({NAMESPACE_NAME: namespace}, {POD_NAME: str(pod)})


PLACEMENTS: Mapping[Place, Placement] = {
    **{place: _named(namespace, place) for place, namespace in NAMESPACES.items()},
    Place.OPERATOR: Placement({"seal.io/operators": "true"}, {POD_NAME: "operator"}),
    Place.APPLICATION: Placement({"seal.io/applications": "true"}, {POD_NAME: "application"}),
    Place.DNS: Placement({NAMESPACE_NAME: "kube-system"}, {"k8s-app": "kube-dns"}),
    Place.PROMETHEUS: _named("monitoring", "prometheus"),
    Place.TRACES: _named("observability", "opentelemetry-collector"),
    Place.EGRESS_PROXY: _named("seal-egress", "egress-proxy"),
    # Documentation addresses (RFC 5737), which lead nowhere: closed until the overlay's owner writes down his own.
    Place.OBJECT_STORE: Placement(cidr="192.0.2.1/32"),
    Place.JUDGE: Placement(cidr="192.0.2.2/32"),
    Place.TEACHER_API: Placement(cidr="192.0.2.3/32"),
}
