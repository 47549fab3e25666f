"""`seal run --changed-since`: what is sent, what is noted and when, and what a start that was cut off finds again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import grpc
import pytest

from cli.changes import State, digest, note
from cli.taskfiles import load_tasks
from common import errors
from common.boundary.identities import Identity, Role
from common.contract.seal.v1 import auditor_pb2 as pb
from common.rpc.reading import check_request
from tests.cli.conftest import Seal
from tests.cli.scripted_auditor import ScriptedAuditor, recorded_events, serving

ROOT = Path(__file__).resolve().parent.parent.parent
CANARY = "marlquay-canary"
TASK = "id: {0}\ntitle: Document {0}\ncontext: The trial of {0} lasts {1} days.\ntau:\n"
ITEM = f"  - {{{{id: q{{0:02d}}, question: 'How long is trial {{0}}?', answers: [{CANARY} {{1}}]}}}}\n"


class Nightly(ScriptedAuditor):
    """Knows the runs that were started, and refuses to list edits as an auditor refuses a scheduler."""

    def __init__(self, quiet_seconds: float = 0.0) -> None:
        super().__init__(quiet_seconds=quiet_seconds)
        # Called whenever a run that is known is asked for.
        self.meanwhile: Callable[[], None] = lambda: None
        self.known: dict[str, pb.RunState.ValueType] = {}

    @property
    def started(self) -> list[pb.StartRunRequest]:
        return [request for request in self.requests if isinstance(request, pb.StartRunRequest)]

    async def StartRun(self, request: pb.StartRunRequest, context: object) -> pb.StartRunResponse:
        check_request(Identity(Role.SCHEDULER), "/seal.v1.AuditorService/StartRun", request)
        await super().StartRun(request, context)
        state = self.known.setdefault(request.run_id, pb.RUN_STATE_QUEUED)
        return pb.StartRunResponse(run=pb.Run(run_id=request.run_id, state=state))

    async def GetRun(self, request: pb.GetRunRequest, context: object) -> pb.GetRunResponse:
        if request.run_id not in self.known:
            raise errors.NotFound(f"no run {request.run_id}")
        self.meanwhile()
        response = await super().GetRun(request, context)
        if (state := self.known[request.run_id]) != pb.RUN_STATE_QUEUED:
            response.run.state = state
        return response

    async def ListEdits(  # type: ignore[override]  # what aborts returns nothing
        self, request: pb.ListEditsRequest, context: grpc.aio.ServicerContext[pb.ListEditsRequest, pb.ListEditsResponse]
    ) -> NoReturn:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "scheduler may not call ListEdits")


@pytest.fixture
def servicer() -> Nightly:
    return Nightly()


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    folder = tmp_path / "documents"
    folder.mkdir()
    for name in ("faq", "notes", "rules"):
        write(folder, name)
    return folder


def write(folder: Path, name: str, days: int = 22, answer: str = "22 days") -> None:
    items = "".join(ITEM.format(n, answer) for n in range(1, 5))
    (folder / f"{name}.yaml").write_text(TASK.format(name, days) + items)


def sent(request: pb.StartRunRequest) -> list[str]:
    return [task.task_id for task in request.tasks]


def test_only_documents_that_changed_are_run(asked: Seal, servicer: Nightly, documents: Path) -> None:
    state = documents.parent / "state.json"
    command = ("run", str(documents), "--changed-since", str(state))
    assert asked(*command).code == 0
    write(documents, "notes", days=30)
    write(documents, "rules", answer="another key")
    assert asked(*command).code == 0
    assert [sent(request) for request in servicer.started] == [["faq", "notes", "rules"], ["notes", "rules"]]

    nothing = asked(*command)
    assert nothing.code == 0
    assert "Nothing changed: 3 documents" in nothing.err
    assert len(servicer.started) == 2


def test_a_document_that_changes_back_is_run_again_under_a_new_id(
    asked: Seal, servicer: Nightly, documents: Path
) -> None:
    command = ("run", str(documents), "--changed-since", str(documents.parent / "state.json"))
    for days in (22, 30, 22, 30):
        write(documents, "faq", days=days)
        assert asked(*command).code == 0
    assert [sent(request) for request in servicer.started[1:]] == [["faq"]] * 3
    assert len({request.run_id for request in servicer.started}) == 4


def test_what_another_command_noted_meanwhile_stays(asked: Seal, servicer: Nightly, documents: Path) -> None:
    """A nightly run and one for a merged change may share the file."""
    state = documents.parent / "state.json"
    servicer.meanwhile = lambda: note(state, "another", load_tasks([documents / "rules.yaml"]))
    assert asked("run", str(documents / "faq.yaml"), "--changed-since", str(state)).code == 0
    assert set(State.read(state).documents) == {"faq", "rules"}


def test_the_limit_counts_changed_documents(asked: Seal, servicer: Nightly, documents: Path) -> None:
    command = ("run", str(documents), "--limit", "2", "--changed-since", str(documents.parent / "state.json"))
    assert asked(*command).code == asked(*command).code == 0
    assert [sent(request) for request in servicer.started] == [["faq", "notes"], ["rules"]]


def test_the_state_holds_no_text_and_no_answer(asked: Seal, documents: Path) -> None:
    state = documents.parent / "state.json"
    assert asked("run", str(documents), "--changed-since", str(state)).code == 0
    written = state.read_text()
    assert CANARY not in written
    assert "trial" not in written
    assert State.read(state).documents == {task.task_id: digest(task) for task in load_tasks([documents])}


def test_a_scheduler_who_may_not_list_edits_sees_the_run_to_its_end(asked: Seal, documents: Path) -> None:
    outcome = asked("run", str(documents), "--changed-since", str(documents.parent / "state.json"))
    assert outcome.code == 0, outcome.err
    assert "Its edits are an operator's to read" in outcome.out


def test_a_scheduler_may_say_how_much_is_tried_and_not_by_what_it_is_judged(
    asked: Seal, servicer: Nightly, documents: Path
) -> None:
    command = ("run", str(documents), "--changed-since", str(documents.parent / "state.json"))
    refused = asked(*command, "--max-drop", "1")
    assert refused.code == 1
    assert "settings.retention is the auditor's to set" in refused.err
    assert servicer.started == []
    assert asked(*command, "--rounds", "2", "--candidates", "3").code == 0


@pytest.mark.parametrize("ending", ["run_failed", "run_cancelled"])
def test_a_run_that_came_to_nothing_is_not_noted_and_is_tried_anew(
    asked: Seal, servicer: Nightly, documents: Path, ending: str
) -> None:
    state = documents.parent / "state.json"
    command = ("run", str(documents), "--changed-since", str(state))
    whole = servicer.events
    last = pb.RunEvent(seq=whole[-1].seq, run_failed=pb.RunFailed(reason="UNAVAILABLE", detail="the student is gone"))
    servicer.events = [*recorded_events()[:-1], last]
    assert asked(*command).code == 1
    assert State.read(state) == State()

    (first,) = servicer.known
    servicer.known[first] = pb.RUN_STATE_FAILED if ending == "run_failed" else pb.RUN_STATE_CANCELLED
    servicer.events = whole
    assert asked(*command).code == 0
    assert [request.run_id for request in servicer.started] == [first, first.removesuffix("1") + "2"]
    assert State.read(state).last_run == first.removesuffix("1") + "2"


def test_a_malformed_state_is_refused_before_anybody_is_asked(seal: Seal, documents: Path) -> None:
    state = documents.parent / "state.json"
    state.write_text('{"format": 2}')
    outcome = seal("run", str(documents), "--changed-since", str(state), "--auditor", "127.0.0.1:1")
    assert outcome.code == 2
    assert f"{state}: no state of earlier runs" in outcome.err


def test_a_state_that_cannot_be_written_is_found_before_a_run_is_started(
    asked: Seal, servicer: Nightly, documents: Path
) -> None:
    outcome = asked("run", str(documents), "--changed-since", str(documents / "faq.yaml" / "state.json"))
    assert outcome.code in (1, 2)
    assert "state.json" in outcome.err
    assert servicer.started == []


@pytest.mark.parametrize("other", [("--detach",), ("--run-id", "mine")])
def test_options_that_contradict_it_are_wrong_usage(seal: Seal, documents: Path, other: tuple[str, ...]) -> None:
    outcome = seal("run", str(documents), "--changed-since", str(documents.parent / "s.json"), *other)
    assert outcome.code == 2
    assert other[0] in outcome.err


@pytest.fixture
def stalling() -> Iterator[tuple[Nightly, str]]:
    servicer = Nightly(quiet_seconds=60.0)
    with serving(servicer) as target:
        yield servicer, target


def test_a_killed_start_notes_nothing_and_the_next_finds_its_run(
    stalling: tuple[Nightly, str], seal: Seal, documents: Path
) -> None:
    servicer, target = stalling
    state = documents.parent / "state.json"
    command = ("run", str(documents), "--changed-since", str(state), "--json", "--auditor", target)
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        seen = [json.loads(line)["type"] for _, line in zip(range(6), process.stdout, strict=False)]
        process.kill()
    assert "run_started" in seen
    assert State.read(state) == State()

    assert seal(*command).code == 0
    first, second = servicer.started
    assert first.run_id == second.run_id
    assert State.read(state).last_run == first.run_id
    assert set(State.read(state).documents) == {"faq", "notes", "rules"}
