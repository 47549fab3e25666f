"""Forwards one question to the student. Nothing of it is stored or logged here, whoever asks."""

from __future__ import annotations

import uuid

from auditor.lineage import resolve_version
from auditor.peers import LIVE, AnswerOrder, prompt_of
from auditor.ports import Student
from auditor.projections import Views
from auditor.requests import Ask
from common.canonical import digest_of
from common.errors import NotPossible
from common.lora.proof import Liveness, LivenessProof
from common.prompting import ask
from common.types import Domain, Progress
from common.versions import Answer, AnswerPurpose


class Reply(Domain):
    """AskResponse."""

    answer: str = ""
    version: str
    proof: LivenessProof | None = None
    alias_generation: int = 0
    answered_by: str = ""


class Asking:
    """Asks as a live user does (purpose LIVE), or a named version as an auditor does.

    Alone among the auditor's callers of Answer it may ask for the fallback to a parent: nothing is measured here.
    """

    def __init__(self, student: Student, views: Views, max_answer_tokens: int) -> None:
        self._student = student
        self._views = views
        self._max_answer_tokens = max_answer_tokens

    async def ask(self, request: Ask) -> Reply:
        """Raises NotFound for an unknown version, NotPossible when it cannot be proven to answer."""
        live = request.version in ("", LIVE)
        version = LIVE
        if not live:
            version = resolve_version(await self._views.current(), await self._student.status(), request.version)
        sampling = request.sampling
        if not sampling.max_new_tokens:
            sampling = sampling.model_copy(update={"max_new_tokens": self._max_answer_tokens})
        conversation = ask(request.topic, request.question)
        order = AnswerOrder(
            request_id=f"ask-{uuid.uuid4().hex}",
            purpose=AnswerPurpose.LIVE if live else AnswerPurpose.AUDIT,
            prompts=(prompt_of(conversation, digest_of(conversation).sha256),),
            versions=(version,),
            sampling=sampling,
            fallback_to_parent=request.fallback_to_parent,
        )
        proofs: dict[str, LivenessProof] = {}
        answer: Answer | None = None
        async for event in self._student.answer(order, _no_progress):
            if isinstance(event, LivenessProof):
                proofs[event.version] = event
            else:
                answer = event
        if answer is None or any(_is_invalid(proofs.get(name)) for name in (answer.version, answer.answered_by)):
            raise NotPossible(
                "the version could not be proven to answer", reason="VERSION_INVALID", ids={"version": version}
            )
        return Reply(
            answer=answer.text,
            version=answer.version,
            proof=proofs.get(answer.answered_by),
            alias_generation=answer.alias_generation,
            answered_by=answer.answered_by,
        )


def _is_invalid(proof: LivenessProof | None) -> bool:
    return proof is not None and proof.liveness is Liveness.INVALID


def _no_progress(_: Progress) -> None:
    return None
