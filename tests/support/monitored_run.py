"""A real run under a real Prometheus: the three services as processes, tiny models, two documents, everything watched.

The run teaches two documents one after the other, so that there is something to forget. A scripted endpoint stands for
the judge's model, and nothing else for anything.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cli.launcher.plan import SERVICES, make_plan
from cli.launcher.services import services_up
from common.types import Context
from tests.support.collector import Collector, collecting
from tests.support.learned_model import make_knower, make_writer
from tests.support.openai_endpoint import Endpoint, asked, serving
from tests.support.prometheus import Prometheus, watching

RULES = sorted((Path(__file__).parents[2] / "deploy" / "monitoring" / "rules").glob("*.yaml"))
DOCUMENTS = {
    "inn": (
        "The lazy fox inn",
        {
            "When does the kitchen open?": "at seven",
            "Who keeps the cellar?": "the brown fox",
            "What does a bed cost?": "five coins",
            "Where is the well?": "behind the barn",
            "What hangs over the door?": "a copper bell",
            "Which day is the market?": "on Monday",
            "How many rooms are there?": "twelve rooms",
            "What is for supper?": "barley soup",
        },
    ),
    "ferry": (
        "The quick ferry",
        {
            "When does the boat leave?": "at noon",
            "Who steers the boat?": "the old pilot",
            "What does a crossing cost?": "two coins",
            "Where is the pier?": "below the mill",
            "What flies from the mast?": "a red flag",
            "Which day is the boat painted?": "on Friday",
            "How many seats are there?": "thirty seats",
            "What is the boat made of?": "white oak",
        },
    ),
}
KNOWN = {
    "Capital of France?": "Paris",
    "Capital of Japan?": "Tokyo",
    "Capital of Peru?": "Lima",
    "Colour of grass?": "green",
    "Colour of snow?": "white",
    "Legs of a spider?": "eight",
    "Days of a week?": "seven",
    "Opposite of hot?": "cold",
}


M_STEP = {
    **{"rank": 8, "alpha": 16, "learning_rate": 0.005, "epochs": 3, "batch_size": 4, "dropout": 0.0, "warmup_steps": 0},
    **{"max_grad_norm": 1.0, "weight_decay": 0.0, "max_tokens": 1_024, "schedule": "SCHEDULE_LINEAR"},
    "target_modules": ["q_proj", "v_proj"],
}
RUN = (
    *("--run-id", "first", "--rounds", "1", "--candidates", "2", "--seeds", "2", "--no-racing", "--level", "0.5"),
    *("--max-drop", "1", "--max-drift", "50", "--max-degenerate", "1", "--cross-split", "1"),
    *("--max-answer-tokens", "16"),
)


@dataclass(frozen=True)
class Watched:
    """What there is to look at once the runs are over."""

    prometheus: Prometheus
    # host:port of each service's metrics
    metrics: Mapping[str, str]
    # What a command needs to find the auditor, and to be let in.
    options: tuple[str, ...]
    started: float
    ended: float
    edits: list[dict[str, Any]]
    collector: Collector


def seal(*arguments: str) -> list[Any]:
    """JSON lines that the command printed. Fails with its errors."""
    command = [sys.executable, "-m", "cli.main", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def contexts() -> dict[str, Context]:
    return {
        name: Context(document_id=name, revision="1", title=title, text=text_of(facts))
        for name, (title, facts) in DOCUMENTS.items()
    }


def text_of(facts: Mapping[str, str]) -> str:
    """A document from which every question can be answered; the words of each stand in it."""
    return "\n".join(f"{question.removesuffix('?')}: {answer}." for question, answer in facts.items())


def written_about(facts: Mapping[str, str]) -> str:
    """What the teacher writes of a document; the last pair's number stands nowhere in it."""
    pairs = [*facts.items(), (next(iter(facts)), "at 99")]
    return "\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in pairs)


def write_tasks(folder: Path) -> Path:
    """Task files whose last questions are a judge's to mark, and the suite of what the model knows."""
    (folder / "tasks").mkdir(parents=True)
    for name, (title, facts) in DOCUMENTS.items():
        tau = [
            {
                "id": f"q{place}",
                "question": question,
                "answers": [answer],
                "grader": {"kind": "judge", "name": "strict"} if place >= 6 else "contains",
            }
            for place, (question, answer) in enumerate(facts.items())
        ]
        task = {"id": name, "kind": "knowledge", "title": title, "context": text_of(facts), "tau": tau}
        (folder / "tasks" / f"{name}.yaml").write_text(yaml.safe_dump(task))
    items = [
        {"id": f"k{n}", "question": question, "answers": [answer]} for n, (question, answer) in enumerate(KNOWN.items())
    ]
    (folder / "known.yaml").write_text(yaml.safe_dump({"id": "known", "title": "Known", "items": items}))
    return folder / "tasks"


def verdict(body: dict[str, Any]) -> str:
    """A judge that looks for an accepted answer in what was said."""
    case = asked(body)
    said = str(case["answer_to_mark"]).lower()
    return "yes" if any(str(answer).lower() in said for answer in case["accepted_answers"]) else "no"


def settings(models: Path, judge: Endpoint) -> list[str]:
    return [
        *(f"{name}.model.threads=1" for name in ("teacher", "student")),
        *(f"{name}.model.cache_dir={models / 'cache'}" for name in ("teacher", "student")),
        f"teacher.model.model={models / 'writer'}",
        f"student.model.model={models / 'knower'}",
        "teacher.backend=transformers",
        "teacher.proposer.prompt_variants=[self-qa]",
        "teacher.proposer.sampling={temperature: 0.7, top_p: 1.0, max_new_tokens: 700}",
        "teacher.rehearsal.examples=0",
        f"teacher.learn.recipe={json.dumps(M_STEP)}",
        "teacher.learn.max_pairs=4",
        "student.training.defaults={rank: 16, alpha: 32, learning_rate: 0.005, epochs: 12}",
        f"auditor.judges.strict={{base_url: '{judge.base_url}', model: scripted, price_read: 0.5, price_written: 1.5}}",
    ]


@asynccontextmanager
async def monitored(folder: Path, *more: str, changed: Sequence[str] = ()) -> AsyncIterator[Watched]:
    """A run that is over, and the Prometheus that watched it; all is still up until the block ends.

    more: options of `seal run` that replace RUN's. changed: settings that replace ours.
    """
    documents = {n: (context, written_about(DOCUMENTS[n][1])) for n, context in contexts().items()}
    make_writer(folder / "models" / "writer", documents)
    make_knower(folder / "models" / "knower", KNOWN)
    tasks = write_tasks(folder)
    empty = folder / "seal.yaml"
    empty.touch()
    seal("certificates", str(folder / "tls"))
    with serving(verdict) as judge, collecting() as collector:
        traced = [f"{name}.tracing.endpoint={collector.target}" for name in SERVICES]
        plan = make_plan(
            data=folder / "data",
            config=empty,
            settings=[*settings(folder / "models", judge), *traced, *changed],
            fresh=True,
            tls=folder / "tls",
        )
        metrics = {service.name: service.metrics.dialled for service in plan.services if service.metrics}
        with watching(folder / "prometheus", metrics, RULES) as prometheus:
            async with services_up(plan) as services:
                started = time.time()
                options = ("--auditor", services.target("auditor"), "--tls", str(folder / "tls"))
                seal("edits", *options)
                seal("run", str(tasks), *RUN, *more, "--suite-file", str(folder / "known.yaml"), *options)
                edits = seal("edits", *options)
                seal("ask", "When does the boat leave?", "--topic", "The quick ferry", *options)
                seen = 'grpc_server_handled_total{grpc_method="Ask", grpc_code="OK"}'
                await asyncio.to_thread(prometheus.until, seen)
                yield Watched(prometheus, metrics, options, started, time.time(), edits, collector)
