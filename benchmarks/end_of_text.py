"""Whether plain text that is trained on should end with one end-of-text token in the loss (SEAL.md leaves it open).

`python -m benchmarks.end_of_text`. Passages are trained as plain text, with the token and without, with the same seeds;
then the model is asked about them and about common knowledge. What is compared: answers right, answers that end by
themselves, answers that stay empty. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from auditor.graders.lexical import grade
from auditor.keys import Grader, GraderKind
from auditor.suite_files import built_in_suites
from auditor.tasks import EvaluationItem
from common.lora.config import EngineConfig
from common.lora.engine import LoraEngine
from common.lora.residency import BASE_VERSION
from common.lora.update import TrainedAdapter, TrainJob
from common.models.config import ModelConfig
from common.models.loading import BaseModel, load_model
from common.prompting import SYSTEM_PROMPT, ask
from common.silence import is_empty
from common.types import Example, Prompt, Sampling
from common.versions import FinishReason
from student.config import DEFAULT_MODEL, DEFAULT_RECIPE

DATA = Path(__file__).resolve().parent.parent / "examples" / "squad" / "passages.json"


def passages() -> list[dict[str, Any]]:
    return list(json.loads(DATA.read_text(encoding="utf-8")))


def questions(about: Sequence[dict[str, Any]]) -> list[tuple[Prompt, EvaluationItem, bool]]:
    """What is asked, its key, and whether the passages answer it (or common knowledge does)."""
    asked = []
    for number, passage in enumerate(about):
        for place, entry in enumerate(passage["questions"]):
            item = EvaluationItem(
                item_id=f"p{number}-{place}",
                question=entry["question"],
                answers=(entry["answer"],),
                grader=Grader(kind=GraderKind.CONTAINS),
            )
            asked.append((_prompt(item, passage["title"]), item, True))
    for suite in built_in_suites():
        asked += [(_prompt(item, ""), item, False) for item in suite.items]
    return asked


def _prompt(item: EvaluationItem, topic: str) -> Prompt:
    return Prompt(prompt_id=item.item_id, conversation=ask(topic, item.question))


def measure(base: BaseModel, *, end_of_text: bool, seeds: Sequence[int], epochs: int) -> dict[str, float]:
    """Means over the seeds' adapters (`base` none): right, of each kind of question; ended by themselves; empty."""
    about = passages()
    asked = questions(about)
    adapters: dict[str, Any] = {}
    engine = LoraEngine(base, EngineConfig(end_of_text=end_of_text), adapters.__getitem__)
    recipe = DEFAULT_RECIPE.model_copy(update={"epochs": epochs, "batch_size": 1})
    jobs = [
        TrainJob(f"seed-{seed}", [Example(text=passage["context"]) for passage in about], recipe, seed)
        for seed in seeds
    ]
    for outcome in engine.train(jobs):
        assert isinstance(outcome, TrainedAdapter), outcome
        adapters[outcome.job_id] = outcome.adapter
    versions = list(adapters) or [BASE_VERSION]
    counts = {"passages_right": 0.0, "retention_right": 0.0, "ended": 0.0, "empty": 0.0, "tokens": 0.0}
    for _, text in engine.answer(versions, [prompt for prompt, _, _ in asked], Sampling(max_new_tokens=48)):
        _, item, taught = asked[text.index]
        counts["passages_right" if taught else "retention_right"] += grade(text.text, item)
        counts["ended"] += text.finish_reason is FinishReason.STOP
        counts["empty"] += is_empty(text.text)
        counts["tokens"] += text.tokens / len(asked)
    return {name: round(count / len(versions), 2) for name, count in counts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    base = load_model(ModelConfig(model=options.model, device=options.device, system_prompt=SYSTEM_PROMPT))
    asked = questions(passages())
    taught = sum(1 for _, _, of_passage in asked if of_passage)
    print(f"{taught} questions about the passages, {len(asked) - taught} of common knowledge", flush=True)
    result = {}
    for name, end_of_text, seeds in (
        ("base", True, 0),
        ("with", True, options.seeds),
        ("without", False, options.seeds),
    ):
        result[name] = measure(base, end_of_text=end_of_text, seeds=range(seeds), epochs=options.epochs)
        print(name, "  ".join(f"{key} {value:g}" for key, value in result[name].items()), flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
