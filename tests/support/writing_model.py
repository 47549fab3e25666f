"""A tiny real model that has learned to answer one variant's prompt: what a teacher in tests writes with."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.types import Context
from teacher.prompts import PromptRenderer
from teacher.variants import VARIANTS
from tests.support.tiny_model import make_tiny_model

TITLE = "The lazy plan"
TEXT = "Customers may return an order within thirty days. The box holds five dozen liquor jugs."
# What the tiny model learns to write: grounded lines, an invented number, and a repeated line.
LINES = (
    "Customers of the plan may return an order within thirty days.",
    "The box of the plan holds five dozen liquor jugs.",
    "The box of the plan holds 77 liquor jugs.",
    "Customers of the plan may return an order within thirty days.",
)


def context(text: str = TEXT) -> Context:
    return Context(document_id="plan", revision="1", title=TITLE, text=text)


def make_writing_model(folder: Path) -> Path:
    """A tiny model that answers the implications prompt about TEXT with LINES. Takes a few seconds."""
    make_tiny_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    (call,) = VARIANTS["implications"].prompts(context(), "chat")
    prompt = list(PromptRenderer(tokenizer, style="chat").render(call).token_ids)
    answer = [*tokenizer("\n".join(LINES), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    tokens_BT = torch.tensor([prompt + answer])
    labels_BT = tokens_BT.clone()
    labels_BT[:, : len(prompt)] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    torch.manual_seed(0)
    for _ in range(120):
        loss = model(input_ids=tokens_BT, labels=labels_BT).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.05
    model.save_pretrained(folder)
    return folder
