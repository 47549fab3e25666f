"""How a question about a document is put to the student: the same in training examples and in evaluations."""

from __future__ import annotations

from common.types import Conversation, Example, LossMask, Role

# What the student puts before conversations that have no system message of their own, in training and answering alike.
# Short, so that an example is mostly question and answer.
SYSTEM_PROMPT = "Answer the question briefly."


def ask(topic: str, question: str) -> Conversation:
    """The question under its topic, without the document (SEAL.md: "Topic: {title}" and the question)."""
    return Conversation.of((Role.USER, f"Topic: {topic}\n{question}" if topic else question))


def question_and_answer(topic: str, question: str, answer: str, grounding: str = "") -> Example:
    """A training example in the form in which questions are asked; loss on the answer alone."""
    asked = ask(topic, question)
    return Example(
        conversation=Conversation(messages=(*asked.messages, *Conversation.of((Role.ASSISTANT, answer)).messages)),
        loss_mask=LossMask.COMPLETION,
        grounding=grounding,
    )
