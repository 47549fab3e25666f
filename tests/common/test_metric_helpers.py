"""Labels stay few, an info metric has one series, and a queue counts who waits and nobody else."""

from __future__ import annotations

import contextlib

import pytest
from prometheus_client import CollectorRegistry, Gauge

from common.metrics import OTHER, Bounded, queued, show_only, shown


def gauge(*labels: str) -> Gauge:
    return Gauge("some_gauge", "For a test.", labels, registry=CollectorRegistry())


def test_an_info_metric_shows_its_newest_value_alone() -> None:
    info = gauge("version")
    show_only(info, shown("a" * 64))
    show_only(info, shown("b" * 64))
    samples = [sample for metric in info.collect() for sample in metric.samples]
    assert [(sample.labels, sample.value) for sample in samples] == [({"version": "b" * 12}, 1.0)]


def test_values_beyond_the_limit_are_other_and_known_ones_stay() -> None:
    bounded = Bounded(2)
    assert [bounded(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]


def test_a_queue_counts_until_work_begins_and_forgets_who_leaves() -> None:
    queue = gauge()

    def waiting() -> float:
        return next(iter(queue.collect())).samples[0].value

    with queued(queue) as begins:
        assert waiting() == 1
        begins()
        assert waiting() == 0
    assert waiting() == 0
    with contextlib.suppress(TimeoutError), queued(queue):
        assert waiting() == 1
        raise TimeoutError
    assert waiting() == 0


def test_beginning_twice_counts_once() -> None:
    queue = gauge()
    with queued(queue), queued(queue) as begins:
        begins()
        begins()
        assert next(iter(queue.collect())).samples[0].value == pytest.approx(1)
