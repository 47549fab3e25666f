"""What each variant asks, and what it makes of the answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from common.errors import InvalidConfig
from common.types import Context, LossMask, Sampling
from teacher.generator import Completion
from teacher.pieces import Question, Statement, example_of
from teacher.prompts import PromptRenderer
from teacher.screening import ScreeningSettings
from teacher.variants import VARIANTS
from teacher.variants.base import PromptCall
from tests.support.tiny_model import make_tiny_model
from tests.support.writing_model import TEXT, TITLE, context

WHOLE = ("implications", "implications-long", "implications-very-long", "rewrite", "self-qa")


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> PromptRenderer:
    folder = make_tiny_model(tmp_path_factory.mktemp("variants") / "model")
    return PromptRenderer.load(folder, style="auto")


def finished(text: str) -> Completion:
    return Completion(text, (1,), "stop")


@pytest.mark.parametrize("name", WHOLE)
def test_an_instruction_tuned_model_is_asked_through_its_chat_template(name: str, renderer: PromptRenderer) -> None:
    assert renderer.style == "chat"
    (call,) = VARIANTS[name].prompts(context(), "chat")
    rendered = renderer.render(call)
    assert rendered.text.startswith("<|im_start|>system\n")
    assert rendered.text.endswith("<|im_start|>assistant\n")
    assert TITLE in rendered.text
    assert TEXT in rendered.text


@pytest.mark.parametrize("name", WHOLE)
def test_a_base_model_gets_plain_text_to_continue(name: str, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_tiny_model(tmp_path / "model"))
    tokenizer.chat_template = None
    renderer = PromptRenderer(tokenizer, style="auto")
    assert renderer.style == "plain"
    (call,) = VARIANTS[name].prompts(context(), "plain")
    rendered = renderer.render(call)
    assert rendered.text == call.text
    assert "<|im_start|>" not in rendered.text
    assert call.stop
    with pytest.raises(InvalidConfig, match="chat template"):
        PromptRenderer(tokenizer, style="chat")


def test_the_token_ids_are_those_of_the_text(renderer: PromptRenderer, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(make_tiny_model(tmp_path / "model"))
    rendered = renderer.render(PromptCall(source="s", user="Who?", opening="Question:"))
    assert rendered.text.endswith("assistant\nQuestion:")
    assert tokenizer.decode(rendered.token_ids) == rendered.text


def test_the_prompts_of_all_variants_differ() -> None:
    prompts = [VARIANTS[name].prompts(context(), "chat")[0].user for name in WHOLE]
    assert len(set(prompts)) == len(prompts)


def test_a_long_document_is_asked_about_piece_by_piece() -> None:
    long = context("A sentence about liquor jugs. " * 600)
    calls = VARIANTS["rewrite"].prompts(long, "chat")
    assert len(calls) > 1
    assert sum(len(call.source) for call in calls) > 17_000


def test_completions_become_statements_or_pairs() -> None:
    (call,) = VARIANTS["implications"].prompts(context(), "chat")
    assert VARIANTS["implications"].parse(call, finished("1. One line.\n2. Another.")) == [
        Statement("One line.", TEXT),
        Statement("Another.", TEXT),
    ]
    assert VARIANTS["rewrite"].parse(call, finished("First.\nMore.\n---\nSecond.")) == [
        Statement("First.\nMore.", TEXT),
        Statement("Second.", TEXT),
    ]
    assert VARIANTS["self-qa"].parse(call, finished("Question: Who?\nAnswer: Ann")) == [Question("Who?", "Ann", TEXT)]
    (plain,) = VARIANTS["self-qa"].prompts(context(), "plain")
    assert VARIANTS["self-qa"].parse(plain, finished(" Who?\nAnswer: Ann")) == [Question("Who?", "Ann", TEXT)]


def test_the_bare_variant_asks_nothing() -> None:
    assert VARIANTS["none"].prompts(context(), "chat") == []


def test_examples_carry_the_title_their_mask_and_their_grounding() -> None:
    document = example_of(Statement("The box is full.", TEXT), TITLE)
    assert (document.text, document.loss_mask) == (f"{TITLE}\nThe box is full.", LossMask.ALL)
    assert document.grounding == TEXT
    pair = example_of(Question("What is in the box?", "jugs", "The box holds jugs."), TITLE)
    assert pair.loss_mask is LossMask.COMPLETION
    assert pair.conversation is not None
    assert [message.text for message in pair.conversation.messages] == [
        f"Topic: {TITLE}\nWhat is in the box?",
        "jugs",
    ]


LIBRARY = Context(
    document_id="library",
    title="Harlow Library annual report",
    text=(
        "In 2019 the library bought 340 new books for children. Ruth Albrecht leads the reading club on Mondays. "
        "The roof was repaired by a firm from Leiden."
    ),
)


def test_sentences_are_asked_about_one_by_one_and_answer_for_themselves() -> None:
    variant = VARIANTS["self-qa-sentences"]
    calls = variant.prompts(LIBRARY, "chat")
    assert len({call.source for call in calls}) == 3
    assert all(call.source in (call.text or call.user) for call in calls)
    (piece,) = variant.parse(calls[-1], finished(" Which firm repaired the roof?\nQuestion: And why"))
    assert piece == Question("Which firm repaired the roof?", calls[-1].source, calls[-1].source)
    cut = Completion(" Which firm repaired the roof?", (1,), "length")
    assert variant.parse(calls[-1], cut) == []
    assert variant.sampling(Sampling(temperature=1.0)).temperature < 1.0
    assert not variant.with_passage
    few, many = variant.recipe(100), variant.recipe(2_150)
    assert (few.epochs, many.epochs) == (20, 2)
    assert many.learning_rate == pytest.approx(1e-3)


def test_each_sentence_keeps_its_best_questions_and_the_rest_is_counted() -> None:
    books, club, roof = (call.source for call in VARIANTS["self-qa-sentences"].prompts(LIBRARY, "chat")[::4])
    written = [
        Question("How many new books did the library buy for children?", books, books),
        Question("How many new books did the library buy for the children?", books, books),
        Question("Who leads the reading club?", books, books),
        Question("Who wrote the annual report?", club, club),
        Question("Who leads the reading club on Tuesdays with Peter Stone?", club, club),
        Question("Who leads the reading club?", club, club),
        Question("What was repaired by a firm in 2021?", roof, roof),
        Question("Who repaired the roof?", roof, roof),
        Question("Which weather makes a roof leak in spring storms?", roof, roof),
    ]
    screened = VARIANTS["self-qa-sentences"].screen(written, LIBRARY, ScreeningSettings())
    assert screened.kept == (written[0], written[5], written[7])
    assert sum(screened.dropped.values()) == 6
    assert screened.dropped["near_duplicate"] == 1
    assert screened.dropped["about_another_sentence"] == 1
    assert screened.dropped["question_without_subject"] == 1
    assert screened.dropped["number_not_in_context"] == 1
