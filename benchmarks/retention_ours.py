"""The arm `ours`: the same passages through teacher, student and auditor, as three processes with a ledger.

The teacher is a recorded one; everything else is as users run it: candidates, filter, confirmation, retention gate,
replay, scaling. One run of one round takes all passages of a sequence, and each winner is trained and judged on the
version live at that moment. A passage whose edits were all turned down is a step too: it leaves the live version as it
was. An interrupted sequence is taken up by its auditor where it stood.
benchmarks/retention.py is the caller.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict

from benchmarks.edit_forms import formed, pieces_of
from benchmarks.forgetting import EditSequence
from benchmarks.passages import Passage, RecordedEdits
from benchmarks.questioning import ANSWER_TOKENS, Answers, by_passage, prompts_of
from benchmarks.retention_reference import tokenizer_of
from benchmarks.retention_settings import RUN
from benchmarks.steps import Steps
from cli.client import Auditor, auditor
from cli.following import check_finished
from cli.launcher.plan import HEALTH_NAMES, Plan, Service, make_plan
from cli.launcher.services import Services, services_up
from cli.watcher import watch
from common.canonical import canonical_json, derive_seed, digest_of
from common.contract.seal.v1 import auditor_pb2 as pb
from common.contract.seal.v1 import student_pb2, student_pb2_grpc, task_pb2, types_pb2
from common.convert import to_proto
from common.errors import NotPossible
from common.lora.residency import BASE_VERSION
from common.prompting import SYSTEM_PROMPT
from common.rpc.client import open_channel
from common.types import Domain, Example, Sampling
from teacher.forms import FormSettings

ARM = "ours"
ANSWER_SECONDS = 3_600.0
REHEARSED_TOKENS = 36  # of one rehearsed question with its answer, about


class Step(Domain):
    """One passage's turn. version: live afterwards; reason: of the last judgement."""

    passage: str
    accepted: bool
    version: str
    scale: float = 1.0
    reason: str = ""


class Played(Domain):
    """A finished sequence: its steps, and what the unedited version and each live one answered."""

    start: str
    steps: tuple[Step, ...]
    answers: dict[str, Answers]
    seconds: float
    tokens: int = 0


class OursArm:
    """Sequences of one choice of passages. `edits_file` is what the teacher reads."""

    speed = 130.0

    def __init__(
        self,
        folder: Path,
        edits_file: Path,
        edits: Mapping[str, RecordedEdits],
        *,
        model: str,
        seed: int,
        teacher: dict[str, Any],
    ) -> None:
        self._teacher = teacher
        self._folder = folder
        self._edits_file = edits_file.absolute()
        self._edits = edits
        self._model = model
        self._seed = seed

    def tokens(self, passages: Sequence[Passage], order: int) -> int:
        """Trials of each passage's edit, fresh trainings for the pool, and one promotion with replay.

        Of every edit's completions the longest, nothing screened out; edits that tie take one training more each.
        """
        count = Counting(self._model, self._teacher)
        trials = int(RUN["candidates"]) * int(RUN["seeds"]) + int(RUN["confirmation_seeds"])
        replay = 1 / (1 - float(RUN["replay_share"]))
        return round(sum(count.longest(p, self._edits[p.context].completions) for p in passages) * (trials + replay))

    def run(self, passages: Sequence[Passage], order: int) -> EditSequence:
        """One sequence, from wherever it stands on disk to its end. Raises SealError and cli's Failure."""
        settings = {
            "teacher": self._teacher,
            "run": RUN,
            "model": self._model,
            "seed": self._seed,
            "answer_tokens": ANSWER_TOKENS,
            "edits": [digest_of(self._edits[passage.context]).sha256 for passage in passages],
            "questions": [digest_of(passage).sha256 for passage in passages],
        }
        steps = Steps(self._folder / f"order-{order + 1}", settings)
        played = steps.once("sequence", Played, lambda: asyncio.run(self._play(steps.folder, passages, order)))
        return sequence_of(played, passages, order)

    async def _play(self, folder: Path, passages: Sequence[Passage], order: int) -> Played:
        plan = self._plan(folder / "services")
        # Seconds of sequences that were interrupted add up in the ledger's times, not here.
        started = time.monotonic()
        print(
            f"ours, order {order + 1}: starting teacher, student and auditor; logs in {plan.data / 'logs'}", flush=True
        )
        async with services_up(plan) as services, auditor(services.target("auditor")) as service:
            run_id = f"order-{order + 1}"
            await service.start_run(self._request(run_id, passages, order))
            events = await _followed(service, run_id, passages)
            check_finished(await service.run(run_id))
            start, steps = steps_of(events)
            versions = list(dict.fromkeys([BASE_VERSION, start, *(step.version for step in steps)]))
            answers = await _answers(services, versions, passages)
        return Played(
            start=start,
            steps=tuple(steps),
            answers=answers,
            seconds=round(time.monotonic() - started, 1),
            tokens=sum(_tokens(event) for event in events),
        )

    def _request(self, run_id: str, passages: Sequence[Passage], order: int) -> pb.StartRunRequest:
        settings = ParseDict({**RUN, "seed": str(derive_seed("ours", self._seed, order) % 2**31)}, pb.RunSettings())
        return pb.StartRunRequest(run_id=run_id, tasks=[task_of(passage) for passage in passages], settings=settings)

    def _plan(self, data: Path) -> Plan:
        """As `seal up` would, untouched by any seal.yaml, with the recorded teacher."""
        config = data / "seal.yaml"
        data.mkdir(parents=True, exist_ok=True)
        config.write_bytes(
            canonical_json({"student": {"model": {"model": self._model, "system_prompt": SYSTEM_PROMPT}}})
        )
        plan = make_plan(data=data, config=config, fresh=True)
        teacher = Service(
            "teacher",
            {
                **plan.service("teacher").settings,
                **self._teacher,
                "edits": str(self._edits_file),
                "model": {"model": self._model},
            },
            "benchmarks.recorded_teacher",
            HEALTH_NAMES["teacher"],
        )
        services = tuple(teacher if service.name == "teacher" else service for service in plan.services)
        return Plan(data=plan.data, services=services, wait_seconds=plan.wait_seconds, fresh=True)


class Counting:
    """Tokens of edits, counted without a model."""

    def __init__(self, model: str, teacher: dict[str, Any]) -> None:
        self._tokenizer = tokenizer_of(model)
        self._teacher = teacher
        self._forms = FormSettings.model_validate(teacher["forms"])

    def longest(self, passage: Passage, completions: Sequence[str]) -> int:
        """Tokens of the longest edit that the teacher could make of the completions."""
        size = min(int(self._teacher["completions"]), len(completions))
        return max(self.edit(passage, chosen) for chosen in combinations(completions, size))

    def edit(self, passage: Passage, completions: Sequence[str]) -> int:
        """Tokens that one training on the completions takes, rehearsal included."""
        pieces = pieces_of(completions, passage.context)
        examples = formed(pieces, passage.title, passage.context, self._forms)
        tokens = sum(self._example(example) for example in examples)
        rehearsed = REHEARSED_TOKENS * int(self._teacher["rehearsal"]["examples"])
        return (tokens + rehearsed) * int(self._teacher["recipe"]["epochs"])

    def _example(self, example: Example) -> int:
        if example.text is not None:
            return len(self._tokenizer(example.text)["input_ids"]) + 1
        asked, answered = example.texts
        turns = [("system", SYSTEM_PROMPT), ("user", asked), ("assistant", answered)]
        written = [{"role": role, "content": text} for role, text in turns]
        return len(self._tokenizer.apply_chat_template(written, tokenize=True, return_dict=True)["input_ids"])


def task_of(passage: Passage) -> task_pb2.Task:
    """The passage as a task; only the auditor gets it whole."""
    return ParseDict(
        {
            "task_id": passage.key,
            "kind": "TASK_KIND_KNOWLEDGE",
            "context": {
                "document_id": passage.key,
                "revision": "1",
                "title": passage.title,
                "text": passage.context,
            },
            "tau": [
                {"item_id": item.item_id, "question": item.question, "answers": list(item.answers)}
                for item in passage.items()
            ],
        },
        task_pb2.Task(),
    )


def steps_of(events: Sequence[pb.RunEvent]) -> tuple[str, list[Step]]:
    """The version that the run started from, and every passage's turn in the order of the run's tasks.

    Winners are promoted in that order too; a passage that was turned down leaves what its predecessor left.
    """
    start = live = BASE_VERSION
    task_of_edit: dict[str, str] = {}
    steps: dict[str, Step] = {}
    for event in events:
        kind = event.WhichOneof("event")
        if kind == "run_started":
            start = live = event.run_started.start_version or BASE_VERSION
        elif kind == "edit_proposed":
            task_of_edit[event.edit_proposed.edit.sha256] = event.edit_proposed.task_id
        elif kind == "filter_decided":
            task_id = event.filter_decided.task_id
            steps[task_id] = Step(passage=task_id, accepted=False, version=live, reason="no edit gained")
        elif kind == "update_judged":
            judged = event.update_judged
            task_id = task_of_edit[judged.edits[0].sha256]
            said = "; ".join(
                f"{pb.GateKind.Name(gate.kind)}: {gate.reason}" for gate in judged.gates if not gate.passed
            )
            scale = judged.scale or 1.0
            steps[task_id] = Step(passage=task_id, accepted=False, version=live, scale=scale, reason=said)
        elif kind == "version_promoted":
            live = event.version_promoted.version
            task_id = task_of_edit[event.version_promoted.edits[0].sha256]
            steps[task_id] = steps[task_id].model_copy(update={"accepted": True, "version": live, "reason": ""})
    turns, live = [], start
    for step in steps.values():
        live = step.version if step.accepted else live
        turns.append(step.model_copy(update={"version": live}))
    return start, turns


def sequence_of(played: Played, passages: Sequence[Passage], order: int) -> EditSequence:
    """The matrix, with passages in the order in which they had their turn. Raises NotPossible if one had none."""
    by_key = {passage.key: passage for passage in passages}
    if {step.passage for step in played.steps} != set(by_key):
        raise NotPossible("a passage had no turn in the run", reason="PASSAGE_WITHOUT_TURN")
    turns = [by_key[step.passage] for step in played.steps]
    shares = {
        version: dict(zip(by_key, answers.shares(passages), strict=True)) for version, answers in played.answers.items()
    }
    versions = [played.start, *(step.version for step in played.steps)]
    return EditSequence(
        arm=ARM,
        order=order,
        passages=tuple(passage.key for passage in turns),
        titles=tuple(passage.title for passage in turns),
        questions=tuple(len(passage.questions) for passage in turns),
        accepted=tuple(step.accepted for step in played.steps),
        rows=tuple(tuple(shares[version][passage.key] for passage in turns) for version in versions),
        empty=tuple(played.answers[version].empty for version in versions),
        seconds=played.seconds,
    )


async def _followed(service: Auditor, run_id: str, passages: Sequence[Passage]) -> list[pb.RunEvent]:
    """All recorded events of the run; says what happens meanwhile."""
    titles = {passage.key: passage.title for passage in passages}
    events = []
    async for event in watch(service, run_id):
        if not event.seq:
            continue
        events.append(event)
        kind = event.WhichOneof("event")
        if kind == "filter_decided":
            best = max((verdict.gain for verdict in event.filter_decided.verdicts), default=0.0)
            print(f"  {titles[event.filter_decided.task_id]}: best edit gains {best:+.2f}", flush=True)
        elif kind == "update_judged":
            judged = event.update_judged
            said = "; ".join(f"{gate.reason}" for gate in judged.gates if not gate.passed) or "passed"
            print(f"  update at scale {judged.scale or 1:g}: {said}", flush=True)
        elif kind == "version_promoted":
            print(f"  promoted: {event.version_promoted.reason}", flush=True)
    return events


async def _answers(services: Services, versions: Sequence[str], passages: Sequence[Passage]) -> dict[str, Answers]:
    """What each version says to every question. Raises NotPossible for one that cannot prove that it answers."""
    prompts = prompts_of(passages)
    request = student_pb2.AnswerRequest(
        request_id=f"matrix-{digest_of([list(versions), [prompt.prompt_id for prompt in prompts]]).sha256[:32]}",
        purpose=student_pb2.ANSWER_PURPOSE_AUDIT,
        versions=versions,
        sampling=to_proto(types_pb2.Sampling, Sampling(max_new_tokens=ANSWER_TOKENS)),
        prompts=[to_proto(types_pb2.Prompt, prompt) for prompt in prompts],
    )
    texts: dict[tuple[str, str], str] = {}
    channel = open_channel(services.target("student"))
    try:
        async for response in student_pb2_grpc.StudentServiceStub(channel).Answer(request, timeout=ANSWER_SECONDS):
            if response.HasField("answer"):
                texts[response.answer.version, response.answer.prompt_id] = response.answer.text
            elif response.HasField("proof") and response.proof.liveness == student_pb2.LIVENESS_INVALID:
                raise NotPossible("a version could not prove that it answers", reason="VERSION_INVALID")
    finally:
        await channel.close()
    return {
        version: by_passage(passages, [texts[version, prompt.prompt_id] for prompt in prompts]) for version in versions
    }


def _tokens(event: pb.RunEvent) -> int:
    kind = event.WhichOneof("event")
    if kind == "candidate_trained":
        return event.candidate_trained.version.tokens_trained
    if kind == "update_trained" and event.update_trained.version.scale in (0.0, 1.0):
        return event.update_trained.version.tokens_trained
    return 0
