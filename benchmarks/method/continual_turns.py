"""One sequence of passages learned one after another by one chain of updates: a turn of a crew.

The published chain merges every edit. Ours goes on training from the live version, with replay of earlier accepted
edits and with the gate, or without either; what is turned down leaves the live version as it was. Seeds depend on the
passage alone, so chains share their trainings for as long as they have learned the same. Every training and every
answer stands on disk (benchmarks/method/workshop.py): an interrupted sequence is played again from its beginning, and
what it had is read.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from auditor.evidence.scaling import Outcome
from auditor.graders.lexical import grade
from auditor.tasks import EvaluationItem
from benchmarks.forgetting import EditSequence
from benchmarks.method import anchors
from benchmarks.method.continual_gate import Attempt, Decided, Exam, Judge, answers
from benchmarks.method.continual_settings import Chain, GateSettings
from benchmarks.method.versions import BASE, WHOLE, Training
from benchmarks.method.workshop import TrainingFailed, Workshop
from benchmarks.passages import Passage
from common.edits import make_edit
from common.silence import is_empty
from common.types import Domain, SelfEdit, TaskKind
from common.versions import Replay
from student.replay import ReplayPool


class Turn(Domain):
    """trainings: of each passage, by itself on the base; gate None: every edit is accepted; replay_share 0: no replay.

    judged: places of each passage's questions that gates ask, the others are reported; items: all anchors; gated,
    reported: places of those that the gate asks and of those that are reported; uncounted: of the latter, those that
    our procedure rehearses.
    """

    chain: Chain
    order: int
    passages: tuple[Passage, ...]
    trainings: tuple[Training, ...]
    tokens: int
    judged: tuple[tuple[int, ...], ...] = ()
    replay_share: float = 0.0
    gate: GateSettings | None = None
    items: tuple[EvaluationItem, ...] = ()
    gated: tuple[int, ...] = ()
    reported: tuple[int, ...] = ()
    uncounted: tuple[int, ...] = ()

    @property
    def by_gates(self) -> tuple[tuple[int, ...], ...]:
        """`judged`, of each passage none where none are told."""
        return self.judged or ((),) * len(self.passages)


class Edited(Domain):
    """One edit of a sequence. scale: at which it was accepted or turned down; tokens, seconds: of its training."""

    passage: str
    training: str
    accepted: bool
    scale: float = WHOLE
    reason: str = ""
    attempts: tuple[Attempt, ...] = ()
    examples: int
    replayed: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Played(Domain):
    """A finished sequence. versions: adapters that were live, unedited first; answers: of each, passage by passage.

    lost: of the anchors reported, in each row of the matrix, how many are no longer answered rightly.
    """

    sequence: EditSequence
    edits: tuple[Edited, ...]
    versions: tuple[str, ...]
    answers: dict[str, tuple[tuple[str, ...], ...]]
    anchors: int
    lost: tuple[int, ...]


@dataclass
class Live:
    """The version that answers. name: what a training calls it as its parent; learned: accepted edits by place."""

    name: str = BASE
    adapter: str = BASE
    learned: dict[int, SelfEdit] = field(default_factory=dict)


def played(workshop: Workshop, turn: Turn) -> Played:
    """The whole sequence, from wherever it stands on disk. For crew.each."""
    live = Live()
    versions, edits = [BASE], []
    for place in range(len(turn.passages)):
        edits.append(learn(workshop, turn, live, place))
        versions.append(live.adapter)
        said = f"{edits[-1].seconds:.0f} s, {'accepted' if edits[-1].accepted else 'turned down'}: {edits[-1].reason}"
        sys.stderr.write(f"{turn.chain}, sequence {turn.order + 1}, edit {place + 1}: {said}\n")
    return outcome(workshop, turn, versions, edits)


def learn(workshop: Workshop, turn: Turn, live: Live, place: int) -> Edited:
    """One edit: trained from the live version and judged; `live` moves if it is accepted."""
    training, edit = training_on(turn, live, place)
    passage = turn.passages[place].key
    made = Edited(passage=passage, training=training.name, accepted=False, examples=len(training.examples))
    made = made.model_copy(update={"replayed": made.examples - len(edit.examples)})
    try:
        trained = workshop.train(training)
    except TrainingFailed as error:
        return made.model_copy(update={"reason": error.message})
    decided = judged(workshop, turn, training, live, place)
    if decided.accepted:
        live.name, live.adapter = training.name_at(decided.scale), decided.adapter
        live.learned[place] = edit
    return made.model_copy(
        update={
            "accepted": decided.accepted,
            "scale": decided.scale,
            "reason": decided.attempts[-1].reason,
            "attempts": decided.attempts,
            "tokens": trained.tokens,
            "seconds": trained.seconds,
        }
    )


def training_on(turn: Turn, live: Live, place: int) -> tuple[Training, SelfEdit]:
    """The passage's training on the live version, replay mixed in as the student mixes it; and the edit as it is."""
    alone = turn.trainings[place]
    edit = make_edit(
        kind=TaskKind.KNOWLEDGE,
        document_id=turn.passages[place].key,
        revision="1",
        examples=alone.examples,
        recipe=alone.recipe,
    )
    known = {earlier.digest.sha256: earlier for earlier in live.learned.values()}
    replay = Replay(edits=tuple(earlier.digest for earlier in known.values()), share=turn.replay_share)
    mixture = ReplayPool(known.__getitem__, replay).mix(edit, alone.seed)
    return alone.model_copy(update={"examples": mixture.examples, "parent": live.name}), edit


def judged(workshop: Workshop, turn: Turn, training: Training, live: Live, place: int) -> Decided:
    if turn.gate is None:
        return Decided(
            workshop.train(training).adapter, (Attempt(scale=WHOLE, outcome=Outcome.PASSED, reason="no gate"),)
        )
    exam = Exam(turn.passages, turn.by_gates, turn.items, turn.gated, turn.tokens)
    return Judge(workshop, turn.gate, exam).decide(training, live.adapter, place, sorted(live.learned))


def outcome(workshop: Workshop, turn: Turn, versions: Sequence[str], edits: Sequence[Edited]) -> Played:
    """The matrix, and all answers that it is made of."""
    said = {adapter: answers(workshop, adapter, turn.passages, turn.tokens) for adapter in dict.fromkeys(versions)}
    asked = reported(turn)
    empty = {adapter: silent(given, asked) for adapter, given in said.items()}
    lost = {adapter: anchors_lost(workshop, turn, adapter) for adapter in said}
    sequence = EditSequence(
        arm=turn.chain,
        order=turn.order,
        passages=tuple(passage.key for passage in turn.passages),
        titles=tuple(passage.title for passage in turn.passages),
        questions=tuple(map(len, asked)),
        accepted=tuple(edit.accepted for edit in edits),
        rows=tuple(shares(said[adapter], turn.passages, asked) for adapter in versions),
        empty=tuple(empty[adapter] for adapter in versions),
        seconds=round(sum(edit.seconds for edit in edits), 1),
    )
    return Played(
        sequence=sequence,
        edits=tuple(edits),
        versions=tuple(versions),
        answers=said,
        anchors=len(turn.reported) - len(turn.uncounted),
        lost=tuple(lost[adapter] for adapter in versions),
    )


def reported(turn: Turn) -> tuple[tuple[int, ...], ...]:
    """Places of each passage's questions that no gate asks."""
    return tuple(
        tuple(place for place in range(len(passage.questions)) if place not in left_out)
        for passage, left_out in zip(turn.passages, turn.by_gates, strict=True)
    )


def shares(
    said: Sequence[Sequence[str]], passages: Sequence[Passage], asked: Sequence[Sequence[int]]
) -> tuple[float, ...]:
    """Of each passage the share of the questions at the places `asked` that are answered right."""
    return tuple(
        sum(grade(texts[place], passage.items()[place]) for place in places) / len(places)
        for texts, passage, places in zip(said, passages, asked, strict=True)
    )


def silent(said: Sequence[Sequence[str]], asked: Sequence[Sequence[int]]) -> int:
    """Answers without a word at the places `asked`."""
    return sum(is_empty(texts[place]) for texts, places in zip(said, asked, strict=True) for place in places)


def anchors_lost(workshop: Workshop, turn: Turn, adapter: str) -> int:
    """Of the anchors reported; the base has all of them right."""
    if not turn.reported or adapter == BASE:
        return 0
    said = workshop.answers(adapter, anchors.prompts(turn.items, turn.reported), anchors.TOKENS)
    given = zip(turn.reported, said, strict=True)
    return sum(not grade(text, turn.items[place]) for place, text in given if place not in turn.uncounted)
