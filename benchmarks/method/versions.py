"""What a benchmark trains, named by everything that decides it: the same training is never done twice.

A version is a chain of trainings on the frozen base. Its name is the digest of what is trained on, how, from which
seed, and on which parent; so an interrupted benchmark finds what it has, two arms that need one training share it, and
other settings never meet.
"""

from __future__ import annotations

from dataclasses import asdict

from pydantic import Field

from benchmarks.reference import Procedure
from common.canonical import digest_of
from common.types import Domain, Example, Recipe, Schedule, Seed, Sha256

BASE = "base"
MOST_RANK = 256  # AdapterSpec's: a merged sequence is one adapter, whose rank is the sum of its edits'
WHOLE = 1.0


class Padding(Domain):
    """Rows padded to `width` with end-of-text that counts in the loss: the published defect (SEAL.md, 1 and 2).

    sampled: pads drawn for each row in the place of all; 0: all, as published.
    """

    width: int = Field(default=2_048, ge=16, le=8_192)
    sampled: int = Field(default=32, ge=0)


class Training(Domain):
    """One inner update. padding: the published procedure's rows; None: masked, on the student's engine.

    parent: the name of what it goes on from, whole or scaled down; its update is merged (published) or continued (the
    engine's).
    """

    base: Sha256
    examples: tuple[Example, ...] = Field(min_length=1)
    recipe: Recipe
    seed: Seed
    padding: Padding | None = None
    parent: str = BASE

    @property
    def name(self) -> str:
        return digest_of(self).sha256[:32]

    def name_at(self, scale: float) -> str:
        """What its update is called when it is scaled down towards its parent; whole, it is its own name."""
        return self.name if scale == WHOLE else f"{self.name}@{scale:g}"


class Trained(Domain):
    """What became of it. adapter: of the whole chain, as it is loaded; tokens: computed, pads included."""

    adapter: Sha256
    tokens: int
    seconds: float
    last_loss: float


def published_recipe(procedure: Procedure) -> Recipe:
    """SEAL.md's inner update in the contract's words."""
    known = asdict(procedure)
    known.pop("width"), known.pop("sampled_pads")
    return Recipe(**known, dropout=0.0, batch_size=1, schedule=Schedule.LINEAR, warmup_steps=0, weight_decay=0.0)


def published_procedure(training: Training) -> Procedure:
    """The other way round, for benchmarks/reference.py."""
    recipe, padding = training.recipe, training.padding
    assert padding is not None
    return Procedure(
        rank=recipe.rank or 0,
        alpha=round(recipe.alpha or 0),
        target_modules=recipe.target_modules,
        learning_rate=recipe.learning_rate or 0.0,
        epochs=recipe.epochs or 0,
        max_grad_norm=recipe.max_grad_norm or 0.0,
        width=padding.width,
        sampled_pads=padding.sampled,
    )
