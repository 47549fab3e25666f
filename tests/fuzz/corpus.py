"""Valid requests, one set an RPC: what spoilt requests are made from, and what keeps the stores filled meanwhile."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from common.contract.seal.v1 import student_pb2, types_pb2
from common.convert import to_proto
from common.edits import make_edit
from common.prompting import question_and_answer
from common.types import Recipe, TaskKind
from tests.fuzz.messages import REQUEST_IDS, RUN_IDS

TEXT = "Customers may return an order within thirty days. The refund is paid within a week of the return."
USER = {"role": "ROLE_USER", "content": [{"text": "What is the refund period?"}]}
SAID = {"role": "ROLE_ASSISTANT", "content": [{"text": "Thirty days."}]}


class Corpus:
    """Draws valid requests; ids are new or used before, names of versions and edits are those that answers told."""

    def __init__(self, draw: random.Random, names: deque[str]) -> None:
        self._draw = draw
        self._names = names

    def request(self, rpc: str, message: type[Message]) -> Message:
        """A request that breaks no limit; whether it can be carried out depends on what is stored by now."""
        said: Any = getattr(self, f"_{rpc}", dict)()
        return ParseDict(said, message()) if isinstance(said, dict) else said

    def _id(self) -> str:
        return self._draw.choice((self._draw.choice(REQUEST_IDS), f"new-{self._draw.getrandbits(48):x}"))

    def _version(self) -> str:
        return self._draw.choice(("base", "live", "previous", self._name()))

    def _name(self) -> str:
        return self._draw.choice(self._names) if self._names else "0" * 64

    def _prompts(self) -> list[dict[str, Any]]:
        turns = [[USER], [USER, SAID, USER]][self._draw.randrange(2)]
        return [{"prompt_id": f"q{i}", "conversation": {"messages": turns}} for i in range(self._draw.randint(1, 3))]

    # The teacher's.
    def _ProposeEdits(self) -> dict[str, Any]:
        context = {"document_id": "plan", "revision": "1", "title": "The plan", "text": TEXT}
        return {
            "request_id": self._id(),
            "kind": "TASK_KIND_KNOWLEDGE",
            "context": context,
            "count": self._draw.randint(1, 3),
            "seed": self._draw.randrange(4),
        }

    def _Learn(self) -> dict[str, Any]:
        kept = [{"edit": {"sha256": self._name()}, "reward": 0.5}]
        return {"request_id": self._id(), "kept": kept, "activate": self._draw.random() < 0.5}

    def _SetPolicy(self) -> dict[str, Any]:
        version = self._draw.choice(("base", self._name()))
        return {"request_id": self._id(), "policy_version": version, "expected_generation": self._draw.randrange(3)}

    # The student's.
    def _Train(self) -> Message:
        edit = make_edit(
            kind=TaskKind.KNOWLEDGE,
            document_id="plan",
            revision="1",
            examples=[question_and_answer("The plan", "What is the refund period?", "Thirty days.")],
            recipe=Recipe(rank=4, target_modules=("q_proj",)),
        )
        return student_pb2.TrainRequest(
            request_id=self._id(),
            parent_version=self._version(),
            alone=self._draw.random() < 0.5,
            candidates=[
                student_pb2.TrainCandidate(
                    candidate_id=f"c{i}",
                    edit=to_proto(types_pb2.SelfEdit, edit),
                    seed=self._draw.randrange(8),
                    scale=self._draw.choice((0.0, 0.5, 1.0)),
                )
                for i in range(self._draw.randint(1, 3))
            ],
        )

    def _Answer(self) -> dict[str, Any]:
        live = self._draw.random() < 0.3
        return {
            "request_id": self._id(),
            "purpose": "ANSWER_PURPOSE_LIVE" if live else "ANSWER_PURPOSE_AUDIT",
            "prompts": self._prompts(),
            "versions": ["live"] if live else [self._version()],
            "sampling": {"max_new_tokens": 8},
            "fallback_to_parent": self._draw.random() < 0.5,
        }

    def _LogLikelihood(self) -> dict[str, Any]:
        continuation = {"continuation_id": "c", "conversation": {"messages": [USER]}, "options": ["yes", "no"]}
        raw = {"continuation_id": "r", "conversation": {"raw": "Thirty"}, "options": [" days"]}
        return {
            "request_id": self._id(),
            "versions": [self._version()],
            "continuations": [continuation, raw],
            "kl_prompts": self._prompts(),
        }

    def _SetAlias(self) -> dict[str, Any]:
        return {
            "request_id": self._id(),
            "name": self._draw.choice(("live", "shadow", "previous")),
            "version": self._draw.choice(("base", self._name())),
            "expected_generation": self._draw.randrange(4),
        }

    def _VerifyVersion(self) -> dict[str, Any]:
        return {"version": self._version()}

    def _Discard(self) -> dict[str, Any]:
        return {"version": self._version()}

    # The auditor's.
    def _StartRun(self) -> dict[str, Any]:
        """Two rounds of little work; the driver cancels what it starts."""
        name = self._draw.choice(("a", "b"))
        questions = [
            {"item_id": f"q{i}", "question": f"{name} question {i}?", "answers": [f"{name}{i}"]} for i in range(4)
        ]
        choice = {
            "item_id": "choice",
            "question": "Which?",
            "options": ["one", "two"],
            "answers": ["two"],
            "grader": {"kind": "GRADER_KIND_CHOICE"},
        }
        pattern = {
            "item_id": "re",
            "question": "What?",
            "answers": ["^a.c$"],
            "grader": {"kind": "GRADER_KIND_REGEX"},
        }
        context = {"document_id": f"doc-{name}", "revision": "1", "title": f"About {name}", "text": f"All of {name}."}
        return {
            "run_id": self._draw.choice((self._draw.choice(RUN_IDS), f"new-{self._draw.getrandbits(48):x}")),
            "tasks": [{"task_id": name, "kind": "TASK_KIND_KNOWLEDGE", "context": context, "tau": questions}],
            "settings": {"rounds": 2, "candidates": 2, "seeds": 1, "health": {"anchors": 2}, "seed": 7},
            "suites": [{"suite_id": "known", "title": "Known", "items": [choice, pattern]}],
        }

    def _WatchRun(self) -> dict[str, Any]:
        return {"run_id": self._draw.choice(RUN_IDS), "after_seq": self._draw.choice((0, 0, 3, 1_000))}

    def _GetRun(self) -> dict[str, Any]:
        return {"run_id": self._draw.choice(RUN_IDS)}

    _CancelRun = _GetRun

    def _ListEdits(self) -> dict[str, Any]:
        return {"page_size": self._draw.choice((0, 3)), "run_id": self._draw.choice(("", *RUN_IDS[:3]))}

    def _GetEdit(self) -> dict[str, Any]:
        return {"edit": self._name()[: self._draw.choice((6, 64))]}

    def _Ask(self) -> dict[str, Any]:
        return {"version": self._draw.choice(("", "base", "live")), "topic": "The plan", "question": "Who?"}

    def _ApproveEdit(self) -> dict[str, Any]:
        return {"request_id": self._id(), "edit": self._name(), "reason": "It is right."}

    _RejectEdit = _ApproveEdit

    def _Promote(self) -> dict[str, Any]:
        return {"request_id": self._id(), "version": self._version(), "reason": "It holds up."}

    _Rollback = _Promote
