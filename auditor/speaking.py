"""A version of the student as measures speak to it (auditor/measures.py): raw texts continued, options scored.

Every call carries an id that derives from its content, so a call made again attaches to the work of the first. Of a
version whose liveness proof is INVALID nothing is heard. auditor/measuring.py and auditor/harness/__main__.py call it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from auditor.batches import batches
from auditor.peers import AnswerOrder, Continuation, ScoreOrder
from auditor.ports import OnProgress, Student
from common.canonical import canonical_json, digest_of
from common.errors import NotPossible
from common.lora.proof import Liveness, LivenessProof
from common.types import Conversation, Prompt, Sampling
from common.versions import Answer, AnswerPurpose, OptionScore, ScoredContinuation

T = TypeVar("T")
# Of one request; half of the smallest usual message, for texts of four-byte characters.
MOST, MOST_CHARACTERS = 4_096, 4_000_000


class NotAlive(NotPossible):
    """The version could not be proven to answer; its proof is the speaker's."""

    reason = "VERSION_INVALID"


class VersionSpeaker:
    """Implements auditor/measures.py's Speaker over the student.

    request_id: an id for a call, from its kind and content. proof: the version's, once it has been asked.
    """

    def __init__(
        self, student: Student, version: str, request_id: Callable[[str, object], str], progress: OnProgress
    ) -> None:
        self._student = student
        self._version = version
        self._request_id = request_id
        self._progress = progress
        self.proof: LivenessProof | None = None

    async def write(self, texts: Sequence[str], sampling: Sampling) -> list[str]:
        """Raises NotAlive, NotPossible(PEER_BROKE_CONTRACT), and what the student raises."""
        prompts = [Prompt(prompt_id=f"p{i}", conversation=Conversation(raw=text)) for i, text in enumerate(texts)]
        written: dict[str, str] = {}
        for batch in batches(prompts, MOST, size=lambda one: len(one.conversation.raw or ""), room=MOST_CHARACTERS):
            order = AnswerOrder(
                request_id=self._named("answer", [batch, sampling]),
                purpose=AnswerPurpose.AUDIT,
                prompts=tuple(batch),
                versions=(self._version,),
                sampling=sampling,
            )
            async for event in self._student.answer(order, self._progress):
                if isinstance(event, LivenessProof):
                    self._prove(event)
                elif isinstance(event, Answer):
                    written[event.prompt_id] = event.text
        return self._every(written, [prompt.prompt_id for prompt in prompts])

    async def score(self, choices: Sequence[tuple[str, Sequence[str]]]) -> list[tuple[OptionScore, ...]]:
        """Raises as `write` does."""
        asked = [
            Continuation(continuation_id=f"c{i}", conversation=Conversation(raw=context), options=tuple(options))
            for i, (context, options) in enumerate(choices)
        ]
        scored: dict[str, tuple[OptionScore, ...]] = {}
        for batch in batches(asked, MOST, size=_characters, room=MOST_CHARACTERS):
            order = ScoreOrder(
                request_id=self._named("score", [batch]), versions=(self._version,), continuations=tuple(batch)
            )
            async for event in self._student.score(order, self._progress):
                if isinstance(event, LivenessProof):
                    self._prove(event)
                elif isinstance(event, ScoredContinuation):
                    scored[event.continuation_id] = event.options
        found = self._every(scored, [choice.continuation_id for choice in asked])
        if any(len(options) != len(choice.options) for options, choice in zip(found, asked, strict=True)):
            raise self._broken("some options have no score")
        return found

    def _prove(self, proof: LivenessProof) -> None:
        self.proof = proof
        if proof.liveness is Liveness.INVALID:
            raise NotAlive("a version could not be proven to answer", ids={"version": self._version})

    def _every(self, found: Mapping[str, T], wanted: Sequence[str]) -> list[T]:
        if absent := sum(name not in found for name in wanted):
            raise self._broken(f"{absent} of {len(wanted)} questions were left open")
        if wanted and self.proof is None:
            raise self._broken("it answered without a liveness proof")
        return [found[name] for name in wanted]

    def _broken(self, what: str) -> NotPossible:
        return NotPossible(
            f"the student broke the contract: {what}", reason="PEER_BROKE_CONTRACT", ids={"version": self._version}
        )

    def _named(self, kind: str, content: Sequence[object]) -> str:
        """The same content has the same id: an earlier call's result is attached to."""
        parts = [canonical_json(part).decode() for entry in content for part in _parts(entry)]
        return self._request_id(kind, [self._version, digest_of(parts).sha256])


def _parts(entry: object) -> Sequence[object]:
    return entry if isinstance(entry, list) else [entry]


def _characters(choice: Continuation) -> int:
    return sum(map(len, (choice.conversation.raw or "", *choice.options)))
