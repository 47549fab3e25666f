"""A chat model behind any OpenAI-compatible endpoint: messages in, text out.

The key is read from a file, sent to the endpoint and written nowhere else; texts of requests and answers reach no log
and no error. An endpoint that is away or busy is asked again a bounded number of times. auditor/policy/model.py and
auditor/graders/judge.py call this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from common.config import Config
from common.errors import InvalidConfig, NotPossible, Unavailable

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

NO_KEY = "none"  # the client insists on one; an endpoint that needs none ignores it
UsageSeen = Callable[[int, int], None]


class ChatModelConfig(Config):
    base_url: str = Field(pattern=r"^https?://\S+$", description="of the endpoint, as in http://host:8000/v1")
    model: str = Field(min_length=1, max_length=300, description="its name there")
    api_key_file: Path | None = Field(default=None, description="file that holds the key alone; left out: no key")
    timeout_seconds: float = Field(default=60.0, gt=0, le=3_600, description="of one request")
    concurrency: int = Field(default=4, ge=1, le=256, description="requests at the same time")
    max_retries: int = Field(
        default=8, ge=0, le=100, description="of a request that failed, after growing waits of at most 8 seconds"
    )
    temperature: float | None = Field(default=0.0, ge=0, le=2, description="null: the endpoint's own")
    max_tokens: int | None = Field(default=512, ge=1, le=65_536, description="of an answer; null: the endpoint's own")

    @field_validator("base_url")
    @classmethod
    def _without_key(cls, url: str) -> str:
        if "@" in urlsplit(url).netloc or urlsplit(url).query:  # some endpoints take a key as a parameter
            raise ValueError("holds credentials; write the key into a file and name that as api_key_file")
        return url


@dataclass(frozen=True)
class Turn:
    """One message of a request."""

    role: Literal["system", "user", "assistant"]
    text: str


class ChatModel:
    """One endpoint.

    called: its name in errors. refused_reason: of the error when it will not answer. on_usage: told the tokens read and
    written of each answer that says so. Raises InvalidConfig when its key cannot be read.
    """

    def __init__(
        self,
        config: ChatModelConfig,
        *,
        called: str = "",
        refused_reason: str = "CHAT_MODEL_REFUSED",
        on_usage: UsageSeen | None = None,
    ) -> None:
        self._config = config
        self._called = called or f"the chat model {config.model}"
        self._refused_reason = refused_reason
        self._on_usage = on_usage
        self._key = read_key(config.api_key_file, self._called) if config.api_key_file else NO_KEY
        self._room = asyncio.Semaphore(config.concurrency)
        self._client: AsyncOpenAI | None = None

    async def complete(self, turns: Sequence[Turn]) -> str:
        """What the model answers; empty if it says nothing.

        Raises Unavailable when the endpoint stays away, and NotPossible(refused_reason) when it will not answer.
        """
        # Seconds of work the first time: health checks must be answered meanwhile.
        await asyncio.to_thread(import_module, "openai.resources.chat.completions")
        import openai

        config = self._config
        try:
            async with self._room:
                answer = await self._open().chat.completions.create(
                    model=config.model,
                    messages=[_message(turn) for turn in turns],
                    temperature=openai.omit if config.temperature is None else config.temperature,
                    max_tokens=openai.omit if config.max_tokens is None else config.max_tokens,
                )
        except (
            openai.APIConnectionError,
            openai.RateLimitError,
            openai.InternalServerError,
            openai.ConflictError,
        ) as error:
            raise Unavailable(f"{self._called} cannot be reached: {type(error).__name__}") from None
        except openai.APIStatusError as error:
            # The body may quote what was asked, or the key: neither goes into an error.
            raise self._refused(f"refused the request with status {error.status_code}") from None
        except (openai.OpenAIError, ValueError, RecursionError) as error:
            raise self._refused(f"does not speak the chat completions protocol: {type(error).__name__}") from None
        return self._text(answer)

    def _text(self, answer: object) -> str:
        # The client checks nothing of what an endpoint sends: whatever is missing is None or not there at all.
        usage = getattr(answer, "usage", None)
        if self._on_usage is not None and usage is not None:
            self._on_usage(_count(usage, "prompt_tokens"), _count(usage, "completion_tokens"))
        choices = getattr(answer, "choices", None)
        if not isinstance(choices, list) or not choices:
            raise self._refused("does not speak the chat completions protocol: no choices in its answer")
        content = getattr(getattr(choices[0], "message", None), "content", None)
        return content if isinstance(content, str) else ""

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def _open(self) -> AsyncOpenAI:
        if self._client is None:
            from openai import AsyncOpenAI

            # At level debug the client would log what it sends, keys of questions included.
            logging.getLogger("openai").setLevel(logging.WARNING)
            self._client = AsyncOpenAI(
                base_url=self._config.base_url,
                api_key=self._key,
                timeout=self._config.timeout_seconds,
                max_retries=self._config.max_retries,
            )
        return self._client

    def _refused(self, what: str) -> NotPossible:
        return NotPossible(f"{self._called} {what}", reason=self._refused_reason)


def read_key(file: Path, called: str) -> str:
    """The key that stands alone in a file. Raises InvalidConfig that names the file."""
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{called}: api_key_file: {file}: cannot be read: {type(error).__name__}") from None
    if not key or not key.isprintable() or " " in key:
        raise InvalidConfig(f"{called}: api_key_file: {file}: expected one key and nothing else")
    return key


def _count(usage: object, name: str) -> int:
    count = getattr(usage, name, None)
    return count if isinstance(count, int) and count > 0 else 0


def _message(turn: Turn) -> ChatCompletionMessageParam:
    match turn.role:
        case "system":
            return {"role": "system", "content": turn.text}
        case "user":
            return {"role": "user", "content": turn.text}
        case "assistant":
            return {"role": "assistant", "content": turn.text}
