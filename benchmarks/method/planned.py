"""What a benchmark would train, counted before it begins: tokens, and minutes at the speeds measured on two cores. Pure
but for reading the files; no model is loaded, and what is rehearsed is counted as so many tokens of middling length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.method.continual import procedure_of
from benchmarks.method.continual_settings import ContinualSettings, check_rank, sequences_of
from benchmarks.method.edits import materials_of
from benchmarks.method.loading import Loaded, grouped, load
from benchmarks.method.materials import rehearsed_at_most, training_of
from benchmarks.method.report import grid
from benchmarks.method.results import called
from benchmarks.method.settings import OWN, POLICY, UNTRAINED, BenchSettings, Procedure
from benchmarks.method.versions import Training, published_procedure
from benchmarks.passages import Passage
from benchmarks.reference import tokens_trained
from benchmarks.retention_reference import tokenizer_of
from common.models.config import ModelConfig
from common.types import Example
from teacher.rehearsal import read_questions

# Tokens a second measured on two cores, two processes of a thread each; an answer's seconds are a guess.
SPEEDS: dict[Procedure, float] = {"seal": 180.0, "reference": 145.0}
ANSWER_SECONDS = 0.12
REHEARSED_TOKENS = 36  # of one rehearsed question with its answer, about


@dataclass(frozen=True)
class Part:
    """One arm under one procedure. tokens None: its edits are not written yet."""

    arm: str
    procedure: str
    updates: int
    tokens: int | None
    answers: int

    @property
    def minutes(self) -> float:
        training = 0.0 if not self.tokens else self.tokens / SPEEDS["seal" if self.procedure == "seal" else "reference"]
        return (training + self.answers * ANSWER_SECONDS) / 60


def nothing(seed: int) -> list[Example]:
    """In the place of what is rehearsed: that takes the model."""
    return []


class Counting:
    """Tokens of trainings, by the model's tokenizer alone."""

    def __init__(self, model: ModelConfig) -> None:
        self._tokenizer: Any = tokenizer_of(model.model, revision=model.revision, cache_dir=model.cache_dir)
        self._system_prompt = model.system_prompt

    def training(self, training: Training) -> int:
        if training.padding is not None:
            rows = [self._plain(example) for example in training.examples]
            return tokens_trained(rows, published_procedure(training))
        return sum(map(self.example, training.examples)) * (training.recipe.epochs or 1)

    def arm(
        self,
        settings: BenchSettings,
        loaded: Loaded,
        arm: str,
        procedure: Procedure,
        groups: Sequence[Sequence[Passage]],
    ) -> int | None:
        """Of one update a group. None where edits are still to be written."""
        if arm.startswith((OWN, POLICY)):
            return None
        materials = materials_of(settings, arm, loaded)
        trainings = [
            training_of([materials[p.key] for p in group], procedure, settings, base=loaded.base, rehearse=nothing)
            for group in groups
        ]
        rehearsed = 0
        if procedure == "seal":
            known = len(read_questions())  # of which an update trains each once an epoch, at most
            rehearsed = sum(
                REHEARSED_TOKENS
                * min(sum(rehearsed_at_most(materials[p.key], settings) for p in group), known)
                * (training.recipe.epochs or 1)
                for group, training in zip(groups, trainings, strict=True)
            )
        return sum(map(self.training, trainings)) + rehearsed

    def example(self, example: Example) -> int:
        if example.conversation is None:
            return len(self._plain(example)) + 1
        turns = [(message.role.value, message.text) for message in example.conversation.messages]
        if self._system_prompt and turns[0][0] != "system":
            turns.insert(0, ("system", self._system_prompt))
        written = [{"role": role, "content": text} for role, text in turns]
        return len(self._tokenizer.apply_chat_template(written, tokenize=True, return_dict=True)["input_ids"])

    def _plain(self, example: Example) -> list[int]:
        return list(self._tokenizer("\n".join(example.texts))["input_ids"])


@dataclass(frozen=True)
class Plan:
    """All parts of a benchmark."""

    passages: int
    questions: int
    parts: tuple[Part, ...]

    @property
    def minutes(self) -> int:
        return round(sum(part.minutes for part in self.parts))

    def figures(self) -> dict[str, Any]:
        return {**asdict(self), "minutes": self.minutes}


def plan(settings: BenchSettings, together: int) -> Plan:
    """Raises InvalidConfig for files that cannot be used, as the run itself would."""
    loaded = load(settings)
    return plan_of(loaded.passages, parts_of(settings, loaded, together))


def plan_continual(settings: ContinualSettings) -> Plan:
    """Chains that share a training do it once, which is not counted here. Raises InvalidConfig."""
    check_rank(settings)
    loaded = load(settings)
    sequences = sequences_of(loaded.passages, settings)
    return plan_of([p for sequence in sequences for p in sequence], chain_parts(settings, loaded, sequences))


def plan_of(passages: Sequence[Passage], parts: Iterable[Part]) -> Plan:
    return Plan(len(passages), sum(len(passage.questions) for passage in passages), tuple(parts))


def parts_of(settings: BenchSettings, loaded: Loaded, together: int) -> Iterator[Part]:
    counting = Counting(settings.model)
    groups = grouped(settings, loaded, together)
    questions = sum(len(passage.questions) for passage in loaded.passages)
    for arm in settings.arms:
        if arm in UNTRAINED:
            yield Part(arm, "", 0, 0, questions)
            continue
        for procedure in settings.procedures:
            tokens = counting.arm(settings, loaded, arm, procedure, groups)
            yield Part(arm, procedure, len(groups), tokens, questions + len(groups) * settings.anchors_asked)


def chain_parts(settings: ContinualSettings, loaded: Loaded, sequences: Sequence[Sequence[Passage]]) -> Iterator[Part]:
    """Of every version all questions of its sequence are asked, and anchors."""
    counting = Counting(settings.model)
    alone = [[passage] for sequence in sequences for passage in sequence]
    asked = sum(len(s) * (sum(len(p.questions) for p in s) + settings.anchors_asked) for s in sequences)
    for chain in settings.chains:
        tokens = counting.arm(settings, loaded, settings.taught, procedure_of(chain), alone)
        if tokens is not None and "replay" in chain:
            # The first edit of a sequence has nothing to replay.
            replayed = 1 + settings.replay_share / (1 - settings.replay_share) * (1 - 1 / settings.length)
            tokens = round(tokens * replayed)
        gated = len(alone) * settings.gate.anchors if "gate" in chain else 0
        yield Part(chain, procedure_of(chain), len(alone), tokens, asked + gated)


def table_of(planned: Plan) -> str:
    rows = [
        [
            called(part.arm),
            part.procedure or "-",
            str(part.updates),
            "unwritten" if part.tokens is None else f"{part.tokens:,}",
            f"{part.answers:,}",
            "?" if part.tokens is None else f"{part.minutes:.0f}",
        ]
        for part in planned.parts
    ]
    lines = [
        f"{planned.passages} passages with {planned.questions} questions",
        "",
        *grid(["arm", "procedure", "updates", "tokens trained", "answers", "minutes"], rows),
        "",
        f"{_about(planned)} if the model were SmolLM2-135M, on two cores: ten times the parameters take "
        "ten times as long, a GPU far less. What is finished already is not done again.",
    ]
    return "\n".join(lines)


def _about(planned: Plan) -> str:
    unwritten = ", and what is yet to be written," if any(part.tokens is None for part in planned.parts) else ""
    return (f"About {planned.minutes} minutes" if planned.minutes > 1 else "A minute at most") + unwritten
