"""The LoRA engine: one frozen base, many versions of it. The way in for the student and for the teacher's M-step.

Everything is asked in batches: N jobs to train, prompts x versions to answer. One thread at a time may call it
(common/worker.py); it holds one base model, and a bounded number of adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from common.errors import NotFound
from common.lora.adapter_format import Adapter
from common.lora.answering import Answerer, GeneratedText
from common.lora.attachment import AttachedModel
from common.lora.config import EngineConfig
from common.lora.forward import LogitModel, passes
from common.lora.likelihood import Continuation, ScoredText, Scorer, check, kl_per_token
from common.lora.liveness import LivenessProver
from common.lora.memory import check_packed_fit
from common.lora.outcomes import Outcome, Report
from common.lora.packing import check_packing
from common.lora.proof import LivenessProof
from common.lora.render import Renderer
from common.lora.residency import BASE_VERSION, LoadAdapter, Residents
from common.lora.trainer import Trainer
from common.lora.update import TrainJob
from common.models.loading import BaseModel
from common.types import Conversation, Prompt, Sampling

Cancelled = Callable[[], bool]


def _no_versions(version: str) -> Adapter:
    raise NotFound(f"version {version} is not known here", ids={"version": version})


class LoraEngine:
    """Trains adapters on `base` and answers with versions of it.

    `load` reads a version's adapter by its id and verifies it (AdapterFolders.get does); an engine that only trains
    needs none.
    """

    def __init__(self, base: BaseModel, config: EngineConfig | None = None, load: LoadAdapter = _no_versions) -> None:
        config = config or EngineConfig()
        self.base = base
        self._score_tokens = config.score_tokens
        self.renderer = Renderer(base, end_of_text=config.end_of_text)
        check_packing(base.model, base.device)
        if config.pack_weights:
            check_packed_fit(base.model)
        self.attached = AttachedModel(base, pack_weights=config.pack_weights)
        logits = LogitModel(base.model, base.device)
        self.residents = Residents(self.attached, load, config.resident_adapters)
        self._trainer = Trainer(self.attached, logits, self.renderer, config)
        self._answerer = Answerer(self.attached, self.renderer, config.answer_tokens)
        self._scorer = Scorer(logits, self.renderer, base.device, config.score_tokens, base.max_positions)
        self.prover = LivenessProver(self.attached, self.residents, self._scorer, self.renderer, load)

    @property
    def linear_names(self) -> tuple[str, ...]:
        """Names of linear layers that a recipe may target."""
        return self.attached.linear_names

    def train(
        self,
        jobs: Sequence[TrainJob],
        report: Report = lambda _: None,
        cancelled: Cancelled = lambda: False,
        ended: Callable[[Outcome], None] = lambda _: None,
    ) -> list[Outcome]:
        """One result or failure a job, in order.

        `report` is called after every step, `ended` with each outcome as soon as there is one. Raises Cancelled, and
        Corrupt when a parent does not fit the base.
        """
        return self._trainer.train(jobs, report, cancelled, ended)

    def prove(self, version: str, parent: str = BASE_VERSION) -> LivenessProof:
        """Whether `version`, trained from `parent`, truly answers. Raises NotFound.

        Versions of one lot (`residents.lots`) stay attached once they are proven: what is proven is what answers.
        """
        return self.prover.prove(version, parent)

    def prepare(self, version: str) -> None:
        """Nothing to do: what is proven is what answers. Here for the port that other engines stand behind too."""

    def render(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, limit: int | None = None
    ) -> list[tuple[int, ...]]:
        """Token ids of all prompts, for another engine to answer them; `limit`: tokens of prompt and answer there.

        Raises InvalidRequest as `answer` does.
        """
        return self._answerer.render(prompts, sampling, limit=limit)

    def answer(
        self,
        versions: Sequence[str],
        prompts: Sequence[Prompt],
        sampling: Sampling,
        cancelled: Cancelled = lambda: False,
    ) -> Iterator[tuple[str, GeneratedText]]:
        """Answers of every version to every prompt, each as soon as it has ended; prove the versions first.

        Finish (or close) the iterator before asking the engine for anything else.
        Raises InvalidRequest for a prompt that is too long, NotFound and Corrupt for a version, and Cancelled.
        """
        rendered = self._answerer.render(prompts, sampling)
        for lot in self.residents.lots(versions):
            for version in lot:
                if version != BASE_VERSION:
                    self.residents.ensure(version)
            yield from self._answerer.generate(lot, prompts, rendered, sampling, cancelled)

    def score(
        self,
        versions: Sequence[str],
        continuations: Sequence[Continuation],
        cancelled: Cancelled = lambda: False,
    ) -> Iterator[tuple[str, list[ScoredText]]]:
        """Log-likelihoods of all continuations, version by version. Raises as `answer` does."""
        rendered = self._scorer.render(continuations)
        for version in versions:
            with self.residents.active(version):
                scored = self._scorer.score(rendered, cancelled)
            yield version, scored

    def drift(
        self,
        versions: Sequence[str],
        conversations: Sequence[Conversation],
        cancelled: Cancelled = lambda: False,
    ) -> Iterator[tuple[str, int, float]]:
        """(version, place of the prompt, mean KL(version || base) in nats a token of the prompt).

        Source: KL from the base on new data predicts forgetting (SEAL.md, known remedies).
        """
        rendered = self._scorer.render_prompts(conversations, "kl_prompts")
        for places in passes([len(tokens) for tokens in rendered], budget=self._score_tokens):
            with self.residents.active(BASE_VERSION):
                base = {place: self._scorer.distributions(rendered[place]) for place in places}
            for version in versions:
                with self.residents.active(version):
                    for place in places:
                        check(cancelled)
                        yield version, place, kl_per_token(self._scorer.distributions(rendered[place]), base[place])

    def release(self, version: str) -> None:
        """Frees a version's memory; it is loaded again when it is next asked for."""
        self.residents.release(version)
        self.prover.forget(version)
