"""Items and submissions for the graders' tests."""

from __future__ import annotations

from typing import Any

from auditor.graders.config import CommandConfig, JudgeConfig
from auditor.graders.desk import Graders
from auditor.graders.port import Submission
from auditor.recorder import Recorder
from auditor.tasks import EvaluationItem
from common.canonical import digest_bytes


def item(
    kind: str, *answers: str, question: str = "What is it?", options: tuple[str, ...] = (), **grader: Any
) -> EvaluationItem:
    return EvaluationItem.model_validate(
        {
            "item_id": "q",
            "question": question,
            "answers": answers,
            "options": options,
            "grader": {"kind": f"GRADER_KIND_{kind}", **grader},
        }
    )


def submitted(answer: str, to: EvaluationItem) -> Submission:
    return Submission(to, answer, digest_bytes(answer.encode()).sha256)


def graders(
    own: Recorder, *, judges: dict[str, JudgeConfig] | None = None, commands: dict[str, CommandConfig] | None = None
) -> Graders:
    return Graders(own, judges or {}, commands or {})
