"""vLLM behind the port of student/answer_engine.py: for large suites on a GPU.

Questions become tokens, and tokens text, exactly as in the LoRA engine, so that only the arithmetic in between is
vLLM's. Greedy answers are the LoRA engine's up to the last bits of floating point; sampled ones are drawn by vLLM's own
generator, reproducibly, and are other texts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

import torch

from common.canonical import derive_seed
from common.errors import Corrupt, InvalidConfig, NotPossible, Unavailable
from common.lora.answering import GeneratedText, new_tokens
from common.lora.engine import LoraEngine
from common.lora.residency import BASE_VERSION
from common.models.config import ModelConfig
from common.types import Prompt, Sampling
from common.versions import FinishReason
from common.vllm_engine.engine import VllmEngine, Written
from common.vllm_engine.settings import VllmSettings
from student.loop_thread import LoopThread
from student.store import VersionStore

# Of what an adapter changes, and of what the two engines differ in on the base: how far they may differ on a version.
OFF = 0.1
NOISE_FACTOR = 3.0
SMALLEST = 1e-4


class VllmAnswers:
    """One vLLM engine beside the LoRA engine, on an event loop of its own. Called on the model's thread."""

    def __init__(self, lora: LoraEngine, model: ModelConfig, settings: VllmSettings, store: VersionStore) -> None:
        self._lora = lora
        self._settings = settings
        self._store = store
        self._vllm = VllmEngine(model, settings)
        self._thread = LoopThread("vllm")

    def start(self) -> None:
        """Starts the engine: seconds on a CPU, minutes for a large model. Raises InvalidConfig."""
        asked, room = self._settings.max_model_len, self._lora.base.max_positions
        if asked > room:
            raise InvalidConfig(f"answering.vllm.max_model_len is {asked}; the model has room for {room} tokens")
        self._thread.run(self._vllm.start())

    def answer(
        self,
        versions: Sequence[str],
        prompts: Sequence[Prompt],
        sampling: Sampling,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[tuple[str, GeneratedText]]:
        """As the port says. Also raises NotPossible for a version that vLLM does not take."""
        rendered = self._lora.render(prompts, sampling, limit=self._settings.max_model_len)
        once = list(dict.fromkeys(versions))
        for start in range(0, len(once), self._settings.residents):
            lot = once[start : start + self._settings.residents]
            for version in lot:
                self.prepare(version)
            # A version's prompts stand together: vLLM then changes adapters least often.
            works = [
                self._write(version, index, prompt.prompt_id, tokens, sampling)
                for version in lot
                for index, (prompt, tokens) in enumerate(zip(prompts, rendered, strict=True))
            ]
            yield from self._thread.as_ended(works, cancelled)

    def release(self, version: str) -> None:
        """Raises NotPossible when vLLM still lists the version afterwards."""
        try:
            if version in self.loaded():
                self._thread.run(self._vllm.adapters.unload(version))
        except Unavailable:
            return  # an engine that has died holds nothing

    def loaded(self) -> frozenset[str]:
        """Versions that vLLM itself says it holds."""
        return self._thread.run(self._vllm.adapters.loaded())

    def close(self) -> None:
        """Ends the engine's processes and the thread."""
        try:
            self._thread.run(self._vllm.close())
        finally:
            self._thread.close()

    def prepare(self, version: str) -> None:
        """Loads a version, verified. Raises NotFound, Corrupt, NotPossible, Unavailable."""
        if version == BASE_VERSION:
            return
        rank = self._store.adapter(version).spec.rank
        if rank > self._settings.max_lora_rank:
            raise NotPossible(
                f"version {version} has rank {rank}; answering.vllm.max_lora_rank is {self._settings.max_lora_rank}",
                reason="RANK_TOO_HIGH",
                ids={"version": version},
            )
        if self._thread.run(self._vllm.adapters.load(version, self._store.folder(version))):
            try:
                self._compare(version)
            except BaseException:
                self.release(version)
                raise

    def _compare(self, version: str) -> None:
        """Whether vLLM, too, answers as the version, when it has just been loaded. Raises Corrupt.

        The proof of liveness looks into the LoRA engine alone. vLLM's name, number and path of an adapter cannot change
        afterwards, so once is enough.
        """
        prover = self._lora.prover
        parent = self._store.version(version).parent_version or BASE_VERSION
        here, parent_here = prover.probed(version), prover.probed(parent)
        if not is_same(self._probed(version), here, self._probed(None), prover.probed(BASE_VERSION), parent_here):
            raise Corrupt(
                f"vLLM answers for version {version} as something else",
                reason="VERSION_INVALID",
                ids={"version": version},
            )

    def _probed(self, adapter: str | None) -> torch.Tensor:
        """As the LoRA engine's prover gives it."""

        async def probe() -> list[list[float]]:
            probes = self._lora.prover.probes
            return await asyncio.gather(*(self._vllm.score(tokens, adapter) for tokens in probes))

        return torch.tensor([value for row in self._thread.run(probe()) for value in row], dtype=torch.float64)

    async def _write(
        self, version: str, index: int, prompt_id: str, tokens: tuple[int, ...], sampling: Sampling
    ) -> tuple[str, GeneratedText]:
        drawn = sampling.model_copy(
            update={"max_new_tokens": new_tokens(sampling), "seed": derive_seed(sampling.seed, prompt_id)}
        )
        adapter = None if version == BASE_VERSION else version
        written = await self._vllm.write(tokens, drawn, adapter, self._lora.renderer.stop_tokens)
        return version, self._text(index, written, sampling)

    def _text(self, index: int, written: Written, sampling: Sampling) -> GeneratedText:
        """As the LoRA engine counts and cuts: without the end of turn, and up to the first stop string."""
        tokens = list(written.token_ids)
        if tokens and tokens[-1] in self._lora.renderer.stop_tokens:
            tokens.pop()
        text = self._lora.renderer.decode(tokens)
        cut = min((text.find(stop) for stop in sampling.stop if stop in text), default=None)
        ended = written.finish == "stop" or cut is not None
        finish = FinishReason.STOP if ended else FinishReason.LENGTH
        return GeneratedText(index, text[:cut], len(tokens), finish)


def is_same(
    there_N: torch.Tensor,
    here_N: torch.Tensor,
    there_base_N: torch.Tensor,
    here_base_N: torch.Tensor,
    here_parent_N: torch.Tensor,
) -> bool:
    """Whether two engines' log-probabilities are one version's, measured by what they differ in on the base.

    Means over the tokens: a single one of another rounding decides nothing. Where version and parent can be told apart
    at all, it must also be nearer to the version than to its parent: a small edit of a well trained one is near both.
    """
    off, noise, update, step, off_parent = (
        float((one - other).abs().mean())
        for one, other in (
            (there_N, here_N),
            (there_base_N, here_base_N),
            (here_N, here_base_N),
            (here_N, here_parent_N),
            (there_N, here_parent_N),
        )
    )
    least = max(SMALLEST, NOISE_FACTOR * noise)
    return off <= max(least, OFF * update) and (step <= least or off < off_parent)
