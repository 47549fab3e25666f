"""What stands below the real servers in place of models: everything is checked and rendered as ever, and then instant.

The student's engine and the teacher's generator keep the real tokenizer, chat template and limits (that is where a
strange request may break them); only passes through a model and the M-step's process are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from common.canonical import derive_seed, digest_of
from common.errors import InvalidRequest, NotPossible
from common.lora.adapter_folder import AdapterFolders
from common.lora.adapter_format import Adapter
from common.lora.answering import GeneratedText
from common.lora.engine import LoraEngine
from common.lora.likelihood import Continuation, ScoredText
from common.lora.outcomes import FailedJob, Outcome, Report, TrainProgress
from common.lora.proof import Liveness, LivenessProof
from common.lora.render import ExampleRefused, Rendered
from common.lora.residency import BASE_VERSION
from common.lora.update import TrainedAdapter, TrainJob, fresh_spec, set_
from common.models.config import ModelConfig
from common.types import Conversation, Digest, Progress, Prompt, Recipe, Sampling, Software
from common.versions import FinishReason
from teacher.generator import BASE, Completion, Draw, PromptTooLong
from teacher.mstep import JOB_FILE, RESULT_FILE, MStepJob, MStepResult
from teacher.policies import MANIFEST_FILE, Manifest
from teacher.store import read_record, write_record
from tests.support.tiny_model import make_tiny_model, tiny_config

# As the templates of Gemma, Llama 2 and Mistral are: what they cannot render, they refuse.
STRICT_TEMPLATE = (
    "{% for m in messages %}{% if (m['role'] == 'system') and not loop.first %}"
    "{{ raise_exception('Only the first message may be a system message') }}{% endif %}"
    "{% if not loop.first and m['role'] == messages[loop.index0 - 1]['role'] %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LINES = (
    "Customers may return an order within thirty days.",
    "The refund is paid within a week of the return.",
    "A return is free for every customer of the plan.",
)
LONGEST = 4_096
Cancelled = Callable[[], bool]


def strict_model(folder: Path) -> ModelConfig:
    """A tiny model whose chat template refuses conversations that do not take turns."""
    made = make_tiny_model(folder)
    for place in (made / "chat_template.jinja", made / "tokenizer_config.json"):
        if place.name.endswith(".jinja"):
            place.write_text(STRICT_TEMPLATE)
        elif "chat_template" in (settings := json.loads(place.read_text())):
            place.write_text(json.dumps({**settings, "chat_template": STRICT_TEMPLATE}))
    return tiny_config(made)


class InstantEngine(LoraEngine):
    """The LoRA engine without a pass through the model."""

    def prove(self, version: str, parent: str = BASE_VERSION) -> LivenessProof:
        if version == BASE_VERSION:
            return LivenessProof(version=version, liveness=Liveness.BASE)
        self.prover._load(version)
        return LivenessProof(version=version, liveness=Liveness.LIVE, adapter=Digest(sha256=version))

    def answer(
        self,
        versions: Sequence[str],
        prompts: Sequence[Prompt],
        sampling: Sampling,
        cancelled: Cancelled = lambda: False,
    ) -> Iterator[tuple[str, GeneratedText]]:
        rendered = self._answerer.render(prompts, sampling)
        for version in versions:
            for place, tokens in enumerate(rendered):
                text = self.renderer.decode(list(tokens[:4]))
                yield version, GeneratedText(place, text, len(tokens), FinishReason.STOP)

    def score(
        self, versions: Sequence[str], continuations: Sequence[Continuation], cancelled: Cancelled = lambda: False
    ) -> Iterator[tuple[str, list[ScoredText]]]:
        rendered = self._scorer.render(continuations)
        for version in versions:
            yield (
                version,
                [ScoredText(-float(len(tokens) - start), len(tokens) - start, False) for tokens, start in rendered],
            )

    def drift(
        self, versions: Sequence[str], conversations: Sequence[Conversation], cancelled: Cancelled = lambda: False
    ) -> Iterator[tuple[str, int, float]]:
        rendered = self._scorer.render_prompts(conversations, "kl_prompts")
        for version in versions:
            for place in range(len(rendered)):
                yield version, place, 0.0

    def train(
        self,
        jobs: Sequence[TrainJob],
        report: Report = lambda _: None,
        cancelled: Cancelled = lambda: False,
        ended: Callable[[Outcome], None] = lambda _: None,
    ) -> list[Outcome]:
        outcomes = []
        for place, job in enumerate(jobs):
            outcome = self._trained(job)
            report(TrainProgress(job.job_id, place + 1, len(jobs), 1, 1, 0.5, 1.0))
            ended(outcome)
            outcomes.append(outcome)
        return outcomes

    def _trained(self, job: TrainJob) -> Outcome:
        limit = min(set_(job.recipe.max_tokens), self.base.max_positions)
        try:
            for example in job.examples:
                if not isinstance(example, Rendered):
                    self.renderer.example(example, max_tokens=limit)
        except (ExampleRefused, InvalidRequest) as error:
            return FailedJob(job.job_id, error.reason, error.message)
        return TrainedAdapter(job.job_id, tiny_adapter(job.recipe, job.seed, self.base.digest), 1, 1, 1.0, 0.5, 0.0)


def tiny_adapter(recipe: Recipe, seed: int, base: Digest) -> Adapter:
    """An adapter in name: one small layer, whatever the recipe targets."""
    spec = fresh_spec(recipe, base.sha256)
    generator = torch.Generator().manual_seed(derive_seed(seed, digest_of(recipe).sha256))
    shapes = {"lora_A": (spec.rank, 2), "lora_B": (2, spec.rank)}
    prefix = f"base_model.model.model.layers.0.self_attn.{spec.target_modules[0]}"
    tensors = {f"{prefix}.{name}.weight": torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    return Adapter(spec, tensors)


class InstantGenerator:
    """Writes three lines to every prompt; loads anything."""

    def __init__(self) -> None:
        self._folders: dict[str, Path] = {}

    async def start(self) -> None:
        return None

    async def generate(self, draws: Sequence[Draw], version: str) -> list[Completion]:
        if version != BASE and version not in self._folders:
            raise NotPossible(f"policy {version} is not loaded", reason="POLICY_NOT_LOADED")
        for draw in draws:
            if len(draw.prompt_ids) + draw.sampling.max_new_tokens > LONGEST:
                raise PromptTooLong(len(draw.prompt_ids), draw.sampling.max_new_tokens, LONGEST)
        return [Completion("\n".join(LINES), (5, 6, 7), "stop") for _ in draws]

    async def load(self, version: str, folder: Path) -> None:
        self._folders[version] = folder

    async def unload(self, version: str) -> None:
        del self._folders[version]

    async def loaded(self) -> frozenset[str]:
        return frozenset(self._folders)

    def software(self) -> Software:
        return Software(device="cpu", threads=1)

    async def close(self) -> None:
        return None


class InstantMStep:
    """The M-step in this process: reads its job and stores a policy, as the real one does."""

    def __init__(self, folder: Path, *, timeout_seconds: float) -> None:
        self._folder = folder

    async def run(self, report: Callable[[Progress], None]) -> MStepResult:
        report(Progress(phase="learning", done=1, total=1))
        job = read_record(self._folder / JOB_FILE, MStepJob)
        assert job is not None
        manifest = Manifest(
            parent=job.parent,
            create_time=datetime.now(UTC),
            kept_edits=job.kept_edits,
            pairs=len(job.pairs),
            first_loss=1.0,
            last_loss=0.5,
            seed=job.seed,
            recipe=job.recipe,
            versions={},
        )
        stored = AdapterFolders(job.policies).put(
            tiny_adapter(job.recipe, job.seed % 64, Digest(sha256="0" * 64)),
            base_model="tiny",
            files={MANIFEST_FILE: manifest.model_dump_json().encode()},
        )
        result = MStepResult(policy_version=stored.sha256)
        write_record(self._folder / RESULT_FILE, result)
        return result
