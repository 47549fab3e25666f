"""A teacher and a student of few words, behind real gRPC servers: they stand for processes that need a GPU.

Both are deterministic. The teacher hands out edits from a script; the student "learns" by heart: a version answers a
question right if an example of its lineage says the answer, or the base knew it. Both note what they received and did,
so that a test can say what was never sent and what was never done twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.message import Message

from common.boundary.identities import Role
from common.canonical import canonical_json, digest_of
from common.config import ServiceConfig
from common.contract.seal.v1 import student_pb2, student_pb2_grpc, teacher_pb2, teacher_pb2_grpc, types_pb2
from common.convert import from_proto, to_proto
from common.edits import make_edit
from common.errors import Conflict, Expired, NotFound, NotPossible, StaleGeneration
from common.prompting import question_and_answer
from common.rpc.server import running
from common.tls.settings import TlsSettings
from common.tracing import TracingSettings
from common.types import Digest, Recipe, SelfEdit, TaskKind

UNKNOWN = "I do not know."
# An example that makes a version forget what the base knew: FORGET and the question.
FORGET = "FORGET "
# ... one that makes it answer a question with nothing: SILENCE and the question.
SILENCE = "SILENCE "
# ... and one that moves it away from the base: DRIFT, and by how many nats a token the answer says.
DRIFT = "DRIFT"
Facts = Sequence[tuple[str, str]]


def cut(text: str, words: int) -> str:
    """A text of at most so many words; 0: all of them."""
    return text if not words or len(text.split()) <= words else " ".join(text.split()[:words])


def edit_about(document_id: str, title: str, facts: Facts, *, recipe: Recipe | None = None) -> SelfEdit:
    """An edit with one example a fact; no facts: one example that teaches nothing asked."""
    examples = [question_and_answer(title, question, answer) for question, answer in facts]
    return make_edit(
        kind=TaskKind.KNOWLEDGE,
        document_id=document_id,
        revision="1",
        examples=examples or [question_and_answer(title, "What is nothing?", "Nothing.")],
        recipe=recipe or Recipe(rank=8),
    )


class ScriptedTeacher(teacher_pb2_grpc.TeacherServiceServicer):
    """script: for each document the edits that it proposes in turn; None stands for one that cannot be written."""

    def __init__(self, script: Mapping[str, Sequence[SelfEdit | None]]) -> None:
        self.script = script
        self.policy = "base"
        self.has_nothing_to_learn = False
        self.received: list[bytes] = []
        self.learned: list[list[str]] = []
        self.proposals: Counter[str] = Counter()
        self._policies: dict[str, str] = {}

    async def GetStatus(self, request: Message, context: Any) -> teacher_pb2.TeacherServiceGetStatusResponse:
        return teacher_pb2.TeacherServiceGetStatusResponse(
            model="scripted",
            backend="scripted",
            policy_version=self.policy,
            can_learn=True,
            prompt_variants=["implications"],
            model_digest=types_pb2.Digest(sha256="1" * 64),
        )

    async def ProposeEdits(
        self, request: teacher_pb2.ProposeEditsRequest, context: Any
    ) -> AsyncIterator[teacher_pb2.ProposeEditsResponse]:
        self.received.append(request.SerializeToString())
        self.proposals[request.request_id] += 1
        yield teacher_pb2.ProposeEditsResponse(progress=types_pb2.Progress(phase="generating", total=request.count))
        script = self.script[request.context.document_id]
        for index in range(request.count):
            edit = script[index % len(script)]
            if edit is None:
                failure = teacher_pb2.FailedProposal(index=index, reason="EMPTY_EDIT")
                yield teacher_pb2.ProposeEditsResponse(failure=failure)
                continue
            origin = teacher_pb2.EditOrigin(
                model="scripted",
                policy_version=request.policy_version,
                prompt_variant="implications",
                prompts=[f"Say what follows from {request.context.title}."],
                rationale="It was in the script.",
            )
            proposed = teacher_pb2.ProposedEdit(index=index, edit=to_proto(types_pb2.SelfEdit, edit), origin=origin)
            yield teacher_pb2.ProposeEditsResponse(edit=proposed)

    async def Learn(self, request: teacher_pb2.LearnRequest, context: Any) -> AsyncIterator[teacher_pb2.LearnResponse]:
        self.received.append(request.SerializeToString())
        if self.has_nothing_to_learn:
            raise NotPossible("kept: these edits hold no prompt and completion", reason="NOTHING_TO_LEARN")
        if request.request_id not in self._policies:
            self.learned.append([kept.edit.sha256 for kept in request.kept])
            self._policies[request.request_id] = digest_of(self.learned).sha256
        self.policy = self._policies[request.request_id]
        policy = teacher_pb2.Policy(
            policy_version=self.policy, parent="base", kept_edits=len(request.kept), loaded=True
        )
        yield teacher_pb2.LearnResponse(policy=policy)


@dataclass(frozen=True)
class Adapter:
    """What a version of the scripted student is made of."""

    parent: str
    edit: Digest
    seed: int
    facts: Mapping[str, str]
    forgets: frozenset[str]
    message: student_pb2.Version
    silent: frozenset[str] = frozenset()
    # KL per token from the base on every prompt.
    drift: float = 0.0


@dataclass
class Faults:
    """What goes wrong, and when."""

    # Edits (by digest) whose adapters fail their proof, stay without effect, or cannot be trained.
    invalid: set[str] = field(default_factory=set)
    inert: set[str] = field(default_factory=set)
    untrainable: set[str] = field(default_factory=set)
    # Edits whose next training fails, and whose later ones do not.
    fails_once: set[str] = field(default_factory=set)
    # Calls of these RPCs that break with UNAVAILABLE half-way.
    breaks: Counter[str] = field(default_factory=Counter)
    # Moves of these aliases that are made, and whose answers are lost.
    lost: Counter[str] = field(default_factory=Counter)


class ScriptedStudent(student_pb2_grpc.StudentServiceServicer):
    """knows: what the base answers, by question."""

    def __init__(self, knows: Mapping[str, str] | None = None, *, max_candidates: int = 16) -> None:
        self.knows = dict(knows or {})
        self.faults = Faults()
        self.adapters: dict[str, Adapter] = {}
        self.edits: dict[str, SelfEdit] = {}
        self.trainings: Counter[str] = Counter()
        self.asked: Counter[tuple[str, str]] = Counter()
        self.compared: Counter[tuple[str, str]] = Counter()
        self.moves: list[tuple[str, str]] = []
        self.alias = dict.fromkeys(("live", "shadow", "previous"), ("base", 0))
        self.received: list[bytes] = []
        self.before_move: Callable[[str], None] = lambda name: None
        self._max_candidates = max_candidates
        self._requests: dict[str, str] = {}
        self._moved_by: dict[str, str] = {}
        self._train_requests: list[student_pb2.TrainRequest] = []

    async def GetStatus(self, request: Message, context: Any) -> student_pb2.StudentServiceGetStatusResponse:
        return student_pb2.StudentServiceGetStatusResponse(
            model="scripted",
            model_digest=types_pb2.Digest(sha256="2" * 64),
            prompt_template_digest=types_pb2.Digest(sha256="3" * 64),
            aliases=[student_pb2.Alias(name=n, version=v, generation=g) for n, (v, g) in self.alias.items()],
            limits=student_pb2.TrainLimits(max_rank=64, max_examples=100, max_candidates=self._max_candidates),
        )

    async def Train(self, request: student_pb2.TrainRequest, context: Any) -> AsyncIterator[student_pb2.TrainResponse]:
        self._receive(request, request.request_id)
        self._train_requests.append(request)
        yield student_pb2.TrainResponse(progress=types_pb2.Progress(phase="training", total=len(request.candidates)))
        for candidate in request.candidates:
            edit = from_proto(SelfEdit, candidate.edit)
            self.edits[edit.digest.sha256] = edit
            if edit.digest.sha256 in self.faults.untrainable | self.faults.fails_once:
                self.faults.fails_once.discard(edit.digest.sha256)
                failed = student_pb2.FailedCandidate(candidate_id=candidate.candidate_id, reason="NON_FINITE_LOSS")
                yield student_pb2.TrainResponse(failed=failed)
                continue
            adapter, reused = self._train(request, edit, candidate.seed, candidate.scale or 1.0)
            trained = student_pb2.TrainedCandidate(
                candidate_id=candidate.candidate_id, version=adapter.message, reused=reused
            )
            yield student_pb2.TrainResponse(trained=trained)
            await self._break("Train", context)

    def requests_to_train(self) -> list[student_pb2.TrainRequest]:
        """All Train requests so far."""
        return list(self._train_requests)

    def _train(
        self, request: student_pb2.TrainRequest, edit: SelfEdit, seed: int, scale: float
    ) -> tuple[Adapter, bool]:
        """Scaled down to s, an update keeps the first s of its facts and forgets the first s of what it would."""
        replayed = [self.edits[digest.sha256] for digest in request.replay.edits]
        named = [request.parent_version, edit.digest.sha256, seed, scale, [r.digest.sha256 for r in replayed]]
        key = digest_of(named).sha256
        if key in self.adapters:
            return self.adapters[key], True
        self.trainings[key] += 1
        parent = self.adapters.get(request.parent_version)
        if parent is None and request.parent_version != "base":
            raise NotFound("unknown parent", ids={"version": request.parent_version})
        learned: dict[str, str] = {}
        forgotten: list[str] = []
        silenced: list[str] = []
        drift = 0.0
        for one in (*replayed, edit):
            for example in one.examples:
                assert example.conversation is not None
                asked, answered = (message.text for message in example.conversation.messages)
                question = asked.rpartition("\n")[2]
                if question.startswith(FORGET):
                    forgotten.append(question.removeprefix(FORGET))
                elif question.startswith(SILENCE):
                    silenced.append(question.removeprefix(SILENCE))
                elif question == DRIFT:
                    drift += float(answered)
                else:
                    learned[question] = answered
        facts = {**(parent.facts if parent else {}), **dict(list(learned.items())[: int(len(learned) * scale)])}
        forgets = {*(parent.forgets if parent else ()), *forgotten[: int(len(forgotten) * scale)]}
        message = student_pb2.Version(
            version=key,
            adapter=types_pb2.Digest(sha256=key, size_bytes=1),
            parent_version=request.parent_version,
            edit=types_pb2.Digest(sha256=edit.digest.sha256, size_bytes=edit.digest.size_bytes),
            seed=seed,
            trained_alone=request.alone,
            replay_share=request.replay.share,
            scale=scale,
        )
        self.adapters[key] = Adapter(
            request.parent_version,
            edit.digest,
            seed,
            facts,
            frozenset(forgets),
            message,
            silent=frozenset({*(parent.silent if parent else ()), *silenced}),
            drift=(parent.drift if parent else 0.0) + drift * scale,
        )
        return self.adapters[key], False

    async def Answer(
        self, request: student_pb2.AnswerRequest, context: Any
    ) -> AsyncIterator[student_pb2.AnswerResponse]:
        self._receive(request, request.request_id)
        for asked in request.versions:
            version, generation = self.alias.get(asked, (asked, 0))
            adapter = self.adapters.get(version)
            liveness = self._liveness(adapter)
            proof = student_pb2.LivenessProof(version=version, liveness=liveness, detail="scripted")
            yield student_pb2.AnswerResponse(proof=proof)
            if liveness == student_pb2.LIVENESS_INVALID:
                continue
            for prompt in request.prompts:
                self.asked[version, prompt.prompt_id] += 1
                question = prompt.conversation.messages[-1].content[0].text.rpartition("\n")[2]
                answer = student_pb2.Answer(
                    prompt_id=prompt.prompt_id,
                    version=version,
                    text=cut(self._say(adapter, question), request.sampling.max_new_tokens),
                    alias_generation=generation,
                )
                yield student_pb2.AnswerResponse(answer=answer)
            await self._break("Answer", context)

    async def LogLikelihood(
        self, request: student_pb2.LogLikelihoodRequest, context: Any
    ) -> AsyncIterator[student_pb2.LogLikelihoodResponse]:
        """Of the options it finds the one likeliest that it would say; where it would say none, the shortest.

        The KL from the base is the same on every prompt.
        """
        self._receive(request, request.request_id)
        for asked in request.versions:
            version, _ = self.alias.get(asked, (asked, 0))
            adapter = self.adapters.get(version)
            liveness = self._liveness(adapter)
            proof = student_pb2.LivenessProof(version=version, liveness=liveness, detail="scripted")
            yield student_pb2.LogLikelihoodResponse(proof=proof)
            if liveness == student_pb2.LIVENESS_INVALID:
                continue
            for continuation in request.continuations:
                self.asked[version, continuation.continuation_id] += 1
                said = self._say(adapter, continuation.conversation.messages[-1].content[0].text.rpartition("\n")[2])
                options = [
                    student_pb2.OptionScore(log_likelihood=-0.5 if option == said else -1.0 - len(option), tokens=1)
                    for option in continuation.options
                ]
                scored = student_pb2.ScoredContinuation(
                    continuation_id=continuation.continuation_id, version=version, options=options
                )
                yield student_pb2.LogLikelihoodResponse(scored=scored)
            for prompt in request.kl_prompts:
                self.compared[version, prompt.prompt_id] += 1
                drift = adapter.drift if adapter else 0.0
                kl = student_pb2.KlFromBase(prompt_id=prompt.prompt_id, version=version, kl_per_token=drift)
                yield student_pb2.LogLikelihoodResponse(kl=kl)
            await self._break("LogLikelihood", context)

    def _liveness(self, adapter: Adapter | None) -> student_pb2.Liveness.ValueType:
        if adapter is None:
            return student_pb2.LIVENESS_BASE
        if adapter.edit.sha256 in self.faults.invalid:
            return student_pb2.LIVENESS_INVALID
        return student_pb2.LIVENESS_INERT if adapter.edit.sha256 in self.faults.inert else student_pb2.LIVENESS_LIVE

    def _say(self, adapter: Adapter | None, question: str) -> str:
        if adapter is not None and question in adapter.silent:
            return ""
        if adapter is not None and question in adapter.facts:
            return adapter.facts[question]
        if adapter is not None and question in adapter.forgets:
            return UNKNOWN
        return self.knows.get(question, UNKNOWN)

    async def SetAlias(self, request: student_pb2.SetAliasRequest, context: Any) -> student_pb2.SetAliasResponse:
        """Knows an alias's last move again, and no older one, as the real student does."""
        self._receive(request, request.request_id)
        if self._moved_by.get(request.name) != request.request_id:
            self.before_move(request.name)
            _, generation = self.alias[request.name]
            if generation != request.expected_generation:
                del self._requests[request.request_id]
                raise StaleGeneration(f"alias {request.name} is at generation {generation}")
            self.alias[request.name] = (request.version, generation + 1)
            self.moves.append((request.name, request.version))
            self._moved_by[request.name] = request.request_id
            if self.faults.lost[request.name] > 0:
                self.faults.lost[request.name] -= 1
                raise Expired("the answer was lost")
        version, generation = self.alias[request.name]
        alias = student_pb2.Alias(name=request.name, version=version, generation=generation)
        return student_pb2.SetAliasResponse(alias=alias)

    def _receive(self, request: Message, request_id: str) -> None:
        """Notes the request; the same id with other content is refused, as the real student does."""
        content = request.SerializeToString(deterministic=True)
        self.received.append(content)
        if self._requests.setdefault(request_id, digest_of(content.hex()).sha256) != digest_of(content.hex()).sha256:
            raise Conflict("this request id was used with other content", ids={"request_id": request_id})

    async def _break(self, rpc: str, context: Any) -> None:
        if self.faults.breaks[rpc] > 0:
            self.faults.breaks[rpc] -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the line broke")


@dataclass(frozen=True)
class Stage:
    """Both services, and where they answer."""

    teacher: ScriptedTeacher
    student: ScriptedStudent
    teacher_target: str
    student_target: str

    def received(self) -> bytes:
        """All bytes that either of them got."""
        return b"".join([*self.teacher.received, *self.student.received])

    def outcome(self) -> bytes:
        """What the run left behind outside the auditor."""
        return canonical_json([self.student.moves, self.teacher.learned, sorted(self.student.trainings.items())])


@asynccontextmanager
async def on_stage(
    teacher: ScriptedTeacher,
    student: ScriptedStudent,
    *,
    tracing: TracingSettings | None = None,
    certificate: Callable[[Role], TlsSettings | None] = lambda role: None,
) -> AsyncIterator[Stage]:
    """Both behind real gRPC servers on free ports. certificate: of each; none is plain text."""

    def config(role: Role) -> ServiceConfig:
        listen, tracing_ = "127.0.0.1:0", tracing or TracingSettings()
        return ServiceConfig(listen=listen, grace_seconds=0, tracing=tracing_, tls=certificate(role))

    async with AsyncExitStack() as stack:
        teaching = await stack.enter_async_context(
            running(
                config(Role.TEACHER),
                service="seal.v1.TeacherService",
                add=lambda server: teacher_pb2_grpc.add_TeacherServiceServicer_to_server(teacher, server),
            )
        )
        studying = await stack.enter_async_context(
            running(
                config(Role.STUDENT),
                service="seal.v1.StudentService",
                add=lambda server: student_pb2_grpc.add_StudentServiceServicer_to_server(student, server),
            )
        )
        yield Stage(teacher, student, teaching.target, studying.target)
