"""Which edit an arm has of each passage."""

from __future__ import annotations

from benchmarks.method.loading import Loaded
from benchmarks.method.materials import Material, bare, recorded
from benchmarks.method.settings import PASSAGE, RECORDED, BenchSettings
from common.errors import InvalidConfig


def materials_of(settings: BenchSettings, arm: str, loaded: Loaded) -> dict[str, Material]:
    """By the passages' keys; a passage without one has no edit, and its arm answers as the base."""
    if arm == PASSAGE:
        return {passage.key: bare(settings, passage) for passage in loaded.passages}
    if arm == RECORDED:
        return {
            passage.key: recorded(settings, passage, loaded.edits[passage.context].completions[0])
            for passage in loaded.passages
        }
    raise InvalidConfig(f"arms: {arm} is not built yet")
