"""What is ordered in the run: tasks, retention items and a suite whose every key and rule holds a canary.

`keys` stands in what only the auditor may have; `asked` in questions and options, which the student may be asked and
the teacher may never see; nothing of either in the context.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from auditor.keys import REFUSED, GraderKind
from tests.boundary.canary.canaries import Canaries
from tests.support.writing_model import TEXT, TITLE

OPTIONS = ("under the stairs", "behind the mill", "by the harbour", "in the attic")
RIGHT = {
    GraderKind.EXACT: "thirty days",
    GraderKind.CONTAINS: "an order",
    GraderKind.TOKEN_F1: "five dozen liquor jugs",
    GraderKind.REGEX: "[Tt]hirty",
    GraderKind.JUDGE: "liquor jugs",
    GraderKind.COMMAND: "jugs",
}
# What the auditor calls the two that it is configured with is a label of its metrics, and no rule.
JUDGE, COMMAND = "reader", "checker"
KINDS = tuple(kind for kind in GraderKind if kind not in REFUSED)
SETTINGS = {
    "rounds": 1,
    "candidates": 2,
    "seeds": 1,
    "promotion": "PROMOTION_MODE_SEQUENTIAL",
    "learn": True,
    "prompt_variants": ["implications", "none"],
    # What a tiny random model gains is not asked here: every edit goes all the way.
    "threshold": -1.0,
    "racing": False,
    "min_scale": 1.0,
    "max_answer_tokens": 4,
    "health": {"anchors": 2, "max_drift": 0, "max_degenerate": 1.0},
    "seed": 7,
}


class Evaluation:
    """Everything with a key in it, made once."""

    def __init__(self) -> None:
        self.keys = Canaries()
        self.asked = Canaries()

    def item(self, kind: GraderKind) -> dict[str, Any]:
        """One more accepted answer is a canary, and so is whatever the rule has room for."""
        question = f"What is said of {self.asked.word()}?"
        grader: dict[str, Any] = {"kind": str(kind), "name": self.keys.word()}
        made: dict[str, Any] = {"item_id": self.keys.word(), "question": question, "grader": grader}
        match kind:
            case GraderKind.CHOICE:
                # Its key is one of the options; the record of which one stands under the item's own name.
                options = [f"{option} of {self.asked.word()}" for option in OPTIONS]
                return {**made, "options": options, "answers": options[2:3]}
            case GraderKind.NUMERIC:
                grader["tolerance"] = self.keys.fraction()
                return {**made, "answers": ["30", self.keys.number()]}
            case GraderKind.TOKEN_F1:
                grader["threshold"] = self.keys.fraction()
            case GraderKind.JUDGE:
                grader["name"] = JUDGE
            case GraderKind.COMMAND:
                grader["name"] = COMMAND
            case _:
                pass
        return {**made, "answers": [RIGHT[kind], self.keys.word()]}

    def order(self, run_id: str) -> dict[str, Any]:
        """A StartRunRequest."""
        context = {"document_id": "plan", "revision": "1", "title": TITLE, "text": TEXT}
        task = {
            "task_id": "plan",
            "kind": "TASK_KIND_KNOWLEDGE",
            "context": context,
            "tau": [self.item(kind) for kind in KINDS],
            "retention": [self.item(kind) for kind in KINDS],
        }
        suite = {"suite_id": "own", "title": "Own", "items": [self.item(kind) for kind in KINDS]}
        retention = {"suites": ["own", "lm_eval:words"], "max_drop": 1.0}
        return {
            "run_id": run_id,
            "tasks": [task],
            "settings": {**SETTINGS, "retention": retention},
            "suites": [suite],
        }

    def auditor_settings(self, folder: Path, judge_url: str) -> dict[str, Any]:
        """Rules that stand in the auditor's own configuration; `folder` is the auditor's."""
        folder.mkdir(parents=True, exist_ok=True)
        (api_key := folder / "judge.key").write_text(self.keys.word())
        rules = {
            "rules": [{"name": "unsaid", "forbid": [self.keys.word()]}],
            "protected": [
                {
                    "name": "polite",
                    "questions": [f"What do you think of {self.asked.word()}?"],
                    "must_not_contain": [self.keys.word()],
                }
            ],
        }
        (written := folder / "rules.yaml").write_text(yaml.safe_dump(rules))
        judge = {"base_url": judge_url, "model": self.keys.word(), "api_key_file": str(api_key)}
        command = {
            "argv": ["grep", "-q", "-e", self.keys.word(), "answer.txt"],
            "environment": {"RULE": self.keys.word()},
            "sandbox": "limits",
            "network": True,
        }
        return {
            "judges": {JUDGE: judge},
            "commands": {COMMAND: command},
            "policy": {"rules": str(written), "forbidden": [self.keys.word()], "max_answer_tokens": 4},
            "lm_eval": {"tasks": {"words": {"include_path": str(self._harness(folder / "lm_eval"))}}},
        }

    def _harness(self, folder: Path) -> Path:
        """A task of lm-evaluation-harness whose every target is a canary."""
        folder.mkdir()
        lines = [json.dumps({"word": self.asked.word(), "target": self.keys.word()}) for _ in range(2)]
        (folder / "words.jsonl").write_text("\n".join(lines) + "\n")
        task = {
            "task": "words",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": "words.jsonl"}},
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "The opposite of {{word}} is",
            "doc_to_target": "target",
            "generation_kwargs": {"until": ["."], "max_gen_toks": 4},
            "metric_list": [{"metric": "exact_match"}],
            "metadata": {"version": 1.0},
        }
        (folder / "words.yaml").write_text(yaml.safe_dump(task))
        return folder
