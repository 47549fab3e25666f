"""How far typical edits take the real small model from its base, and how far absurd ones do: where the bounds belong.

`python -m benchmarks.health`. The teacher writes an edit for each of some example documents (its default variant, with
rehearsal, at the recipe that the variant asks for); the engine trains each alone and all of them in one update, and
beside them what no update should be: a few examples far too long at far too high a rate, plain text for ten epochs,
end-of-text tokens in the loss. Each is measured as the auditor's drift and degenerate gates measure it: KL per token
from the base on the questions of the general suite, shares of empty, repeated and truncated answers. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from auditor.compose import union
from auditor.gates.degenerate import KINDS, Given, shares_of
from auditor.graders.lexical import grade
from auditor.keys import Grader
from auditor.suite_files import built_in_suites
from auditor.tasks import EvaluationItem, Settings
from common.lora.adapter_format import Adapter
from common.lora.engine import LoraEngine
from common.lora.render import Rendered
from common.lora.residency import BASE_VERSION
from common.lora.update import TrainedAdapter, TrainJob
from common.models.config import ModelConfig
from common.models.loading import load_model
from common.prompting import SYSTEM_PROMPT, ask
from common.types import Context, Example, Prompt, Recipe, Sampling, SelfEdit, TaskKind
from student.config import DEFAULT_MODEL, DEFAULT_RECIPE
from teacher.config import TeacherConfig
from teacher.messages import ProposedEdit, ProposeRequest
from teacher.proposer import ProposeEvent
from teacher.teacher import Teacher

DOCUMENTS = Path(__file__).resolve().parent.parent / "examples" / "support"
SEED = 1
PADDED_TOKENS = 48


def documents(count: int) -> list[tuple[Context, list[EvaluationItem]]]:
    """The first documents with their questions."""
    found = []
    for file in sorted(DOCUMENTS.glob("*.yaml"))[:count]:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        context = Context(document_id=content["document_id"], title=content["title"], text=content["context"])
        items = [
            EvaluationItem(
                item_id=q["id"], question=q["question"], answers=tuple(map(str, q["answers"])), grader=Grader()
            )
            for q in content["tau"]
        ]
        found.append((context, items))
    return found


async def written(contexts: Sequence[Context], folder: Path) -> list[SelfEdit]:
    """One edit a document, as the teacher writes them by default."""
    config = TeacherConfig.model_validate(
        {
            "backend": "transformers",
            "store": folder,
            "metrics_listen": "",
            "model": {"model": DEFAULT_MODEL, "device": "cpu"},
        }
    )
    teacher = Teacher(config)
    await teacher.start()
    edits: list[SelfEdit] = []

    def publish(event: ProposeEvent, *, keep: bool = True) -> None:
        if isinstance(event, ProposedEdit):
            edits.append(event.edit)

    try:
        for context in contexts:
            request = ProposeRequest(
                request_id=f"health-{context.document_id}",
                kind=TaskKind.KNOWLEDGE,
                context=context,
                count=1,
                seed=SEED,
            )
            await teacher.proposer.propose(request, publish)
    finally:
        await teacher.close()
    return edits


def jobs(engine: LoraEngine, edits: Sequence[SelfEdit], contexts: Sequence[Context]) -> list[TrainJob]:
    """What is trained, by name: typical updates first."""
    typical = [TrainJob(f"edit-{i}", edit.examples, _recipe(edit), SEED) for i, edit in enumerate(edits, start=1)]
    both, _ = union(edits, 512)
    text = [Example(text=context.text) for context in contexts]
    absurd = Recipe(epochs=40, learning_rate=5e-3)
    padded = [_padded(engine, line) for line in (contexts[0].text or "").splitlines() if line]
    silent = Recipe(epochs=12, learning_rate=2e-3, batch_size=1)
    return [
        *typical,
        TrainJob("union", both.examples, _recipe(both), SEED),
        TrainJob("text-10-epochs", text, _over(Recipe(epochs=10, batch_size=1)), SEED),
        TrainJob("5-examples-40-epochs-5e-3", edits[0].examples[:5], _over(absurd), SEED),
        TrainJob("end-of-text", padded, _over(silent), SEED),
    ]


def _recipe(edit: SelfEdit) -> Recipe:
    return edit.recipe.over(DEFAULT_RECIPE)


def _over(recipe: Recipe) -> Recipe:
    return recipe.over(DEFAULT_RECIPE)


def _padded(engine: LoraEngine, text: str) -> Rendered:
    """A line padded with end-of-text tokens that all count: what the product never does."""
    rendered = engine.renderer.example(Example(text=text), max_tokens=PADDED_TOKENS)
    end = (engine.base.tokenizer.eos_token_id,) * (PADDED_TOKENS - len(rendered.tokens))
    return Rendered((*rendered.tokens, *end), (True,) * PADDED_TOKENS)


def measure(
    engine: LoraEngine, versions: Sequence[str], asked: Sequence[tuple[str, EvaluationItem]], anchors: int
) -> dict[str, dict[str, float]]:
    """Figures of each version. asked: (topic, item); the first `anchors` are those that drift is measured on."""
    prompts = [
        Prompt(prompt_id=f"q{i}", conversation=ask(topic, item.question)) for i, (topic, item) in enumerate(asked)
    ]
    given: dict[str, dict[int, Given]] = {version: {} for version in versions}
    for version, text in engine.answer(versions, prompts, Sampling(max_new_tokens=Settings().max_answer_tokens)):
        given[version][text.index] = Given(text=text.text, finish=text.finish_reason or "")
    drift: dict[str, list[float]] = {version: [] for version in versions}
    for version, _, kl in engine.drift(versions, [prompt.conversation for prompt in prompts[:anchors]]):
        drift[version].append(kl)
    found = {}
    for version in versions:
        answers = [given[version][i] for i in range(len(prompts))]
        shares = shares_of(answers)
        marks = [grade(answer.text, item) for answer, (_, item) in zip(answers, asked, strict=True)]
        found[version] = {
            "kl_per_token": round(sum(drift[version]) / anchors, 4),
            "kl_highest": round(max(drift[version]), 4),
            **{kind: round(shares.share(kind), 3) for kind in KINDS},
            "general_right": sum(marks[:anchors]),
            "documents_right": sum(marks[anchors:]),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="where the teacher keeps what it wrote; left out: nowhere")
    options = parser.parse_args()
    found = documents(options.documents)
    contexts = [context for context, _ in found]
    with tempfile.TemporaryDirectory() as temporary:
        edits = asyncio.run(written(contexts, options.folder or Path(temporary)))
    adapters: dict[str, Adapter] = {}
    model = ModelConfig(model=DEFAULT_MODEL, system_prompt=SYSTEM_PROMPT)
    engine = LoraEngine(load_model(model), load=adapters.__getitem__)
    trainings = jobs(engine, edits, contexts)
    for job in trainings:
        print(f"{job.job_id}: {len(job.examples)} examples, {job.recipe.epochs} epochs", flush=True)
    for outcome in engine.train(trainings):
        if not isinstance(outcome, TrainedAdapter):
            raise SystemExit(f"{outcome.job_id}: {outcome.reason}")
        adapters[outcome.job_id] = outcome.adapter
    general = [("", item) for suite in built_in_suites() for item in suite.items]
    asked = [*general, *((context.title, item) for context, items in found for item in items)]
    result = measure(engine, [BASE_VERSION, *adapters], asked, len(general))
    for name, figures in result.items():
        print(name, "  ".join(f"{key} {value:g}" for key, value in figures.items()), flush=True)
    print(json.dumps({"questions": len(asked), "anchors": len(general), **result}))


if __name__ == "__main__":
    main()
