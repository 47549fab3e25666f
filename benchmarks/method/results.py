"""What a benchmark of the method found: figures with intervals, and every answer that they were made of."""

from __future__ import annotations

from pydantic import Field

from benchmarks.method.settings import POLICY
from common.types import Domain, Sha256

CONTAINS, TOKEN_F1 = "contains", "token_f1"
GRADERS = (CONTAINS, TOKEN_F1)
SHORT = 12  # characters of a digest


class Figure(Domain):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


def called(arm: str) -> str:
    """As a table or a picture has room for: of a policy's digest the beginning."""
    return arm[: len(POLICY) + SHORT] if arm.startswith(POLICY) else arm


class Answered(Domain):
    """One version's answers about one passage; anchors: places among the benchmark's anchors, with what was said.

    without: why the base answered, where an arm has no update of the passage.
    """

    passage: str
    answers: tuple[str, ...]
    anchors: dict[int, str] = Field(default={})
    tokens: int = 0
    seconds: float = 0.0
    without: str = ""


class ArmFigures(Domain):
    """One arm under one procedure ("" where nothing is trained).

    accuracy: share of questions right, by grader (token_f1: its mean); gain: over the unedited model, paired by
    question, its interval from passages drawn again; right_to_wrong, wrong_to_right: of the passages' own questions, by
    contains; anchors: asked of all versions together, all of them right unedited; with_fallback: accuracy with the
    parent's answer in place of an empty one, labelled as such; without: passages that the base answered for want of an
    update, by the reason.
    """

    arm: str
    procedure: str = ""
    passages: int
    questions: int
    accuracy: dict[str, Figure]
    gain: dict[str, Figure] = Field(default={})
    empty: int
    right_to_wrong: int
    wrong_to_right: int
    anchors: int = 0
    anchors_lost: int = 0
    anchor_questions: int = 0
    tokens: int = 0
    seconds: float = 0.0
    with_fallback: dict[str, Figure] | None = None
    without: dict[str, int] = Field(default={})


class Difference(Domain):
    """Ours less the reference's on the same edits, paired by question.

    lost_share: of the anchors that both were asked, ours and the reference's; lost: their difference, its interval from
    updates drawn again, None where one alone was asked.
    """

    arm: str
    accuracy: dict[str, Figure]
    lost_share: tuple[float, float]
    lost: Figure | None = None


class Comparison(Domain):
    """One arm less another, both under the same procedure or without one, paired by question."""

    procedure: str
    arm: str
    less: str
    accuracy: dict[str, Figure]


class Table(Domain):
    """passages or corpus: everything in one file. together: passages an update; uncounted: anchors that our procedure
    rehearses, by their places; `answered` are by "arm/procedure"."""

    bench: str
    together: int = 1
    model: str
    base: Sha256
    data: Sha256
    settings: dict[str, object]
    titles: tuple[str, ...]
    uncounted: tuple[int, ...] = ()
    arms: tuple[ArmFigures, ...]
    differences: tuple[Difference, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    answered: dict[str, tuple[Answered, ...]] = Field(default={}, description="what everything above is made of")
