"""What one form of recorded edits teaches, passage by passage: `python -m benchmarks.edit_trials DATA EDITS`.

For choosing form and recipe on passages that are not reported later: of each passage one edit is trained alone on the
frozen base; then its own questions and the general suite are asked. Settings are those of the retention benchmark
(benchmarks/retention_settings.py) with `--teacher` over them. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from auditor.graders.lexical import grade
from auditor.suite_files import built_in_suites
from auditor.tasks import EvaluationItem
from benchmarks.passages import Passage, chosen, read_passages
from benchmarks.questioning import ANSWER_TOKENS
from benchmarks.recorded_teacher import RecordedTeacher, RecordedTeacherConfig
from benchmarks.retention_settings import TEACHER, merged
from common.lora.adapter_format import Adapter
from common.lora.engine import LoraEngine
from common.lora.residency import BASE_VERSION
from common.lora.update import TrainedAdapter, TrainJob
from common.models.config import ModelConfig
from common.models.loading import load_model
from common.prompting import SYSTEM_PROMPT, ask
from common.types import Context, Prompt, Sampling, SelfEdit, TaskKind
from student.config import DEFAULT_MODEL, DEFAULT_RECIPE
from teacher.messages import FailedProposal, ProposedEdit, ProposeRequest

Asked = Sequence[tuple[str, EvaluationItem]]


async def written(passages: Sequence[Passage], settings: dict[str, Any], seed: int) -> list[SelfEdit]:
    """One edit a passage. Raises SystemExit for a passage that has none."""
    teacher = RecordedTeacher(RecordedTeacherConfig.model_validate(settings))
    await teacher.start()
    events: list[ProposedEdit | FailedProposal] = []

    def publish(event: ProposedEdit | FailedProposal, *, keep: bool = True) -> None:
        events.append(event)

    for passage in passages:
        context = Context(document_id=passage.key, revision="1", title=passage.title, text=passage.context)
        request = ProposeRequest(request_id=passage.key, kind=TaskKind.KNOWLEDGE, context=context, count=1, seed=seed)
        await teacher.propose(request, publish)
    failed = [f"{p.title}: {e.reason}" for p, e in zip(passages, events, strict=True) if isinstance(e, FailedProposal)]
    if failed:
        raise SystemExit("\n".join(failed))
    return [event.edit for event in events if isinstance(event, ProposedEdit)]


def right(engine: LoraEngine, version: str, asked: Asked) -> float:
    """How many questions the version answers right."""
    prompts = [
        Prompt(prompt_id=f"q{i}", conversation=ask(topic, item.question)) for i, (topic, item) in enumerate(asked)
    ]
    sampling = Sampling(max_new_tokens=ANSWER_TOKENS)
    said = {text.index: text.text for _, text in engine.answer([version], prompts, sampling)}
    return sum(grade(said[i], item) for i, (_, item) in enumerate(asked))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="passages with questions")
    parser.add_argument("edits", type=Path, help="their recorded edits")
    parser.add_argument("--leave-out", type=Path, help="passages of this file are not used (those to be reported)")
    parser.add_argument("--first", type=int, default=0, help="so many passages are skipped")
    parser.add_argument("--passages", type=int, default=6, choices=range(1, 1001), metavar="N")
    parser.add_argument("--teacher", type=json.loads, default={}, metavar="JSON", help='as {"recipe": {"epochs": 3}}')
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    left_out = read_passages(options.leave_out) if options.leave_out else ()
    passages = chosen(read_passages(options.data), options.first + options.passages, left_out)[options.first :]
    settings = merged(TEACHER, options.teacher)
    with tempfile.TemporaryDirectory() as folder:
        teacher = {**settings, "store": folder, "metrics_listen": "", "edits": options.edits.absolute()}
        edits = asyncio.run(written(passages, teacher, options.seed))
    adapters: dict[str, Adapter] = {}
    model = ModelConfig(model=DEFAULT_MODEL, system_prompt=SYSTEM_PROMPT)
    engine = LoraEngine(load_model(model), load=adapters.__getitem__)
    general = [("", item) for suite in built_in_suites() for item in suite.items]
    figures: list[dict[str, float]] = []
    for passage, edit in zip(passages, edits, strict=True):
        job = TrainJob(passage.key, edit.examples, edit.recipe.over(DEFAULT_RECIPE), options.seed)
        (outcome,) = engine.train([job])
        if not isinstance(outcome, TrainedAdapter):
            raise SystemExit(f"{passage.title}: {outcome.reason}")
        adapters[passage.key] = outcome.adapter
        own = [(passage.title, item) for item in passage.items()]
        found = {
            "examples": len(edit.examples),
            "tokens": outcome.tokens,
            "questions": len(own),
            "unedited": right(engine, BASE_VERSION, own),
            "learned": right(engine, passage.key, own),
            "retained": right(engine, passage.key, general),
        }
        print(f"{passage.title}: {found}", flush=True)
        figures.append(found)
    totals = {name: sum(entry[name] for entry in figures) for name in figures[0]}
    print(json.dumps({"settings": settings, "passages": len(passages), "general": len(general), **totals}))


if __name__ == "__main__":
    main()
