"""vLLM in process behind the generator's port. Engine and adapters' lifecycle are common/vllm_engine's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from common.errors import NotFound, NotPossible
from common.models.config import ModelConfig
from common.software import software
from common.types import Software
from common.vllm_engine.engine import PACKAGES, VllmEngine
from common.vllm_engine.settings import VllmSettings
from teacher.generator import BASE, Completion, Draw, PromptTooLong


class VllmGenerator:
    """One vLLM engine. `start` takes about 20 s on a small CPU and holds up the event loop meanwhile."""

    def __init__(self, model: ModelConfig, settings: VllmSettings) -> None:
        self._model = model
        self._settings = settings
        self._engine = VllmEngine(model, settings)

    async def start(self) -> None:
        """Raises InvalidConfig when the engine cannot start."""
        await self._engine.start()

    async def generate(self, draws: Sequence[Draw], version: str) -> list[Completion]:
        if version != BASE and version not in await self.loaded():
            raise NotPossible(
                f"policy {version} is not loaded", reason="POLICY_NOT_LOADED", ids={"policy_version": version}
            )
        for draw in draws:
            new_tokens = draw.sampling.max_new_tokens
            if len(draw.prompt_ids) + new_tokens > self._settings.max_model_len:
                raise PromptTooLong(len(draw.prompt_ids), new_tokens, self._settings.max_model_len)
        tasks = [asyncio.create_task(self._complete(draw, version)) for draw in draws]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()  # of no effect on what is done; the rest is aborted in the engine

    async def load(self, version: str, folder: Path) -> None:
        await self._engine.adapters.load(version, folder)

    async def unload(self, version: str) -> None:
        if version not in await self.loaded():
            raise NotFound(f"policy {version} is not loaded", ids={"policy_version": version})
        await self._engine.adapters.unload(version)

    async def loaded(self) -> frozenset[str]:
        return await self._engine.adapters.loaded()

    def software(self) -> Software:
        device = "cpu" if self._model.device == "cpu" else "cuda"
        return software(
            (*PACKAGES, "torch", "transformers"),
            device=device,
            threads=self._engine.cores,
            precision=self._model.precision,
        )

    async def close(self) -> None:
        await self._engine.close()

    async def _complete(self, draw: Draw, version: str) -> Completion:
        written = await self._engine.write(draw.prompt_ids, draw.sampling, None if version == BASE else version)
        return Completion(text=written.text, token_ids=written.token_ids, finish=written.finish)
