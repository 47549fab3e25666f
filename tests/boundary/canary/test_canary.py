"""No key and no rule leaves the auditor: unique strings in all of them are looked for in every byte of the other two.

The services are the real ones, as processes with folders of their own, mutual TLS between them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from auditor.keys import GraderKind
from common.contract.seal.v1 import task_pb2
from tests.boundary.canary.evaluation import KINDS
from tests.boundary.canary.leaks import PLACES
from tests.boundary.canary.recording import RECEIVED
from tests.boundary.canary.scene import Scene, played
from tests.boundary.canary.search import hits, hits_in_folder
from tests.support.tiny_services import NAMES, Models

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models.make(tmp_path_factory.mktemp("models"))


async def test_no_key_and_no_rule_is_found_outside_the_auditor(tmp_path: Path, models: Models) -> None:
    scene = await played(tmp_path, models)
    assert scene.crossings() == []
    assert scene.questions_astray() == []
    assert scene.live_questions_kept() == []
    _something_happened(scene)


def _something_happened(scene: Scene) -> None:
    """What would make an empty search worth nothing is not the case."""
    kinds = {event.WhichOneof("event") for event in scene.events}
    assert {"edit_proposed", "candidate_scored", "update_judged", "policy_learned", "run_finished"} <= kinds
    # The keys were there to be leaked: the search finds them where they may be.
    keys, asked = scene.forms(scene.evaluation.keys), scene.forms(scene.evaluation.asked)
    assert hits("auditor", RECEIVED, scene.wire("auditor", RECEIVED), keys)
    assert hits_in_folder("auditor", scene.folder / "auditor", keys, but=frozenset({"evaluation", "log.txt"}))
    # And what was recorded is the traffic: questions did reach the student.
    assert hits("student", RECEIVED, scene.wire("student", RECEIVED), asked)
    for method in (b"Answer", b"LogLikelihood", b"Train", b"SetAlias"):
        assert b"/seal.v1.StudentService/" + method in scene.wire("student", RECEIVED)
    for method in (b"ProposeEdits", b"Learn"):
        assert b"/seal.v1.TeacherService/" + method in scene.wire("teacher", RECEIVED)
    assert all(b"seal_" in page for page in scene.metrics.values())
    assert all(f"seal-{name}".encode() in scene.traces for name in NAMES)


async def test_planted_leaks_are_found_in_every_place(tmp_path: Path, models: Models) -> None:
    scene = await played(tmp_path, models, leaking=True)
    assert {hit.place for hit in scene.crossings()} >= PLACES


def test_every_kind_of_grader_holds_a_canary() -> None:
    """A new kind joins by itself, and fails here as long as nobody said what its key is."""
    contract = {name for name in dict(task_pb2.GraderKind.items()) if name != "GRADER_KIND_UNSPECIFIED"}
    assert {str(kind) for kind in GraderKind} == contract
    assert set(KINDS) >= {GraderKind.CHOICE, GraderKind.JUDGE, GraderKind.COMMAND}
