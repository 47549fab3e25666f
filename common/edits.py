"""Makes self-edits and checks their names."""

from __future__ import annotations

from collections.abc import Sequence

from common.canonical import canonical_json, digest_bytes
from common.errors import InvalidRequest, Violation
from common.types import Augmentation, Digest, Example, Recipe, SelfEdit, TaskKind


def edit_bytes(edit: SelfEdit) -> bytes:
    """The canonical bytes that an edit's digest names: everything but the digest itself."""
    return canonical_json(edit.model_dump(mode="json", exclude_none=True, exclude={"digest"}))


def edit_digest(edit: SelfEdit) -> Digest:
    return digest_bytes(edit_bytes(edit))


def make_edit(
    *,
    kind: TaskKind,
    document_id: str,
    revision: str,
    examples: Sequence[Example],
    recipe: Recipe,
    augmentation: Augmentation | None = None,
) -> SelfEdit:
    """An edit with its digest."""
    unnamed = SelfEdit(
        digest=Digest(sha256="0" * 64),
        kind=kind,
        document_id=document_id,
        revision=revision,
        examples=tuple(examples),
        recipe=recipe,
        augmentation=augmentation,
    )
    return unnamed.model_copy(update={"digest": edit_digest(unnamed)})


def check_edit(edit: SelfEdit, path: str = "edit") -> SelfEdit:
    """Returns the edit if its digest fits its content; raises InvalidRequest otherwise."""
    found = edit_digest(edit)
    if found.sha256 != edit.digest.sha256:
        raise InvalidRequest(
            [Violation(f"{path}.digest", f"says {edit.digest.sha256}, but the content has {found.sha256}")]
        )
    return edit
