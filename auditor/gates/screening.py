"""The gates before training: size and limits, then the rules that an edit must obey.

auditor/candidates.py calls them for every edit; each finding carries its reason and its figures.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from auditor.findings import Gate, GateKind
from auditor.policy.rules import Rule
from common.types import Context, Recipe, SelfEdit
from common.versions import TrainLimits


def format_gate(edit: SelfEdit, context: Context, limits: TrainLimits, seen: Collection[str]) -> Gate:
    """Size, recipe, subject, duplicates: one edit beyond the student's limits must not refuse the whole call."""
    reasons = [
        *_over("examples", len(edit.examples), limits.max_examples),
        *_beyond_limits(edit.recipe, limits),
    ]
    if (edit.document_id, edit.revision) != (context.document_id, context.revision):
        reasons.append("written for another document or revision")
    if edit.digest.sha256 in seen:
        reasons.append("duplicate of an edit of this round")
    return Gate(
        kind=GateKind.FORMAT,
        passed=not reasons,
        reason="; ".join(reasons),
        figures={"examples": float(len(edit.examples))},
    )


def _beyond_limits(recipe: Recipe, limits: TrainLimits) -> list[str]:
    reasons = [
        *_over("rank", recipe.rank, limits.max_rank),
        *_over("epochs", recipe.epochs, limits.max_epochs),
        *_over("learning_rate", recipe.learning_rate, limits.max_learning_rate),
        *_over("max_tokens", recipe.max_tokens, limits.max_tokens_per_example),
    ]
    unknown = set(recipe.target_modules) - set(limits.target_modules or recipe.target_modules)
    return [*reasons, *(f"target module {name} is not allowed" for name in sorted(unknown))]


def _over(name: str, value: float | None, limit: float) -> list[str]:
    return [f"{name} {value} is over the student's limit of {limit}"] if value and limit and value > limit else []


def policy_gate(edit: SelfEdit, rules: Sequence[Rule]) -> Gate:
    """What the rules forbid and require of training examples. The reason names the rules, never a text.

    Searches: not for an event loop's own thread. Raises NotPossible(RULE_TOO_SLOW).
    """
    broken = {rule.name: offence for rule in rules if (offence := rule.offence(edit.examples))}
    return Gate(
        kind=GateKind.POLICY,
        passed=not broken,
        reason="; ".join(f"{name}: {offence}" for name, offence in broken.items()),
        figures={"rules": float(len(rules)), "broken": float(len(broken))},
    )
