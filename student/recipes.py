"""Which recipe a candidate is trained with, and whether the student allows it."""

from __future__ import annotations

from collections.abc import Iterator

from common.errors import Violation
from common.lora.adapter_format import AdapterSpec
from common.lora.update import effective_recipe
from common.types import Recipe, SelfEdit
from common.versions import TrainLimits
from student.config import TrainingConfig


class RecipeBook:
    """Defaults and limits of one student; `linear_names` are the layers that its model has."""

    def __init__(self, config: TrainingConfig, linear_names: tuple[str, ...], max_positions: int) -> None:
        self._config = config
        limits = config.limits
        allowed = tuple(name for name in linear_names if not limits.target_modules or name in limits.target_modules)
        self.limits = TrainLimits(
            max_rank=limits.max_rank,
            max_epochs=limits.max_epochs,
            max_examples=limits.max_examples,
            max_tokens_per_example=min(limits.max_tokens_per_example, max_positions),
            max_candidates=limits.max_candidates,
            target_modules=allowed,
            max_learning_rate=limits.max_learning_rate,
        )
        fitting = min(config.defaults.max_tokens or max_positions, self.limits.max_tokens_per_example)
        self.defaults = config.defaults.model_copy(update={"max_tokens": fitting})

    def resolve(self, edit: SelfEdit, parent: AdapterSpec | None) -> Recipe:
        """The edit's directives over the defaults; on a parent, the lineage's rank, alpha and targets stand."""
        return effective_recipe(edit.recipe.over(self.defaults), parent)

    def violations(self, edit: SelfEdit, path: str) -> Iterator[Violation]:
        """What in the edit is beyond the student's limits, by field path under `path`."""
        recipe, limits = edit.recipe, self.limits
        if len(edit.examples) > limits.max_examples:
            yield _over(f"{path}.examples", len(edit.examples), limits.max_examples)
        bounds = {
            "rank": limits.max_rank,
            "epochs": limits.max_epochs,
            "learning_rate": limits.max_learning_rate,
            "max_tokens": limits.max_tokens_per_example,
        }
        for field, bound in bounds.items():
            value = getattr(recipe, field)
            if value is not None and value > bound:
                yield _over(f"{path}.recipe.{field}", value, bound)
        for name in recipe.target_modules:
            if name not in limits.target_modules:
                allowed = ", ".join(limits.target_modules)
                yield Violation(f"{path}.recipe.target_modules", f"{name} is not among those allowed: {allowed}")


def _over(path: str, value: float, bound: float) -> Violation:
    return Violation(path, f"is {value}; this student allows at most {bound}")
