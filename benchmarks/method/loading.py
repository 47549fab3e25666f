"""Everything that a benchmark reads, refused before anything is trained when it cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from auditor.tasks import EvaluationItem
from benchmarks.method.anchors import read_anchors, rehearsed
from benchmarks.method.own_edits import teacher_config, told_of
from benchmarks.method.settings import OWN, POLICY, RECORDED, BenchSettings
from benchmarks.method.weights import digest_of_weights
from benchmarks.passages import Passage, RecordedEdits, read_edits, read_passages
from common.errors import InvalidConfig
from teacher.policies import is_stored
from teacher.variants import VARIANTS


@dataclass(frozen=True)
class Loaded:
    """edits: recorded ones by their passage's text; base: the digest of the weights; rehearsed: places of anchors;

    teacher: the settings of the one that writes own edits, where there are any.
    """

    passages: tuple[Passage, ...]
    edits: dict[str, RecordedEdits]
    anchors: tuple[EvaluationItem, ...]
    base: str
    rehearsed: frozenset[int] = frozenset()
    teacher: dict[str, Any] | None = None


def load(settings: BenchSettings) -> Loaded:
    """Raises InvalidConfig that names file and field, or the passage that lacks an edit."""
    known = {passage.key for passage in read_passages(settings.leave_out)} if settings.leave_out else set()
    passages = tuple(passage for passage in read_passages(settings.data) if passage.key not in known)
    if not passages:
        raise InvalidConfig(f"{settings.data}: no passage is left")
    if settings.count > len(passages):
        raise InvalidConfig(f"{settings.data}: has {len(passages)} passages; {settings.count} are asked for")
    passages = passages[: settings.count or len(passages)]
    teacher = _teacher(settings)
    anchors = read_anchors(settings.anchors)
    edits = read_edits(settings.edits) if settings.edits is not None else {}
    if RECORDED in settings.arms:
        if settings.edits is None:
            raise InvalidConfig("edits: the arm recorded needs a file of recorded edits")
        for passage in passages:
            if passage.context not in edits:
                raise InvalidConfig(f"{settings.edits}: no edits for the passage titled {passage.title!r}")
    return Loaded(passages, edits, anchors, digest_of_weights(settings.model), rehearsed(anchors), teacher)


def _teacher(settings: BenchSettings) -> dict[str, Any] | None:
    """Writing the edits of one arm takes long: the settings of all are read before. None where no arm has own ones."""
    own = [arm.removeprefix(OWN) for arm in settings.arms if arm.startswith(OWN)]
    for variant in own:
        if variant not in VARIANTS:
            raise InvalidConfig(f"{OWN}{variant}: no such prompt variant; known are {', '.join(VARIANTS)}")
    policies = [arm.removeprefix(POLICY) for arm in settings.arms if arm.startswith(POLICY)]
    if not own and not policies:
        return None
    config = teacher_config(settings)
    for policy in policies:
        if not is_stored(config.store, policy):
            raise InvalidConfig(
                f"{POLICY}{policy}: the teacher's store {config.store} has no such policy; name it by its whole "
                "digest, and the store by `store` in the file of --teacher"
            )
    return told_of(config)


def grouped(settings: BenchSettings, loaded: Loaded, together: int) -> list[tuple[Passage, ...]]:
    """So many passages an update, in their order; the last may have fewer. Raises InvalidConfig where none is full."""
    if together > len(loaded.passages):
        raise InvalidConfig(f"{settings.data}: has {len(loaded.passages)} passages; {together} at once are asked for")
    return [loaded.passages[start : start + together] for start in range(0, len(loaded.passages), together)]
