"""A bucket behind a real S3 API on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from moto.server import ThreadedMotoServer

from common.lora.adapter_format import Adapter, AdapterSpec
from student.storage.bucket import BucketStorage
from student.storage.config import BucketConfig


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def credentials(tmp_path: Path) -> Path:
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = replica\naws_secret_access_key = of-a-test\n")
    return file


@pytest.fixture
def settings(endpoint: str, credentials: Path, tmp_path: Path) -> Callable[[str], BucketConfig]:
    """Of one replica: each has a cache of its own."""

    def of(replica: str) -> BucketConfig:
        return BucketConfig(
            endpoint_url=endpoint, region="us-east-1", credentials_file=credentials, cache=tmp_path / replica
        )

    return of


@pytest.fixture
def url(settings: Callable[[str], BucketConfig]) -> str:
    """A bucket of this test's own, and a prefix in it."""
    name = f"test-{uuid4().hex}"
    files: Any = BucketStorage(f"s3://{name}", settings("maker"), "tiny").objects._files
    files.mkdir(name)
    return f"s3://{name}/student"


@pytest.fixture
def replica(url: str, settings: Callable[[str], BucketConfig]) -> Callable[[str], BucketStorage]:
    return lambda name: BucketStorage(url, settings(name), "tiny")


def some_adapter(value: float = 1.0) -> Adapter:
    import torch

    spec = AdapterSpec(rank=2, alpha=4, target_modules=("q_proj",), base="0" * 64)
    layer = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{layer}.lora_A.weight": torch.full((2, 8), value),
        f"{layer}.lora_B.weight": torch.full((8, 2), value),
    }
    return Adapter(spec, tensors)
