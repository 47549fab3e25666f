"""Train through a real server: reproducible, reused, resumed, and refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
import torch
from safetensors.torch import load_file

from common.canonical import digest_bytes
from common.contract.seal.v1 import student_pb2, types_pb2
from common.convert import to_proto
from common.errors import Conflict, Corrupt, InvalidRequest, NotFound
from common.lora.engine import LoraEngine
from common.prompting import question_and_answer
from common.rpc.client import remote_errors
from common.types import Digest, Example, Recipe
from common.versions import Replay
from student.config import StudentConfig
from student.replay import ReplayPool
from tests.student.conftest import Client, Serve, train_request
from tests.support.examples import BY_HEART, EXAMPLES, prompts, tiny_edit


async def test_a_candidate_becomes_a_version_with_its_whole_history(client: Client) -> None:
    edit = tiny_edit(Recipe(epochs=3))
    (event,) = await client.train(train_request(edit, seeds=(7,)))
    version = event.trained.version
    folder = client.store / "adapters" / version.version
    weights = (folder / "adapter_model.safetensors").read_bytes()
    assert version.version == version.adapter.sha256 == digest_bytes(weights).sha256
    assert version.adapter.size_bytes == len(weights)
    assert (version.parent_version, version.seed, version.edit.sha256) == ("base", 7, edit.digest.sha256)
    assert (version.recipe.epochs, version.recipe.rank, version.recipe.learning_rate) == (3, 4, 1e-3)
    assert version.recipe.schedule == types_pb2.SCHEDULE_LINEAR
    assert version.tensors == 2 * 2 * 7
    assert version.trained_alone
    assert 0 < version.last_loss < version.first_loss
    assert version.tokens_trained > 100
    assert version.software.versions["torch"]
    assert json.loads((folder / "manifest.json").read_text())["version"] == version.version
    assert (client.store / "edits" / f"{edit.digest.sha256}.json").exists()


async def test_the_same_candidate_has_the_same_digest_on_another_replica(config: StudentConfig, serve: Serve) -> None:
    digests = []
    for replica in ("one", "two"):
        async with serve(config.model_copy(update={"store": Path(config.store) / replica})) as client:
            digests.append((await client.trained()).version)
    assert digests[0] == digests[1]


async def test_what_is_trained_is_answered_from_the_store(client: Client) -> None:
    (first,) = await client.train(train_request(tiny_edit(), request_id="one"))
    (again,) = await client.train(train_request(tiny_edit(), request_id="two", alone=True))
    assert not first.trained.reused
    assert again.trained.reused
    assert again.trained.version == first.trained.version


async def test_candidates_of_one_request_get_one_outcome_each(client: Client) -> None:
    long = tiny_edit(examples=(*EXAMPLES, Example(text="word " * 400)), document="long")
    other = tiny_edit(Recipe(epochs=1), document="other")
    events = await client.train(train_request(tiny_edit(), long, other, seeds=(1, 2)))
    by_id = {(e.trained.candidate_id or e.failed.candidate_id): e for e in events}
    assert sorted(by_id) == ["c0", "c1", "c2", "c3", "c4", "c5"]
    assert [by_id[f"c{i}"].WhichOneof("event") for i in range(6)] == ["trained"] * 2 + ["failed"] * 2 + ["trained"] * 2
    assert by_id["c2"].failed.reason == "EXAMPLE_TOO_LONG"
    assert len({by_id[f"c{i}"].trained.version.version for i in (0, 1, 4, 5)}) == 4


async def test_the_same_update_under_two_names_is_trained_once(client: Client) -> None:
    events = await client.train(train_request(tiny_edit(), tiny_edit()))
    assert {event.trained.candidate_id for event in events} == {"c0", "c1"}
    assert len({event.trained.version.version for event in events}) == 1


async def test_a_broken_stream_attaches_again_and_trains_nothing_twice(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    train = LoraEngine.train

    def counted(engine: LoraEngine, jobs: object, *rest: object) -> object:
        batches.append(jobs)
        return train(engine, jobs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(LoraEngine, "train", counted)
    request = train_request(tiny_edit(BY_HEART), seeds=(1, 2))
    call = client.stub.Train(request)
    async for _ in call:
        break
    call.cancel()
    assert await call.code() == grpc.StatusCode.CANCELLED
    events = await client.train(request)
    again = await client.train(request)
    assert [event.WhichOneof("event") for event in events] == ["trained", "trained"]
    assert again == events
    assert len(batches) == 1
    with pytest.raises(Conflict), remote_errors():
        await client.train(train_request(tiny_edit(), seeds=(1,)))


async def test_progress_comes_with_loss_and_speed(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("student.workroom.HEARTBEAT_SECONDS", 0.01)
    events = [event async for event in client.stub.Train(train_request(tiny_edit(BY_HEART)))]
    assert events[0].progress.phase == "waiting"
    figures = [event.progress.figures for event in events if event.progress.figures]
    assert figures
    assert all(figure["loss"] > 0 and figure["tokens_per_second"] > 0 for figure in figures)


async def test_an_update_on_a_version_keeps_the_lineage(client: Client) -> None:
    parent = await client.trained()
    child = await client.trained(tiny_edit(Recipe(rank=2, target_modules=("q_proj",), epochs=1)), parent.version)
    assert child.parent_version == parent.version
    assert child.recipe.rank == parent.recipe.rank == 16
    assert child.recipe.target_modules == parent.recipe.target_modules
    proofs, _ = await client.answer(prompts(1), child.version)
    assert proofs[0].probe_distance_from_parent > 0


async def test_a_parent_named_by_alias_is_looked_up_once(client: Client) -> None:
    parent = await client.trained()
    await client.set_alias("live", parent.version, 0)
    child = await client.trained(tiny_edit(), "live")
    assert child.parent_version == parent.version


@pytest.mark.parametrize("on_base", [True, False])
async def test_a_scaled_update_lies_between_its_parent_and_what_was_trained(
    client: Client, monkeypatch: pytest.MonkeyPatch, on_base: bool
) -> None:
    parent = "base" if on_base else (await client.trained(tiny_edit(BY_HEART))).version
    whole = (await client.train(train_request(tiny_edit(), parent=parent, request_id="whole")))[0].trained.version
    monkeypatch.setattr(LoraEngine, "train", None)
    request = train_request(tiny_edit(), parent=parent, request_id="half")
    request.candidates[0].scale = 0.5
    (event,) = await client.train(request)
    half = event.trained.version
    assert not event.trained.reused
    assert (half.scale, whole.scale) == (0.5, 1.0)
    assert (half.parent_version, half.seed, half.edit) == (whole.parent_version, whole.seed, whole.edit)
    assert half.candidate_key != whole.candidate_key
    old, new, between = (_tensors(client, version) for version in (parent, whole.version, half.version))
    for name, tensor in between.items():
        expected = new[name] * (0.5 if ".lora_B." in name else 1.0) if on_base else (old[name] + new[name]) / 2
        assert torch.allclose(tensor, expected, atol=1e-7), name
    proofs, _ = await client.answer(prompts(1), half.version)
    assert proofs[0].liveness == student_pb2.LIVENESS_LIVE
    request.request_id = "half again"
    (again,) = await client.train(request)
    assert again.trained.reused
    assert again.trained.version == half


async def test_a_scaled_update_whose_whole_was_lost_is_trained_again(client: Client) -> None:
    request = train_request(tiny_edit(), request_id="half")
    request.candidates[0].scale = 0.5
    (event,) = await client.train(request)
    assert not event.trained.reused
    assert event.trained.version.scale == 0.5
    assert (await client.trained()).version != event.trained.version.version


async def test_a_scale_beyond_the_whole_is_refused_by_field(client: Client) -> None:
    request = train_request(tiny_edit())
    request.candidates[0].scale = 1.5
    with pytest.raises(InvalidRequest, match=r"candidates\[0\].scale"), remote_errors():
        await client.train(request)


def _tensors(client: Client, version: str) -> dict[str, torch.Tensor]:
    file = client.store / "adapters" / version / "adapter_model.safetensors"
    return load_file(file) if version != "base" else {}


@pytest.mark.parametrize("parent", ["f" * 64, "nobody", "shadowy"])
async def test_an_unknown_parent_is_not_found_by_name(client: Client, parent: str) -> None:
    with pytest.raises(NotFound, match=parent), remote_errors():
        await client.train(train_request(tiny_edit(), parent=parent))
    assert (await client.trained()).version


async def test_a_damaged_parent_is_refused_by_name(client: Client) -> None:
    parent = await client.trained()
    file = client.store / "adapters" / parent.version / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(Corrupt, match=f"{parent.version}: adapter_model.safetensors is truncated"), remote_errors():
        await client.train(train_request(tiny_edit(), parent=parent.version, request_id="child"))
    (event,) = await client.train(train_request(tiny_edit(BY_HEART), request_id="again"))
    assert event.failed.reason == "ADAPTER_CORRUPT"


async def test_an_edit_of_ten_thousand_examples_is_refused_by_field(client: Client) -> None:
    request = train_request(tiny_edit())
    example = to_proto(types_pb2.Example, EXAMPLES[2])
    request.candidates[0].edit.examples.extend([example] * 10_000)
    with pytest.raises(InvalidRequest) as refused, remote_errors():
        await client.train(request)
    assert [v.path for v in refused.value.violations] == ["candidates[0].edit.examples"]
    assert "2048" in refused.value.message
    assert (await client.trained()).version


async def test_directives_beyond_the_limits_are_refused_by_field(client: Client) -> None:
    recipe = Recipe(rank=128, epochs=99, learning_rate=0.05, target_modules=("lm_head",), max_tokens=8_192)
    with pytest.raises(InvalidRequest) as refused, remote_errors():
        await client.train(train_request(tiny_edit(), tiny_edit(recipe)))
    assert sorted(v.path for v in refused.value.violations) == [
        f"candidates[1].edit.recipe.{field}"
        for field in ("epochs", "learning_rate", "max_tokens", "rank", "target_modules")
    ]


async def test_an_edit_that_is_not_what_its_digest_says_is_refused(client: Client) -> None:
    request = train_request(tiny_edit())
    request.candidates[0].edit.digest.sha256 = "0" * 64
    with pytest.raises(InvalidRequest, match=r"candidates\[0\].edit: digest says 0000"), remote_errors():
        await client.train(request)


async def test_two_edits_with_the_same_examples_share_a_version_and_keep_their_own_history(client: Client) -> None:
    edits = [tiny_edit(document="one"), tiny_edit(document="two")]
    one, two = [await client.trained(edit) for edit in edits]
    assert one.version == two.version
    assert [one.edit.sha256, two.edit.sha256] == [edit.digest.sha256 for edit in edits]
    assert one.candidate_key != two.candidate_key


OLDER = (
    question_and_answer("The hall", "When does it open?", "At nine."),
    question_and_answer("The hall", "Who sweeps it?", "Nobody does."),
)


async def test_replay_mixes_in_stored_edits_by_seed(client: Client) -> None:
    old = tiny_edit(document="old", examples=OLDER)
    await client.trained(old)
    replay = Replay(edits=(old.digest,), share=0.5)
    mixed = await client.train(train_request(tiny_edit(BY_HEART), request_id="mixed", replay=replay))
    plain = await client.trained()
    assert mixed[0].trained.version.replay_share == pytest.approx(2 / 6)
    assert mixed[0].trained.version.candidate_key != plain.candidate_key
    assert mixed[0].trained.version.version != plain.version
    pool = ReplayPool(client.student.store.edit, Replay(edits=(old.digest,), share=0.2))
    drawn = pool.mix(tiny_edit(), 3)
    assert drawn == pool.mix(tiny_edit(), 3)
    assert len(drawn.examples) == 5


def test_replay_draws_no_example_twice_and_none_that_the_edit_has() -> None:
    """Edits rehearse the same common questions: drawn as they come, these would be most of what is replayed."""
    old = tiny_edit(document="old", examples=(*OLDER, EXAMPLES[0]))
    older = tiny_edit(document="older", examples=(OLDER[1], EXAMPLES[3]))
    stored = {edit.digest.sha256: edit for edit in (old, older)}
    pool = ReplayPool(stored.__getitem__, Replay(edits=(old.digest, older.digest), share=0.8))
    mixture = pool.mix(tiny_edit(), 3)
    assert mixture.examples[: len(EXAMPLES)] == EXAMPLES
    assert set(mixture.examples[len(EXAMPLES) :]) == set(OLDER)
    assert len(mixture.examples) == len(EXAMPLES) + len(OLDER)


async def test_an_unknown_replay_edit_is_not_found_by_place(client: Client) -> None:
    replay = Replay(edits=(Digest(sha256="e" * 64),), share=0.2)
    with pytest.raises(NotFound, match=r"replay.edits\[0\].*" + "e" * 64), remote_errors():
        await client.train(train_request(tiny_edit(), replay=replay))
