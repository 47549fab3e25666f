"""The arm `reference`: passages learned one after another by the published procedure, merged after each (SEAL.md).

No gate, no replay, no second try. A finished edit is a file with its answers and one with its factors; an interrupted
sequence merges these again, in order, and goes on as if nothing had happened. benchmarks/retention.py is the caller.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from benchmarks.edit_forms import reference_documents
from benchmarks.forgetting import EditSequence
from benchmarks.passages import Passage, RecordedEdits
from benchmarks.questioning import ANSWER_TOKENS, Answers, answer_greedily, by_passage, prompts_of
from benchmarks.reference import PUBLISHED, merge, tokens_trained, train_edit
from benchmarks.steps import Steps
from common.canonical import derive_seed, digest_of
from common.lora.render import Renderer
from common.models.config import ModelConfig
from common.models.loading import BaseModel, load_model
from common.models.resolve import resolve_model
from common.prompting import SYSTEM_PROMPT
from common.types import Domain

ARM = "reference"


class Edited(Domain):
    """One finished edit, or the unedited start. tokens, seconds: of its training."""

    answers: Answers
    tokens: int = 0
    seconds: float = 0.0
    last_loss: float = 0.0


class ReferenceArm:
    """Sequences of one choice of passages. Loads the model when something is left to do."""

    speed = 73.0

    def __init__(self, folder: Path, edits: Mapping[str, RecordedEdits], *, model: str, seed: int) -> None:
        self._folder = folder
        self._edits = edits
        self._model = model
        self._seed = seed

    def tokens(self, passages: Sequence[Passage], order: int) -> int:
        """Tokens that a sequence computes in training."""
        tokenizer = tokenizer_of(self._model)
        return sum(tokens_trained(_tokens(tokenizer, self.documents(p, order))) for p in passages)

    def documents(self, passage: Passage, order: int) -> list[str]:
        """The edit of a passage: in each order the next of its recorded completions."""
        completions = self._edits[passage.context].completions
        return reference_documents(completions[order % len(completions)], passage.title, passage.context)

    def run(self, passages: Sequence[Passage], order: int) -> EditSequence:
        """One sequence, from wherever it stands on disk to its end."""
        settings = {
            "procedure": asdict(PUBLISHED),
            "model": self._model,
            "seed": self._seed,
            "answer_tokens": ANSWER_TOKENS,
            "edits": [digest_of(self.documents(passage, order)).sha256 for passage in passages],
            "questions": [digest_of(passage).sha256 for passage in passages],
        }
        steps = Steps(self._folder / f"order-{order + 1}", settings)
        rows = self._finished(steps, len(passages))
        if len(rows) <= len(passages):
            self._go_on(steps, passages, order, rows)
        return EditSequence(
            arm=ARM,
            order=order,
            passages=tuple(passage.key for passage in passages),
            titles=tuple(passage.title for passage in passages),
            questions=tuple(len(passage.questions) for passage in passages),
            accepted=(True,) * len(passages),
            rows=tuple(row.answers.shares(passages) for row in rows),
            empty=tuple(row.answers.empty for row in rows),
            seconds=sum(row.seconds for row in rows),
        )

    def _go_on(self, steps: Steps, passages: Sequence[Passage], order: int, rows: list[Edited]) -> None:
        base = self._load()
        model, renderer, pad = base.model, Renderer(base), int(base.tokenizer.eos_token_id)

        def asked() -> Answers:
            return by_passage(passages, answer_greedily(model, renderer, prompts_of(passages), pad=pad))

        for number in range(1, len(rows)):
            merge(model, load_file(steps.folder / f"edit-{number}.safetensors"))
        if not rows:
            rows.append(steps.once("edit-0", Edited, lambda: Edited(answers=asked())))
        for number in range(len(rows), len(passages) + 1):
            passage = passages[number - 1]
            documents = _tokens(base.tokenizer, self.documents(passage, order))
            print(
                f"reference, order {order + 1}, edit {number} ({passage.title}): {len(documents)} documents", flush=True
            )
            started, losses = time.monotonic(), [0.0]
            factors = train_edit(
                model,
                documents,
                pad=pad,
                seed=derive_seed("reference", self._seed, order, passage.key),
                report=lambda step, steps, loss, losses=losses: losses.append(loss),  # type: ignore[misc]
            )
            seconds = time.monotonic() - started
            save_file(factors, steps.folder / f"edit-{number}.safetensors")
            merge(model, factors)
            last = losses[-len(documents) :]
            made = Edited(
                answers=asked(),
                tokens=tokens_trained(documents),
                seconds=round(seconds, 1),
                last_loss=round(sum(last) / len(last), 4),
            )
            steps.keep(f"edit-{number}", made)
            rows.append(made)
            own = made.answers.shares(passages)
            print(f"  {made.tokens} tokens, {seconds:.0f} s; right {own[number - 1]:.0%} of its own questions, "
                  f"{sum(own) / len(own):.0%} of all; {made.answers.empty} answers empty", flush=True)  # fmt: skip

    def _finished(self, steps: Steps, passages: int) -> list[Edited]:
        rows: list[Edited] = []
        for number in range(passages + 1):
            found = steps.done(f"edit-{number}", Edited)
            if found is None:
                break
            rows.append(found)
        return rows

    def _load(self) -> BaseModel:
        """Afresh: merging changes the weights."""
        return load_model(ModelConfig(model=self._model, system_prompt=SYSTEM_PROMPT))


def tokenizer_of(model: str, *, revision: str | None = None, cache_dir: Path | None = None) -> Any:
    """The tokenizer alone, for counting."""
    folder = resolve_model(model, revision=revision, cache_dir=cache_dir)
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _tokens(tokenizer: Any, documents: Sequence[str]) -> list[list[int]]:
    return [list(tokenizer(document)["input_ids"]) for document in documents]
