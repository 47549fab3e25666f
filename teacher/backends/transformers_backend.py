"""transformers in process, with the policies attached by the LoRA engine (common/lora).

Slower than vLLM and small: for tests, and for machines where vLLM does not run. Completions of one batch share a random
generator that is seeded by the seeds of all of them, so the same batch gives the same completions.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.canonical import derive_seed
from common.errors import NotFound, NotPossible, Unavailable
from common.lora.adapter_folder import AdapterFolders
from common.lora.config import EngineConfig
from common.lora.engine import LoraEngine
from common.models.config import ModelConfig
from common.models.loading import BaseModel, load_model
from common.software import software
from common.types import Sampling, Software
from common.worker import ModelWorker
from teacher.backends.settings import TransformersSettings
from teacher.generator import BASE, Completion, Draw, PromptTooLong

PACKAGES = ("torch", "transformers", "peft")


class TransformersGenerator:
    """One torch model on a thread of its own."""

    def __init__(self, model: ModelConfig, settings: TransformersSettings) -> None:
        self._config = model
        self._settings = settings
        self._worker = ModelWorker("generator")
        self._engine: LoraEngine | None = None
        self._folders: dict[str, Path] = {}

    async def start(self) -> None:
        """Loads the base. Raises InvalidConfig."""
        self._engine = await self._worker.run(self._load_base)

    async def generate(self, draws: Sequence[Draw], version: str) -> list[Completion]:
        if version != BASE and version not in self._folders:
            raise NotPossible(
                f"policy {version} is not loaded", reason="POLICY_NOT_LOADED", ids={"policy_version": version}
            )
        for draw in draws:
            new_tokens = draw.sampling.max_new_tokens
            if len(draw.prompt_ids) + new_tokens > self._limit():
                raise PromptTooLong(len(draw.prompt_ids), new_tokens, self._limit())
        completions: dict[int, Completion] = {}
        for places in self._batches(draws):
            batch = [draws[place] for place in places]
            written = await self._worker.run(self._write, batch, version)
            completions.update(zip(places, written, strict=True))
        return [completions[place] for place in range(len(draws))]

    async def load(self, version: str, folder: Path) -> None:
        self._folders[version] = folder
        try:
            await self._worker.run(self._running().residents.ensure, version)
        except BaseException:
            del self._folders[version]
            raise

    async def unload(self, version: str) -> None:
        if version not in self._folders:
            raise NotFound(f"policy {version} is not loaded", ids={"policy_version": version})
        del self._folders[version]
        await self._worker.run(self._running().release, version)

    async def loaded(self) -> frozenset[str]:
        return frozenset(self._running().residents.versions) & self._folders.keys()

    def software(self) -> Software:
        import torch

        return software(
            PACKAGES,
            device=self._config.device.partition(":")[0],
            threads=torch.get_num_threads(),
            precision=self._config.precision,
        )

    async def close(self) -> None:
        await asyncio.to_thread(self._worker.close)
        self._engine = None

    def _load_base(self) -> LoraEngine:
        return LoraEngine(load_model(self._config), EngineConfig(), self._adapter)

    def _adapter(self, version: str) -> Any:
        folder = self._folders[version]
        return AdapterFolders(folder.parent).get(version)

    def _running(self) -> LoraEngine:
        if self._engine is None:
            raise Unavailable("the model is not loaded")
        return self._engine

    def _limit(self) -> int:
        return min(self._settings.max_model_len, self._running().base.max_positions)

    def _batches(self, draws: Sequence[Draw]) -> list[list[int]]:
        """Places of the draws that can be written together: drawn alike, at most batch_size."""
        alike: dict[Sampling, list[int]] = defaultdict(list)
        for place, draw in enumerate(draws):
            alike[draw.sampling.model_copy(update={"seed": 0})].append(place)
        size = self._settings.batch_size
        return [group[i : i + size] for group in alike.values() for i in range(0, len(group), size)]

    def _write(self, draws: Sequence[Draw], version: str) -> list[Completion]:
        """One batch, on the worker's thread."""
        import torch
        from transformers import GenerationConfig

        engine = self._running()
        base = engine.base
        sampling = draws[0].sampling
        longest = max(len(draw.prompt_ids) for draw in draws)
        pad = _pad_token(base)
        tokens_BT = torch.tensor([[pad] * (longest - len(d.prompt_ids)) + list(d.prompt_ids) for d in draws])
        mask_BT = torch.tensor([[0] * (longest - len(d.prompt_ids)) + [1] * len(d.prompt_ids) for d in draws])
        drawn: dict[str, Any] = (
            {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
            if sampling.temperature > 0
            else {"do_sample": False}
        )
        config = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=sorted(engine.renderer.stop_tokens),
            pad_token_id=pad,
            stop_strings=list(sampling.stop) or None,
            **drawn,
        )
        with engine.residents.active(version), torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(derive_seed(*(draw.sampling.seed for draw in draws)))
            written_BT = base.model.generate(
                input_ids=tokens_BT.to(base.device),
                attention_mask=mask_BT.to(base.device),
                generation_config=config,
                tokenizer=base.tokenizer if sampling.stop else None,
            )
        return [self._completion(row, sampling) for row in written_BT[:, longest:].tolist()]

    def _completion(self, tokens: list[int], sampling: Sampling) -> Completion:
        """What one row says, up to and with the token that ended it."""
        engine = self._running()
        end = next((place for place, token in enumerate(tokens) if token in engine.renderer.stop_tokens), None)
        text = engine.renderer.decode(tokens[:end])
        cut = min((place for stop in sampling.stop if (place := text.find(stop)) >= 0), default=None)
        if cut is None:
            ids = tokens if end is None else tokens[: end + 1]
            return Completion(text, tuple(ids), "length" if end is None else "stop")
        used = next(
            n for n in range(1, len(tokens) + 1) if any(s in engine.renderer.decode(tokens[:n]) for s in sampling.stop)
        )
        return Completion(text[:cut], tuple(tokens[:used]), "stop")


def _pad_token(base: BaseModel) -> int:
    pad = base.tokenizer.pad_token_id
    return int(pad if pad is not None else base.tokenizer.eos_token_id)
