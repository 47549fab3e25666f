"""A store in a bucket behind the S3 API, by fsspec. Implements student/storage/port.py.

An object appears whole or not at all. An alias moves by a conditional write, so of two moves at once one wins; `check`
finds out whether the endpoint keeps such conditions. Nothing is taken from a listing that was made before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import aiohttp
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError
from s3fs import S3FileSystem

from common.errors import InvalidConfig, NotFound, NotPossible, SealError, Unavailable
from student.storage.bucket_adapters import BucketAdapters
from student.storage.config import SCHEME, BucketConfig
from student.storage.port import checked

# What reads credentials from files. The environment, metadata services and programs are left out.
FROM_FILES = ("assume-role", "assume-role-with-web-identity", "shared-credentials-file", "config-file")
CONDITION_FAILED = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")
ATTEMPTS = 20


class BucketStorage:
    """Everything under `url`, s3://bucket/prefix. `base_model` is what cached adapters say that they are for."""

    def __init__(self, url: str, config: BucketConfig, base_model: str) -> None:
        self._url = url
        self.objects = BucketObjects(url, config)
        self.adapters = BucketAdapters(self.objects, config, base_model)

    def check(self) -> None:
        """Writes what must not be overwritten, and tries to."""
        probe = f"probes/{uuid4().hex}"
        try:
            try:
                held = [self.objects.write(probe, b"1", new=True), not self.objects.write(probe, b"2", new=True)]
                held.append(not self.objects.write(probe, b"3", tag='"0123456789abcdef0123456789abcdef"'))
            finally:
                self.objects.delete(probe)
        except NotFound:
            raise InvalidConfig(f"store: {self._url} cannot be used: there is no such bucket") from None
        except SealError as error:
            raise InvalidConfig(f"store: {self._url} cannot be used: {error.message}") from None
        if not all(held):
            raise InvalidConfig(
                f"store: the endpoint of {self._url} ignores conditional writes (If-Match, If-None-Match), without "
                "which two replicas could move an alias at once; use another endpoint, or a folder"
            )

    def sweep(self, older_than_seconds: float) -> int:
        return self.adapters.sweep(older_than_seconds)


class BucketObjects:
    """Each key is an object under the prefix."""

    def __init__(self, url: str, config: BucketConfig) -> None:
        self._root = url.removeprefix(SCHEME)
        self._files = _opened(config)

    def read(self, key: str) -> bytes:
        with self._reaching(key):
            data: bytes = self._files.cat_file(self._path(key))
            return data

    def has(self, key: str) -> bool:
        return self._tag(key) is not None

    def put(self, key: str, data: bytes) -> None:
        self.write(key, data)

    def put_new(self, key: str, data: bytes) -> None:
        self.write(key, data, new=True)

    def update(self, key: str, change: Callable[[bytes | None], bytes | None]) -> None:
        for _ in range(ATTEMPTS):
            # First the tag, then the content: what is written over is at most older than what was read.
            tag = self._tag(key)
            changed = change(self.read(key) if tag is not None else None)
            if changed is None or self.write(key, changed, new=tag is None, tag=tag or ""):
                return
        raise Unavailable(f"{key} changes faster than it can be written")

    def write(self, key: str, data: bytes, *, new: bool = False, tag: str = "") -> bool:
        """Whether it was written: `new`, only where nothing is; with `tag`, only over the object that has it."""
        condition = {"IfMatch": tag} if tag else {}
        try:
            with self._reaching(key):
                mode = "create" if new else "overwrite"
                self._files.pipe_file(self._path(key), data, mode=mode, **condition)
        except _ConditionFailed:
            return False
        except NotFound:
            if tag:
                return False
            raise
        return True

    def delete(self, key: str) -> None:
        """Nothing happens where nothing is."""
        try:
            with self._reaching(key):
                self._files.rm_file(self._path(key))
        except NotFound:
            return

    def below(self, prefix: str) -> dict[str, datetime]:
        """The keys that begin with prefix/, and when each was written."""
        with self._reaching(prefix):
            found = self._files.find(self._path(prefix), detail=True, refresh=True)
        start = len(self._root) + 1
        return {name[start:]: entry.get("LastModified") or datetime.now(UTC) for name, entry in found.items()}

    def _tag(self, key: str) -> str | None:
        try:
            with self._reaching(key):
                entry = self._files.info(self._path(key), refresh=True)
        except NotFound:
            return None
        return str(entry["ETag"]) if entry["type"] == "file" else None

    def _path(self, key: str) -> str:
        return f"{self._root}/{checked(key) if '/' in key else key}"

    @contextmanager
    def _reaching(self, key: str) -> Iterator[None]:
        """Tells a condition that was not kept, an object that is not there, a refusal, and an endpoint that is away."""
        try:
            yield
        except FileNotFoundError:
            raise NotFound(f"{key} is not in the store") from None
        except PermissionError as error:
            raise NotPossible(f"the object store refuses access to {key}: {error}", reason="STORE_REFUSED") from None
        except (OSError, BotoCoreError, aiohttp.ClientError) as error:
            response = getattr(error.__cause__, "response", None) or {}
            if isinstance(error, FileExistsError) or response.get("Error", {}).get("Code") in CONDITION_FAILED:
                raise _ConditionFailed from None
            raise Unavailable(f"the object store cannot be reached for {key}: {error}") from None


class _ConditionFailed(Exception):
    """Somebody else has written it."""


def _opened(config: BucketConfig) -> Any:
    session = AioSession(profile=config.profile or None)
    if config.credentials_file is not None:
        session.set_config_variable("credentials_file", str(config.credentials_file))
    if config.region:
        session.set_config_variable("region", config.region)
    providers = session.get_component("credential_provider")
    for provider in list(providers.providers):
        if provider.METHOD not in FROM_FILES:
            providers.remove(provider.METHOD)
    client: dict[str, object] = {"verify": str(config.ca_file)} if config.ca_file else {}
    files: Any = S3FileSystem(
        session=session,
        endpoint_url=config.endpoint_url or None,
        client_kwargs=client,
        config_kwargs={
            "connect_timeout": config.timeout_seconds,
            "read_timeout": config.timeout_seconds,
            "retries": {"max_attempts": 1},
        },
        use_listings_cache=False,
        skip_instance_cache=True,
    )
    # Its own tries stand around botocore's, and each may take the whole timeout: left at five, that is minutes.
    files.retries = 2
    return files
