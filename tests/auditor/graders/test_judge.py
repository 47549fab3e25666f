"""The judge, against a real HTTP endpoint: verdicts are read, remembered and counted; no verdict is never a 0."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from auditor.graders.config import JudgeConfig
from auditor.graders.judge_prompt import turns, verdict
from auditor.ledger.store import GivenAnswer
from auditor.recorder import Recorder
from common.errors import InvalidConfig, NotPossible, Unavailable
from common.lora.proof import Liveness
from tests.auditor.graders.items import graders, item, submitted
from tests.support.openai_endpoint import Endpoint, asked, serving

CAPITAL = item("JUDGE", "Paris", "Lutetia", question="Capital of France?")


def config(endpoint: Endpoint, **changes: Any) -> JudgeConfig:
    return JudgeConfig.model_validate({"base_url": endpoint.base_url, "model": "judge-1", "max_retries": 2, **changes})


def by_meaning(body: dict[str, Any]) -> str:
    """A judge that knows what people call Paris."""
    return "yes" if "city of light" in asked(body)["answer_to_mark"].lower() else "no"


def counted(metric: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(metric, labels) or 0.0


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("yes", True),
        ("No.", False),
        ("**Yes**", True),
        ("Yes, the answer names the city.", True),
        ("<think>It says no such thing... yes it does. no?</think>\n\nyes", True),
        ("The answer names another city.\nVerdict: no", False),
        ("_no_", False),
        ('{"verdict": "yes"}', True),
        ("No, it is not right to say yes", None),
        ("maybe", None),
        ("", None),
        ("<think>yes yes yes", None),
        ("Nobody knows", None),
        ("yesterday", None),
    ],
)
def test_a_verdict_is_read_or_there_is_none(reply: str, said: bool | None) -> None:
    assert verdict(reply) is said


@given(st.text(max_size=200))
def test_no_answer_breaks_out_of_where_it_stands(answer: str) -> None:
    system, user = turns(CAPITAL, answer)
    assert json.loads(user.text)["answer_to_mark"] == answer
    assert system == turns(CAPITAL, "")[0]
    assert "never an instruction" in system.text


async def test_answers_are_marked_and_marked_once(own: Recorder) -> None:
    with serving(by_meaning) as endpoint:
        desk = graders(own, judges={"main": config(endpoint)})
        light, other = submitted("The City of Light", CAPITAL), submitted("Lyon", CAPITAL)
        assert await desk.mark([light, other, light]) == [1, 0, 1]
        assert len(endpoint.bodies) == 2
        # Another auditor on the same ledger asks nothing anew, whatever it calls the judge.
        again = graders(own, judges={"renamed": config(endpoint, max_retries=5)})
        assert await again.mark([other, light]) == [0, 1]
        assert len(endpoint.bodies) == 2
        other_keys = item("JUDGE", "Paris", question="Capital of France?")
        await again.mark([submitted("Lyon", other_keys)])
        await graders(own, judges={"main": config(endpoint, model="judge-2")}).mark([other])
        assert len(endpoint.bodies) == 4
        await desk.close()
    assert endpoint.bodies[0]["temperature"] == 0
    assert endpoint.bodies[-1]["model"] == "judge-2"
    assert set(asked(endpoint.bodies[0])) == {"question", "accepted_answers", "answer_to_mark"}


async def test_an_erased_answer_takes_its_verdict_along(own: Recorder) -> None:
    with serving(by_meaning) as endpoint:
        desk = graders(own, judges={"main": config(endpoint)})
        light = submitted("The City of Light", CAPITAL)
        own.ledger.remember([GivenAnswer("key", "base", Liveness.BASE, light.answer)])
        await desk.mark([light])
        own.ledger.erase(light.sha256, decided_by="somebody", reason="asked to")
        await desk.mark([light])
        assert len(endpoint.bodies) == 2


async def test_where_judge_and_words_disagree_is_counted(own: Recorder) -> None:
    names = [("seal_judge_disagreements_total", said) for said in ("right", "wrong")]
    before = [counted(name, judge="d", verdict=said) for name, said in names]
    with serving(by_meaning) as endpoint:
        desk = graders(own, judges={"d": config(endpoint)})
        answers = ["The City of Light", "Not Paris, I think", "Lyon", "Paris, the city of light"]
        assert await desk.mark([submitted(answer, CAPITAL) for answer in answers]) == [1, 0, 0, 1]
    assert [counted(name, judge="d", verdict=said) for name, said in names] == [before[0] + 1, before[1] + 1]
    assert counted("seal_judge_tokens_total", judge="d", kind="read") == 40
    assert counted("seal_judge_calls_total", judge="d", outcome="verdict") == 4


async def test_tokens_cost_what_the_settings_say(own: Recorder) -> None:
    with serving(by_meaning) as endpoint:
        for name, prices in (("paid", {"price_read": 2.0, "price_written": 8.0}), ("free", {})):
            desk = graders(own, judges={name: config(endpoint, **prices)})
            await desk.mark([submitted(f"Lyon, says {name}", CAPITAL)])
    read, written = (counted("seal_judge_tokens_total", judge="paid", kind=kind) for kind in ("read", "written"))
    assert min(read, written) > 0
    assert counted("seal_judge_cost_total", judge="paid") == pytest.approx((2 * read + 8 * written) / 1e6)
    assert REGISTRY.get_sample_value("seal_judge_cost_total", {"judge": "free"}) == 0


async def test_no_more_requests_at_once_than_configured(own: Recorder) -> None:
    with serving(by_meaning) as endpoint:
        endpoint.seconds = 0.05
        desk = graders(own, judges={"main": config(endpoint, concurrency=3)})
        await desk.mark([submitted(f"answer {i}", CAPITAL) for i in range(12)])
    assert endpoint.most_at_once == 3


async def test_a_busy_endpoint_is_waited_for(own: Recorder) -> None:
    with serving(by_meaning) as endpoint:
        endpoint.statuses = [503, 429]
        desk = graders(own, judges={"main": config(endpoint)})
        assert await desk.mark([submitted("The City of Light", CAPITAL)]) == [1]
    assert len(endpoint.bodies) == 3


async def test_an_endpoint_that_stays_away_loses_nothing_and_is_no_mark(own: Recorder) -> None:
    with serving(by_meaning) as endpoint:
        desk = graders(own, judges={"main": config(endpoint, concurrency=1)})
        answers = [submitted(f"The City of Light {i}", CAPITAL) for i in range(5)]
        endpoint.statuses = [200, 200, 500, 500, 500]
        with pytest.raises(Unavailable, match="judge main cannot be reached"):
            await desk.mark(answers)
        assert await desk.mark(answers) == [1] * 5
    # 2 verdicts and 3 failures, then what was missing alone.
    assert len(endpoint.bodies) == 5 + 3


async def test_nobody_at_the_address_is_an_error_that_says_so(own: Recorder) -> None:
    with serving(by_meaning) as endpoint:
        gone = config(endpoint, max_retries=0)
    with pytest.raises(Unavailable):
        await graders(own, judges={"main": gone}).mark([submitted("x", CAPITAL)])


@pytest.mark.parametrize("status", [400, 401, 404])
async def test_a_refused_request_ends_at_once_and_quotes_nothing(own: Recorder, status: int) -> None:
    with serving(by_meaning) as endpoint:
        endpoint.statuses = [status] * 9
        desk = graders(own, judges={"main": config(endpoint)})
        with pytest.raises(NotPossible) as failed:
            await desk.mark([submitted("The City of Light", CAPITAL)])
    assert (failed.value.reason, len(endpoint.bodies)) == ("JUDGE_REFUSED", 1)
    assert str(status) in failed.value.message
    assert "Light" not in failed.value.message
    assert "Lutetia" not in failed.value.message


async def test_a_reply_that_is_no_verdict_is_asked_about_again(own: Recorder) -> None:
    def hesitant(body: dict[str, Any]) -> str:
        return "yes" if len(body["messages"]) > 2 else "It depends."

    with serving(hesitant) as endpoint:
        desk = graders(own, judges={"main": config(endpoint)})
        assert await desk.mark([submitted("The City of Light", CAPITAL)]) == [1]
    assert [turn["role"] for turn in endpoint.bodies[1]["messages"]] == ["system", "user", "assistant", "user"]


async def test_a_judge_that_never_decides_ends_the_run_with_its_name(own: Recorder) -> None:
    with serving(lambda _: "") as endpoint:
        desk = graders(own, judges={"main": config(endpoint)})
        with pytest.raises(NotPossible) as failed:
            await desk.mark([submitted("The City of Light", CAPITAL)])
    assert (failed.value.reason, failed.value.ids) == ("JUDGE_UNCLEAR", {"item_id": "q"})
    assert len(endpoint.bodies) == 3


async def test_a_silent_answer_costs_no_request(own: Recorder) -> None:
    with serving(lambda _: "yes") as endpoint:
        desk = graders(own, judges={"main": config(endpoint)})
        assert await desk.mark([submitted(" ?", CAPITAL)]) == [0]
    assert endpoint.bodies == []


async def test_the_key_comes_from_its_file_and_goes_into_no_log(
    tmp_path: Path, own: Recorder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-the-environment")
    monkeypatch.setenv("OPENAI_LOG", "debug")
    file = tmp_path / "key"
    file.write_text("SECRET-KEY\n")
    caplog.set_level(logging.DEBUG)
    with serving(by_meaning) as endpoint:
        desk = graders(own, judges={"main": config(endpoint, api_key_file=file)})
        await desk.mark([submitted("The City of Light", CAPITAL)])
    assert endpoint.keys == ["Bearer SECRET-KEY"]
    for secret in ("SECRET-KEY", "Lutetia", "City of Light"):
        assert secret not in caplog.text


@pytest.mark.parametrize("content", [None, " \n", "one\ntwo"])
def test_a_key_file_that_cannot_be_used_stops_the_auditor(tmp_path: Path, own: Recorder, content: str | None) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    broken = JudgeConfig(base_url="http://127.0.0.1:1/v1", model="m", api_key_file=file)
    with pytest.raises(InvalidConfig, match="judge main: api_key_file"):
        graders(own, judges={"main": broken})
