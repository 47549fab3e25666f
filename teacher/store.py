"""Small records of the teacher, one JSON file each, written atomically and read back as typed models.

Request ids are free text, so a record that belongs to a request is named by the digest of its id.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from common.canonical import canonical_json, digest_of
from common.errors import Corrupt
from common.files import write_atomically

RecordT = TypeVar("RecordT", bound=BaseModel)


def name_of(request_id: str) -> str:
    """A file name for any request id."""
    return digest_of(request_id).sha256


def write_record(path: Path, record: BaseModel) -> None:
    write_atomically(path, canonical_json(record))


def read_record(path: Path, model: type[RecordT]) -> RecordT | None:
    """The record, or None when there is none. Raises Corrupt when it cannot be read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return model.model_validate_json(data)
    except ValidationError:
        raise Corrupt(
            f"{path.parent.name}/{path.name} cannot be read", reason="RECORD_CORRUPT", ids={"file": path.name}
        ) from None
