"""The judge: a language model behind any OpenAI-compatible endpoint says whether an answer agrees with a key.

Only the auditor talks to it. What cannot be had from it is never a mark of 0: an endpoint that is away or busy is
waited for (the client's retries), a reply that is no verdict is asked about again, and then the run ends with the
judge's name. Verdicts are remembered in the ledger as they come, so that the next run pays for what is missing alone.
Neither the key nor what is asked is ever logged.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from prometheus_client import Counter

from auditor.chat_model import ChatModel, Turn
from auditor.graders.config import JudgeConfig
from auditor.graders.judge_prompt import PROMPT_VERSION, again, turns, verdict
from auditor.graders.lexical import contains
from auditor.graders.pool import pooled
from auditor.graders.port import Submission
from common.canonical import digest_of
from common.errors import NotPossible, Unavailable

ATTEMPTS = 3  # to get a verdict out of an endpoint that answers

CALLS = Counter("seal_judge_calls", "Requests to a judge, by what came of them.", ["judge", "outcome"])
TOKENS = Counter("seal_judge_tokens", "Tokens that a judge read and wrote.", ["judge", "kind"])
COST = Counter("seal_judge_cost", "What a judge cost, in the currency of the settings' prices.", ["judge"])
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
        COST.labels(name)
        self._chat = ChatModel(config, called=f"judge {name}", refused_reason="JUDGE_REFUSED", on_usage=self._count)
        self.identity = digest_of(["judge", config.model, config.temperature, config.max_tokens, PROMPT_VERSION]).sha256

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
        try:
            return await self._chat.complete(conversation)
        except Unavailable:
            CALLS.labels(self._name, "unavailable").inc()
            raise
        except NotPossible:
            CALLS.labels(self._name, "refused").inc()
            raise

    def _count(self, read: int, written: int) -> None:
        TOKENS.labels(self._name, "read").inc(read)
        TOKENS.labels(self._name, "written").inc(written)
        COST.labels(self._name).inc(self._config.price(read, written))

    async def close(self) -> None:
        await self._chat.close()
