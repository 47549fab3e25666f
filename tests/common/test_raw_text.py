"""Raw text as a prompt: one form or the other, never trained on, and no digest of anything else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from common.canonical import digest_of
from common.contract.seal.v1 import types_pb2
from common.convert import from_proto, to_proto
from common.errors import InvalidRequest
from common.prompting import ask
from common.types import Conversation, Example
from tests.support.examples import tiny_edit


def test_digests_from_before_raw_text_existed_stand() -> None:
    assert digest_of(ask("The plan", "Who?")).sha256.startswith("97236e996079936a")
    assert tiny_edit().digest.sha256.startswith("cc72abe33759b8e3")


@given(st.text(max_size=60))
def test_raw_text_survives_the_wire_even_when_empty(text: str) -> None:
    wire = to_proto(types_pb2.Conversation, Conversation(raw=text)).SerializeToString()
    found = from_proto(Conversation, types_pb2.Conversation.FromString(wire))
    assert (found.raw, found.messages) == (text, ())


def test_neither_or_both_forms_are_refused() -> None:
    both = to_proto(types_pb2.Conversation, ask("The plan", "Who?"))
    both.raw = "Who?"
    for message in (both, types_pb2.Conversation()):
        with pytest.raises(InvalidRequest, match="exactly one of messages and raw"):
            from_proto(Conversation, message)


def test_raw_text_is_not_trained_on() -> None:
    with pytest.raises(ValidationError, match="raw conversation is not trained on"):
        Example(conversation=Conversation(raw="Once upon a time"))
