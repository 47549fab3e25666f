"""What the teacher remembers of an edit: the prompts and completions whose examples survived screening.

Learn names edits by digest only, so everything it trains on must stand here. The pairs are content-addressed; a pointer
from the edit's digest is written once and never changed. Nothing in it comes from the auditor.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from common.canonical import canonical_json
from common.errors import Corrupt, NotFound
from common.files import ContentStore
from common.types import Digest, Domain, Sha256
from teacher.store import read_record, write_record


class Pair(Domain):
    """One prompt and what the policy wrote: token ids as the model saw and drew them.

    `read` pieces were found in the completion, `kept` of them became examples of the edit.
    """

    prompt_ids: tuple[int, ...] = Field(min_length=1)
    completion_ids: tuple[int, ...] = Field(min_length=1)
    completion: str
    read: int = Field(ge=1)
    kept: int = Field(ge=1)


class EditMemory(Domain):
    """All pairs of one edit and the policy that wrote them."""

    edit: Sha256
    policy_version: str
    prompt_variant: str
    pairs: tuple[Pair, ...] = ()


class _Pointer(Domain):
    memory: Digest


class Memory:
    """Pairs by edit digest, under `root`."""

    def __init__(self, root: Path) -> None:
        self._contents = ContentStore(root / "pairs", suffix=".json")
        self._edits = root / "edits"

    def keep(self, memory: EditMemory) -> None:
        """Stores the pairs of an edit. The same edit written twice keeps its first pairs."""
        pointer = self._edits / f"{memory.edit}.json"
        if not pointer.exists():
            write_record(pointer, _Pointer(memory=self._contents.put(canonical_json(memory))))

    def recall(self, edit_sha256: str) -> EditMemory:
        """Raises NotFound when this teacher never wrote that edit, Corrupt when the record was damaged."""
        pointer = read_record(self._edits / f"{edit_sha256}.json", _Pointer)
        if pointer is None:
            raise NotFound(f"edit {edit_sha256} was not written by this teacher", ids={"edit": edit_sha256})
        memory = EditMemory.model_validate_json(self._contents.get(pointer.memory.sha256))
        if memory.edit != edit_sha256:
            raise Corrupt(f"the memory of edit {edit_sha256} belongs to another edit", ids={"edit": edit_sha256})
        return memory
