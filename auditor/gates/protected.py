"""The gate on protected behaviour: what must hold of the answers to given questions, before and after.

The reason names rules and the numbers of their questions, never a text. auditor/health.py calls this last of all gates,
for updates that everything else let through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from auditor.findings import Gate, GateKind
from auditor.policy.rules import Protected

MOST_NAMED = 10


@dataclass(frozen=True)
class Observed:
    """A rule's question (1, 2, ...) as the parent and the update answered it."""

    rule: Protected
    question: int
    before: str
    after: str

    @cached_property
    def breach(self) -> str:
        """How the rule is broken; empty if it is not."""
        return self.rule.breach(self.before, self.after)


def protected_gate(observed: Sequence[Observed]) -> Gate:
    """No answer may break its rule. An `if_held` rule forgives an answer that failed it before; that is said.

    Searches: not for an event loop's own thread. Raises NotPossible(RULE_TOO_SLOW).
    """
    broken = [one for one in observed if one.breach]
    named = [f"{_place(one)} {one.breach}" for one in broken[:MOST_NAMED]]
    if len(broken) > MOST_NAMED:
        named.append(f"and {len(broken) - MOST_NAMED} more")
    failed_before = [one for one in observed if not one.rule.holds(one.before)]
    excused = Counter(one.rule.name for one in failed_before if not one.breach and not one.rule.holds(one.after))
    rules = {one.rule.name for one in observed}
    said = f"{len(observed)} answers under {len(rules)} rules are as they must be"
    if excused:
        names = ", ".join(f"{name} ({count})" for name, count in excused.items())
        said += f", but those that did not hold before either: {names}"
    return Gate(
        kind=GateKind.PROTECTED,
        passed=not broken,
        reason="; ".join(named) or said,
        figures={
            "rules": float(len(rules)),
            "answers": float(len(observed)),
            "broken": float(len(broken)),
            "failed_before": float(len(failed_before)),
        },
    )


def _place(one: Observed) -> str:
    many = len(one.rule.questions) > 1
    return f"{one.rule.name} (question {one.question} of {len(one.rule.questions)})" if many else one.rule.name
