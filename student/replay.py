"""Accepted edits mixed into an update, so that it forgets less (SEAL.md, known remedies)."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.canonical import derive_seed, digest_of
from common.errors import NotFound
from common.types import Example, SelfEdit
from common.versions import Replay


@dataclass(frozen=True)
class Mixture:
    """An edit's examples followed by the replayed ones, and the share that the latter make up."""

    examples: tuple[Example, ...]
    replay_share: float


class ReplayPool:
    """The edits that one request replays, each read once. Raises NotFound naming what is missing.

    edit_of: an edit by its sha256; it raises NotFound for one that it does not know.
    """

    def __init__(self, edit_of: Callable[[str], SelfEdit], replay: Replay) -> None:
        self._share = replay.share
        self._edits: dict[str, SelfEdit] = {}
        if not replay.share:
            return
        for place, digest in enumerate(replay.edits):
            try:
                self._edits[digest.sha256] = edit_of(digest.sha256)
            except NotFound as error:
                raise NotFound(f"replay.edits[{place}]: {error.message}", ids=error.ids) from None

    @property
    def key(self) -> dict[str, object] | None:
        """What of the replay decides an adapter; None when nothing is replayed."""
        return {"edits": sorted(self._edits), "share": self._share, "drawn": "distinct"} if self._edits else None

    def mix(self, edit: SelfEdit, seed: int) -> Mixture:
        """The edit with replayed examples drawn from the other edits by `seed`, as many as make up the share.

        Each stands once, and none that the edit has itself: edits share rehearsed questions, which would be most of
        what is drawn.
        """
        own = edit.examples
        earlier = {
            digest_of(example).sha256: example
            for sha256, other in sorted(self._edits.items())
            if sha256 != edit.digest.sha256
            for example in other.examples
        }
        known = {digest_of(example).sha256 for example in own}
        pool: Sequence[Example] = [example for sha256, example in earlier.items() if sha256 not in known]
        wanted = round(len(own) * self._share / (1.0 - self._share))
        drawn = random.Random(derive_seed("replay", seed)).sample(range(len(pool)), min(wanted, len(pool)))  # noqa: S311
        examples = (*own, *(pool[place] for place in sorted(drawn)))
        return Mixture(examples, len(drawn) / len(examples))
