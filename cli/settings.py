"""A run's settings from the words of the command line. What is left out takes the auditor's default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError

from cli.failure import BadInput
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import teacher_pb2, types_pb2

FILTERS = {
    "positive": pb.FILTER_MODE_POSITIVE,
    "top-k": pb.FILTER_MODE_TOP_K,
    "solved": pb.FILTER_MODE_SOLVED,
}
PROMOTIONS = {
    "none": pb.PROMOTION_MODE_NONE,
    "sequential": pb.PROMOTION_MODE_SEQUENTIAL,
    "consolidated": pb.PROMOTION_MODE_CONSOLIDATED,
}
STARTS = {"base": teacher_pb2.LEARN_FROM_BASE, "policy": teacher_pb2.LEARN_FROM_POLICY}


@dataclass(frozen=True)
class RunChoices:
    """What the command line said; None or empty where it said nothing."""

    rounds: int | None = None
    candidates: int | None = None
    seeds: int | None = None
    filter: str | None = None
    top_k: int | None = None
    threshold: float | None = None
    promotion: str | None = None
    learn: bool | None = None
    learn_from: str | None = None
    variants: Sequence[str] = ()
    recipe: Sequence[str] = ()
    suites: Sequence[str] = ()
    max_drop: float | None = None
    seed: int | None = None
    replay_share: float | None = None
    max_answer_tokens: int | None = None
    pool_small_tasks: bool | None = None
    level: float | None = None
    confirmation_seeds: int | None = None
    filter_by_lower_bound: bool | None = None
    racing: bool | None = None
    cross_split_share: float | None = None
    min_scale: float | None = None
    max_drift: float | None = None
    max_degenerate: float | None = None
    anchors: int | None = None
    accept_drift: bool | None = None


def run_settings(choices: RunChoices) -> pb.RunSettings:
    """Raises BadInput for a recipe that is none. Ranges are the auditor's to check; it names the field."""
    settings = pb.RunSettings(
        rounds=choices.rounds,
        candidates=choices.candidates,
        seeds=choices.seeds,
        filter=FILTERS[choices.filter] if choices.filter else pb.FILTER_MODE_UNSPECIFIED,
        top_k=choices.top_k,
        threshold=choices.threshold,
        promotion=PROMOTIONS[choices.promotion] if choices.promotion else pb.PROMOTION_MODE_UNSPECIFIED,
        learn=choices.learn,
        learn_from=STARTS[choices.learn_from] if choices.learn_from else teacher_pb2.LEARN_FROM_UNSPECIFIED,
        prompt_variants=choices.variants,
        seed=choices.seed,
        replay_share=choices.replay_share,
        max_answer_tokens=choices.max_answer_tokens,
        pool_small_tasks=choices.pool_small_tasks,
        level=choices.level,
        confirmation_seeds=choices.confirmation_seeds,
        filter_by_lower_bound=choices.filter_by_lower_bound,
        racing=choices.racing,
        cross_split_share=choices.cross_split_share,
        min_scale=choices.min_scale,
        accept_drift=choices.accept_drift,
    )
    health = pb.HealthSettings(
        max_drift=choices.max_drift, max_degenerate=choices.max_degenerate, anchors=choices.anchors
    )
    if health.ListFields():
        settings.health.CopyFrom(health)
    if choices.recipe:
        settings.recipe.CopyFrom(recipe(choices.recipe))
    if choices.suites or choices.max_drop is not None:
        settings.retention.CopyFrom(pb.RetentionSettings(suites=choices.suites, max_drop=choices.max_drop))
    return settings


def recipe(words: Sequence[str]) -> types_pb2.Recipe:
    """Update directives from `rank=32 learning_rate=1e-3 target_modules=q_proj,v_proj schedule=linear`."""
    known = types_pb2.Recipe.DESCRIPTOR.fields_by_name
    values: dict[str, Any] = {}
    for word in words:
        key, separator, text = word.partition("=")
        if not separator or key not in known:
            names = ", ".join(sorted(known))
            raise BadInput(f"--recipe {word}: expected KEY=VALUE with one of {names}", "Example: --recipe epochs=10")
        values[key] = _value(known[key], text)
    try:
        return ParseDict(values, types_pb2.Recipe())
    except ParseError:
        raise BadInput(
            f"--recipe {' '.join(words)}: a value is of the wrong kind", "Example: --recipe rank=32"
        ) from None


def _value(field: FieldDescriptor, text: str) -> Any:
    if field.is_repeated:
        return text.split(",")
    if field.enum_type is not None:
        return f"SCHEDULE_{text.upper()}"
    return text
