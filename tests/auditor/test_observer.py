"""What metrics say after events: of the live version alone, of a bounded number of suites, nothing of the unknown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count

import pytest

from auditor import events as e
from auditor import metrics
from auditor.findings import Comparison, Gate, GateKind, Score
from auditor.ledger.chain import Link
from auditor.observer import MAX_SUITES, Observer, agreement_of
from auditor.tasks import Split
from common.lora.proof import Liveness
from common.types import Digest

ONE, OTHER = "1" * 64, "2" * 64
EDIT = Digest(sha256="e" * 64)


class Ledger:
    """Numbers events and shows them to an observer."""

    def __init__(self) -> None:
        self._observer = Observer()
        self._seq = count(1)

    def has(self, *events: e.Event, run_id: str = "run") -> None:
        for event in events:
            link = Link(next(self._seq), datetime.now(UTC), event.kind, run_id, None, {}, (), "0" * 64, "a" * 64)
            self._observer.observe(link, event)


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    metrics.RETENTION.clear()
    yield Ledger()
    metrics.RETENTION.clear()


def value(name: str, **labels: str) -> float | None:
    return metrics.LEDGER.get_sample_value(name, labels)


def scored(version: str, correct: float, suite: str = "general") -> e.VersionScored:
    return e.VersionScored(
        version=version,
        suite_id=suite,
        split=Split.RETENTION,
        score=Score(questions=10, correct=correct),
        purpose="baseline",
        record=e.VersionScored.Record(marks=()),
    )


def comparison(item: str, before: float, after: float, suite: str = "") -> Comparison:
    return Comparison(
        item_id=item,
        suite_id=suite,
        split=Split.RETENTION if suite else Split.REWARD,
        before="b" * 64,
        after="c" * 64,
        score_before=before,
        score_after=after,
    )


def judged(version: str, *gates: Gate, after: float = 1.0) -> e.UpdateJudged:
    retention = (comparison("r", 1.0, after, "general"),)
    record = e.UpdateJudged.Record(retention=retention, parent_version="base", retention_version="base")
    return e.UpdateJudged(round=1, version=version, edits=(EDIT,), gates=gates, record=record)


def promoted(version: str, generation: int = 1, *, rollback: bool = False) -> e.VersionPromoted:
    return e.VersionPromoted(
        version=version, previous_version="base", generation=generation, decided_by="auditor", rollback=rollback
    )


def test_retention_is_the_live_versions_whatever_candidates_forget(ledger: Ledger) -> None:
    ledger.has(scored("base", 9.0), judged(ONE, after=0.0))
    assert value("seal_retention", suite="general") == 1.0  # as the base answered beside the update
    ledger.has(promoted(ONE))
    assert value("seal_retention", suite="general") == 0.0


def test_a_rollback_shows_what_is_known_of_where_it_leads(ledger: Ledger) -> None:
    ledger.has(scored("base", 9.0), promoted(ONE), scored(ONE, 7.0))
    assert value("seal_retention", suite="general") == 0.7
    ledger.has(promoted("base", 2, rollback=True))
    assert value("seal_retention", suite="general") == 0.9
    assert value("seal_live_version_info", version="base") == 1
    assert value("seal_live_version_info", version=ONE[:12]) is None


def test_a_version_of_which_no_suite_is_known_shows_none(ledger: Ledger) -> None:
    ledger.has(scored("base", 9.0), promoted(OTHER))
    assert value("seal_retention", suite="general") is None


def test_suites_beyond_the_cap_share_one_label(ledger: Ledger) -> None:
    ledger.has(*(scored("base", 5.0, f"suite{i}") for i in range(MAX_SUITES + 9)))
    samples = [sample for metric in metrics.RETENTION.collect() for sample in metric.samples]
    assert len(samples) == MAX_SUITES + 1
    assert value("seal_retention", suite="other") == 0.5


def test_a_move_by_another_hand_is_counted_as_found(ledger: Ledger) -> None:
    before = value("seal_promotions_total", kind="found") or 0.0
    ledger.has(e.LiveFound(version=OTHER, previous_version="", generation=4, reason="found"), run_id="")
    assert value("seal_promotions_total", kind="found") == before + 1
    assert value("seal_live_generation") == 4


def test_gates_figures_are_shown_also_of_a_rejected_update(ledger: Ledger) -> None:
    drift = Gate(kind=GateKind.DRIFT, passed=False, figures={"kl_per_token": 2.5, "max_drift": 2.0})
    silence = Gate(kind=GateKind.DEGENERATE, passed=True, figures={"empty_after": 2.0, "answers": 8.0})
    rejected = value("seal_edits_total", verdict="rejected", gate="drift") or 0.0
    ledger.has(judged(ONE, silence, drift))
    assert (value("seal_drift"), value("seal_drift_bound"), value("seal_empty_answer_share")) == (2.5, 2.0, 0.25)
    assert value("seal_edits_total", verdict="rejected", gate="drift") == rejected + 1


def test_agreement_is_over_pairs_of_trainings_of_one_edit() -> None:
    right, wrong = (comparison("q", 0.0, 1.0),), (comparison("q", 0.0, 0.0),)
    assert agreement_of([[right], [wrong]]) is None  # one training each: nothing to compare
    assert agreement_of([[right, right], [wrong, wrong]]) == 1.0
    assert agreement_of([[right, right, wrong]]) == pytest.approx(1 / 3)


def test_a_filtered_task_shows_how_its_trainings_agree(ledger: Ledger) -> None:
    metrics.REWARD_AGREEMENT.set(math.nan)
    for seed, after in ((1, 1.0), (2, 0.0)):
        trial = e.CandidateScored.Record(comparisons=(comparison("q", 0.0, after),), parent_version="base")
        ledger.has(
            e.CandidateScored(
                round=1,
                task_id="t",
                edit=EDIT,
                seed=seed,
                version=ONE,
                liveness=Liveness.LIVE,
                before=Score(),
                after=Score(),
                record=trial,
            )
        )
    assert math.isnan(value("seal_reward_agreement") or 0.0)
    ledger.has(e.FilterDecided(round=1, task_id="t"))
    assert value("seal_reward_agreement") == 0.0
