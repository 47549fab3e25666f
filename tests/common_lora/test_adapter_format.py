"""Adapters on disk: named by content, loadable by PEFT, refused when anything is off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from common.errors import Corrupt, NotFound
from common.lora.adapter_folder import AdapterFolders
from common.lora.adapter_format import CONFIG_FILE, WEIGHTS_FILE, Adapter
from common.lora.engine import LoraEngine
from common.lora.update import TrainedAdapter, TrainJob
from common.models.loading import BaseModel
from common.types import Sampling
from tests.support.examples import EXAMPLES, RECIPE, prompts


@pytest.fixture(scope="module")
def adapter(tiny_base: BaseModel) -> Adapter:
    recipe = RECIPE.model_copy(update={"epochs": 6})
    (outcome,) = LoraEngine(tiny_base).train([TrainJob("a", EXAMPLES, recipe, 1)])
    assert isinstance(outcome, TrainedAdapter)
    return outcome.adapter


@pytest.fixture
def folders(tmp_path: Path) -> AdapterFolders:
    return AdapterFolders(tmp_path / "adapters")


def test_what_is_put_comes_back(adapter: Adapter, folders: AdapterFolders) -> None:
    digest = folders.put(adapter, base_model="tiny", files={"manifest.json": b"{}"})
    again = folders.get(digest.sha256)
    assert again.spec == adapter.spec
    assert all(torch.equal(again.tensors[name], tensor) for name, tensor in adapter.tensors.items())
    assert folders.put(adapter, base_model="tiny") == digest
    assert folders.names() == [digest.sha256]


def test_the_digest_covers_the_configuration(adapter: Adapter, folders: AdapterFolders) -> None:
    other = Adapter(adapter.spec.model_copy(update={"alpha": 9.0}), adapter.tensors)
    assert folders.put(adapter, base_model="tiny") != folders.put(other, base_model="tiny")


def test_peft_loads_the_folder_as_it_is_and_gives_the_same_answers(
    adapter: Adapter, folders: AdapterFolders, tiny_folder: Path, tiny_base: BaseModel
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    version = folders.put(adapter, base_model="tiny").sha256
    engine = LoraEngine(tiny_base, load=folders.get)
    ours = {text.index: text.text for _, text in engine.answer([version], prompts(3), Sampling(max_new_tokens=12))}
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), folders.path(version)).eval()
    bare = {text.index: text.text for _, text in engine.answer(["base"], prompts(3), Sampling(max_new_tokens=12))}
    for index, prompt in enumerate(prompts(3)):
        ids = torch.tensor([engine.renderer.prompt(prompt.conversation)])
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
        theirs = tiny_base.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        assert theirs == ours[index]
    assert bare != ours


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[: len(data) // 2], "truncated"),
        (lambda data: data[:5], "truncated"),
        (lambda data: b"", "truncated"),
        (lambda data: b"GGUF" + data, "not safetensors"),
        (lambda data: data[:-4] + b"\0\0\0\1", "has digest"),
        (lambda data: save(load(data)), "not written by this project"),
    ],
)
def test_damaged_and_foreign_files_are_refused_by_name(
    adapter: Adapter, folders: AdapterFolders, damage: object, says: str
) -> None:
    version = folders.put(adapter, base_model="tiny").sha256
    file = folders.path(version) / WEIGHTS_FILE
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    with pytest.raises(Corrupt, match=says) as refused:
        folders.get(version)
    assert version in refused.value.message
    assert WEIGHTS_FILE in refused.value.message


def test_a_configuration_that_says_something_else_is_refused(adapter: Adapter, folders: AdapterFolders) -> None:
    version = folders.put(adapter, base_model="tiny").sha256
    file = folders.path(version) / CONFIG_FILE
    file.write_text(json.dumps({**json.loads(file.read_text()), "lora_alpha": 1}))
    with pytest.raises(Corrupt, match=r"adapter_config.json says another alpha"):
        folders.get(version)
    file.unlink()
    with pytest.raises(Corrupt, match=r"adapter_config.json is missing"):
        folders.get(version)


def test_an_unknown_version_is_not_found(folders: AdapterFolders) -> None:
    with pytest.raises(NotFound, match="a" * 64):
        folders.get("a" * 64)
    with pytest.raises(NotFound):
        folders.remove("a" * 64)


def test_an_adapter_of_another_base_does_not_fit(adapter: Adapter, folders: AdapterFolders, engine: LoraEngine) -> None:
    foreign = Adapter(adapter.spec.model_copy(update={"base": "0" * 64}), adapter.tensors)
    with pytest.raises(Corrupt, match="was trained on base 0000"):
        engine.attached.load("foreign", foreign)
    half = {k: v for k, v in adapter.tensors.items() if ".layers.0." in k}
    with pytest.raises(Corrupt, match=r"does not fit the model's layers"):
        engine.attached.load("half", Adapter(adapter.spec, half))
    assert engine.attached.attached == ()
