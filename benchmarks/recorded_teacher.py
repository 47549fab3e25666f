"""A teacher that proposes edits which another model wrote once: `python -m benchmarks.recorded_teacher --config FILE`.

For measuring what such edits are worth where that model cannot run, over the same contract as any teacher. The K edits
of a context are made of its recorded completions in an order drawn by the request's seed, each edit of as many as the
settings say (the last ones share some with the first when they run out), in the forms that the settings name, with
rehearsal. Statements and questions pass the teacher's own screen: what the document does not bear out is not taught. It
learns nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
from pydantic import Field

from benchmarks.edit_forms import examples_of, pieces_of
from benchmarks.passages import RecordedEdits, read_edits
from common.canonical import derive_seed, digest_bytes, digest_of
from common.config import ServiceConfig, load_config
from common.contract.seal.v1 import teacher_pb2, teacher_pb2_grpc
from common.convert import from_proto, to_proto
from common.edits import make_edit
from common.errors import NotPossible, SealError
from common.jobs import Jobs, Publish
from common.logging import configure_logging
from common.models.config import ModelConfig
from common.models.digest import base_digest
from common.models.resolve import resolve_model
from common.phase import HeavyPhase
from common.rpc.server import serve
from common.software import software
from common.types import MAX_EXAMPLES, Digest, Recipe, Sampling, TaskKind
from teacher.backends.settings import TransformersSettings
from teacher.backends.transformers_backend import TransformersGenerator
from teacher.config import DEFAULT_MODEL
from teacher.forms import FormSettings, in_forms
from teacher.generator import BASE
from teacher.messages import EditOrigin, FailedProposal, Policy, PolicyList, ProposedEdit, ProposeRequest, TeacherStatus
from teacher.pieces import Candidate
from teacher.prompts import PromptRenderer
from teacher.rehearsal import Rehearsal, RehearsalSettings
from teacher.screening import ScreeningSettings, screen

SERVICE = teacher_pb2.DESCRIPTOR.services_by_name["TeacherService"].full_name
BACKEND = "recorded"
Context = grpc.aio.ServicerContext[Any, Any]
Event = ProposedEdit | FailedProposal


class RecordedTeacherConfig(ServiceConfig):
    """Everything that `python -m benchmarks.recorded_teacher` can be told."""

    listen: str = "127.0.0.1:50051"
    store: Path = Field(default=Path("data/teacher"), description="the base model's answers for rehearsal")
    heavy_lock: Path | None = None
    edits: Path = Field(description="recorded edits: a list of {title, context, completions}")
    author: str = Field(default="recorded", description="the model that wrote them")
    completions: int = Field(default=1, ge=1, le=16, description="of how many completions one edit is made")
    forms: FormSettings = FormSettings()
    screening: ScreeningSettings = ScreeningSettings()
    recipe: Recipe = Recipe()
    model: ModelConfig = Field(default_factory=lambda: ModelConfig(model=DEFAULT_MODEL), description="rehearses")
    rehearsal: RehearsalSettings = RehearsalSettings()


class RecordedTeacher(teacher_pb2_grpc.TeacherServiceServicer):
    """Knows the recorded edits of one file. Its rehearsal exists after `start`."""

    _rehearsal: Rehearsal

    def __init__(self, config: RecordedTeacherConfig) -> None:
        """Raises InvalidConfig for a file that cannot be used."""
        self._config = config
        self._edits = read_edits(config.edits)
        self._digest = digest_bytes(config.edits.read_bytes())
        self._proposing: Jobs[Event] = Jobs()
        self._phase = HeavyPhase(config.heavy_lock)
        self._generator = TransformersGenerator(config.model, TransformersSettings())

    async def start(self) -> None:
        """Draws the base model's answers for rehearsal once; they are kept in the store."""
        model = self._config.model
        folder = await asyncio.to_thread(resolve_model, model.model, revision=model.revision, cache_dir=model.cache_dir)
        rehearsal = self._config.rehearsal
        self._rehearsal = Rehearsal(
            self._generator,
            await asyncio.to_thread(PromptRenderer.load, folder, style="auto", system_prompt=rehearsal.system_prompt),
            model_digest=(await asyncio.to_thread(base_digest, folder, cache_dir=model.cache_dir)).sha256,
            folder=self._config.store / "rehearsal",
            settings=rehearsal,
        )
        await self._generator.start()
        try:
            async with self._phase.hold("generating"):
                await self._rehearsal.examples(0)
        finally:
            await self._generator.close()

    async def close(self) -> None:
        await self._proposing.close()

    async def GetStatus(  # noqa: N802
        self, request: teacher_pb2.TeacherServiceGetStatusRequest, context: Context
    ) -> teacher_pb2.TeacherServiceGetStatusResponse:
        status = TeacherStatus(
            model=self._config.author,
            model_digest=self._digest,
            backend=BACKEND,
            kinds=(TaskKind.KNOWLEDGE,),
            can_learn=False,
            prompt_variants=(BACKEND,),
            software=software(("seal-services",), device="cpu", threads=0),
        )
        return to_proto(teacher_pb2.TeacherServiceGetStatusResponse, status)

    async def ProposeEdits(  # noqa: N802
        self, request: teacher_pb2.ProposeEditsRequest, context: Context
    ) -> AsyncIterator[teacher_pb2.ProposeEditsResponse]:
        wanted = from_proto(ProposeRequest, request)
        job = self._proposing.attach(
            wanted.request_id, digest_of(wanted), lambda publish: self.propose(wanted, publish)
        )
        async for event in job:
            if isinstance(event, ProposedEdit):
                yield teacher_pb2.ProposeEditsResponse(edit=to_proto(teacher_pb2.ProposedEdit, event))
            else:
                yield teacher_pb2.ProposeEditsResponse(failure=to_proto(teacher_pb2.FailedProposal, event))

    async def Learn(  # noqa: N802
        self, request: teacher_pb2.LearnRequest, context: Context
    ) -> AsyncIterator[teacher_pb2.LearnResponse]:
        raise NotPossible("recorded edits cannot be improved on", reason="CANNOT_LEARN")
        yield  # makes this an RPC that streams

    async def SetPolicy(  # noqa: N802
        self, request: teacher_pb2.SetPolicyRequest, context: Context
    ) -> teacher_pb2.SetPolicyResponse:
        raise NotPossible("recorded edits have no policy but their own", reason="CANNOT_LEARN")

    async def ListPolicies(  # noqa: N802
        self, request: teacher_pb2.ListPoliciesRequest, context: Context
    ) -> teacher_pb2.ListPoliciesResponse:
        listed = PolicyList(policies=(Policy(loaded=True),), active=BASE, policy_generation=0)
        return to_proto(teacher_pb2.ListPoliciesResponse, listed)

    async def propose(self, request: ProposeRequest, publish: Publish[Event]) -> None:
        """Publishes as many edits as are asked for, and a failure for each that there is not."""
        text = request.context.text
        recorded = self._edits.get(text) if text is not None else None
        if recorded is None:
            raise NotPossible("no edits are recorded for this document", reason="NOT_RECORDED")
        order = sorted(recorded.completions, key=lambda completion: derive_seed(request.seed, completion))
        each = min(self._config.completions, len(order))
        for index in range(request.count):
            if index * each < len(order):
                publish(await self._written(request, recorded, index, (order[index * each :] + order)[:each]))
            else:
                publish(FailedProposal(index=index, reason="NOT_RECORDED"))

    async def _written(
        self, request: ProposeRequest, recorded: RecordedEdits, index: int, completions: Sequence[str]
    ) -> Event:
        """One edit of some completions, with its origin."""
        title = request.context.title
        kept, dropped = self._screened(completions, title, recorded.context)
        if not kept:
            return FailedProposal(index=index, reason="EMPTY_EDIT")
        taught = in_forms(kept, title, recorded.context, self._config.forms)
        examples = examples_of(taught, title, recorded.context, self._config.forms)
        rehearsed = await self._rehearsal.examples(derive_seed(request.seed, index))
        edit = make_edit(
            kind=request.kind,
            document_id=request.context.document_id,
            revision=request.context.revision,
            examples=[*examples[: MAX_EXAMPLES - len(rehearsed)], *rehearsed],
            recipe=request.recipe.over(self._config.recipe).over(taught.recipe),
        )
        origin = EditOrigin(
            model=self._config.author,
            model_digest=self._digest,
            backend=BACKEND,
            policy_version=BASE,
            prompt_variant=BACKEND,
            prompts=(recorded.prompt,) if recorded.prompt else (),
            prompts_digest=_named(recorded.prompt),
            completions_digest=_named("\n\n".join(completions)),
            sampling=Sampling(),
            completions=len(completions),
            screened_out=dict(dropped),
            rationale=f"Recorded statements or questions about the document, and {len(rehearsed)} rehearsed examples.",
        )
        return ProposedEdit(index=index, edit=edit, origin=origin)

    def _screened(
        self, completions: Sequence[str], title: str, context: str
    ) -> tuple[Sequence[Candidate], Counter[str]]:
        """What the completions say and the document bears out, each once."""
        found = screen(pieces_of(completions, context), title, self._config.screening)
        return found.kept, found.dropped


def _named(text: str) -> Digest:
    return digest_bytes(text.encode())


async def run(config: RecordedTeacherConfig) -> None:
    """Serves until SIGTERM or SIGINT."""
    teacher = RecordedTeacher(config)
    await serve(
        config,
        service=SERVICE,
        add=lambda server: teacher_pb2_grpc.add_TeacherServiceServicer_to_server(teacher, server),
        start=teacher.start,
        stop=teacher.close,
    )


def main() -> None:
    config = load_config(RecordedTeacherConfig, "teacher")
    configure_logging("teacher", config.log_level)
    try:
        asyncio.run(run(config))
    except SealError as error:
        sys.exit(f"teacher: {error.message}")


if __name__ == "__main__":
    main()
