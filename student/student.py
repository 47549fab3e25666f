"""The student put together: one base model, its store and the actors that work on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from common.errors import NotPossible, Unavailable
from common.lora.engine import LoraEngine
from common.lora.residency import BASE_VERSION
from common.models.digest import base_digest
from common.models.loading import BaseModel, load_model
from common.phase import HeavyPhase
from common.software import software
from common.types import Digest
from common.versions import Alias
from student.aliases import Aliases
from student.answer_engine import AnswerEngine
from student.answering import Answering
from student.config import StudentConfig
from student.leftovers import keep_swept
from student.messages import Status, Verification, VersionList
from student.recipes import RecipeBook
from student.requests import ListVersionsRequest, SetAliasRequest
from student.storage.opening import open_storage
from student.store import VersionStore
from student.training import Training
from student.versions import Versions
from student.workroom import Workroom

PACKAGES = ("torch", "transformers", "peft", "safetensors", "tokenizers", "seal-services")
DEFAULT_PAGE = 100
# Named among the software of a version when its base was computed with packed weights.
PACKED, PACKED_BY = "packed-weights", "oneDNN"


@dataclass(frozen=True)
class _Loaded:
    """What there is once the model is loaded."""

    engine: LoraEngine
    answers: AnswerEngine
    training: Training
    answering: Answering
    status: Status


class Student:
    """Owned by the process. Answers nothing that needs the model before `start` has finished."""

    def __init__(self, config: StudentConfig) -> None:
        self._config = config
        self._storage = open_storage(config.store, config.bucket, config.model.model)
        self.store = VersionStore(self._storage, config.model.model)
        self.aliases = Aliases(self._storage.objects)
        self.versions = Versions(self.store, self.aliases)
        self._workroom = Workroom(HeavyPhase(config.heavy_lock))
        self._loaded: _Loaded | None = None
        self._close_answers: Callable[[], None] = lambda: None
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Tries the store and loads the model. Raises InvalidConfig."""
        await asyncio.to_thread(self._storage.check)
        self._sweeping = asyncio.create_task(
            keep_swept(self._storage, self._config.leftover_hours * 3_600), name="leftovers"
        )
        self._loaded = await self._workroom.call(self._load)

    async def close(self) -> None:
        """Ends the work under way, a start included, and then what it works with."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        await asyncio.to_thread(self._workroom.close)
        await asyncio.to_thread(self._close_answers)

    @property
    def training(self) -> Training:
        return self._ready.training

    @property
    def answering(self) -> Answering:
        return self._ready.answering

    async def status(self) -> Status:
        aliases = await asyncio.to_thread(self.aliases.all)
        return self._ready.status.model_copy(update={"aliases": aliases})

    async def move_alias(self, request: SetAliasRequest) -> Alias:
        """Raises NotFound or Corrupt for a version that could not answer, StaleGeneration, Conflict."""

        def move() -> Alias:
            if self.versions.resolve(request.version).version != BASE_VERSION:
                self.store.adapter(request.version)
            return self.aliases.move(request)

        return await asyncio.to_thread(move)

    async def list_versions(self, request: ListVersionsRequest) -> VersionList:
        """Oldest first; a page token is the last version of the page before."""

        def page() -> VersionList:
            versions = self.store.versions()
            names = [version.version for version in versions]
            start = names.index(request.page_token) + 1 if request.page_token in names else 0
            shown = versions[start : start + (request.page_size or DEFAULT_PAGE)]
            more = bool(shown) and start + len(shown) < len(versions)
            return VersionList(
                versions=tuple(shown),
                aliases=self.aliases.all(),
                next_page_token=shown[-1].version if more else "",
            )

        return await asyncio.to_thread(page)

    async def verify(self, reference: str) -> Verification:
        """Reads a version's bytes again, the base's too. Raises NotFound."""
        version = (await asyncio.to_thread(self.versions.resolve, reference)).version
        if version != BASE_VERSION:
            return await asyncio.to_thread(self.store.verify, version)
        base = self._ready.engine.base
        found = await asyncio.to_thread(base_digest, base.folder, cache_dir=base.config.cache_dir, fresh=True)
        return _compared(base.digest, found)

    async def discard(self, reference: str) -> None:
        """Deletes an adapter. Raises NotFound, or NotPossible for the base and for what an alias names."""

        def discard() -> str:
            version = self.versions.resolve(reference).version
            naming = ["the base"] if version == BASE_VERSION else self.aliases.naming(version)
            if naming:
                raise NotPossible(f"version {version} is in use: {', '.join(naming)}", ids={"version": version})
            self.store.discard(version)
            return version

        version = await asyncio.to_thread(discard)
        ready = self._ready

        def release() -> None:
            ready.engine.release(version)
            if ready.answers is not ready.engine:
                ready.answers.release(version)

        await self._workroom.call(release)

    @property
    def _ready(self) -> _Loaded:
        if self._loaded is None:
            raise Unavailable("the student is still loading its model")
        return self._loaded

    def _load(self) -> _Loaded:
        import torch

        config = self._config
        base = load_model(config.model)
        engine = self._open_engine(base)
        answers, packages = self._open_answers(engine)
        recipes = RecipeBook(config.training, engine.linear_names, base.max_positions)
        runs = software(
            (*PACKAGES, *packages),
            device=config.model.device,
            threads=torch.get_num_threads(),
            precision=config.model.precision,
        )
        if engine.attached.packed:
            # Packed and plain weights give other last bits, so other bytes.
            runs = runs.model_copy(update={"versions": {**runs.versions, PACKED: PACKED_BY}})
        status = Status(
            model=config.model.model,
            model_digest=base.digest,
            aliases=(),
            limits=recipes.limits,
            default_recipe=recipes.defaults,
            prompt_template_digest=engine.renderer.template_digest,
            software=runs,
        )
        training = Training(
            engine=engine,
            store=self.store,
            versions=self.versions,
            recipes=recipes,
            workroom=self._workroom,
            software=runs,
        )
        answering = Answering(engine, answers, self.versions, self._workroom)
        return _Loaded(engine, answers, training, answering, status)

    def _open_engine(self, base: BaseModel) -> LoraEngine:
        """The engine on the model's thread; a benchmark has one of its own."""
        return LoraEngine(base, self._config.engine, self.store.adapter)

    def _open_answers(self, engine: LoraEngine) -> tuple[AnswerEngine, tuple[str, ...]]:
        """The engine that writes answers, and the packages that it adds to the record. Raises InvalidConfig."""
        config = self._config
        if config.answering.engine == "lora":
            return engine, ()
        from common.vllm_engine.engine import PACKAGES as VLLM_PACKAGES
        from student.vllm_answers import VllmAnswers

        answers = VllmAnswers(engine, config.model, config.answering.vllm, self.store)
        self._close_answers = answers.close
        answers.start()
        return answers, VLLM_PACKAGES


def _compared(expected: Digest, found: Digest) -> Verification:
    intact = expected.sha256 == found.sha256
    detail = "" if intact else "the base model's files are not those that were loaded"
    return Verification(expected=expected, found=found, intact=intact, detail=detail)
