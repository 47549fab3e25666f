"""A chat model behind any OpenAI-compatible endpoint: messages in, text out.

The key is read from a file, sent to the endpoint and written nowhere else; texts of requests and answers reach no log
and no error. An endpoint that is away is asked again a bounded number of times. auditor/policy/model.py calls this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from common.config import Config
from common.errors import InvalidConfig, NotPossible, Unavailable

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

NO_KEY = "none"  # the client insists on one; an endpoint that needs none ignores it


class ChatModelConfig(Config):
    base_url: str = Field(pattern=r"^https?://\S+$", description="of the endpoint, as in http://host:8000/v1")
    model: str = Field(min_length=1, max_length=300, description="its name there")
    api_key_file: Path | None = Field(default=None, description="file that holds the key alone; left out: no key")
    timeout_seconds: float = Field(default=60.0, gt=0, description="of one request")
    concurrency: int = Field(default=4, ge=1, le=256, description="requests at the same time")
    max_retries: int = Field(
        default=8, ge=0, le=100, description="of a request that failed, after growing waits of at most 8 seconds"
    )
    max_answer_tokens: int = Field(default=512, ge=1, le=32_768)


@dataclass(frozen=True)
class Turn:
    """One message of a request."""

    role: Literal["system", "user"]
    text: str


class ChatModel:
    """One endpoint. Raises InvalidConfig when its key cannot be read."""

    def __init__(self, config: ChatModelConfig) -> None:
        self._config = config
        self._key = read_key(config.api_key_file) if config.api_key_file else NO_KEY
        self._room = asyncio.Semaphore(config.concurrency)
        self._client: AsyncOpenAI | None = None

    @property
    def name(self) -> str:
        return self._config.model

    async def complete(self, turns: Sequence[Turn]) -> str:
        """What the model answers, greedy; empty if it says nothing.

        Raises Unavailable when the endpoint stays away, and NotPossible(CHAT_MODEL_REFUSED) when it will not answer.
        """
        # Seconds of work the first time: health checks must be answered meanwhile.
        await asyncio.to_thread(import_module, "openai")
        import openai
        from openai.types.chat import ChatCompletion

        try:
            async with self._room:
                answer = await self._open().chat.completions.create(
                    model=self._config.model,
                    messages=[_message(turn) for turn in turns],
                    temperature=0.0,
                    max_tokens=self._config.max_answer_tokens,
                )
        except (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError) as error:
            raise Unavailable(f"the chat model {self.name} stays away: {type(error).__name__}") from None
        except openai.APIStatusError as error:
            raise self._refused(f"HTTP {error.status_code}") from None
        except openai.APIError as error:
            raise self._refused(type(error).__name__) from None
        # An endpoint that answers with something else than JSON comes through as it is.
        if not isinstance(answer, ChatCompletion) or not answer.choices:
            raise self._refused("no completion in its answer")
        return answer.choices[0].message.content or ""

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    def _open(self) -> AsyncOpenAI:
        if self._client is None:
            from openai import AsyncOpenAI

            self._client = AsyncOpenAI(
                base_url=self._config.base_url,
                api_key=self._key,
                timeout=self._config.timeout_seconds,
                max_retries=self._config.max_retries,
            )
        return self._client

    def _refused(self, what: str) -> NotPossible:
        return NotPossible(
            f"the chat model {self.name} will not answer: {what}",
            reason="CHAT_MODEL_REFUSED",
        )


def read_key(file: Path) -> str:
    """The key that stands alone in a file. Raises InvalidConfig that names the file."""
    try:
        key = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{file}: the key cannot be read: {type(error).__name__}") from None
    if not key or not key.isprintable() or " " in key:
        raise InvalidConfig(f"{file}: expected one key and nothing else")
    return key


def _message(turn: Turn) -> ChatCompletionMessageParam:
    if turn.role == "system":
        return {"role": "system", "content": turn.text}
    return {"role": "user", "content": turn.text}
