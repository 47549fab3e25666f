"""Generators behind the port of teacher/generator.py. The model libraries are imported by the one that is chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from teacher.generator import Generator

if TYPE_CHECKING:
    from teacher.config import TeacherConfig


def make_generator(config: TeacherConfig) -> Generator:
    """The configured backend, not yet started."""
    if config.backend == "vllm":
        from teacher.backends.vllm_backend import VllmGenerator

        return VllmGenerator(config.model, config.vllm)
    from teacher.backends.transformers_backend import TransformersGenerator

    return TransformersGenerator(config.model, config.transformers)
