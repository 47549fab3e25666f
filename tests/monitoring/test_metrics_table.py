"""docs/metrics.md says exactly what the services export: names, types, labels."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Metric

from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import auditor_pb2_grpc
from common.rpc.client import open_channel
from tests.auditor.plays import start_run, student, task, teacher, teaching
from tests.auditor.test_process import process, watch
from tests.monitoring.table import ROOT, SERVICES, documented, scraped
from tests.support.scripted_services import on_stage


def test_no_metric_has_two_rows() -> None:
    names = [metric.name for metric in documented()]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("service", SERVICES)
def test_the_table_is_what_a_services_process_declares(service: str) -> None:
    command = [sys.executable, "-m", "tests.monitoring.declared", service]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    declared = {(name, kind, tuple(labels)) for name, kind, labels in json.loads(done.stdout.splitlines()[-1])}
    rows = {(row.name, row.type, row.labels) for row in documented() if service in row.services}
    assert declared - rows == set(), "exported, but not in docs/metrics.md"
    assert rows - declared == set(), "in docs/metrics.md, but not exported"


def test_the_ledgers_metrics_are_not_there_before_it_was_read() -> None:
    code = (
        "from auditor import metrics; from prometheus_client import generate_latest\n"
        "before = b'seal_edits_total' in generate_latest()\n"
        "metrics.ledger_was_read()\n"
        "print(before, b'seal_edits_total' in generate_latest())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def ledgers_counters(families: list[Metric]) -> dict[str, float]:
    """Samples of the counters and histograms that are projections of the ledger, by their names and labels."""
    names = ("seal_edits", "seal_reward", "seal_confirmation", "seal_runs", "seal_promotions", "seal_forgotten")
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in families
        if family.name in names
        for sample in family.samples
    }


async def test_a_real_run_shows_every_metric_of_the_table_and_a_restart_brings_the_ledgers_back(tmp_path: Path) -> None:
    port, metrics_port = free_ports(2)
    stand_ins = (teacher(a=[teaching("a", n) for n in (0, 5, 10)]), student())
    async with on_stage(*stand_ins) as stage, open_channel(f"127.0.0.1:{port}") as channel:
        stub: Any = auditor_pb2_grpc.AuditorServiceStub(channel)
        async with process(stage, tmp_path, port, metrics_port=metrics_port):
            await stub.StartRun(start_run("run", [task("a")], seeds=2), wait_for_ready=True, timeout=60)
            await watch(stub, 0, until=None)
            # The projections catch up after the append that a watcher is shown.
            await stub.GetStatus(pb.AuditorServiceGetStatusRequest())
            first = await asyncio.to_thread(scraped, f"127.0.0.1:{metrics_port}")
        async with process(stage, tmp_path, port, metrics_port=metrics_port):
            await stub.GetStatus(pb.AuditorServiceGetStatusRequest(), wait_for_ready=True, timeout=60)
            again = await asyncio.to_thread(scraped, f"127.0.0.1:{metrics_port}")
    rows = {row.name: row for row in documented() if "auditor" in row.services}
    exported = {f"{family.name}_total" if family.type == "counter" else family.name: family for family in first}
    assert set(exported) == set(rows)
    for name, family in exported.items():
        assert family.type == rows[name].type
        assert {sample.name for sample in family.samples} in ({*rows[name].series}, set()), name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(rows[name].labels), name
    counters = ledgers_counters(first)
    assert counters["seal_promotions_total[('kind', 'promotion')]"] == 1
    assert counters["seal_edits_total[('gate', 'none'), ('verdict', 'accepted')]"] == 1
    assert counters["seal_reward_count[]"] == 3
    assert ledgers_counters(again) == counters
    agreement = next(family for family in first if family.name == "seal_reward_agreement")
    assert agreement.samples[0].value == 1


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
