"""The liveness proof catches every way of scoring the base while believing it is the adapter."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from common.errors import NotFound
from common.lora.adapter_folder import AdapterFolders
from common.lora.adapter_format import WEIGHTS_FILE, Adapter
from common.lora.config import EngineConfig
from common.lora.engine import LoraEngine
from common.lora.liveness import ROUNDINGS, SUM_ORDER, is_there
from common.lora.proof import Liveness
from common.lora.update import TrainedAdapter, TrainJob
from common.models.loading import BaseModel, load_model
from tests.support.examples import EXAMPLES, RECIPE
from tests.support.tiny_model import tiny_config


@pytest.fixture
def folders(tmp_path: Path) -> AdapterFolders:
    return AdapterFolders(tmp_path / "adapters")


@pytest.fixture(scope="module")
def adapters(tiny_base: BaseModel) -> list[Adapter]:
    engine = LoraEngine(tiny_base)
    outcomes = engine.train([TrainJob("a", EXAMPLES, RECIPE, 1), TrainJob("b", EXAMPLES, RECIPE, 2)])
    trained = [o.adapter for o in outcomes if isinstance(o, TrainedAdapter)]
    (child,) = engine.train([TrainJob("c", EXAMPLES, RECIPE, 3, parent=trained[0])])
    assert isinstance(child, TrainedAdapter)
    return [*trained, child.adapter]


@pytest.fixture
def engine(tiny_folder: Path, folders: AdapterFolders) -> LoraEngine:
    return LoraEngine(load_model(tiny_config(tiny_folder)), load=folders.get)


def test_a_trained_version_is_live(engine: LoraEngine, folders: AdapterFolders, adapters: list[Adapter]) -> None:
    version = folders.put(adapters[0], base_model="tiny").sha256
    proof = engine.prove(version)
    assert proof.liveness is Liveness.LIVE
    assert proof.tensors_bound == proof.tensors_in_file == 12
    assert proof.probe_distance_from_base > 0.001
    assert proof.probe_noise < 1e-5
    assert proof.adapter is not None
    assert proof.adapter.sha256 == version


def test_the_base_has_nothing_to_prove(engine: LoraEngine) -> None:
    assert engine.prove("base").liveness is Liveness.BASE


def test_a_child_is_compared_with_its_parent(
    engine: LoraEngine, folders: AdapterFolders, adapters: list[Adapter]
) -> None:
    parent, child = (folders.put(adapters[i], base_model="tiny").sha256 for i in (0, 2))
    assert engine.prove(child, parent).liveness is Liveness.LIVE
    copy = engine.prove(parent, parent)
    assert copy.liveness is Liveness.INERT
    assert copy.probe_distance_from_parent == 0
    assert copy.probe_distance_from_base > 0


def test_an_all_zero_adapter_is_inert(engine: LoraEngine, folders: AdapterFolders, adapters: list[Adapter]) -> None:
    zero = Adapter(adapters[0].spec, {name: torch.zeros_like(t) for name, t in adapters[0].tensors.items()})
    proof = engine.prove(folders.put(zero, base_model="tiny").sha256)
    assert proof.liveness is Liveness.INERT
    assert proof.tensors_bound == 12


def test_tensors_that_are_not_the_files_are_invalid(
    engine: LoraEngine, folders: AdapterFolders, adapters: list[Adapter]
) -> None:
    version = folders.put(adapters[0], base_model="tiny").sha256
    assert engine.prove(version).liveness is Liveness.LIVE
    for name, tensor in engine.attached.factors(version).items():
        tensor.copy_(adapters[1].tensors[name])
    proof = engine.prove(version)
    assert proof.liveness is Liveness.INVALID
    assert proof.tensors_bound < proof.tensors_in_file
    assert engine.prove(version).liveness is Liveness.LIVE


def test_bound_tensors_that_do_not_take_part_are_invalid(
    engine: LoraEngine, folders: AdapterFolders, adapters: list[Adapter]
) -> None:
    version = folders.put(adapters[0], base_model="tiny").sha256
    engine.prove(version)
    some_layer = next(iter(engine.attached.layers(version).values()))
    some_layer.factors[version].scale = 0.0
    proof = engine.prove(version)
    assert proof.liveness is Liveness.INVALID
    assert "another update" in proof.detail


def test_layers_left_switched_off_are_invalid(
    engine: LoraEngine, folders: AdapterFolders, adapters: list[Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = folders.put(adapters[0], base_model="tiny").sha256
    engine.prove(version)
    monkeypatch.setattr(engine.attached.layout, "holding", lambda *_, **__: nullcontext())
    assert engine.prove(version).liveness is Liveness.INVALID


def test_a_swapped_file_is_invalid_even_while_the_right_one_is_resident(
    engine: LoraEngine, folders: AdapterFolders, adapters: list[Adapter]
) -> None:
    one, other = (folders.put(adapter, base_model="tiny").sha256 for adapter in adapters[:2])
    assert engine.prove(one).liveness is Liveness.LIVE
    shutil.copy(folders.path(other) / WEIGHTS_FILE, folders.path(one) / WEIGHTS_FILE)
    proof = engine.prove(one)
    assert proof.liveness is Liveness.INVALID
    assert f"has digest {other}" in proof.detail


def test_an_unknown_version_has_no_proof_at_all(engine: LoraEngine) -> None:
    with pytest.raises(NotFound):
        engine.prove("c" * 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [0.02, 0.2, 2.0])
def test_an_update_is_seen_and_missed_however_small_it_is_beside_its_layer(dtype: torch.dtype, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    plain_O, update_O, other_O = torch.randn(3, 2_048, generator=generator)
    update_O, other_O = share * update_O, share * other_O
    noise = (ROUNDINGS * torch.finfo(dtype).eps + SUM_ORDER) * float(plain_O.norm())

    def added(update: torch.Tensor) -> torch.Tensor:
        said_O: torch.Tensor = (plain_O + update).to(dtype).float() - plain_O.to(dtype).float()
        return said_O

    assert is_there(added(update_O), update_O, noise)
    assert not is_there(added(torch.zeros_like(update_O)), update_O, noise)
    assert not is_there(added(other_O), update_O, noise)
    assert not is_there(added(update_O / 2), update_O, noise)


def test_a_parent_that_is_looked_at_pushes_no_proven_version_out(
    tiny_folder: Path, folders: AdapterFolders, adapters: list[Adapter]
) -> None:
    engine = LoraEngine(load_model(tiny_config(tiny_folder)), EngineConfig(resident_adapters=1), folders.get)
    parent, _, child = (folders.put(adapter, base_model="tiny").sha256 for adapter in adapters)
    assert engine.prove(child, parent).liveness is Liveness.LIVE
    assert engine.residents.versions == engine.attached.attached == (child,)
