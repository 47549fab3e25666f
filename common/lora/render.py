"""Turns examples and questions into token ids, the same way for training, answering and scoring.

A conversation is cut where the assistant begins to speak and where it ends its turn, and the pieces are tokenized
apart: a trained prompt then has exactly the tokens that the same question has when it is asked. The completion mask
covers what the assistant says and its end-of-turn token, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from common.canonical import digest_of
from common.errors import SealError, Violation
from common.models.loading import BaseModel
from common.types import Conversation, Digest, Example, LossMask, Role

ROLE_NAMES = {Role.SYSTEM: "system", Role.USER: "user", Role.ASSISTANT: "assistant"}


class ExampleRefused(SealError):
    """One example cannot be trained on; it fails its candidate alone."""

    reason = "EXAMPLE_REFUSED"


class TurnsRefused(ExampleRefused):
    """The model's chat template has no form for a conversation."""

    reason = "TEMPLATE_REFUSES"

    def __init__(self) -> None:
        # The template's own words may quote what was said.
        super().__init__(
            "the model's chat template refuses these messages; most want user and assistant by turns, the user first, "
            "and a system message nowhere but before them"
        )


@dataclass(frozen=True)
class Rendered:
    """Token ids of one example, and which of them count in the loss (same length)."""

    tokens: tuple[int, ...]
    counted: tuple[bool, ...]

    @property
    def targets(self) -> int:
        """Tokens that the loss sees: the first token of a sequence is never predicted."""
        return sum(self.counted[1:])


class Renderer:
    """Knows one model's chat template, system prompt and end-of-turn tokens."""

    def __init__(self, base: BaseModel, *, end_of_text: bool = True) -> None:
        self._tokenizer: Any = base.tokenizer
        self._system_prompt = base.config.system_prompt
        self._end_of_text = end_of_text
        self._marks = _special_texts(base.tokenizer)
        self.stop_tokens = frozenset(_stop_tokens(base, self._turn_ends()))

    @property
    def template_digest(self) -> Digest:
        """Of chat template and system prompt: part of the key under which a baseline is cached."""
        return digest_of([str(self._tokenizer.chat_template), self._system_prompt])

    @property
    def digest(self) -> Digest:
        """Of everything that decides how an example becomes tokens, beside the model itself."""
        return digest_of([self.template_digest.sha256, self._end_of_text])

    def example(self, example: Example, *, max_tokens: int) -> Rendered:
        """Raises ExampleRefused when it is too long, nothing in it counts, or it holds a control token."""
        for text in example.texts:
            if mark := self.control_token(text):
                raise ExampleRefused(f"an example holds the model's control token {mark}", reason="CONTROL_TOKEN")
        rendered = self._text(example.text) if example.text is not None else self._conversation(example)
        return checked(rendered, max_tokens=max_tokens)

    def control_token(self, text: str) -> str:
        """The first of the model's special tokens that the text spells out, as in "<|im_end|>"; empty if none.

        The tokenizer would read it as the token: whoever wrote the text could end a turn and speak for another role.
        """
        return next((mark for mark in self._marks if mark in text), "")

    def refused(self, conversation: Conversation, path: str) -> list[Violation]:
        """What of a question may not be asked, by its path."""
        if conversation.raw is not None:
            mark = self.control_token(conversation.raw)
            return [Violation(f"{path}.raw", f"holds the model's control token {mark}")] if mark else []
        return [
            Violation(f"{path}.messages[{place}]", f"holds the model's control token {mark}")
            for place, message in enumerate(conversation.messages)
            if (mark := self.control_token(message.text))
        ]

    def question(
        self, conversation: Conversation, path: str, *, room: int | None = None
    ) -> tuple[tuple[int, ...], list[Violation]]:
        """What `prompt` gives, and what of the question may not be asked or cannot be rendered, by its path."""
        refused = self.refused(conversation, path)
        try:
            return self.prompt(conversation, room=room), refused
        except TurnsRefused as error:
            return (), [*refused, Violation(f"{path}.messages", error.message)]

    def prompt(self, conversation: Conversation, *, room: int | None = None) -> tuple[int, ...]:
        """Token ids of a question, up to where the assistant begins to speak. Raw text alone is cut to fit `room`.

        Raises TurnsRefused.
        """
        if conversation.raw is not None:
            return self._latest(self._raw(conversation.raw) or self._beginning, room)
        return self._ids(self._apply(self._turns(conversation), generate=True))

    def continued(
        self, conversation: Conversation, text: str, *, room: int | None = None
    ) -> tuple[tuple[int, ...], int]:
        """Token ids of a question and of what the assistant may say to it, and where that begins; no end of turn.

        Raw text and its continuation are tokenized as one, and spaces at the end of the text belong to the
        continuation. Source: lm-evaluation-harness, TemplateLM._encode_pair and loglikelihood. Raises TurnsRefused.
        """
        if conversation.raw is None:
            prompt, said = self.prompt(conversation), self._ids(text)
            return (*prompt, *said), len(prompt)
        context = conversation.raw.rstrip()
        if not conversation.raw:
            prompt, said = self._beginning, self._ids(text)
            # A continuation that begins a text by itself does so once.
            said = said[1:] if said[:1] == prompt else said
        elif not context:
            prompt, said = self._beginning, self._ids(conversation.raw + text)
        else:
            whole, prompt = self._raw(conversation.raw + text), self._raw(context)
            # A continuation that becomes one token with the end of the text is tokenized by itself.
            said = whole[len(prompt) :] or self._ids(conversation.raw[len(context) :] + text)
        prompt = self._latest(prompt, max(1, room - len(said)) if room else None)
        return (*prompt, *said), len(prompt)

    def decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    @property
    def _beginning(self) -> tuple[int, ...]:
        """What stands for an empty text: the beginning of a text, or the end of the one before."""
        begin, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        return tuple(int(token) for token in (begin if begin is not None else end,) if token is not None)

    def _raw(self, text: str) -> tuple[int, ...]:
        """With whatever the tokenizer itself puts before a text."""
        return tuple(self._tokenizer(text)["input_ids"]) if text else ()

    @staticmethod
    def _latest(tokens: tuple[int, ...], room: int | None) -> tuple[int, ...]:
        return tokens if room is None or len(tokens) <= room else tokens[len(tokens) - room :]

    def _text(self, text: str) -> Rendered:
        tokens = self._ids(text)
        if self._end_of_text and self._tokenizer.eos_token_id is not None:
            tokens = (*tokens, int(self._tokenizer.eos_token_id))
        return Rendered(tokens, (True,) * len(tokens))

    def _conversation(self, example: Example) -> Rendered:
        assert example.conversation is not None
        every = example.loss_mask is LossMask.ALL
        tokens: list[int] = []
        counted: list[bool] = []
        for text, spoken in self._pieces(self._turns(example.conversation)):
            ids = self._ids(text)
            tokens += ids
            counted += [every or spoken] * len(ids)
        # What follows the last counted token changes no loss: it is not worth computing.
        length = len(counted) - counted[::-1].index(True) if True in counted else len(counted)
        return Rendered(tuple(tokens[:length]), tuple(counted[:length]))

    def _pieces(self, turns: list[dict[str, str]]) -> list[tuple[str, bool]]:
        """The rendered conversation in pieces, each with whether the assistant says it."""
        pieces: list[tuple[str, bool]] = []
        whole = self._apply(turns)
        done = 0
        for index, turn in enumerate(turns):
            if turn["role"] != "assistant":
                continue
            before, after = self._apply(turns[:index], generate=True), self._apply(turns[: index + 1])
            if not (after.startswith(before) and whole.startswith(after) and len(before) >= done):
                raise ExampleRefused(
                    "the chat template rewrites earlier turns, so what the assistant says cannot be told apart",
                    reason="TEMPLATE_NOT_INCREMENTAL",
                )
            end = len(before) + self._turn_length(after[len(before) :])
            pieces += [(whole[done : len(before)], False), (whole[len(before) : end], True)]
            done = end
        return [*pieces, (whole[done:], False)]

    def _turn_length(self, spoken: str) -> int:
        """Characters of an assistant's turn up to and with its last special token, its end of turn."""
        ends = [spoken.rfind(mark) + len(mark) for mark in self._marks if mark in spoken]
        return max(ends, default=len(spoken))

    def _turn_ends(self) -> set[str]:
        """The special tokens with which the template ends an assistant's turn."""
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        before, after = self._apply(turns[:1], generate=True), self._apply(turns)
        rest = after.removeprefix(before)
        return {mark for mark in self._marks if mark in rest and rest.endswith(mark, 0, self._turn_length(rest))}

    def _turns(self, conversation: Conversation) -> list[dict[str, str]]:
        turns = [{"role": ROLE_NAMES[m.role], "content": m.text} for m in conversation.messages]
        if self._system_prompt and turns[0]["role"] != "system":
            turns.insert(0, {"role": "system", "content": self._system_prompt})
        return turns

    def _apply(self, turns: list[dict[str, str]], *, generate: bool = False) -> str:
        try:
            return str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generate))
        except TemplateError:
            raise TurnsRefused from None

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()


def checked(rendered: Rendered, *, max_tokens: int) -> Rendered:
    """Raises ExampleRefused when it is too long or nothing in it counts."""
    if len(rendered.tokens) > max_tokens:
        raise ExampleRefused(
            f"an example has {len(rendered.tokens)} tokens; max_tokens is {max_tokens}", reason="EXAMPLE_TOO_LONG"
        )
    if rendered.targets == 0:
        raise ExampleRefused("an example has no token that counts in the loss", reason="EXAMPLE_WITHOUT_TARGET")
    return rendered


def _special_texts(tokenizer: Any) -> tuple[str, ...]:
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return tuple(sorted(added | {str(token) for token in tokenizer.all_special_tokens}))


def _stop_tokens(base: BaseModel, turn_ends: set[str]) -> set[int]:
    """End-of-text of tokenizer and generation config, and the template's end of turn."""
    named = getattr(base.model.generation_config, "eos_token_id", None)
    ids = set(named) if isinstance(named, (list, tuple)) else {named}
    ids |= {base.tokenizer.eos_token_id}
    ids |= {base.tokenizer.convert_tokens_to_ids(mark) for mark in turn_ends}
    return {int(token) for token in ids if token is not None}
