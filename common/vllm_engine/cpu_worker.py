"""What a vLLM worker on CPU imports before it loads a model: the engine's `worker_extension_cls` names this module."""

from __future__ import annotations

from common.vllm_engine import cpu_lora


class WorkerExtension:
    """Adds nothing to a worker: being named is what has this module imported in the worker's process."""


cpu_lora.install()
