"""Certificates are replaced while calls go on, and bad files change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import AsyncMock

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from prometheus_client import REGISTRY

from cli.certificates import Authority
from common.boundary.identities import Role
from common.errors import InvalidConfig
from common.rpc.channels import ReloadingChannel
from common.rpc.client import open_channel
from common.tls.material import Material
from common.tls.reloading import Reloader
from common.tls.settings import TlsSettings
from tests.boundary.instant import instant_services, rpcs
from tests.boundary.refusals import with_names, with_uris
from tests.boundary.rotation import rotate_under_load

FAILURES = "seal_certificate_reload_failures_total"
EXPIRY = "seal_certificate_expiry_timestamp_seconds"


async def test_no_call_fails_while_leaves_and_authorities_are_replaced() -> None:
    found = await rotate_under_load()
    assert found.failed == []
    assert found.calls >= 400
    assert found.streams >= 200
    assert found.rotations == 24


class Clock:
    """Time that passes when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def half_written(folder: Path, authority: Authority) -> None:
    certificate = folder / "tls.crt"
    certificate.write_bytes(certificate.read_bytes()[:200])


def another_key(folder: Path, authority: Authority) -> None:
    authority.issue(folder.parent / "other", Role.TEACHER)
    (folder / "tls.key").write_bytes((folder.parent / "other" / "tls.key").read_bytes())


def expired(folder: Path, authority: Authority) -> None:
    start = datetime.now(tz=UTC) - timedelta(hours=2)
    authority.issue(folder, Role.TEACHER, valid=timedelta(hours=1), not_before=start)


def missing(folder: Path, authority: Authority) -> None:
    (folder / "ca.crt").unlink()


def unknown_kind(folder: Path, authority: Authority) -> None:
    """PKCS 8 that is whole, of an algorithm that nobody knows."""
    lines = ["MC4CAQAwBQYDKwFwBCIEIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
    (folder / "tls.key").write_text("\n".join(["-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----", ""]))


def two_uris(folder: Path, authority: Authority) -> None:
    with_uris(authority, folder, "spiffe://seal.internal/teacher", "https://teacher.example")


def unreadable_names(folder: Path, authority: Authority) -> None:
    """A certificate that is whole but for its subject alternative names."""
    with_names(authority, folder, x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x01\x02"))


def foreign(folder: Path, authority: Authority) -> None:
    Authority.create("elsewhere.internal").issue(folder, Role.TEACHER)


BAD = [half_written, another_key, expired, missing, unknown_kind, two_uris, unreadable_names, foreign]


@pytest.mark.parametrize("spoil", BAD)
def test_a_bad_file_keeps_the_last_good_certificate_until_a_good_one_comes(
    tmp_path: Path, spoil: Callable[[Path, Authority], None]
) -> None:
    authority = Authority.create()
    folder = authority.issue(tmp_path / "teacher", Role.TEACHER)
    clock = Clock()
    reloader = Reloader(TlsSettings.of_folder(folder), clock)
    good = reloader.current
    before = REGISTRY.get_sample_value(FAILURES) or 0.0

    spoil(folder, authority)
    for _ in range(3):
        clock.now += 60
        assert reloader.current is good
    assert REGISTRY.get_sample_value(FAILURES) == before + 1  # once a bad file, not once a look

    authority.issue(folder, Role.TEACHER, valid=timedelta(days=2))
    assert reloader.current is good  # not looked at yet
    clock.now += 60
    assert reloader.current.fingerprint != good.fingerprint
    assert REGISTRY.get_sample_value(EXPIRY, {"kind": "own"}) == reloader.current.leaf_expires.timestamp()


@pytest.mark.parametrize("spoil", BAD)
def test_a_process_does_not_start_with_a_bad_file_and_names_it(
    tmp_path: Path, spoil: Callable[[Path, Authority], None]
) -> None:
    authority = Authority.create()
    folder = authority.issue(tmp_path / "teacher", Role.TEACHER)
    spoil(folder, authority)
    with pytest.raises(InvalidConfig, match=rf"tls\.(certificate|key|ca): {folder}"):
        Reloader(TlsSettings.of_folder(folder))


async def test_a_rotation_in_a_services_last_moment_leaves_no_channel_open(tmp_path: Path) -> None:
    """Closed before the task that waits for the old channel's calls has run at all."""
    tls = TlsSettings.of_folder(Authority.create().issue(tmp_path, Role.AUDITOR))
    clock = Clock()
    dialled: list[AsyncMock] = []

    def dial(_: Material) -> grpc.aio.Channel:
        dialled.append(AsyncMock(spec=grpc.aio.Channel))
        return dialled[-1]

    channel = ReloadingChannel(Reloader(tls, clock), dial)
    Authority.create().issue(tmp_path, Role.AUDITOR)
    clock.now += 60
    channel.newest()
    await channel.close()
    assert len(dialled) == 2
    for made in dialled:
        made.close.assert_awaited()


async def test_kubernetes_way_of_replacing_files_is_seen(tmp_path: Path) -> None:
    """All three are links through one, `..data`, which is moved in one step; the links themselves never change."""
    for number, authority in enumerate((Authority.create(), Authority.create())):
        authority.issue(tmp_path / f"..{number}", Role.TEACHER)
    (tmp_path / "..data").symlink_to("..0")
    for name in ("tls.crt", "tls.key", "ca.crt"):
        (tmp_path / name).symlink_to(Path("..data") / name)
    clock = Clock()
    reloader = Reloader(TlsSettings.of_folder(tmp_path), clock)
    before = REGISTRY.get_sample_value(FAILURES)
    (tmp_path / "..data_tmp").symlink_to("..1")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    clock.now += 60
    assert reloader.current.ca == (tmp_path / "..1" / "ca.crt").read_bytes()
    assert REGISTRY.get_sample_value(FAILURES) == before


async def test_a_stream_that_began_before_a_rotation_ends_behind_it(tmp_path: Path) -> None:
    """The old channel is closed by its last call, not by the new certificate."""
    async with instant_services(tmp_path, reload_seconds=0.01) as services:
        tls = services.certificate(Role.AUDITOR).model_copy(update={"reload_seconds": 0.01})
        answer = next(rpc for rpc in rpcs() if rpc.method.name == "Answer")
        status = next(rpc for rpc in rpcs() if rpc.path.endswith("StudentService/GetStatus"))
        async with open_channel(services.targets[Role.STUDENT], tls=tls, expects=Role.STUDENT) as channel:
            stub = channel.unary_stream(
                answer.path,
                request_serializer=type(answer.request).SerializeToString,
                response_deserializer=type(answer.response).FromString,
            )
            services.flowing.clear()
            stream = stub(answer.request, timeout=30)
            assert await stream.read() is not grpc.aio.EOF
            services.authority.issue(tls.certificate.parent, Role.AUDITOR)
            await asyncio.sleep(0.05)  # longer than reload_seconds: the next call must look
            await status.call(channel)
            services.flowing.set()
            assert await stream.read() is not grpc.aio.EOF
            assert await stream.read() is not grpc.aio.EOF
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK
