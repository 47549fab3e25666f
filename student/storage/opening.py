"""Opens the store that the settings name."""

from __future__ import annotations

from pathlib import Path

from common.errors import InvalidConfig
from student.storage.config import BucketConfig
from student.storage.folder import FolderStorage
from student.storage.port import Storage


def open_storage(store: Path | str, bucket: BucketConfig, base_model: str) -> Storage:
    """Raises InvalidConfig when a bucket is named and the packages for it are not installed."""
    if isinstance(store, Path):
        return FolderStorage(store)
    try:
        from student.storage.bucket import BucketStorage
    except ModuleNotFoundError as error:
        raise InvalidConfig(
            f"store: {store} needs the package {error.name}; install seal-services[object-store]"
        ) from None
    return BucketStorage(store, bucket, base_model)
