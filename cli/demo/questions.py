"""Which questions are asked before and after, and what the holdout says. Pure functions on the auditor's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cli.demo.sign_test import one_sided_p
from cli.render.figures import plural, right, share
from common.contract.seal.v1 import auditor_pb2 as pb

SHOWN = 3


@dataclass(frozen=True)
class Chosen:
    """Questions to ask aloud, and the rule that chose them."""

    questions: tuple[pb.QuestionResult, ...]
    rule: str


@dataclass(frozen=True)
class Verdict:
    """Discordant holdout questions, and the chance of as many by luck."""

    better: int
    worse: int

    @property
    def p(self) -> float:
        return one_sided_p(self.better, self.worse)


def choose(results: Sequence[pb.QuestionResult]) -> Chosen:
    """The first three holdout questions that the live version gets right, filled up with the first that it does not."""
    solved = [result for result in results if right(result.score_after)][:SHOWN]
    others = [result for result in results if not right(result.score_after)][: SHOWN - len(solved)]
    if not solved:
        rule = "the live version answers no holdout question right; these are the first"
    elif others:
        rule = (
            f"all {plural(len(solved), 'holdout question')} that the live version answers right, then the first others"
        )
    else:
        rule = f"the first {len(solved)} holdout questions that the live version answers right"
    return Chosen((*solved, *others), rule)


def verdict(results: Sequence[pb.QuestionResult]) -> Verdict:
    return Verdict(
        better=sum(right(result.score_after) and not right(result.score_before) for result in results),
        worse=sum(right(result.score_before) and not right(result.score_after) for result in results),
    )


def by_task(results: Sequence[pb.QuestionResult]) -> dict[str, tuple[pb.Score, pb.Score]]:
    """Scores before and after, by task, in the order in which tasks first occur."""
    scores: dict[str, tuple[pb.Score, pb.Score]] = {}
    for result in results:
        before, after = scores.setdefault(result.task_id, (pb.Score(), pb.Score()))
        _count(before, result.score_before, result.answer_before)
        _count(after, result.score_after, result.answer_after)
    return scores


def result_object(run: pb.Run, minutes: float) -> dict[str, float | int]:
    """The demo's result for machines; its keys never change."""
    return {
        "base_holdout": share(run.base_holdout),
        "live_holdout": share(run.live_holdout),
        "holdout_n": run.live_holdout.questions,
        "accepted": run.edits_accepted,
        "rejected": run.edits_rejected,
        "retention_before": share(run.retention_before),
        "retention_after": share(run.retention_after),
        "minutes": round(minutes, 2),
    }


def _count(score: pb.Score, correct: float, answer: str) -> None:
    score.questions += 1
    score.correct += correct
    score.empty += not answer.strip()
