"""What stands in an edit: pieces in their forms, the document where it belongs, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.types import Digest, Recipe, Sampling, SelfEdit, Software
from teacher.config import ProposerSettings
from teacher.forms import FormSettings
from teacher.generator import Completion, Draw
from teacher.pieces import Question, example_of
from teacher.prompts import PromptRenderer
from teacher.screening import ScreeningSettings
from teacher.variants import VARIANTS
from teacher.writer import Author, Writer, passage_examples
from tests.support.tiny_model import make_tiny_model
from tests.support.writing_model import LINES, TEXT, TITLE, context

SENTENCE = "The box holds five dozen liquor jugs."


@dataclass
class Says:
    """A generator that writes the same about everything."""

    text: str

    async def generate(self, draws: Sequence[Draw], version: str) -> list[Completion]:
        return [Completion(self.text, (1,), "stop") for _ in draws]

    async def start(self) -> None: ...
    async def load(self, version: str, folder: Path) -> None: ...
    async def unload(self, version: str) -> None: ...
    async def close(self) -> None: ...
    async def loaded(self) -> frozenset[str]:
        return frozenset()

    def software(self) -> Software:
        return Software()


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> PromptRenderer:
    return PromptRenderer.load(make_tiny_model(tmp_path_factory.mktemp("writer") / "model"), style="auto")


async def written(renderer: PromptRenderer, variant: str, text: str, **settings: object) -> SelfEdit:
    writer = Writer(
        Says(text),
        renderer,
        author=Author("says", Digest(sha256="0" * 64), "says", Software()),
        settings=ProposerSettings.model_validate(settings),
        screening=ScreeningSettings(),
    )
    made = await writer.write(
        context(),
        VARIANTS[variant],
        sampling=Sampling(max_new_tokens=9),
        recipe=Recipe(),
        policy_version="base",
        seed=0,
    )
    assert made.edit is not None
    return made.edit


PASSAGE = passage_examples(context(), 6_000)


async def test_statements_come_as_questions_and_also_plain_if_that_is_set(renderer: PromptRenderer) -> None:
    edit = await written(renderer, "implications", "\n".join(LINES), forms=FormSettings(plain=True))
    texts = [example.text for example in edit.examples if example.text is not None]
    assert texts == [f"{TITLE}\n{LINES[0]}", f"{TITLE}\n{LINES[1]}", f"{TITLE}\n{TEXT}"]
    asked = edit.examples[len(texts) :]
    assert asked
    assert all(example.conversation is not None and example.grounding in TEXT for example in asked)
    assert edit.recipe == Recipe(epochs=2), "so many examples need few epochs"
    alone = await written(renderer, "implications", "\n".join(LINES))
    assert alone.examples == asked, "in the place of plain text, the document's included"
    assert alone.recipe == Recipe(epochs=1), "so many wordings need one"


async def test_plain_statements_leave_the_recipe_to_others_and_settings_go_first(renderer: PromptRenderer) -> None:
    plain = await written(renderer, "implications", "\n".join(LINES), forms=FormSettings(asked=False))
    assert plain.recipe == Recipe()
    assert all(example.text is not None for example in plain.examples)
    asked = await written(renderer, "implications", "\n".join(LINES), recipe=Recipe(epochs=7))
    assert asked.recipe == Recipe(epochs=7)


async def test_written_questions_are_an_edit_without_others(renderer: PromptRenderer) -> None:
    pair = Question("What does the box hold?", "five dozen liquor jugs", TEXT)
    edit = await written(renderer, "self-qa", f"Question: {pair.question}\nAnswer: {pair.answer}")
    assert edit.examples == (example_of(pair, TITLE), *PASSAGE)
    by_sentence = await written(renderer, "self-qa-sentences", " How many jugs does the box hold?")
    assert by_sentence.examples == (
        example_of(Question("How many jugs does the box hold?", SENTENCE, SENTENCE), TITLE),
    )


async def test_the_bare_variant_is_the_document_alone(renderer: PromptRenderer) -> None:
    edit = await written(renderer, "none", "")
    assert list(edit.examples) == PASSAGE
