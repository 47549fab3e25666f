"""What each arm trains on, in both readings of it: the published one, and ours.

The same edit becomes plain documents under the title for the published procedure (SEAL.md), and for ours examples in
the form in which questions are asked, with rehearsed common knowledge. `training_of` makes one update of the material
of one passage or of several at once.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field

from benchmarks.edit_forms import examples_of, passage_examples, pieces_of, reference_documents
from benchmarks.method.settings import BenchSettings, Procedure
from benchmarks.method.versions import BASE, Padding, Training, published_recipe
from benchmarks.method.weights import digest_of_weights, folder_of
from benchmarks.passages import Passage
from benchmarks.reference import PUBLISHED
from common.canonical import derive_seed, digest_of
from common.types import Domain, Example, Recipe
from student.config import DEFAULT_RECIPE
from teacher.backends.settings import TransformersSettings
from teacher.backends.transformers_backend import TransformersGenerator
from teacher.forms import in_forms
from teacher.generator import Completion, Draw
from teacher.prompts import PromptRenderer
from teacher.rehearsal import Rehearsal, RehearsalSettings
from teacher.screening import screen

Rehearse = Callable[[int], list[Example]]
ALL_REHEARSED = 256
LONGEST_TEXT = 16_384  # characters of an example; a row of the published procedure ends long before


class Material(Domain):
    """One edit of one passage. documents: as published; examples: ours, without what is rehearsed.

    as_written: written questions, in no form of ours; recipe: the edit's own; suited: what suits its forms, where
    neither the edit nor the settings say.
    """

    passage: str
    documents: tuple[str, ...] = Field(min_length=1)
    examples: tuple[Example, ...] = Field(min_length=1)
    as_written: bool = False
    recipe: Recipe = Recipe()
    suited: Recipe = Recipe()


def recorded(settings: BenchSettings, passage: Passage, completion: str) -> Material:
    """An edit that another model wrote once."""
    ours = settings.seal
    kept = screen(pieces_of([completion], passage.context), passage.title, ours.screening).kept
    taught = in_forms(kept, passage.title, passage.context, ours.forms)
    as_written = bool(taught.written) and not taught.asked
    # As the teacher has it: the passage stands beside written questions.
    beside = passage_examples(passage.title, passage.context) if as_written and not taught.plain else []
    return Material(
        passage=passage.key,
        documents=tuple(reference_documents(completion, passage.title, passage.context)),
        examples=(*examples_of(taught, passage.title, passage.context, ours.forms), *beside),
        as_written=as_written,
        suited=taught.recipe,
    )


def bare(settings: BenchSettings, passage: Passage) -> Material:
    """The passage alone; ours asks about its sentences by rule."""
    forms = settings.seal.forms
    taught = in_forms([], passage.title, passage.context, forms)
    return Material(
        passage=passage.key,
        documents=(f"{passage.title}\n{passage.context}",),
        examples=tuple(examples_of(taught, passage.title, passage.context, forms)),
        suited=taught.recipe,
    )


def training_of(
    materials: Sequence[Material],
    procedure: Procedure,
    settings: BenchSettings,
    *,
    base: str,
    rehearse: Rehearse,
    parent: str = BASE,
) -> Training:
    """One update of everything in `materials`. Its seed derives from the passages' names alone."""
    seed = derive_seed("bench", settings.seed, *(material.passage for material in materials))
    if procedure == "reference":
        return Training(
            base=base,
            examples=tuple(
                Example(text=document[:LONGEST_TEXT]) for material in materials for document in material.documents
            ),
            recipe=published_recipe(PUBLISHED).model_copy(update={"epochs": settings.reference.epochs}),
            seed=seed,
            padding=Padding(sampled=settings.reference.sampled_pads),
            parent=parent,
        )
    examples = [example for material in materials for example in material.examples]
    for material in materials:
        if most := rehearsed_at_most(material, settings):
            examples += rehearse(derive_seed("bench-rehearsal", settings.seed, material.passage))[:most]
    # What an example is grounded in changes nothing that is trained, and each is trained on once.
    once = {digest_of(e).sha256: e for e in (example.model_copy(update={"grounding": ""}) for example in examples)}
    recipe = recipe_of(materials).over(settings.seal.recipe).over(materials[0].suited).over(DEFAULT_RECIPE)
    return Training(base=base, examples=tuple(once.values()), recipe=recipe, seed=seed, parent=parent)


def rehearsed_at_most(material: Material, settings: BenchSettings) -> int:
    """Common questions beside one edit, where there are so many."""
    return settings.seal.rehearsal_as_written if material.as_written else settings.seal.rehearsal


def recipe_of(materials: Sequence[Material]) -> Recipe:
    """An edit's own, or for several that of the edit whose epochs are in the middle: one update has one recipe."""
    by_epochs = sorted((material.recipe for material in materials), key=lambda recipe: recipe.epochs or 0)
    return by_epochs[(len(by_epochs) - 1) // 2]


def rehearsal(settings: BenchSettings, folder: Path) -> Rehearse:
    """The base model's own answers to common questions, as the teacher mixes them in; drawn once, kept in `folder`.

    All of them, in the order in which an update of this seed takes them. Nothing is drawn before it is asked for.
    """
    model = settings.model
    asked = RehearsalSettings(examples=ALL_REHEARSED, system_prompt=model.system_prompt)
    generator = LateGenerator(model, TransformersSettings())
    source = Rehearsal(
        generator,
        PromptRenderer.load(folder_of(model), style="auto", system_prompt=asked.system_prompt),
        model_digest=digest_of_weights(model),
        folder=folder / "rehearsal",
        settings=asked,
    )

    async def everything() -> list[Example]:
        try:
            return await source.examples(0)
        finally:
            await generator.close()

    @functools.cache
    def known() -> list[Example]:
        return asyncio.run(everything())

    def drawn(seed: int) -> list[Example]:
        return sorted(known(), key=lambda example: derive_seed("rehearsal", seed, example.texts[0]))

    return drawn


class LateGenerator(TransformersGenerator):
    """Loads the model when it is asked for the first time: rehearsal is mostly read."""

    async def generate(self, draws: Sequence[Draw], version: str) -> list[Completion]:
        await self.start()
        return await super().generate(draws, version)
