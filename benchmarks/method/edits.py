"""Which edit an arm has of each passage."""

from __future__ import annotations

from benchmarks.method.loading import Loaded
from benchmarks.method.materials import Material, bare, recorded
from benchmarks.method.own_edits import own_edits
from benchmarks.method.progress import say
from benchmarks.method.readings import our_reading, published_documents
from benchmarks.method.settings import OWN, PASSAGE, POLICY, RECORDED, BenchSettings
from benchmarks.passages import Passage
from common.types import SelfEdit


def materials_of(settings: BenchSettings, arm: str, loaded: Loaded) -> dict[str, Material]:
    """By the passages' keys; a passage without one has no edit, and its arm answers as the base.

    Own edits are written here, before anything is trained on: one heavy phase at a time.
    """
    if arm == PASSAGE:
        return {passage.key: bare(settings, passage) for passage in loaded.passages}
    if arm == RECORDED:
        return {
            passage.key: recorded(settings, passage, loaded.edits[passage.context].completions[0])
            for passage in loaded.passages
        }
    variant = arm.removeprefix(OWN) if arm.startswith(OWN) else ""
    policy = arm.removeprefix(POLICY) if arm.startswith(POLICY) else ""
    edits = own_edits(settings, variant, loaded.passages, policy, progress=say)
    return {
        passage.key: _own(settings, passage, edit)
        for passage, edit in zip(loaded.passages, edits, strict=True)
        if edit is not None
    }


def _own(settings: BenchSettings, passage: Passage, edit: SelfEdit) -> Material:
    read = our_reading(edit, passage.title, passage.context, settings.seal.forms)
    return Material(
        passage=passage.key,
        documents=tuple(published_documents(edit, passage.title, passage.context)),
        examples=tuple(read.examples),
        as_written=read.as_written,
        recipe=edit.recipe,
        suited=read.suited,
    )
