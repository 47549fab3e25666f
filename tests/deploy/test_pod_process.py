"""The auditor, started as its pod starts it, answers the probes of its manifest and is gone in time."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from cli.certificates import Authority
from common.boundary.identities import Role
from tests.deploy.cluster import NAME, of_kind, pods
from tools.manifests.kustomize import rendered

STARTS_WITHIN = 60.0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_auditors_pod_answers_its_probes_and_stops_in_time(tmp_path: Path) -> None:
    manifests = rendered("local")
    [pod] = [pod for pod in pods(manifests) if pod.labels[NAME] == "auditor"]
    [settings] = [
        found["data"]["auditor.yaml"] for found in of_kind(manifests, "ConfigMap") if "auditor.yaml" in found["data"]
    ]
    tls = Authority.create().issue(tmp_path / "tls", Role.AUDITOR)
    (tmp_path / "store").mkdir()
    # Paths and ports that this machine has; all else is the pod's.
    for mounted, here in (("/var/run/seal/tls", tls), ("/var/lib/seal", tmp_path / "store")):
        settings = settings.replace(mounted, str(here))
    (tmp_path / "auditor.yaml").write_text(settings)
    health = _free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if name in {"PATH", "PYTHONPATH", "LD_LIBRARY_PATH"}},
        **pod.environment,
        "SEAL_AUDITOR__LISTEN": "127.0.0.1:0",
        "SEAL_AUDITOR__METRICS_LISTEN": "''",
        "SEAL_AUDITOR__HEALTH_LISTEN": f"127.0.0.1:{health}",
    }
    command = [sys.executable, *pod.container["command"][1:], "--config", str(tmp_path / "auditor.yaml")]
    with subprocess.Popen(command, env=environment, cwd=Path.cwd(), stderr=subprocess.DEVNULL) as process:
        try:
            with grpc.insecure_channel(f"127.0.0.1:{health}") as channel:
                for probe in ("startup", "liveness", "readiness"):
                    asked = pod.container[f"{probe}Probe"]["grpc"].get("service", "")
                    _await_serving(channel, asked)
            process.send_signal(signal.SIGTERM)
            left = pod.spec["terminationGracePeriodSeconds"] - pod.container["lifecycle"]["preStop"]["sleep"]["seconds"]
            assert process.wait(timeout=left) == 0
        finally:
            process.kill()


def _await_serving(channel: grpc.Channel, service: str) -> None:
    """Raises grpc.RpcError when it does not in time."""
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    request = health_pb2.HealthCheckRequest(service=service)
    for update in watch(request, wait_for_ready=True, timeout=STARTS_WITHIN):
        if update.status == health_pb2.HealthCheckResponse.SERVING:
            return
    raise AssertionError(f"{service!r} never served")
