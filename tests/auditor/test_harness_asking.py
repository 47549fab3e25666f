"""lm_eval's requests in the contract's terms: nothing gets lost, and no order tells which option is right."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.harness.asking import MAX_STOPS, choices_of, cut, sendable, wish_of
from auditor.harness.threads import VoiceOnThread
from common.errors import Cancelled, InvalidRequest
from common.types import Sampling
from common.versions import OptionScore

WORDS = st.text("ab\n", max_size=12)


@given(text=WORDS, stops=st.lists(st.text("ab\n", min_size=1, max_size=3), unique=True, max_size=12))
def test_a_student_that_stops_early_changes_nothing_of_a_text(text: str, stops: list[str]) -> None:
    """It is handed on up to the first of the stops that were sent."""
    sent = sendable(stops)
    early = text[: min((text.find(stop) for stop in sent if stop in text), default=len(text))]
    assert cut(early, stops) == cut(text, stops)
    assert not any(stop in cut(text, stops) for stop in stops)


def test_common_stops_are_sent() -> None:
    assert sendable(["\n\n", "\n", "Question:", "</s>"]) == ("\n", "Question:", "</s>")
    assert sendable(["Q:", "\nQ:", "."]) == (".",)


@given(st.lists(st.text(min_size=1, max_size=80), max_size=20))
def test_every_stop_is_kept_and_what_is_sent_fits_the_contract(stops: list[str]) -> None:
    wish = wish_of({"until": stops, "max_gen_toks": 3})
    assert set(wish.stops) == set(stops)
    assert set(wish.sampling.stop) <= set(stops)
    assert len(wish.sampling.stop) <= MAX_STOPS


@pytest.mark.parametrize(
    ("given_", "temperature", "tokens"),
    [
        ({}, 0.0, 256),
        ({"do_sample": False, "temperature": 0.7, "max_tokens": 5}, 0.0, 5),
        ({"do_sample": True, "temperature": 0.7, "max_new_tokens": 9, "max_tokens": 5}, 0.7, 9),
        ({"temperature": 0.0, "top_p": 0.5, "top_k": 3, "num_beams": 1}, 0.0, 256),
    ],
)
def test_generation_settings_are_read_as_lm_eval_reads_them(
    given_: dict[str, object], temperature: float, tokens: int
) -> None:
    sampling = wish_of(given_).sampling
    assert (sampling.temperature, sampling.max_new_tokens, sampling.top_p) == (temperature, tokens, 1.0)


@pytest.mark.parametrize("given_", [{"num_beams": 4}, {"max_gen_toks": 5_000}, {"do_sample": True, "temperature": 3}])
def test_what_the_contract_does_not_have_is_refused(given_: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="generation_kwargs"):
        wish_of(given_)


@given(st.lists(st.tuples(st.sampled_from("CDE"), WORDS.filter(bool)), max_size=40), st.integers(1, 5))
def test_choices_hold_each_pair_once(pairs: list[tuple[str, str]], most: int) -> None:
    choices = choices_of(pairs, most)
    held = [(choice.context, option) for choice in choices for option in choice.options]
    assert sorted(held) == sorted(set(pairs))
    assert all(len(choice.options) <= most for choice in choices)


def test_options_come_in_no_order_of_the_data_set() -> None:
    """A data set may put the right option first, always."""
    first = [choices_of([(f"Question {i}", f"{name}{i}") for name in "abcd"])[0].options[0] for i in range(80)]
    assert {option[0] for option in first} == set("abcd")
    shuffled = choices_of([("Q", "b"), ("Q", "a")])
    assert shuffled == choices_of([("Q", "a"), ("Q", "b")])


class Waiting:
    """A speaker that never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def write(self, texts: object, sampling: Sampling) -> list[str]:
        self.asked.set()
        await asyncio.Event().wait()
        return []

    async def score(self, choices: object) -> list[tuple[OptionScore, ...]]:
        return []


async def test_a_measure_that_nobody_waits_for_ends_at_its_next_question() -> None:
    speaker = Waiting()
    voice = VoiceOnThread(speaker)
    ended: list[str] = []

    def work() -> None:
        for question in (lambda: voice.write(["x"], Sampling()), lambda: voice.score([])):
            try:
                question()
            except Cancelled as error:
                ended.append(error.reason)
        loop.call_soon_threadsafe(done.set)

    loop, done = asyncio.get_running_loop(), asyncio.Event()
    measuring = asyncio.create_task(voice.run(work))
    await speaker.asked.wait()
    measuring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await measuring
    await asyncio.wait_for(done.wait(), 10)
    assert ended == ["CANCELLED", "CANCELLED"]
