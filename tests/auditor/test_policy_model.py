"""A model from outside reads each edit once: what it rejects is not trained, and nothing it says can do more harm."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.chat_model import ChatModel, ChatModelConfig, Turn
from auditor.policy.config import PolicyModelConfig
from auditor.policy.model import MAX_REASON, UNREADABLE, PolicyModel, clean, in_pieces, read_verdict
from cli.render.events import lines
from common.canonical import digest_bytes
from common.contract.seal.v1 import auditor_pb2 as pb
from common.errors import InvalidConfig, NotPossible, Unavailable
from tests.auditor.plays import at_desk, facts, kinds, of_kind, start_run, student, task, teacher, teaching
from tests.auditor.test_planted_offenders import gate_lines, shown, state
from tests.auditor.test_resume import die_at
from tests.support.chat_endpoint import ChatEndpoint, chat_endpoint
from tests.support.scripted_services import edit_about, on_stage

KEY = "sk-scripted-5f1e"


def saying(verdict: str, reason: str) -> str:
    return json.dumps({"verdict": verdict, "reason": reason})


def says_no_to_doors(request: str) -> str:
    refused = "door" in request
    return saying("reject", "It gives a door code away.") if refused else saying("allow", "Plain facts.")


def configured(endpoint: ChatEndpoint, folder: Path, **changes: Any) -> dict[str, Any]:
    key = folder / "key"
    key.write_text(f"{KEY}\n")
    return {"model": {"base_url": endpoint.base_url, "model": "judge", "api_key_file": str(key), **changes}}


BAD = edit_about("doc-a", "About a", [*facts("a").items(), ("What opens the door?", "4711.")])
GOOD = teaching("a", 10)


async def test_what_the_model_rejects_is_not_trained_and_what_it_allows_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with chat_endpoint(says_no_to_doors) as endpoint:
        async with (
            on_stage(teacher(a=[BAD, GOOD, BAD]), student()) as stage,
            at_desk(stage, tmp_path, policy=configured(endpoint, tmp_path)) as desk,
        ):
            events = await desk.run(start_run("run", [task("a")], candidates=3))
            bad, good = await shown(desk, BAD), await shown(desk, GOOD)
    assert (state(bad), state(good)) == ("rejected", "accepted")
    assert gate_lines(good)[0] == "  policy passed: policy model judge allows it: Plain facts."
    assert "policy failed: policy model judge rejects it: It gives a door code away." in bad
    assert {trained.edit.sha256 for trained in of_kind(events, "candidate_trained")} == {GOOD.digest.sha256}
    # Of the two equal edits one was read; the other is a duplicate.
    assert len(endpoint.requests) == 2
    assert sum("duplicate" in screened.gate.reason for screened in of_kind(events, "edit_screened")) == 1
    told = [line for event in events if event.WhichOneof("event") == "edit_screened" for line in lines(event)]
    assert [GOOD.digest.sha256[:8] in line and "let through" in line for line in told] == [False, True, False]
    assert set(endpoint.keys) == {f"Bearer {KEY}"}
    assert "a question 0?" in json.dumps(endpoint.requests)
    printed = capfd.readouterr()
    assert KEY not in printed.out + printed.err
    assert KEY.encode() not in stage.received() + (tmp_path / "ledger.db").read_bytes()


async def test_its_reason_can_be_erased_and_its_verdict_stays(tmp_path: Path) -> None:
    with chat_endpoint(says_no_to_doors) as endpoint:
        async with (
            on_stage(teacher(a=[BAD]), student()) as stage,
            at_desk(stage, tmp_path, policy=configured(endpoint, tmp_path)) as desk,
        ):
            await desk.run(start_run("run", [task("a")], candidates=1))
            recorder = desk.auditor.recorder
            links = await recorder.run(lambda: list(recorder.ledger.every_event(run_id="run")))
            told = "It gives a door code away."
            assert told not in json.dumps([link.payload for link in links])
            assert {link.type for link in links if told_digest(told) in json.dumps(link.payload)} == {
                "policy_judged",
                "edit_screened",
            }
            assert f"rejects it: {told}" in await shown(desk, BAD)
            await recorder.run(recorder.ledger.erase, told_digest(told), decided_by="operator", reason="a code")
            after = await shown(desk, BAD)
            assert (await desk.auditor.verify_ledger(0, "")).intact
    assert gate_lines(after) == ["  policy failed: policy model judge rejects it"]


def told_digest(reason: str) -> str:
    return digest_bytes(reason.encode()).sha256


async def test_no_key_of_tau_reaches_the_model(tmp_path: Path) -> None:
    with chat_endpoint(says_no_to_doors) as endpoint:
        async with (
            on_stage(teacher(a=[teaching("a", 5)]), student()) as stage,
            at_desk(stage, tmp_path, policy=configured(endpoint, tmp_path)) as desk,
        ):
            await desk.run(start_run("run", [task("a", extra_answer="CANARY-77b")], candidates=1))
    assert endpoint.requests
    assert "CANARY-77b" not in json.dumps(endpoint.requests)


async def test_verdict_is_asked_for_once_although_the_auditor_is_killed(tmp_path: Path) -> None:
    with chat_endpoint(says_no_to_doors) as endpoint:
        policy = configured(endpoint, tmp_path)
        order = start_run("run", [task("a")], candidates=2)
        async with on_stage(teacher(a=[BAD, GOOD]), student()) as stage:
            async with at_desk(stage, tmp_path, policy=policy) as desk:
                # Request, start, round, two baselines, two proposals, two verdicts: the edits are not screened yet.
                died = die_at(desk.auditor.recorder.ledger, 9, before=False)
                await desk.stub.StartRun(order)
                await asyncio.wait_for(died.wait(), 30)
            assert len(endpoint.requests) == 2
            async with at_desk(stage, tmp_path, policy=policy) as desk:
                events = await desk.watch("run")
                assert state(await shown(desk, BAD)) == "rejected"
    assert kinds(events)[-1] == "run_finished"
    assert len(endpoint.requests) == 2


async def test_run_goes_on_with_the_model_it_started_with_or_not_at_all(tmp_path: Path) -> None:
    with chat_endpoint(says_no_to_doors) as endpoint:
        async with on_stage(teacher(a=[GOOD]), student()) as stage:
            async with at_desk(stage, tmp_path, policy=configured(endpoint, tmp_path)) as desk:
                died = die_at(desk.auditor.recorder.ledger, 5, before=False)
                await desk.stub.StartRun(start_run("run", [task("a")], candidates=1))
                await asyncio.wait_for(died.wait(), 30)
            other = configured(endpoint, tmp_path, instructions="Allow everything.")
            async with at_desk(stage, tmp_path, policy=other) as desk:
                events = await desk.watch("run")
    assert of_kind(events, "run_failed")[0].reason == "POLICY_CHANGED"
    assert not stage.student.trainings


async def test_endpoint_that_is_away_is_asked_again_and_then_fails_the_run_clearly(tmp_path: Path) -> None:
    with chat_endpoint(says_no_to_doors, failures=[503]) as endpoint:
        async with on_stage(teacher(a=[GOOD]), student()) as stage:
            async with at_desk(stage, tmp_path, policy=configured(endpoint, tmp_path)) as desk:
                assert kinds(await desk.run(start_run("one", [task("a")], candidates=1)))[-1] == "run_finished"
                assert len(endpoint.requests) == 2
            endpoint.failures[:] = [503, 503]
            async with at_desk(stage, tmp_path, policy=configured(endpoint, tmp_path, max_retries=1)) as desk:
                events = await desk.run(start_run("two", [task("a")], candidates=1))
                status = await desk.stub.GetStatus(pb.AuditorServiceGetStatusRequest())
    failed = of_kind(events, "run_failed")[0]
    assert failed.reason == "UNAVAILABLE"
    assert "judge" in failed.detail
    assert status.teacher.backend == "scripted"


def chat(endpoint: ChatEndpoint, **changes: Any) -> ChatModel:
    return ChatModel(ChatModelConfig(base_url=endpoint.base_url, model="judge", max_retries=0, **changes))


@pytest.mark.parametrize(("status", "raised"), [(401, NotPossible), (404, NotPossible), (429, Unavailable)])
async def test_status_of_the_endpoint_says_whether_to_try_again(status: int, raised: type[Exception]) -> None:
    with chat_endpoint(lambda _: "never", failures=[status]) as endpoint:
        model = chat(endpoint)
        with pytest.raises(raised) as refused:
            await model.complete([Turn("user", "a secret text")])
        await model.close()
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"choices": [{"message": None}]}, ""),
        ({"choices": [{"message": {"content": None}}]}, ""),
        ({"choices": [{"message": {"content": [{"type": "text"}]}}]}, ""),
        ({"choices": [{}], "usage": {"prompt_tokens": "many"}}, ""),
        ({"choices": []}, None),
        ({"choices": {"0": "yes"}}, None),
        ({"choices": None}, None),
        ([], None),
    ],
)
async def test_whatever_an_endpoint_sends_is_text_or_refused(
    monkeypatch: pytest.MonkeyPatch, answer: Any, said: str | None
) -> None:
    with chat_endpoint(lambda _: "never") as endpoint:
        monkeypatch.setattr(endpoint, "answer", lambda *_: (200, answer))
        model = chat(endpoint, temperature=None, max_tokens=None)
        if said is None:
            with pytest.raises(NotPossible) as refused:
                await model.complete([Turn("user", "?")])
            assert refused.value.reason == "CHAT_MODEL_REFUSED"
        else:
            assert await model.complete([Turn("user", "?")]) == said
        await model.close()


async def test_settings_that_are_null_are_left_to_the_endpoint() -> None:
    with chat_endpoint(lambda _: "fine") as endpoint:
        for changes in ({}, {"temperature": None, "max_tokens": None}):
            model = chat(endpoint, **changes)
            turns = [Turn("user", "?"), Turn("assistant", "what?"), Turn("user", "well?")]
            assert await model.complete(turns) == "fine"
            await model.close()
    bound, free = endpoint.requests
    assert (bound["temperature"], bound["max_tokens"]) == (0, 512)
    assert not {"temperature", "max_tokens"} & set(free)
    assert [turn["role"] for turn in bound["messages"]] == ["user", "assistant", "user"]


async def test_endpoint_that_nobody_serves_is_unavailable() -> None:
    with chat_endpoint(lambda _: "never") as endpoint:
        pass
    model = chat(endpoint)
    with pytest.raises(Unavailable):
        await model.complete([Turn("user", "?")])
    await model.close()


@pytest.mark.parametrize("content", [None, "", "two words", "line\nline"])
def test_key_file_must_hold_one_key(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidConfig) as refused:
        ChatModel(ChatModelConfig(base_url="http://127.0.0.1:1/v1", model="judge", api_key_file=file))
    assert str(file) in refused.value.message
    assert "two" not in refused.value.message


@pytest.mark.parametrize(
    ("text", "allowed", "reason"),
    [
        ('{"verdict": "allow", "reason": "Facts."}', True, "Facts."),
        ('Sure!\n```json\n{"verdict": "reject", "reason": "No."}\n```', False, "No."),
        ('<think>{"verdict": "allow"}</think>{"verdict": "reject"}', False, "no reason given"),
        ('{"verdict": "allow"} {"verdict": "reject"}', False, UNREADABLE),
        ('{"verdict": "maybe", "reason": "?"}', False, UNREADABLE),
        ('{"verdict": true}', False, UNREADABLE),
        ("I allow it.", False, UNREADABLE),
        ('{"verdict": ' + "[" * 100_000 + "]" * 100_000 + "}", False, UNREADABLE),
        ('{"verdict": ' + "1" * 10_000 + "}", False, UNREADABLE),
        ("", False, UNREADABLE),
    ],
)
def test_only_a_clear_allow_is_one(text: str, allowed: bool, reason: str) -> None:
    verdict = read_verdict(text)
    assert (verdict.allowed, verdict.reason) == (allowed, reason)


@given(st.text(max_size=1_000))
def test_reason_is_one_printable_line_of_bounded_length(reason: str) -> None:
    said = clean(reason)
    assert len(said) <= MAX_REASON
    assert said.isprintable()


@given(st.lists(st.integers(min_value=1, max_value=400), min_size=1, max_size=30))
def test_pieces_hold_every_example_once_and_in_order(sizes: list[int]) -> None:
    edit = edit_about("doc-a", "", [(f"{i}{'q' * size}", "a") for i, size in enumerate(sizes)])
    pieces = list(in_pieces(edit, 500))
    assert [texts for piece in pieces for texts in piece] == [example.texts for example in edit.examples]
    assert all(len(piece) == 1 or sum(len(t) for texts in piece for t in texts) <= 500 for piece in pieces)


async def test_one_piece_that_is_rejected_rejects_the_edit() -> None:
    long = edit_about(
        "doc-a", "", [(f"{'word ' * 200}{i}?", "yes") for i in range(6)] + [("What opens the door?", "4711")]
    )
    with chat_endpoint(says_no_to_doors) as endpoint:
        config = PolicyModelConfig(base_url=endpoint.base_url, model="judge", max_characters=2_500)
        model = PolicyModel(config)
        verdict = await model.verdict(long)
        await model.close()
    assert not verdict.allowed
    assert len(endpoint.requests) == 3
