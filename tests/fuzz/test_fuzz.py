"""The fuzzer finds what is planted, reaches what there is, and finds nothing in the services."""

from __future__ import annotations

import random
from collections import deque
from pathlib import Path

import pytest

from tests.fuzz.driver import made, rpcs_of
from tests.fuzz.run import SERVICES, fuzz

REQUESTS = 2_000
TURNED_AWAY = frozenset({"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"})


@pytest.mark.timeout(600)
async def test_two_thousand_mutated_requests_break_nothing(tmp_path: Path) -> None:
    outcome = await fuzz(tmp_path, REQUESTS, seed=20_260_101)
    assert outcome.findings.result() == {"requests": REQUESTS, "internal": 0, "hangs": 0, "crashes": 0}, "\n".join(
        outcome.findings.noted
    )
    # Which of them end in OK depends on what others did just before; all of these must get past the checks.
    reached = {rpc for rpc, code in outcome.findings.codes if code not in TURNED_AWAY}
    assert reached >= {"ProposeEdits", "Learn", "Train", "Answer", "LogLikelihood", "StartRun", "WatchRun", "Ask"}
    refused = {rpc for rpc, code in outcome.findings.codes if code == "INVALID_ARGUMENT"}
    assert {rpc.name for rpc in rpcs_of(SERVICES)} - refused <= {"VerifyLedger"}


async def test_planted_defects_are_found(tmp_path: Path) -> None:
    """A servicer that raises on one request, never answers another, and ends its process at a third.

    By one worker: a call that hangs while another's ends the process is lost with it, and then no hang.
    """
    outcome = await fuzz(
        tmp_path, 800, services=("teacher",), deadline=0.5, workers=1, stand_ins={"teacher": "planted"}
    )
    found = outcome.findings.result()
    assert found["internal"] > 0
    assert found["hangs"] > 0
    assert found["crashes"] > 0
    for kind, rpc in (("internal", "ProposeEdits"), ("hang", "Learn"), ("crash", "SetPolicy")):
        assert any(line.startswith(f"{kind} {rpc}:") for line in outcome.findings.noted)
        assert list((tmp_path / "findings").glob(f"*-{kind}-{rpc}.bin"))


def test_every_rpc_of_the_three_services_is_drawn() -> None:
    rpcs = rpcs_of(SERVICES)
    assert len(rpcs) == 28
    assert {rpc.service for rpc in rpcs} == set(SERVICES)


def test_the_same_seed_draws_the_same_requests() -> None:
    def drawn(seed: int) -> list[bytes]:
        draw = random.Random(seed)
        return [made(rpc, draw, deque()) for rpc in rpcs_of(SERVICES) for _ in range(5)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
