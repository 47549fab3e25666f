"""What one update teaches and what it costs, arm by arm: `seal bench passages` and `seal bench corpus`.

`together` passages are one update on the union of their edits (1: each by itself, on the frozen base). Afterwards the
passages' own questions are asked, and anchors, of every arm the same. Arms that train nothing are asked once.
benchmarks/method/__main__.py is the caller.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from auditor.tasks import EvaluationItem
from benchmarks.method import anchors
from benchmarks.method.crew import each
from benchmarks.method.edits import materials_of
from benchmarks.method.figures import tabled
from benchmarks.method.loading import Loaded, grouped, load
from benchmarks.method.materials import Material, Rehearse, rehearsal, training_of
from benchmarks.method.progress import say
from benchmarks.method.results import Answered, Table, called
from benchmarks.method.settings import IN_CONTEXT, UNTRAINED, BenchSettings
from benchmarks.method.versions import BASE, WHOLE, Trained, Training
from benchmarks.method.workshop import TrainingFailed, Workshop, work_folder
from benchmarks.passages import Passage
from common.prompting import ask
from common.types import Domain, Prompt

NO_EDIT = "nothing that was written passed the teacher's screen"


class Turn(Domain):
    """One version and what it is asked. training: None for the base; scale: how much of its update answers;

    without: passages that the arm has no edit of.
    """

    arm: str
    procedure: str = ""
    passages: tuple[Passage, ...]
    training: Training | None = None
    scale: float = WHOLE
    without: tuple[str, ...] = ()
    pool: tuple[int, ...] = ()
    items: tuple[EvaluationItem, ...] = ()
    anchors_asked: int = 0
    seed: int = 0
    tokens: int

    @property
    def name(self) -> str:
        return named(self.arm, self.procedure)


def named(arm: str, procedure: str) -> str:
    return f"{arm}/{procedure}" if procedure else arm


def run(settings: BenchSettings, together: int = 1) -> Table:
    """The whole table. Raises SealError; what was finished stays, and the same call goes on there."""
    loaded = load(settings)
    groups = grouped(settings, loaded, together)
    pool = _asked_first(settings, loaded)
    turns = [*_untrained(settings, groups), *_trained(settings, loaded, groups, pool)]
    outcomes: dict[str, dict[str, Answered]] = {}
    begun = time.monotonic()
    for number, (turn, found) in enumerate(each(settings, answered, turns), start=1):
        outcomes.setdefault(turn.name, {}).update({one.passage: one for one in found})
        title = turn.passages[0].title if len(turn.passages) == 1 else f"{len(turn.passages)} passages"
        arm = named(called(turn.arm), turn.procedure)
        say(f"{number} of {len(turns)}: {arm}, {title} ({time.monotonic() - begun:.0f} s)")
    ordered = {
        name: tuple(found[passage.key] for passage in loaded.passages)
        for name, found in sorted(outcomes.items(), key=lambda entry: _rank(entry[0], turns))
    }
    return tabled(settings, loaded, together, ordered)


def answered(workshop: Workshop, turn: Turn) -> tuple[Answered, ...]:
    """Trains the turn's version unless it is there, and asks it. Of several passages the first bears what it cost."""
    trained, failure = _trained_or_not(workshop, turn)
    adapter = workshop.scaled(turn.training, turn.scale) if turn.training and trained else BASE
    prompts = [prompt for passage in turn.passages for prompt in _prompts(turn.arm, passage)]
    said = iter(workshop.answers(adapter, prompts, turn.tokens))
    asked = anchors.drawn(turn.pool, turn.anchors_asked, turn.seed, turn.passages[0].key)
    kept = workshop.answers(adapter, anchors.prompts(turn.items, asked), anchors.TOKENS) if asked else ()
    return tuple(
        Answered(
            passage=passage.key,
            answers=tuple(next(said) for _ in passage.questions),
            anchors=dict(zip(asked, kept, strict=True)) if place == 0 else {},
            tokens=trained.tokens if trained is not None and place == 0 else 0,
            seconds=trained.seconds if trained is not None and place == 0 else 0.0,
            without=NO_EDIT if passage.key in turn.without else failure,
        )
        for place, passage in enumerate(turn.passages)
    )


def _trained_or_not(workshop: Workshop, turn: Turn) -> tuple[Trained | None, str]:
    """What became of the training, or why nothing did: an update without numbers costs its own passages alone."""
    if turn.training is None:
        return None, ""
    try:
        return workshop.train(turn.training), ""
    except TrainingFailed as error:
        return None, error.message


def found_anchors(workshop: Workshop, items: tuple[EvaluationItem, ...]) -> tuple[int, ...]:
    """For crew.each: which anchors the base has right."""
    return anchors.pool(workshop, items)


def _asked_first(settings: BenchSettings, loaded: Loaded) -> tuple[int, ...]:
    if not settings.anchors_asked:
        return ()
    ((_, pool),) = each(settings, found_anchors, [loaded.anchors])
    say(f"{len(pool)} of {len(loaded.anchors)} anchors are answered rightly unedited")
    return pool


def _untrained(settings: BenchSettings, groups: Sequence[Sequence[Passage]]) -> Iterator[Turn]:
    for arm in UNTRAINED:
        if arm in settings.arms:
            for group in groups:
                yield Turn(arm=arm, passages=tuple(group), tokens=settings.answer_tokens)


def _trained(
    settings: BenchSettings, loaded: Loaded, groups: Sequence[Sequence[Passage]], pool: tuple[int, ...]
) -> Iterator[Turn]:
    """Arm by arm and procedure by procedure, so that an interrupted table is whole as far as it goes."""
    arms = [arm for arm in settings.arms if arm not in UNTRAINED]
    rehearse: Rehearse = rehearsal(settings, work_folder(settings.folder)) if arms else lambda seed: []
    for arm in arms:
        materials = materials_of(settings, arm, loaded)
        for procedure in settings.procedures:
            for group in groups:
                found: list[Material] = [materials[p.key] for p in group if p.key in materials]
                training = (
                    training_of(found, procedure, settings, base=loaded.base, rehearse=rehearse) if found else None
                )
                yield Turn(
                    arm=arm,
                    procedure=procedure,
                    passages=tuple(group),
                    training=training,
                    without=tuple(passage.key for passage in group if passage.key not in materials),
                    scale=settings.seal.scale if procedure == "seal" else settings.reference.scale,
                    pool=pool,
                    items=loaded.anchors,
                    anchors_asked=settings.anchors_asked,
                    seed=settings.seed,
                    tokens=settings.answer_tokens,
                )


def _prompts(arm: str, passage: Passage) -> Sequence[Prompt]:
    if arm != IN_CONTEXT:
        return passage.prompts()
    return [
        Prompt(prompt_id=item.item_id, conversation=ask(passage.title, f"{passage.context}\n{item.question}"))
        for item in passage.items()
    ]


def _rank(name: str, turns: Sequence[Turn]) -> int:
    return next(place for place, turn in enumerate(turns) if turn.name == name)
