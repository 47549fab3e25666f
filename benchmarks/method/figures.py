"""A table's figures from what every version answered. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from auditor.graders.lexical import contains, f1, grade
from auditor.tasks import EvaluationItem
from benchmarks.method.loading import Loaded
from benchmarks.method.results import CONTAINS, GRADERS, Answered, ArmFigures, Comparison, Difference, Figure, Table
from benchmarks.method.settings import IN_CONTEXT, UNEDITED, BenchSettings, told
from benchmarks.method.statistics import interval_of_mean, paired
from benchmarks.passages import Passage
from common.canonical import digest_of
from common.silence import is_empty

Marks = list[list[float]]


def tabled(
    settings: BenchSettings, loaded: Loaded, together: int, answered: Mapping[str, tuple[Answered, ...]]
) -> Table:
    """answered: of each arm and procedure, in the order of the passages; the unedited model's is among them."""
    unedited = answered[UNEDITED]
    arms = [arm_figures(settings, loaded, name, found, unedited) for name, found in answered.items()]
    return Table(
        bench="passages" if together == 1 else "corpus",
        together=together,
        model=settings.model.model,
        base=loaded.base,
        data=digest_of([passage.model_dump(mode="json") for passage in loaded.passages]).sha256,
        settings={**told(settings), "teacher": loaded.teacher},
        titles=tuple(passage.title for passage in loaded.passages),
        uncounted=tuple(sorted(loaded.rehearsed)),
        arms=tuple(arms),
        differences=tuple(differences(settings, loaded, answered)),
        comparisons=tuple(comparisons(settings, loaded, answered)),
        answered=dict(answered),
    )


def marks(passages: Sequence[Passage], found: Sequence[Answered], grader: str) -> Marks:
    """Of each passage's questions, 0..1."""
    return [
        [mark(text, item, grader) for text, item in zip(one.answers, passage.items(), strict=True)]
        for passage, one in zip(passages, found, strict=True)
    ]


def mark(text: str, item: EvaluationItem, grader: str) -> float:
    """contains: right or wrong; token_f1: the best key's, as it is."""
    if is_empty(text):
        return 0.0
    return contains(text, item) if grader == CONTAINS else max(f1(text, key) for key in item.answers)


def arm_figures(
    settings: BenchSettings, loaded: Loaded, name: str, found: Sequence[Answered], unedited: Sequence[Answered]
) -> ArmFigures:
    arm, _, procedure = name.partition("/")
    passages = loaded.passages
    own = {grader: marks(passages, found, grader) for grader in GRADERS}
    before = {grader: marks(passages, unedited, grader) for grader in GRADERS}
    moved = [value for group in paired(own[CONTAINS], before[CONTAINS]) for value in group]
    asked = [place for one in found for place in _counted(loaded, one)]
    return ArmFigures(
        arm=arm,
        procedure=procedure,
        passages=len(passages),
        questions=len(moved),
        accuracy={grader: interval_of_mean(own[grader], settings.seed) for grader in GRADERS},
        gain={} if arm == UNEDITED else _less(settings, loaded, found, unedited),
        empty=sum(is_empty(text) for one in found for text in one.answers),
        right_to_wrong=sum(value < 0 for value in moved),
        wrong_to_right=sum(value > 0 for value in moved),
        anchors=len(asked),
        anchors_lost=_lost(loaded, found),
        anchor_questions=len(set(asked)),
        tokens=sum(one.tokens for one in found),
        seconds=round(sum(one.seconds for one in found), 1),
        with_fallback=_with_fallback(settings, passages, found, unedited) if settings.fallback else None,
        without=dict(Counter(one.without for one in found if one.without)),
    )


def differences(
    settings: BenchSettings, loaded: Loaded, answered: Mapping[str, tuple[Answered, ...]]
) -> list[Difference]:
    """Of every arm that both procedures trained."""
    both = [name.removesuffix("/seal") for name in answered if name.endswith("/seal")]
    return [
        Difference(
            arm=arm,
            accuracy=_less(settings, loaded, answered[f"{arm}/seal"], answered[f"{arm}/reference"]),
            lost_share=(
                _lost_share(loaded, answered[f"{arm}/seal"]),
                _lost_share(loaded, answered[f"{arm}/reference"]),
            ),
            lost=_lost_less(settings, loaded, answered[f"{arm}/seal"], answered[f"{arm}/reference"]),
        )
        for arm in both
        if f"{arm}/reference" in answered
    ]


def comparisons(
    settings: BenchSettings, loaded: Loaded, answered: Mapping[str, tuple[Answered, ...]]
) -> list[Comparison]:
    """Of all arms but the unedited, which gains are over, two by two within a procedure: what a teacher adds to the
    passage alone, and an update to the passage in the prompt."""
    found = []
    for procedure in settings.procedures:
        arms = [name for name in answered if name == IN_CONTEXT or name.endswith(f"/{procedure}")]
        for earlier, later in combinations(arms, 2):
            found.append(
                Comparison(
                    procedure=procedure,
                    arm=later.partition("/")[0],
                    less=earlier.partition("/")[0],
                    accuracy=_less(settings, loaded, answered[later], answered[earlier]),
                )
            )
    return found


def _less(
    settings: BenchSettings, loaded: Loaded, found: Sequence[Answered], other: Sequence[Answered]
) -> dict[str, Figure]:
    """By grader, paired by question."""
    passages = loaded.passages
    return {
        grader: interval_of_mean(paired(marks(passages, found, grader), marks(passages, other, grader)), settings.seed)
        for grader in GRADERS
    }


def _counted(loaded: Loaded, one: Answered) -> dict[int, str]:
    """The anchors that nothing was trained on."""
    return {place: text for place, text in one.anchors.items() if place not in loaded.rehearsed}


def _lost(loaded: Loaded, found: Sequence[Answered]) -> int:
    return sum(not grade(text, loaded.anchors[place]) for one in found for place, text in _counted(loaded, one).items())


def _lost_share(loaded: Loaded, found: Sequence[Answered]) -> float:
    asked = sum(len(_counted(loaded, one)) for one in found)
    return round(_lost(loaded, found) / asked, 4) if asked else 0.0


def _lost_less(
    settings: BenchSettings, loaded: Loaded, ours: Sequence[Answered], theirs: Sequence[Answered]
) -> Figure | None:
    """Paired by anchor; an update's anchors stand and fall together."""
    lost, lost_there = (
        [[1.0 - grade(text, loaded.anchors[place]) for place, text in _counted(loaded, one).items()] for one in found]
        for found in (ours, theirs)
    )
    less = [group for group in paired(lost, lost_there) if group]
    return interval_of_mean(less, settings.seed) if len(less) > 1 else None


def _with_fallback(
    settings: BenchSettings, passages: Sequence[Passage], found: Sequence[Answered], parent: Sequence[Answered]
) -> dict[str, Figure]:
    """Accuracy with the parent version's answer, labelled as its, wherever an answer is empty."""
    filled = [
        one.model_copy(
            update={
                "answers": tuple(
                    old if is_empty(text) else text for text, old in zip(one.answers, before.answers, strict=True)
                )
            }
        )
        for one, before in zip(found, parent, strict=True)
    ]
    return {grader: interval_of_mean(marks(passages, filled, grader), settings.seed) for grader in GRADERS}
