"""Choices asked through the real student: the same options win as with transformers alone, and a real model knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from auditor.clients import GrpcStudent
from auditor.config import Retries, Timeouts
from auditor.examiner import Examiner
from auditor.graders.desk import Graders
from auditor.journal import Journal
from auditor.ledger.store import Ledger
from auditor.measuring import Measuring
from auditor.papers import Group
from auditor.recorder import Recorder
from auditor.tasks import EvaluationItem, Split
from auditor.watch import Watchers
from common.lora.proof import Liveness
from common.models.config import ModelConfig
from common.models.resolve import resolve_model
from common.prompting import SYSTEM_PROMPT
from common.rpc.client import open_channel
from student.config import DEFAULT_MODEL
from tests.support.real_student import serving_student
from tests.support.tiny_model import make_tiny_model, tiny_config

QUESTIONS = {
    "What is the capital of France?": ("Paris", "Oslo", "Cairo", "Lima"),
    "Which animal barks?": ("A dog", "A cow", "A fish", "A bee"),
    "What colour is the sky on a clear day?": ("Blue", "Brown", "Pink", "Black"),
    "How many days has a week?": ("Seven", "Eleven", "Thirty", "Forty"),
    "What do bees make?": ("Honey", "Paper", "Steel", "Bread"),
    "What is frozen water called?": ("Ice", "Sand", "Smoke", "Gold"),
}
ITEMS = [
    EvaluationItem.model_validate(
        {
            "item_id": f"c{number}",
            "question": question,
            "options": options,
            "answers": options[:1],
            "grader": {"kind": "GRADER_KIND_CHOICE"},
        }
    )
    for number, (question, options) in enumerate(QUESTIONS.items())
]


async def examined(folder: Path, model: ModelConfig) -> dict[str, str]:
    """What the auditor has as the base's choice, by question."""
    recorder = Recorder(Ledger.open(f"sqlite:///{folder / 'ledger.db'}"), Watchers())
    group = Group(Split.RETENTION, tuple(ITEMS), suite_id="choices")
    try:
        async with serving_student(folder, model) as target:
            channel = open_channel(target)
            student = GrpcStudent(channel, Timeouts(), Retries())
            journal = await Journal.open(recorder, "run")
            graders = Graders(recorder, {}, {})
            measuring = Measuring(student, recorder, journal, {}, identity="real")
            examiner = Examiner(
                student, recorder, journal, graders, identity="real", max_answer_tokens=8, measuring=measuring
            )
            paper = (await examiner.examine(["base"], [group], lambda _: None))["base"]
            await channel.close()
        assert paper.liveness is Liveness.BASE
        marks = paper.result(group).marks
        texts = {mark.item_id: (recorder.ledger.payload(mark.answer) or b"").decode() for mark in marks}
        assert [mark.score for mark in marks] == [texts[item.item_id] == item.answers[0] for item in ITEMS]
        return {item.question: texts[item.item_id] for item in ITEMS}
    finally:
        recorder.close()
        recorder.ledger.close()


def by_transformers(config: ModelConfig) -> dict[str, str]:
    """The likeliest options, from transformers alone: one forward pass an option, log-probabilities summed."""
    folder = resolve_model(config.model, cache_dir=config.cache_dir)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    system = [{"role": "system", "content": config.system_prompt}] if config.system_prompt else []
    best = {}
    for question, options in QUESTIONS.items():
        turns = [*system, {"role": "user", "content": question}]
        text = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
        likelihoods = {}
        for option in options:
            said = tokenizer(option, add_special_tokens=False)["input_ids"]
            with torch.inference_mode():
                log_probs_TV = model(torch.tensor([prompt + said])).logits[0].log_softmax(dim=-1)
            likelihoods[option] = sum(float(log_probs_TV[len(prompt) - 1 + i, t]) for i, t in enumerate(said))
        best[question] = max(likelihoods, key=lambda option: likelihoods[option])
    return best


async def test_the_likeliest_option_is_the_one_that_transformers_finds(tmp_path: Path) -> None:
    tiny = tiny_config(make_tiny_model(tmp_path / "model"))
    assert await examined(tmp_path, tiny) == by_transformers(tiny)


@pytest.mark.model
@pytest.mark.timeout(900)
async def test_the_real_small_model_knows_what_dogs_do(tmp_path: Path) -> None:
    real = ModelConfig(model=DEFAULT_MODEL, threads=1, system_prompt=SYSTEM_PROMPT)
    found = await examined(tmp_path, real)
    assert found == by_transformers(real)
    assert sum(found[item.question] == item.answers[0] for item in ITEMS) >= 5
