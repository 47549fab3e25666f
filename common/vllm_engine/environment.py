"""What vLLM reads from the environment, at import and in its workers: cores, cache, no telemetry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from common.models.config import ModelConfig
from common.vllm_engine.settings import VllmSettings

PRELOAD = "LD_PRELOAD"


@contextmanager
def environment(model: ModelConfig, settings: VllmSettings) -> Iterator[None]:
    """Within, an engine may be started.

    What vLLM reads later on stays set. What was preloaded, by this function or by vLLM itself, is for the engine's
    workers and not for other children of this process: it is taken back.
    """
    preload = os.environ.get(PRELOAD)
    os.environ.update(_values(model, settings))
    try:
        yield
    finally:
        if preload is None:
            os.environ.pop(PRELOAD, None)
        else:
            os.environ[PRELOAD] = preload


def cores(model: ModelConfig, settings: VllmSettings) -> list[int]:
    """Cores that an engine on CPU computes on."""
    if settings.cpu_cores:
        return [core for part in settings.cpu_cores.replace("|", ",").split(",") if part for core in _range(part)]
    available = sorted(os.sched_getaffinity(0))
    return available[: model.threads or len(available)]


def _values(model: ModelConfig, settings: VllmSettings) -> dict[str, str]:
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
        values["VLLM_CPU_OMP_THREADS_BIND"] = settings.cpu_cores or ",".join(map(str, cores(model, settings)))
        library = _intel_openmp()
        if library is not None:
            # GNU OpenMP's threads spin between operations; Intel's go to sleep, which shared cores need.
            values[PRELOAD] = " ".join(filter(None, (os.environ.get(PRELOAD, ""), str(library))))
            values["KMP_BLOCKTIME"] = "1"
    return values


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
