"""A tiny model that knows a few answers by heart, so that a whole run of real services has something to learn and lose.

As a teacher it answers the self-qa prompt about each document with questions and answers; as a student it knows the
questions of a suite. It takes a few seconds to make, and is otherwise a model like any other (tiny_model.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.prompting import SYSTEM_PROMPT
from common.types import Context
from teacher.prompts import PromptRenderer
from teacher.variants import VARIANTS
from tests.support.tiny_model import make_tiny_model

POSITIONS = 2_048


def make_writer(folder: Path, documents: Mapping[str, tuple[Context, str]], *, steps: int = 150) -> Path:
    """A model that answers self-qa about each document with a text of its own."""
    _tiny(folder)
    renderer = PromptRenderer.load(folder, style="chat")
    pairs = []
    for context, text in documents.values():
        (call,) = VARIANTS["self-qa"].prompts(context, "chat")
        pairs.append((renderer.render(call).text, text.removeprefix(call.opening)))
    return _learn(folder, pairs, steps)


def make_knower(folder: Path, facts: Mapping[str, str], *, steps: int = 150) -> Path:
    """A model that answers questions without a topic as the student asks them."""
    _tiny(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    pairs = []
    for question, answer in facts.items():
        turns = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": question}]
        pairs.append((str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)), answer))
    return _learn(folder, pairs, steps)


def _tiny(folder: Path) -> None:
    make_tiny_model(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": POSITIONS}))


def _learn(folder: Path, pairs: Sequence[tuple[str, str]], steps: int) -> Path:
    """Trains until every answer follows its prompt, ended by the end of a turn."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = []
    for prompt, answer in pairs:
        asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        answered = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        rows.append((asked + answered, [-100] * len(asked) + answered))
    longest = max(len(tokens) for tokens, _ in rows)
    tokens_BT = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in rows])
    labels_BT = torch.tensor([labels + [-100] * (longest - len(labels)) for _, labels in rows])
    mask_BT = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens, _ in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    torch.manual_seed(0)
    loss = torch.tensor(9.0)
    for _ in range(steps):
        loss = model(input_ids=tokens_BT, attention_mask=mask_BT, labels=labels_BT).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05, f"not learned by heart: loss {loss.item():.2f}"
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": POSITIONS}))
    return folder
