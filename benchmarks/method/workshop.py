"""One loaded model that trains versions and answers with them, and keeps both on disk (benchmarks/method/versions.py).

What stands on disk is read, never made again: adapters in PEFT's format, verified at every read, and answers by what
was asked of which version. Files appear whole or not at all, so a process may be killed at any moment; a training goes
on where it was last kept. One workshop belongs to one process; several may share a folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

import torch
from pydantic import ValidationError

from benchmarks.method.partial import KEEP_SECONDS, Partial
from benchmarks.method.versions import BASE, MOST_RANK, WHOLE, Trained, Training, published_procedure
from benchmarks.method.weights import digest_of_weights
from benchmarks.reference import Factors, Procedure, merge, tokens_trained, train_edit
from common.canonical import canonical_json, digest_of
from common.errors import Corrupt, InvalidConfig, SealError
from common.files import write_atomically
from common.lora.adapter_folder import AdapterFolders
from common.lora.adapter_format import Adapter, AdapterSpec
from common.lora.engine import LoraEngine
from common.lora.interpolation import interpolated
from common.lora.render import TurnsRefused
from common.lora.update import TrainedAdapter, TrainJob
from common.models.config import ModelConfig
from common.models.loading import BaseModel, load_model
from common.types import Domain, Prompt, Sampling

DomainT = TypeVar("DomainT", bound=Domain)
PEFT = "base_model.model."
# Counts up whenever trainings or answers of the same name would come out different: what stands on disk is not mixed.
PROCEDURE = 1
Progress = Callable[[str], None]


class TrainingFailed(SealError):
    """The update has no numbers: its loss or its factors are not finite."""

    reason = "TRAINING_FAILED"


def work_folder(results: Path) -> Path:
    """Trainings and answers of all benchmarks in a folder: what two of them need is made once."""
    return results.absolute() / "work"


class Texts(Domain):
    """Answers, in the order in which they were asked for."""

    texts: tuple[str, ...]


class ModelSettings(Domain):
    """What decides a base's trainings and answers beside its weights, and stands in none of their names.

    procedure: PROCEDURE of the code that made them.
    """

    precision: str
    system_prompt: str
    device: Literal["cpu", "cuda"] = "cpu"
    procedure: int = 1


class Workshop:
    """Trains and answers under `folder`. The model is loaded when something is left to do."""

    def __init__(
        self,
        folder: Path,
        model: ModelConfig,
        progress: Progress = lambda said: None,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        self._folder = folder
        self._model = model
        self._progress = progress
        self._keep_seconds = keep_seconds
        self._adapters = AdapterFolders(folder / "adapters")

    def train(self, training: Training) -> Trained:
        """The version's adapter, trained unless it is there. Raises TrainingFailed."""
        file = self._trained(training.name)
        if file.exists():
            found = read(file, Trained)
            if self._adapters.has(found.adapter):
                return found
        if training.base != self.base_digest:
            raise InvalidConfig(f"training {training.name} is of another base ({training.base}): name it by this one's")
        partial = Partial(self._folder / "partial" / f"{training.name}.safetensors", self._keep_seconds)
        train = self._published if training.padding is not None else self._engines
        adapter, tokens, loss = train(training, partial)
        digest = self._adapters.put(adapter, base_model=self._model.model)
        trained = Trained(
            adapter=digest.sha256, tokens=tokens, seconds=round(partial.seconds, 1), last_loss=round(loss, 4)
        )
        write_atomically(file, canonical_json(trained))
        partial.remove()
        return trained

    def scaled(self, training: Training, scale: float) -> str:
        """The adapter between the training's parent and itself: stored, and named by its digest.

        Further trainings may go on from it by `training.name_at(scale)`.
        """
        whole = self.train(training)
        if scale == WHOLE:
            return whole.adapter
        child, parent = self._adapters.get(whole.adapter), self._of(training.parent)
        if parent is not None and training.padding is not None:
            parent = widened(parent, child)
        made = self._adapters.put(interpolated(parent, child, scale), base_model=self._model.model).sha256
        named = whole.model_copy(update={"adapter": made})
        write_atomically(self._trained(training.name_at(scale)), canonical_json(named))
        return made

    def answers(self, adapter: str, prompts: Sequence[Prompt], tokens: int) -> tuple[str, ...]:
        """Plain greedy answers of at most so many tokens. adapter: a digest, or BASE."""
        asked = [prompt.conversation.model_dump(mode="json", exclude_none=True) for prompt in prompts]
        named = digest_of({"base": self.base_digest, "adapter": adapter, "asked": asked, "tokens": tokens}).sha256[:32]
        file = self._folder / "answers" / f"{named}.json"
        if file.exists():
            return read(file, Texts).texts
        numbered = [
            Prompt(prompt_id=f"q{place}", conversation=prompt.conversation) for place, prompt in enumerate(prompts)
        ]
        written = self._engine.answer([adapter], numbered, Sampling(max_new_tokens=tokens))
        said = {text.index: text.text for _, text in written}
        texts = Texts(texts=tuple(said[place] for place in range(len(prompts))))
        write_atomically(file, canonical_json(texts))
        return texts.texts

    @cached_property
    def base_digest(self) -> str:
        """Names the weights; the model is not loaded for it.

        Raises InvalidConfig when the folder holds work of the same weights under other settings.
        """
        digest = digest_of_weights(self._model)
        self._check_settings(self._folder / "bases" / f"{digest[:32]}.json")
        return digest

    def _check_settings(self, file: Path) -> None:
        ours = ModelSettings(
            precision=self._model.precision,
            system_prompt=self._model.system_prompt,
            device="cpu" if self._model.device == "cpu" else "cuda",
            procedure=PROCEDURE,
        )
        if not file.exists():
            write_atomically(file, canonical_json(ours))
        elif read(file, ModelSettings) != ours:
            raise InvalidConfig(
                f"{self._folder} holds trainings and answers of this model in another precision, with another system "
                f"prompt, from another device, or by an earlier version of the benchmark ({file}): set model.dtype, "
                "model.system_prompt and model.device to these, or take another folder"
            )

    @cached_property
    def _engine(self) -> LoraEngine:
        def load(version: str) -> Adapter:
            return self._adapters.get(version)

        try:
            engine = LoraEngine(self._loaded(), load=load)  # which asks its probes of liveness
        except TurnsRefused as error:
            if not self._model.system_prompt:
                raise
            raise InvalidConfig(
                "model.system_prompt: the model's chat template refuses it, as templates without a system role do: "
                "--set model.system_prompt= leaves it out"
            ) from error
        assert engine.base.digest.sha256 == self.base_digest
        return engine

    def _loaded(self) -> BaseModel:
        return load_model(self._model)

    def _trained(self, name: str) -> Path:
        return self._folder / "trainings" / f"{name}.json"

    def _of(self, name: str) -> Adapter | None:
        """The adapter of a training by its name; None for the base. Raises Corrupt for one that was never trained."""
        if name == BASE:
            return None
        file = self._trained(name)
        if not file.exists():
            raise Corrupt(f"{file}: the parent is missing", reason="MISSING", ids={"version": name})
        return self._adapters.get(read(file, Trained).adapter)

    def _engines(self, training: Training, partial: Partial) -> tuple[Adapter, int, float]:
        parent = self._of(training.parent)
        job = TrainJob(training.name, training.examples, training.recipe, training.seed, parent, partial)
        (outcome,) = self._engine.train([job], report=lambda step: self._progress(f"step {step.step} of {step.steps}"))
        if not isinstance(outcome, TrainedAdapter):
            raise TrainingFailed(f"training failed: {outcome.reason}: {outcome.detail}")
        return outcome.adapter, outcome.tokens, outcome.last_loss

    def _published(self, training: Training, partial: Partial) -> tuple[Adapter, int, float]:
        """By benchmarks/reference.py, on a plain copy of the model: merging changes the weights."""
        base = self._loaded()
        procedure = published_procedure(training)
        _check_fit(base, procedure)
        documents = [list(base.tokenizer(example.text)["input_ids"]) for example in training.examples]
        parent = self._of(training.parent)
        if parent is not None:
            if (rank := parent.spec.rank + procedure.rank) > MOST_RANK:
                raise InvalidConfig(f"a chain of rank {rank} cannot be stored: {MOST_RANK} is the most that loads")
            merge(base.model, _plain(parent), procedure)
        losses: list[float] = []
        factors = train_edit(
            base.model,
            documents,
            pad=int(base.tokenizer.eos_token_id),
            seed=training.seed,
            procedure=procedure,
            report=lambda step, steps, _: self._progress(f"step {step} of {steps}"),
            losses=losses,
            checkpoint=partial,
        )
        last = losses[-len(documents) :]
        if not all(map(math.isfinite, last)) or not all(bool(factor.isfinite().all()) for factor in factors.values()):
            raise TrainingFailed("training failed: the published update has numbers that are not finite")
        adapter = chained(parent, factors, procedure.alpha / procedure.rank, self.base_digest)
        return adapter, tokens_trained(documents, procedure), sum(last) / len(last)


def read(file: Path, form: type[DomainT]) -> DomainT:
    """A file that a workshop wrote. Raises Corrupt that names it."""
    try:
        return form.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise Corrupt(f"{file} cannot be read: remove it, and what it held is made again") from error


def _check_fit(base: BaseModel, procedure: Procedure) -> None:
    """Raises InvalidConfig for a model that the published procedure cannot train."""
    missing = set(procedure.target_modules) - {name.rpartition(".")[2] for name, _ in base.model.named_modules()}
    if missing:
        raise InvalidConfig(
            f"model: it has no layers {', '.join(sorted(missing))}, which the published procedure trains"
        )
    if base.tokenizer.eos_token_id is None:
        raise InvalidConfig("model: its tokenizer has no end-of-text token, which the published procedure pads with")


def chained(parent: Adapter | None, factors: Factors, scaling: float, base: str) -> Adapter:
    """A merged sequence of updates as one adapter: the factors side by side, whose product is the updates' sum."""
    tensors = {f"{PEFT}{name}.weight": factor for name, factor in factors.items()}
    if parent is not None:
        tensors = {
            name: torch.cat([parent.tensors[name], factor], dim=0 if ".lora_A." in name else 1)
            for name, factor in tensors.items()
        }
    rank = next(factor.shape[0] for name, factor in tensors.items() if ".lora_A." in name)
    targets = sorted({name.split(".")[-3] for name in tensors})
    spec = AdapterSpec(rank=rank, alpha=rank * scaling, target_modules=tuple(targets), base=base)
    return Adapter(spec, tensors)


def widened(parent: Adapter, child: Adapter) -> Adapter:
    """A parent in the shape of what was chained to it: the last update's factors, with nothing in their B."""
    tensors = {name: tensor.clone() for name, tensor in child.tensors.items()}
    for name, tensor in tensors.items():
        if ".lora_B." in name:
            tensor[:, parent.spec.rank :] = 0
    return Adapter(child.spec, tensors)


def _plain(adapter: Adapter) -> Mapping[str, torch.Tensor]:
    """Factors as benchmarks/reference.py names them."""
    return {name.removeprefix(PEFT).removesuffix(".weight"): tensor for name, tensor in adapter.tensors.items()}
