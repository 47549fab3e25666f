"""The judge: a language model behind any OpenAI-compatible endpoint says whether an answer agrees with a key.

Only the auditor talks to it. What cannot be had from it is never a mark of 0: an endpoint that is away or busy is
waited for (the client's retries), a reply that is no verdict is asked about again, and then the run ends with the
judge's name. Verdicts are remembered in the ledger as they come, so that the next run pays for what is missing alone.
Neither the key nor what is asked is ever logged.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import cached_property
from typing import TYPE_CHECKING, cast

from prometheus_client import Counter

from auditor.graders.config import JudgeConfig
from auditor.graders.judge_prompt import PROMPT_VERSION, Turn, again, turns, verdict
from auditor.graders.lexical import contains
from auditor.graders.pool import pooled
from auditor.graders.port import Submission
from common.canonical import digest_of
from common.errors import InvalidConfig, NotPossible, Unavailable

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

ATTEMPTS = 3  # to get a verdict out of an endpoint that answers

CALLS = Counter("seal_judge_calls", "Requests to a judge, by what came of them.", ["judge", "outcome"])
TOKENS = Counter("seal_judge_tokens", "Tokens that a judge read and wrote.", ["judge", "kind"])
DISAGREEMENTS = Counter(
    "seal_judge_disagreements",
    "New verdicts that the contains grader does not share, by verdict.",
    ["judge", "verdict"],
)


class JudgeMarker:
    """One judge of the configuration."""

    def __init__(self, name: str, config: JudgeConfig) -> None:
        """Raises InvalidConfig when the file of the key cannot be read."""
        self._name = name
        self._config = config
        self._api_key = read_key(name, config)
        self.identity = digest_of(["judge", config.model, config.temperature, config.max_tokens, PROMPT_VERSION]).sha256

    @cached_property
    def _client(self) -> AsyncOpenAI:
        from openai import AsyncOpenAI

        # At level debug the client would log what it sends, keys of questions included.
        logging.getLogger("openai").setLevel(logging.WARNING)
        return AsyncOpenAI(
            api_key=self._api_key,
            base_url=self._config.base_url,
            timeout=self._config.timeout_seconds,
            max_retries=self._config.max_retries,
        )

    async def mark(self, submissions: Sequence[Submission]) -> AsyncGenerator[tuple[int, float], None]:
        async with aclosing(pooled(self._verdict, submissions, self._config.concurrency)) as verdicts:
            async for place, right in verdicts:
                lexical = contains(submissions[place].answer, submissions[place].item) > 0
                DISAGREEMENTS.labels(self._name, "right" if right else "wrong").inc(lexical != right)
                yield place, float(right)

    async def _verdict(self, submission: Submission) -> bool:
        """Raises Unavailable, NotPossible(JUDGE_REFUSED), or NotPossible(JUDGE_UNCLEAR)."""
        conversation = turns(submission.item, submission.answer)
        for _ in range(ATTEMPTS):
            reply = await self._ask(conversation)
            found = verdict(reply)
            CALLS.labels(self._name, "unclear" if found is None else "verdict").inc()
            if found is not None:
                return found
            conversation = [*turns(submission.item, submission.answer), *again(reply)]
        raise NotPossible(
            f"judge {self._name} said neither yes nor no, asked {ATTEMPTS} times",
            reason="JUDGE_UNCLEAR",
            ids={"item_id": submission.item.item_id},
        )

    async def _ask(self, conversation: Sequence[Turn]) -> str:
        """The reply's text; empty where there is none."""
        import openai

        try:
            reply = await self._client.chat.completions.create(
                model=self._config.model,
                messages=cast("list[ChatCompletionMessageParam]", list(conversation)),
                temperature=openai.omit if self._config.temperature is None else self._config.temperature,
                max_tokens=openai.omit if self._config.max_tokens is None else self._config.max_tokens,
            )
        except (
            openai.APIConnectionError,
            openai.RateLimitError,
            openai.InternalServerError,
            openai.ConflictError,
        ) as e:
            CALLS.labels(self._name, "unavailable").inc()
            raise Unavailable(f"judge {self._name} cannot be reached: {type(e).__name__}") from None
        except openai.APIStatusError as e:
            CALLS.labels(self._name, "refused").inc()
            # The body may quote what was asked, or the key: neither goes into an error.
            what = f"judge {self._name} refused the request with status {e.status_code}"
            raise NotPossible(what, reason="JUDGE_REFUSED") from None
        except (openai.OpenAIError, ValueError) as e:
            CALLS.labels(self._name, "refused").inc()
            what = f"judge {self._name} does not speak the chat completions protocol: {type(e).__name__}"
            raise NotPossible(what, reason="JUDGE_REFUSED") from None
        return self._text(reply)

    def _text(self, reply: ChatCompletion) -> str:
        # The client checks nothing of what an endpoint sends: whatever is missing is None or not there at all.
        if (usage := getattr(reply, "usage", None)) is not None:
            TOKENS.labels(self._name, "read").inc(usage.prompt_tokens or 0)
            TOKENS.labels(self._name, "written").inc(usage.completion_tokens or 0)
        choices = getattr(reply, "choices", None)
        message = getattr(choices[0], "message", None) if choices else None
        return getattr(message, "content", None) or ""

    async def close(self) -> None:
        if "_client" in self.__dict__:
            await self._client.close()


def read_key(name: str, config: JudgeConfig) -> str:
    """The key in a judge's file. The client insists on one; an endpoint that needs none ignores it."""
    if config.api_key_file is None:
        return "none"
    try:
        key = config.api_key_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"judges.{name}.api_key_file: cannot be read: {type(error).__name__}") from None
    if not key:
        raise InvalidConfig(f"judges.{name}.api_key_file: the file is empty")
    return key
