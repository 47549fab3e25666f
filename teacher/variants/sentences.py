"""Self-qa sentence by sentence: questions about one sentence at a time, each answered by that sentence.

A small model cannot write question-and-answer pairs about a whole passage: it repeats itself and invents. Asked about a
single sentence, with worked examples and several times over, it finds questions that the sentence answers; the sentence
itself is then the answer, so nothing can be invented there. What a question may teach is decided by screening alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.types import Context, Recipe, Sampling, Schedule
from teacher.generator import Completion
from teacher.parsing import sentences
from teacher.pieces import Candidate, Question
from teacher.question_screen import screen_questions
from teacher.screening import Screened, ScreeningSettings
from teacher.variants.base import PromptCall, Style, document

# A fact and what is asked about it, in plain text for every kind of model: a small instruction-tuned model follows
# examples better than instructions, and names the document's subject less well than the asking template does.
WORKED_EXAMPLES = """Fact: Breakfast is served in the Garden Room from 7 to 10.
Question: Where is breakfast served?
Question: At what time can guests have breakfast?
Question: Which meal is served in the Garden Room?

Fact: In 2019 the library bought 340 new books for children.
Question: How many books for children did the library buy?
Question: In which year did the library buy the new books?
Question: Who were the new books for?

Fact: The fault was found by an engineer, Ruth Albrecht, who tested the cooling pump.
Question: Who found the fault?
Question: What was the engineer testing when the fault was found?
Question: What is the job of Ruth Albrecht?

Fact: Staff must not wear rings, except for plain bands.
Question: What are staff not allowed to wear?
Question: Which rings are allowed?
Question: Who must not wear rings?

"""
STOP = ("\n\n", "Fact:")
FEWEST_WORDS = 3
MOST_EPOCHS = 20


@dataclass(frozen=True)
class SentenceVariant:
    """Draws `samples` lists of questions for each sentence and keeps the best `questions` of them."""

    name: str = "self-qa-sentences"
    rationale: str = (
        "Questions about each sentence of the document, answered by that sentence: the document's facts in the form in "
        "which they are asked for later, with nothing in the answers that the document does not say."
    )
    samples: int = 4
    questions: int = 2
    temperature: float = 0.7
    top_p: float = 0.95
    new_tokens: int = 48
    # Its answers are the document's sentences: the document as one more example adds nothing.
    with_passage: bool = False
    # Tokens trained on over all epochs, by which their number is chosen: enough to learn some twenty pairs by heart.
    token_epochs: int = 4_300

    def prompts(self, context: Context, style: Style) -> Sequence[PromptCall]:
        return [
            PromptCall(
                source=sentence,
                text=f"{WORKED_EXAMPLES}Fact: {sentence}\nQuestion:",
                opening="Question:",
                stop=STOP,
                limit=self.new_tokens,
            )
            for sentence in facts(context)
            for _ in range(self.samples)
        ]

    def parse(self, call: PromptCall, completion: Completion) -> Sequence[Candidate]:
        text = call.opening + completion.text
        return [Question(question, call.source, call.source) for question in asked(text, completion.finish == "stop")]

    def screen(self, candidates: Sequence[Candidate], context: Context, settings: ScreeningSettings) -> Screened:
        return screen_questions(candidates, context.title, facts(context), settings, best=self.questions)

    def sampling(self, default: Sampling) -> Sampling:
        """Lower than for whole passages, where variety matters more than form."""
        return default.model_copy(
            update={"temperature": min(default.temperature, self.temperature), "top_p": min(default.top_p, self.top_p)}
        )

    def recipe(self, tokens: int) -> Recipe:
        """Measured with a model of 135 million parameters; settings and requests override it field by field."""
        return Recipe(
            rank=32,
            alpha=64,
            dropout=0.0,
            learning_rate=1e-3,
            epochs=max(1, min(MOST_EPOCHS, round(self.token_epochs / max(1, tokens)))),
            batch_size=4,
            schedule=Schedule.LINEAR,
            warmup_steps=0,
            max_grad_norm=1.0,
            weight_decay=0.0,
        )


SELF_QA_SENTENCES = SentenceVariant()


def facts(context: Context) -> list[str]:
    """The sentences of a document that are long enough to state something."""
    return [sentence for sentence in sentences(document(context)) if len(sentence.split()) >= FEWEST_WORDS]


def asked(text: str, finished: bool) -> list[str]:
    """The questions of "Question: ...?" lines; an unfinished last line is left out."""
    lines = text.split("\n") if finished else text.split("\n")[:-1]
    questions = [line.partition(":")[2].strip() for line in lines if line.startswith("Question:")]
    return [question for question in questions if question.endswith("?")]
