"""Renders prompt calls to the tokens that the model sees.

Instruction-tuned models are spoken to through their chat template, base models get plain text to continue; the setting
`style: auto` looks whether there is a template. The proposer is the caller; the ids that come out are what the M-step
trains on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.errors import InvalidConfig
from teacher.variants.base import PromptCall, Style


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt as text and as the token ids of exactly that text."""

    text: str
    token_ids: tuple[int, ...]


class PromptRenderer:
    """Knows one model's tokenizer, chat template and system prompt."""

    def __init__(self, tokenizer: Any, *, style: Literal["auto", "chat", "plain"], system_prompt: str = "") -> None:
        has_template = bool(getattr(tokenizer, "chat_template", None))
        if style == "chat" and not has_template:
            raise InvalidConfig("proposer.style: chat, but the model has no chat template")
        self.style: Style = "plain" if style == "plain" or not has_template else "chat"
        self._tokenizer = tokenizer
        self._system_prompt = system_prompt

    @classmethod
    def load(cls, folder: Path, *, style: Literal["auto", "chat", "plain"], system_prompt: str = "") -> PromptRenderer:
        """The renderer of the model in `folder`. Takes seconds: imports transformers."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return cls(tokenizer, style=style, system_prompt=system_prompt)

    def render(self, call: PromptCall) -> RenderedPrompt:
        """A call with plain text is sent as it is; a user's turn goes through the template, its opening after it."""
        if call.text:
            # A base model's tokenizer may begin a text with a special token, and the model expects it.
            return RenderedPrompt(call.text, self._ids(call.text, special=True))
        turns = [{"role": "system", "content": self._system_prompt}] if self._system_prompt else []
        turns.append({"role": "user", "content": call.user})
        text = str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        text += call.opening
        return RenderedPrompt(text, self._ids(text, special=False))

    def count(self, texts: Sequence[str]) -> int:
        """Tokens of some texts together."""
        return sum(len(self._ids(text, special=False)) for text in texts)

    def _ids(self, text: str, *, special: bool) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=special)["input_ids"])
