"""What the arm `ours` goes by, in one place: forms and recipe of the recorded edits, and the settings of a run.

Chosen on passages that are not among those reported; the figures that made each choice stand in docs/retention.md.
"""

from __future__ import annotations

from typing import Any

from benchmarks.questioning import ANSWER_TOKENS

TEACHER: dict[str, Any] = {
    "author": "recorded",
    "completions": 1,
    # Of completions that state and do not ask; written questions are taught as they are.
    "forms": {
        "plain": False,
        "asked": True,
        "per_statement": 1,
        "per_sentence": 4,
        "answer": "passage",
        "fronted": True,
        "shortened": 0,
    },
    "rehearsal": {"examples": 32},
    "recipe": {"rank": 32, "alpha": 64, "learning_rate": 1e-3, "epochs": 4, "batch_size": 4},
}

RUN: dict[str, Any] = {
    "rounds": 1,
    "candidates": 2,
    "seeds": 1,
    "promotion": "PROMOTION_MODE_SEQUENTIAL",
    "learn": False,
    "replay_share": 0.5,
    "max_answer_tokens": ANSWER_TOKENS,
    "confirmation_seeds": 1,
    "level": 0.1,
    # So small a model loses a fifth of the suite by its first edit, and the bound holds for all eight together, with
    # confidence. What the passages themselves may lose is bounded alike.
    "retention": {"suites": ["general"], "max_drop": 0.5},
    # Nothing is asked that the comparison does not need.
    "health": {"anchors": 0},
    "cross_split_share": 0.0,
}


def merged(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Settings with changes over them, one level deep."""
    deep = {key: {**settings.get(key, {}), **new} for key, new in changes.items() if isinstance(new, dict)}
    return {**settings, **changes, **deep}
