"""How a store is named, and how one in a bucket is reached."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from common.config import Config

SCHEME = "s3://"
BUCKET_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_=-][A-Za-z0-9_.=-]*)*/?")


def _place(value: object) -> object:
    """A bucket's URL as text, anything else as a folder."""
    text = str(value)
    if not text.startswith(SCHEME):
        if "://" in text:
            raise ValueError(f"{text}: a store is a folder or s3://bucket/prefix")
        return Path(text) if isinstance(value, str) else value
    if not BUCKET_URL.fullmatch(text):
        raise ValueError(f"{text} is no s3://bucket/prefix; a prefix has letters, digits and _ . = - between slashes")
    return text.rstrip("/")


Store = Annotated[Path | str, BeforeValidator(_place)]


class BucketConfig(Config):
    """Of a store at s3://bucket/prefix. Credentials come from files alone, never from settings or the environment."""

    endpoint_url: str = Field(
        default="", pattern=r"^$|^https?://[^\s@?]+$", description="of a store that is not Amazon's; empty: Amazon's"
    )
    region: str = Field(default="", pattern=r"^[a-z0-9-]*$")
    credentials_file: Path | None = Field(
        default=None,
        description="shared credentials file (aws_access_key_id and aws_secret_access_key under a profile); none: "
        "~/.aws/credentials, or the web identity token whose file AWS_WEB_IDENTITY_TOKEN_FILE names",
    )
    profile: str = Field(default="", description="section of the credentials file; empty: default")
    ca_file: Path | None = Field(default=None, description="PEM of who signed the endpoint's certificate")
    cache: Path = Field(
        default=Path("data/student-cache"), description="adapters that were read; of this replica alone"
    )
    cache_mib: int = Field(default=4_096, ge=1, description="size of the cache; what was used longest ago goes first")
    timeout_seconds: float = Field(default=20.0, gt=0, le=600, description="longest silence of the endpoint")
