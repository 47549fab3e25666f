"""Makes one edit of a round's winners, for consolidated promotion. Pure; auditor/promotion.py calls it."""

from __future__ import annotations

from collections.abc import Sequence

from common.canonical import digest_of
from common.edits import make_edit
from common.types import MAX_EXAMPLES, Example, SelfEdit


def union(winners: Sequence[SelfEdit], max_examples: int) -> tuple[SelfEdit, tuple[SelfEdit, ...]]:
    """The composed edit and its parts: winners in order of merit, as many as fit.

    Each example stands once, in the order of the winners; the recipe is the first winner's; the kind too. A winner
    that would not fit any more is left out whole. One winner is its own union.
    """
    room = min(max_examples or MAX_EXAMPLES, MAX_EXAMPLES)
    parts: list[SelfEdit] = []
    examples: dict[str, Example] = {}
    for winner in winners:
        grown = {**examples, **{digest_of(example).sha256: example for example in winner.examples}}
        if len(grown) <= room or not parts:
            examples = grown
            parts.append(winner)
    if len(parts) == 1:
        return parts[0], tuple(parts)
    first = parts[0]
    edit = make_edit(
        kind=first.kind,
        document_id=f"union-{digest_of([part.digest.sha256 for part in parts]).sha256[:16]}",
        revision="1",
        examples=list(examples.values()),
        recipe=first.recipe,
        augmentation=first.augmentation,
    )
    return edit, tuple(parts)
