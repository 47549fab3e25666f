"""Rehearsal: what the base model says already, trained along, and never a question that somebody is graded on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from common.types import Software
from teacher.generator import BASE, Completion, Draw
from teacher.prompts import PromptRenderer
from teacher.rehearsal import Rehearsal, RehearsalSettings, read_questions
from tests.support.tiny_model import make_tiny_model

LITTLE = ("which", "what", "where", "does", "many", "much")
ROOT = Path(__file__).resolve().parents[2]
COMPLETIONS = ("Two. It is even.", "It is cut off in the mid", "Blue!\nNext question")


class Speaker:
    """A generator that says COMPLETIONS in turn, and counts how often it is asked."""

    def __init__(self) -> None:
        self.calls = 0

    async def generate(self, draws: Sequence[Draw], version: str) -> list[Completion]:
        assert version == BASE
        assert all(draw.sampling.temperature == 0 for draw in draws)
        self.calls += 1
        return [Completion(COMPLETIONS[i % 3], (1,), "stop") for i in range(len(draws))]

    async def start(self) -> None: ...

    async def load(self, version: str, folder: Path) -> None: ...

    async def unload(self, version: str) -> None: ...

    async def loaded(self) -> frozenset[str]:
        return frozenset()

    def software(self) -> Software:
        return Software()

    async def close(self) -> None: ...


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> PromptRenderer:
    return PromptRenderer.load(make_tiny_model(tmp_path_factory.mktemp("model") / "tiny"), style="chat")


def rehearsal(speaker: Speaker, renderer: PromptRenderer, folder: Path, examples: int, questions: int = 9) -> Rehearsal:
    file = folder / "questions.txt"
    file.write_text("".join(f"Question {number}?\n" for number in range(questions)))
    settings = RehearsalSettings(examples=examples, questions=file)
    return Rehearsal(speaker, renderer, model_digest="0" * 64, folder=folder / "kept", settings=settings)


async def test_answers_are_whole_sentences_or_left_out(renderer: PromptRenderer, tmp_path: Path) -> None:
    examples = await rehearsal(Speaker(), renderer, tmp_path, examples=9).examples(seed=1)
    said = [example.conversation.messages[-1].text for example in examples if example.conversation]
    assert sorted(said) == ["Blue!"] * 3 + ["Two."] * 3
    asked = [example.conversation.messages[0].text for example in examples if example.conversation]
    assert all(question.startswith("Question") for question in asked), "no topic: they belong to no document"


async def test_base_is_asked_once_also_over_restarts(renderer: PromptRenderer, tmp_path: Path) -> None:
    first, second = Speaker(), Speaker()
    once = rehearsal(first, renderer, tmp_path, examples=4)
    assert await once.examples(seed=1) == await once.examples(seed=1)
    assert await rehearsal(second, renderer, tmp_path, examples=4).examples(seed=1) == await once.examples(seed=1)
    assert (first.calls, second.calls) == (1, 0)


async def test_edits_get_different_samples(renderer: PromptRenderer, tmp_path: Path) -> None:
    source = rehearsal(Speaker(), renderer, tmp_path, examples=4, questions=60)
    assert await source.examples(seed=1) != await source.examples(seed=2)


async def test_none_are_drawn_when_switched_off(renderer: PromptRenderer, tmp_path: Path) -> None:
    speaker = Speaker()
    assert await rehearsal(speaker, renderer, tmp_path, examples=0).examples(seed=1) == []
    assert speaker.calls == 0


async def test_an_edit_with_many_questions_by_rule_rehearses_as_many_unless_switched_off(
    renderer: PromptRenderer, tmp_path: Path
) -> None:
    source = rehearsal(Speaker(), renderer, tmp_path, examples=2, questions=60)
    assert [len(await source.examples(seed=1, asked=asked)) for asked in (0, 1, 20, 900)] == [2, 2, 20, 40]
    off = rehearsal(Speaker(), renderer, tmp_path, examples=0, questions=60)
    assert await off.examples(seed=1, asked=20) == []


def test_no_rehearsed_question_is_graded_in_these_words_or_in_nearly_the_same() -> None:
    rehearsed = read_questions()
    suite = yaml.safe_load((ROOT / "auditor" / "suites" / "general.yaml").read_text())
    graded = [item["question"] for item in suite["items"]]
    assert len(rehearsed) >= 120
    assert len({question.lower() for question in rehearsed}) == len(rehearsed)
    named = Counter(stem for question in (*rehearsed, *graded) for stem in stems(question))
    for one in rehearsed:
        for other in graded:
            shared = stems(one) & stems(other)
            assert len(shared) < 2 or all(named[stem] > 2 for stem in shared), (one, other)


def stems(question: str) -> set[str]:
    """Of its telling words; what no third question names is what two of them are about."""
    words = re.findall(r"\w+", question.lower())
    return {word.removesuffix("s")[:5] for word in words if len(word) > 3 and word not in LITTLE}
