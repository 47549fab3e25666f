"""The small backend: its text is what its tokens say, it stops where it is told, and the same draw is the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from common.errors import NotFound, NotPossible
from common.types import Sampling
from teacher.backends.settings import TransformersSettings
from teacher.backends.transformers_backend import TransformersGenerator
from teacher.generator import BASE, Draw, PromptTooLong
from teacher.prompts import PromptRenderer
from teacher.variants import VARIANTS
from tests.support.tiny_model import tiny_config
from tests.support.writing_model import LINES, context


@pytest.fixture
async def generator(writing_model: Path) -> AsyncIterator[TransformersGenerator]:
    generator = TransformersGenerator(tiny_config(writing_model), TransformersSettings(batch_size=3))
    await generator.start()
    yield generator
    await generator.close()


@pytest.fixture
def prompt(writing_model: Path) -> tuple[int, ...]:
    (call,) = VARIANTS["implications"].prompts(context(), "chat")
    return PromptRenderer.load(writing_model, style="chat").render(call).token_ids


def draw(prompt: tuple[int, ...], **sampling: object) -> Draw:
    return Draw(prompt, Sampling.model_validate({"max_new_tokens": 160, **sampling}))


async def test_a_learned_answer_ends_with_its_end_of_turn(
    generator: TransformersGenerator, prompt: tuple[int, ...], writing_model: Path
) -> None:
    (completion,) = await generator.generate([draw(prompt)], BASE)
    tokenizer = AutoTokenizer.from_pretrained(writing_model)
    assert completion.text == "\n".join(LINES)
    assert completion.finish == "stop"
    assert completion.token_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(completion.token_ids[:-1]) == completion.text


async def test_it_stops_at_the_first_stop_string(generator: TransformersGenerator, prompt: tuple[int, ...]) -> None:
    whole, cut, short = await generator.generate(
        [draw(prompt), draw(prompt, stop=["jugs"]), draw(prompt, max_new_tokens=5)], BASE
    )
    assert cut.text == whole.text[: whole.text.index("jugs")]
    assert cut.finish == "stop"
    assert cut.token_ids == whole.token_ids[: len(cut.token_ids)]
    assert (short.finish, short.token_ids) == ("length", whole.token_ids[:5])


async def test_the_same_draws_are_the_same_and_each_keeps_its_place(
    generator: TransformersGenerator, prompt: tuple[int, ...]
) -> None:
    draws = [draw(prompt[: 20 + 7 * i], temperature=1.5, seed=i, max_new_tokens=8 + i % 2) for i in range(7)]
    once = await generator.generate(draws, BASE)
    assert await generator.generate(draws, BASE) == once
    other = [Draw(d.prompt_ids, d.sampling.model_copy(update={"seed": 99 + i})) for i, d in enumerate(draws)]
    assert await generator.generate(other, BASE) != once
    assert [len(completion.token_ids) <= 8 + i % 2 for i, completion in enumerate(once)] == [True] * 7


async def test_what_cannot_be_written_is_refused(generator: TransformersGenerator, prompt: tuple[int, ...]) -> None:
    with pytest.raises(PromptTooLong):
        await generator.generate([draw(prompt * 10)], BASE)
    with pytest.raises(NotPossible, match="not loaded"):
        await generator.generate([draw(prompt)], "1" * 64)
    with pytest.raises(NotFound):
        await generator.unload("1" * 64)
