"""Commands over mutual TLS: whose certificate they show, and what a person reads when one of the two is not taken."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.certificates import Authority
from cli.failure import BadInput
from cli.launcher.plan import SERVICES, make_plan
from cli.launcher.ready import is_serving
from cli.launcher.services import services_up
from common.boundary.identities import Role
from common.config import ServiceConfig
from common.contract.seal.v1.auditor_pb2_grpc import add_AuditorServiceServicer_to_server
from common.rpc.server import running
from common.tls.settings import TlsSettings
from tests.cli.conftest import Seal
from tests.cli.scripted_auditor import ScriptedAuditor
from tests.cli.tiny_up import tiny_plan


@pytest.fixture
def made(tmp_path: Path, seal: Seal) -> Path:
    """What `seal certificates` makes."""
    folder = tmp_path / "tls"
    outcome = seal("certificates", str(folder), "--operator", "alice", "--json")
    assert outcome.code == 0, outcome.err
    return folder


@contextmanager
def auditor_at(tls: Path | None) -> Iterator[str]:
    """The scripted auditor behind the server that services have, with a certificate or in plain text."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    config = ServiceConfig(listen="127.0.0.1:0", tls=TlsSettings.of_folder(tls) if tls else None, grace_seconds=0)
    server = running(
        config,
        service="seal.v1.AuditorService",
        add=lambda server: add_AuditorServiceServicer_to_server(ScriptedAuditor(), server),
    )
    try:
        yield asyncio.run_coroutine_threadsafe(server.__aenter__(), loop).result(10).target
    finally:
        asyncio.run_coroutine_threadsafe(server.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def test_certificates_are_made_for_every_identity_and_the_authority_is_used_again(made: Path, seal: Seal) -> None:
    authority = (made / "ca" / "ca.crt").read_bytes()
    outcome = seal("certificates", str(made), "--operator", "bob", "--json")
    identities = [entry["identity"] for entry in outcome.objects]
    assert {f"spiffe://seal.internal/{role}" for role in Role if role is not Role.OPERATOR} < set(identities)
    assert "spiffe://seal.internal/operator/bob" in identities
    assert (made / "operator-bob" / "ca.crt").read_bytes() == authority == (made / "ca" / "ca.crt").read_bytes()
    alice = (made / "operator-alice" / "tls.crt").read_bytes()
    assert seal("certificates", str(made)).code == 0
    assert (made / "operator-alice" / "tls.crt").read_bytes() != alice, "who is known is renewed without being named"
    for key in (made / "ca" / "ca.key", made / "operator-bob" / "tls.key", made / "teacher" / "tls.key"):
        assert key.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("host", ["teacher.seal.internal", "Auditor.seal.internal.", "*.seal.internal"])
def test_no_certificate_gets_the_name_of_another_service(made: Path, seal: Seal, host: str) -> None:
    before = (made / "student" / "tls.crt").read_bytes()
    outcome = seal("certificates", str(made), "--host", host)
    assert outcome.code == 2
    assert f"--host {host}: is how callers know a service" in outcome.err
    assert (made / "student" / "tls.crt").read_bytes() == before


def test_commands_show_the_operators_certificate(made: Path, seal: Seal, monkeypatch: pytest.MonkeyPatch) -> None:
    with auditor_at(made / "auditor") as target:
        for folder in (made, made / "operator", made / "operator-alice"):
            outcome = seal("status", "--auditor", target, "--tls", str(folder), "--json")
            assert outcome.code == 0, outcome.err
        monkeypatch.setenv("SEAL_TLS", str(made))
        assert seal("runs", "--auditor", target).code == 0


def test_who_may_not_call_is_told_so_and_what_to_do(made: Path, seal: Seal) -> None:
    with auditor_at(made / "auditor") as target:
        outcome = seal("edits", "--auditor", target, "--tls", str(made / "scheduler"))
        assert outcome.code == 1
        assert "scheduler may not call /seal.v1.AuditorService/ListEdits" in outcome.err
        assert "--tls FOLDER" in outcome.err


def test_a_peer_that_is_not_trusted_is_named_as_such(made: Path, seal: Seal, tmp_path: Path) -> None:
    stranger = Authority.create().issue(tmp_path / "stranger", Role.OPERATOR, "eve")
    with auditor_at(made / "auditor") as target:
        foreign = seal("status", "--auditor", target, "--tls", str(stranger))
        assert "not signed by the authority in ca.crt" in foreign.err
        plain = seal("status", "--auditor", target)
        assert "it may want mutual TLS" in plain.err
        (stranger / "ca.crt").write_bytes((made / "ca" / "ca.crt").read_bytes())
        refused = seal("status", "--auditor", target, "--tls", str(stranger))
        assert "did not take this command's certificate" in refused.err
    with auditor_at(made / "student") as target:
        impostor = seal("status", "--auditor", target, "--tls", str(made))
        assert "no auditor's" in impostor.err
    with auditor_at(None) as target:
        assert "in plain text" in seal("status", "--auditor", target, "--tls", str(made)).err


def test_a_folder_without_a_certificate_is_wrong_usage(seal: Seal, tmp_path: Path) -> None:
    outcome = seal("status", "--tls", str(tmp_path))
    assert outcome.code == 2
    assert f"--tls {tmp_path}: holds no tls.crt" in outcome.err


async def test_the_launcher_gives_each_service_its_certificate(made: Path, tmp_path: Path) -> None:
    plan = make_plan(data=tmp_path / "data", tls=made)
    for name in SERVICES:
        assert plan.service(name).settings["tls"]["certificate"] == str(made / name / "tls.crt")
    settings = {name: {"tls": plan.service(name).settings["tls"]} for name in SERVICES}
    tiny = tiny_plan(tmp_path / "tiny", **json.loads(json.dumps(settings)))
    async with services_up(tiny) as services:
        for service in tiny.services:
            assert await is_serving(services.target(service.name), service.health_name, service.tls)
            assert not await is_serving(services.target(service.name), service.health_name)
    (made / "student" / "tls.crt").unlink()
    with pytest.raises(BadInput, match=r"has no student/tls\.crt"):
        make_plan(data=tmp_path / "data", tls=made)
