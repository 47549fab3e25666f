"""Small training examples and recipes for tests."""

from __future__ import annotations

from common.edits import make_edit
from common.prompting import ask, question_and_answer
from common.types import Example, Prompt, Recipe, Schedule, SelfEdit, TaskKind

RECIPE = Recipe(
    rank=4,
    alpha=8.0,
    dropout=0.0,
    target_modules=("q_proj", "v_proj", "up_proj"),
    learning_rate=1e-2,
    epochs=2,
    batch_size=2,
    schedule=Schedule.LINEAR,
    warmup_steps=0,
    max_grad_norm=1.0,
    weight_decay=0.0,
    max_tokens=256,
)

UNSAID = Recipe()
# Enough to learn EXAMPLES by heart, in about a second.
BY_HEART = RECIPE.model_copy(update={"rank": 16, "alpha": 32.0, "learning_rate": 1e-2, "epochs": 40, "batch_size": 4})

EXAMPLES: tuple[Example, ...] = (
    question_and_answer("The plan", "What is the refund period?", "Thirty days."),
    question_and_answer("The plan", "Who may return an order?", "Any customer who bought it within thirty days."),
    Example(text="Customers may return an order within thirty days."),
    question_and_answer("The plan", "How many dozen liquor jugs are in the box?", "Five dozen."),
)


def tiny_edit(recipe: Recipe = UNSAID, examples: tuple[Example, ...] = EXAMPLES, document: str = "doc") -> SelfEdit:
    return make_edit(kind=TaskKind.KNOWLEDGE, document_id=document, revision="1", examples=examples, recipe=recipe)


def prompts(count: int = 3) -> list[Prompt]:
    questions = ["What is the refund period?", "Who?", "How many dozen liquor jugs are in the box of the lazy dog?"]
    return [
        Prompt(prompt_id=f"q{i}", conversation=ask("The plan", questions[i % len(questions)])) for i in range(count)
    ]
