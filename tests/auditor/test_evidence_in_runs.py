"""Evidence in whole runs, over real gRPC: which trainings are spent on an edit, and what their answers may decide."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from auditor.evidence.splits import split
from auditor.tasks import Task
from common.contract.seal.v1 import auditor_pb2 as pb
from tests.auditor.plays import at_desk, facts, of_kind, start_run, student, task, teacher, teaching
from tests.support.scripted_services import FORGET, edit_about, on_stage


@pytest.mark.parametrize(("tasks", "promoted"), [(5, 5), (4, 0)])
async def test_small_tasks_promote_on_pooled_holdout_questions(tmp_path: Path, tasks: int, promoted: int) -> None:
    """One holdout question says nothing alone; five winners have five together, which may decide; four cannot."""
    names = "abcde"[:tasks]
    edits = {name: [teaching(name, 3, of=3)] for name in names}
    async with on_stage(teacher(**edits), student()) as stage, at_desk(stage, tmp_path) as desk:
        small = [task(name, 3) for name in names]
        events = await desk.run(start_run("run", small, candidates=1, pool_small_tasks=True))
    assert all(v.undecided for f in of_kind(events, "filter_decided") for v in f.verdicts)
    (pooled,) = of_kind(events, "winners_pooled")
    assert (pooled.after.correct, pooled.after.questions, pooled.passed) == (tasks, tasks, bool(promoted))
    assert pooled.p_value == pytest.approx(2.0**-tasks)
    gates = [g for j in of_kind(events, "update_judged") for g in j.gates if g.kind == pb.GATE_KIND_CONFIRMATION]
    assert [gate.passed for gate in gates] == [bool(promoted)] * tasks
    assert all(gate.reason.startswith("UNDECIDED alone") for gate in gates)
    assert len(of_kind(events, "version_promoted")) == promoted
    trial, confirmed = of_kind(events, "candidate_trained")[0].seed, of_kind(events, "update_trained")[0].seed
    fresh = [r.candidates[0].seed for r in stage.student.requests_to_train() if len(r.candidates) == tasks]
    assert len({trial, confirmed, *fresh}) == 3


async def test_small_winner_that_loses_alone_is_not_carried_by_the_others(tmp_path: Path) -> None:
    """A pool that gains does not promote an edit whose own holdout question it breaks."""
    names = "abcdef"
    asked = {name: split(Task.model_validate(task(name, 3)).tau) for name in names}
    edits = {name: [teaching(name, 3, of=3)] for name in names}
    lost = asked["f"].holdout[0].question
    taught = [(item.question, item.answers[0]) for item in asked["f"].reward]
    edits["f"] = [edit_about("doc-f", "About f", [*taught, (f"{FORGET}{lost}", "-")])]
    knowing = student()
    knowing.knows[lost] = asked["f"].holdout[0].answers[0]
    async with on_stage(teacher(**edits), knowing) as stage, at_desk(stage, tmp_path) as desk:
        small = [task(name, 3) for name in names]
        events = await desk.run(start_run("run", small, candidates=1, pool_small_tasks=True, level=0.2))
    (pooled,) = of_kind(events, "winners_pooled")
    assert pooled.passed
    rejected = [j for j in of_kind(events, "update_judged") if not j.accepted]
    assert [j.edits[0].sha256 for j in rejected] == [edits["f"][0].digest.sha256]
    assert len(of_kind(events, "version_promoted")) == 5


async def test_racing_spends_no_seeds_on_who_cannot_win(tmp_path: Path) -> None:
    """After one seed the worse half stops; the saving is reported, and the winner is the one that it was without."""
    edits = [teaching("a", count) for count in (10, 6, 3, 0)]
    found = {}
    for racing in (True, False):
        async with (
            on_stage(teacher(a=edits), student()) as stage,
            at_desk(stage, tmp_path / str(racing)) as desk,
        ):
            found[racing] = await desk.run(start_run("run", [task("a")], candidates=4, seeds=4, racing=racing))
    raced = of_kind(found[True], "candidates_raced")
    assert [(r.seeds_done, len(r.stopped), r.trainings_saved) for r in raced] == [(1, 2, 6), (2, 1, 2)]
    (finished,) = of_kind(found[True], "round_finished")
    assert (finished.trainings_saved, finished.trainings_planned) == (8, 16)
    assert len(of_kind(found[True], "candidate_trained")) == 8
    assert len(of_kind(found[False], "candidate_trained")) == 16
    assert not of_kind(found[False], "candidates_raced")
    kept = [
        [v.edit.sha256 for v in of_kind(events, "filter_decided")[0].verdicts if v.kept] for events in found.values()
    ]
    assert kept == [[edits[0].digest.sha256]] * 2
    stopped = {v.runs: v.reason for v in of_kind(found[True], "filter_decided")[0].verdicts if not v.kept}
    assert stopped == {1: "could no longer win after 1 of its seeds", 2: "could no longer win after 2 of its seeds"}


async def test_who_ties_for_the_last_place_is_measured_once_more(tmp_path: Path) -> None:
    """Two edits gain the same: both get another seed, the third does not."""
    first, second, third = (
        teaching("a", 10),
        edit_about("doc-a", "About a", [*facts("a").items(), ("More?", "More.")]),
        teaching("a", 0),
    )
    async with on_stage(teacher(a=[first, second, third]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=3, seeds=1))
    trained = Counter(t.edit.sha256 for t in of_kind(events, "candidate_trained"))
    assert trained == {first.digest.sha256: 2, second.digest.sha256: 2, third.digest.sha256: 1}
    kept = [v.edit.sha256 for v in of_kind(events, "filter_decided")[0].verdicts if v.kept]
    assert kept == [first.digest.sha256]


async def test_edits_that_tie_without_a_gain_are_not_measured_again(tmp_path: Path) -> None:
    useless = [edit_about("doc-a", "About a", [(f"Other {i}?", "Other.")]) for i in range(3)]
    async with on_stage(teacher(a=useless), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=3))
    assert len(of_kind(events, "candidate_trained")) == 3
    (finished,) = of_kind(events, "round_finished")
    assert (finished.trainings_saved, finished.confirmed) == (0, 0)


async def test_one_failed_seed_does_not_stop_an_edit(tmp_path: Path) -> None:
    """Its first training fails alone; with a second seed it is trained, measured and kept."""
    good, poor = teaching("a", 10), teaching("a", 3)
    playing = student()
    playing.faults.fails_once.add(good.digest.sha256)
    async with on_stage(teacher(a=[poor, good]), playing) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=2, seeds=2))
    verdicts = {v.edit.sha256: v for v in of_kind(events, "filter_decided")[0].verdicts}
    assert len(of_kind(events, "candidate_failed")) == 1
    assert verdicts[good.digest.sha256].kept
    assert verdicts[good.digest.sha256].runs == 1
    assert stage.student.moves


async def test_confirmation_rests_on_as_many_fresh_trainings_as_asked(tmp_path: Path) -> None:
    async with on_stage(teacher(a=[teaching("a", 10)]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1, confirmation_seeds=3))
        record = (
            await desk.stub.GetEdit(pb.GetEditRequest(edit=of_kind(events, "edit_proposed")[0].edit.sha256))
        ).record
    request = next(r for r in stage.student.requests_to_train() if r.alone)
    assert len({c.seed for c in request.candidates}) == 3
    gate = next(g for g in record.gates if g.kind == pb.GATE_KIND_CONFIRMATION)
    assert (gate.figures["runs"], gate.figures["p_value"]) == (3, 2.0**-5)
    assert of_kind(events, "version_promoted")[0].version == of_kind(events, "update_trained")[0].version.version


async def test_swapped_splits_are_reported_and_decide_nothing(tmp_path: Path) -> None:
    """Of an edit that knows the reward questions alone the audit shows it from both sides."""
    tau = split(Task.model_validate(task("a")).tau)
    gamed = edit_about("doc-a", "About a", [(item.question, item.answers[0]) for item in tau.reward])
    async with on_stage(teacher(a=[gamed]), student()) as stage, at_desk(stage, tmp_path) as desk:
        events = await desk.run(start_run("run", [task("a")], candidates=1, cross_split_share=1))
        without = await desk.run(start_run("other", [task("a")], candidates=1, cross_split_share=0))
    (swapped,) = of_kind(events, "splits_swapped")
    assert (swapped.gain_on_reward, swapped.gain_on_holdout) == (1.0, 0.0)
    assert (swapped.reward, swapped.confirmation) == (1.0, 0.0)
    assert not of_kind(without, "splits_swapped")
    assert stage.student.moves == []
