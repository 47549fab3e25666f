"""Aliases, listing, verifying and discarding through a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from common.contract.seal.v1 import student_pb2
from common.errors import Conflict, Corrupt, InvalidRequest, NotFound, NotPossible, StaleGeneration
from common.rpc.client import open_channel, remote_errors
from student.config import StudentConfig
from tests.student.conftest import SERVICE, Client, Serve
from tests.support.examples import tiny_edit

PB = student_pb2


async def test_aliases_start_at_the_base(client: Client) -> None:
    status = await client.stub.GetStatus(PB.StudentServiceGetStatusRequest())
    assert {(a.name, a.version, a.generation) for a in status.aliases} == {
        (name, "base", 0) for name in ("live", "shadow", "previous")
    }


async def test_status_tells_model_limits_and_template(client: Client, config: StudentConfig) -> None:
    status = await client.stub.GetStatus(PB.StudentServiceGetStatusRequest())
    assert status.model == config.model.model
    assert len(status.model_digest.sha256) == len(status.prompt_template_digest.sha256) == 64
    assert (status.limits.max_rank, status.limits.max_examples) == (64, 2_048)
    assert status.limits.max_tokens_per_example == 512
    assert "q_proj" in status.limits.target_modules
    assert "lm_head" not in status.limits.target_modules
    assert (status.default_recipe.rank, status.default_recipe.batch_size) == (4, 4)
    assert status.software.threads == 1


async def test_of_many_movers_at_one_generation_one_wins(client: Client) -> None:
    version = (await client.trained()).version

    async def move(name: str) -> str:
        try:
            with remote_errors():
                return (await client.set_alias("live", version, 0, request_id=name)).version
        except StaleGeneration as error:
            return error.ids["generation"]

    outcomes = await asyncio.gather(*(move(f"mover-{i}") for i in range(8)))
    assert sorted(outcomes) == sorted([version, *["1"] * 7])


async def test_a_repeated_move_is_harmless_and_a_reused_id_is_not(client: Client) -> None:
    version = (await client.trained()).version
    first = await client.set_alias("live", version, 0)
    assert await client.set_alias("live", version, 0) == first
    with pytest.raises(Conflict), remote_errors():
        await client.set_alias("live", "base", 0)
    back = await client.set_alias("live", "base", 1, request_id="back")
    assert (back.version, back.generation) == ("base", 2)


async def test_aliases_are_shared_by_replicas_of_one_store(config: StudentConfig, serve: Serve) -> None:
    async with serve(config) as one, serve(config) as two:
        version = (await one.trained()).version
        await one.set_alias("live", version, 0)
        status = await two.stub.GetStatus(PB.StudentServiceGetStatusRequest())
        assert {a.name: a.version for a in status.aliases}["live"] == version


async def test_only_known_intact_versions_under_known_names_become_aliases(client: Client) -> None:
    with pytest.raises(NotFound, match="a" * 64), remote_errors():
        await client.set_alias("live", "a" * 64, 0)
    with pytest.raises(InvalidRequest, match="name"), remote_errors():
        await client.set_alias("newest", "base", 0)
    version = (await client.trained()).version
    file = client.store / "adapters" / version / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(Corrupt, match=version), remote_errors():
        await client.set_alias("live", version, 0)


async def test_versions_are_listed_page_by_page_oldest_first(client: Client) -> None:
    trained = [(await client.trained(tiny_edit(), seed=seed)).version for seed in (1, 2, 3)]
    first = await client.stub.ListVersions(PB.StudentServiceListVersionsRequest(page_size=2))
    second = await client.stub.ListVersions(
        PB.StudentServiceListVersionsRequest(page_size=2, page_token=first.next_page_token)
    )
    listed = [v.version for v in (*first.versions, *second.versions)]
    assert listed == trained
    assert not second.next_page_token


async def test_verifying_finds_what_is_off(client: Client) -> None:
    version = (await client.trained()).version
    good = await client.stub.VerifyVersion(PB.VerifyVersionRequest(version=version))
    assert good.intact
    assert good.found.sha256 == good.expected.sha256 == version
    assert (await client.stub.VerifyVersion(PB.VerifyVersionRequest(version="base"))).intact
    file = client.store / "adapters" / version / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    bad = await client.stub.VerifyVersion(PB.VerifyVersionRequest(version=version))
    assert not bad.intact
    assert bad.found.sha256 != version
    assert "adapter_model.safetensors is truncated" in bad.detail
    with pytest.raises(NotFound), remote_errors():
        await client.stub.VerifyVersion(PB.VerifyVersionRequest(version="b" * 64))


async def test_what_an_alias_names_cannot_be_discarded(client: Client) -> None:
    version = (await client.trained()).version
    await client.set_alias("previous", version, 0)
    for reference, named in ((version, "previous"), ("base", "base")):
        with pytest.raises(NotPossible, match=named), remote_errors():
            await client.stub.Discard(PB.DiscardRequest(version=reference))
    await client.set_alias("previous", "base", 1, request_id="back")
    await client.stub.Discard(PB.DiscardRequest(version=version))
    with pytest.raises(NotFound), remote_errors():
        await client.stub.Discard(PB.DiscardRequest(version=version))
    again = await client.trained()
    assert again.version == version


async def test_health_tells_that_the_model_is_loaded(client: Client) -> None:
    async with open_channel(client.target) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", SERVICE):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
