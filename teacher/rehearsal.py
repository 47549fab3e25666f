"""Rehearsal: common-knowledge questions with the base model's own answers, mixed into every edit.

An update of a small model on one document moves its answers to everything else. Trained along on what it says already,
it keeps to that (replay, one of SEAL.md's known remedies for forgetting). The questions ship with the package, none of
them stands in an evaluation suite; the answers are the base model's, greedy, right or wrong: they preserve, they do not
teach. The writer is the caller; answers are drawn once and kept in the teacher's store.
"""

from __future__ import annotations

import asyncio
import re
from importlib.resources import files
from pathlib import Path

from pydantic import Field

from common.canonical import derive_seed, digest_of
from common.config import Config
from common.prompting import SYSTEM_PROMPT, question_and_answer
from common.types import Domain, Example, Sampling
from teacher.generator import BASE, Draw, Generator
from teacher.prompts import PromptRenderer
from teacher.store import read_record, write_record
from teacher.variants.base import PromptCall

BUILT_IN = "rehearsal_questions.txt"
SENTENCE = re.compile(r"(?<=[.!?])\s")


class RehearsalSettings(Config):
    """How much of what the model knows is trained along with an edit."""

    examples: int = Field(default=16, ge=0, le=256, description="in every edit; 0: none")
    per_asked: float = Field(
        default=1.0,
        ge=0,
        le=4,
        description="of an edit with questions made by rule: so many for each of these, where that is more",
    )
    questions: Path | None = Field(default=None, description="one question a line; left out: the built-in ones")
    system_prompt: str = Field(
        default=SYSTEM_PROMPT,
        max_length=8_192,
        description="as the student's, so that the answers are as it gives them",
    )
    answer_tokens: int = Field(default=28, ge=1, le=256, description="an answer that does not end within is left out")


class _Answered(Domain):
    """Questions with the base model's answers, as kept on disk."""

    pairs: tuple[tuple[str, str], ...]


class Rehearsal:
    """The base model's answers, and a sample of them for each edit."""

    def __init__(
        self,
        generator: Generator,
        renderer: PromptRenderer,
        *,
        model_digest: str,
        folder: Path,
        settings: RehearsalSettings,
    ) -> None:
        self._generator = generator
        self._renderer = renderer
        self._settings = settings
        self._questions = read_questions(settings.questions)
        name = digest_of([model_digest, self._questions, settings.answer_tokens, settings.system_prompt]).sha256
        self._file = folder / f"{name}.json"
        self._drawing = asyncio.Lock()

    async def examples(self, seed: int, asked: int = 0) -> list[Example]:
        """Examples for one edit, the same for the same seed. asked: the questions that it has by rule."""
        if not self._settings.examples:
            return []
        pairs = await self._pairs()
        ranked = sorted(pairs, key=lambda pair: derive_seed("rehearsal", seed, pair[0]))
        chosen = ranked[: max(self._settings.examples, round(self._settings.per_asked * asked))]
        return [question_and_answer("", question, answer) for question, answer in chosen]

    async def _pairs(self) -> tuple[tuple[str, str], ...]:
        async with self._drawing:
            known = read_record(self._file, _Answered)
            if known is None:
                known = _Answered(pairs=await self._draw())
                write_record(self._file, known)
            return known.pairs

    async def _draw(self) -> tuple[tuple[str, str], ...]:
        greedy = Sampling(max_new_tokens=self._settings.answer_tokens)
        draws = [Draw(self._renderer.render(self._asked(question)).token_ids, greedy) for question in self._questions]
        completions = await self._generator.generate(draws, BASE)
        answers = [_first_sentence(completion.text) for completion in completions]
        return tuple((q, a) for q, a in zip(self._questions, answers, strict=True) if a)

    def _asked(self, question: str) -> PromptCall:
        if self._renderer.style == "chat":
            return PromptCall(source="", user=question)
        return PromptCall(source="", text=f"Question: {question}\nAnswer:")


def _first_sentence(text: str) -> str:
    """Whole, or nothing: an answer cut off in the middle would teach to stop there."""
    first = SENTENCE.split(text.strip().partition("\n")[0])[0].strip()
    return first if first.endswith((".", "!", "?")) else ""


def read_questions(path: Path | None = None) -> list[str]:
    """One a line; of no file the built-in ones."""
    text = path.read_text() if path is not None else (files("teacher") / BUILT_IN).read_text()
    return [line.strip() for line in text.splitlines() if line.strip()]
