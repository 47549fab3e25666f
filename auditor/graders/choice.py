"""Choice by log-likelihood: the option that the model finds likeliest is its answer.

What the student gets depends on topic, question and the set of options, never on which of them is right: their order
is that of their hashes. Likeliest is the largest sum over an option's tokens, as lm-evaluation-harness counts `acc`:
the probability of an option as it stands, whatever the tokenizer makes of it. It favours short options, so those of
one item should be about equally long. Of equals the first in that order stands. Free-form answers are never scored
this way.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from auditor.graders.port import Submission
from auditor.peers import Continuation
from auditor.tasks import EvaluationItem
from common.canonical import digest_of
from common.prompting import ask
from common.versions import ScoredContinuation


def continuation_of(topic: str, item: EvaluationItem) -> Continuation:
    """What the student is asked to score, named by its content."""
    options = tuple(sorted(item.options, key=lambda option: digest_of([item.question, option]).sha256))
    conversation = ask(topic, item.question)
    name = digest_of([conversation.model_dump(mode="json"), options]).sha256
    return Continuation(continuation_id=name, conversation=conversation, options=options)


def chosen(continuation: Continuation, scored: ScoredContinuation) -> str | None:
    """The likeliest option's text; None where the scores are not those of the options."""
    if len(scored.options) != len(continuation.options):
        return None
    ranked = zip(scored.options, continuation.options, strict=True)
    return max(ranked, key=lambda pair: pair[0].log_likelihood)[1]


class ChoiceMarker:
    """Whether the chosen option is a key."""

    identity = ""

    async def mark(self, submissions: Sequence[Submission]) -> AsyncGenerator[tuple[int, float], None]:
        for place, submission in enumerate(submissions):
            yield place, float(submission.answer in submission.item.answers)

    async def close(self) -> None:
        """Holds nothing."""
