"""What the launcher tells each service: the user's words first, the launcher's where the user said nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.failure import BadInput
from cli.launcher.plan import SERVICES, Plan, make_plan


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def plan(**options: object) -> Plan:
    return make_plan(data=Path("data"), **options)  # type: ignore[arg-type]


def test_without_a_word_the_three_fit_together(tmp_path: Path) -> None:
    made = plan()
    auditor = made.service("auditor").settings
    assert auditor["teacher"] == {"target": "127.0.0.1:50051"}
    assert auditor["student"] == {"target": "127.0.0.1:50052"}
    assert auditor["database"] == f"sqlite:///{tmp_path}/data/auditor/ledger.db"
    locks = {made.service(name).settings["heavy_lock"] for name in ("teacher", "student")}
    assert locks == {str(tmp_path / "data" / "phase.lock")}
    assert len({str(service.address.port) for service in made.services}) == 3


def test_the_users_words_go_before_the_launchers(tmp_path: Path) -> None:
    Path("seal.yaml").write_text("student:\n  listen: 127.0.0.1:6000\n  recipe: {epochs: 9}\nteacher:\n")
    made = plan(settings=["student.recipe.rank=4", "auditor.log_level=debug"])
    student = made.service("student").settings
    assert student["listen"] == "127.0.0.1:6000"
    assert student["recipe"] == {"epochs": 9, "rank": 4}
    assert made.service("auditor").settings["student"] == {"target": "127.0.0.1:6000"}
    assert made.service("auditor").settings["log_level"] == "debug"


def test_a_peer_elsewhere_is_left_alone() -> None:
    made = plan(settings=["auditor.teacher.target=gpu-host:50051"])
    assert made.service("auditor").settings["teacher"] == {"target": "gpu-host:50051"}


def test_free_ports_are_free_and_known_to_the_auditor() -> None:
    made = plan(free_ports=True, settings=["student.listen=127.0.0.1:6000"])
    ports = {service.address.port for service in made.services}
    ports |= {service.metrics.port for service in made.services if service.metrics}
    assert len(ports) == 6
    assert 6000 not in ports
    assert made.service("auditor").settings["student"]["target"] == made.service("student").address.dialled


def test_a_fresh_plan_touches_nothing_that_the_user_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("seal.yaml").write_text(
        "teacher: {store: /srv/teacher, log_level: debug}\n"
        "student: {store: /srv/student, heavy_lock: /srv/lock}\n"
        "auditor: {database: 'sqlite:////srv/ledger.db', student: {target: 'gpu-host:50052'}}\n"
    )
    monkeypatch.setenv("SEAL_STUDENT__STORE", "/srv/other")
    monkeypatch.setenv("SEAL_AUDITOR", "gpu-host:50053")
    made = plan(fresh=True)
    for service in made.services:
        assert "/srv" not in str(service.settings)
        assert service.address.port not in (50051, 50052, 50053)
    assert made.service("auditor").settings["student"]["target"] == made.service("student").address.dialled
    assert made.service("teacher").settings["log_level"] == "debug"
    assert "SEAL_STUDENT__STORE" not in made.environment()
    assert made.environment()["SEAL_AUDITOR"] == "gpu-host:50053"
    assert plan().environment()["SEAL_STUDENT__STORE"] == "/srv/other"


def test_a_wildcard_address_is_dialled_on_this_machine() -> None:
    made = plan(settings=["student.listen=0.0.0.0:6000"])
    assert made.service("auditor").settings["student"]["target"] == "127.0.0.1:6000"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("studnet: {}\n", "seal.yaml:1: studnet is not a known section"),
        ("teacher: {}\nstudent: 3\n", "seal.yaml:2: student must be a mapping"),
        ("- teacher\n", "seal.yaml:1: must have sections"),
        ("teacher: [\n", "seal.yaml:2: no valid YAML"),
        ("teacher: {}\nstudent:\n  store: !foo x\n", "seal.yaml:3: could not determine a constructor"),
        ("student: {seed: 2024-13-45}\n", "seal.yaml: holds a value that is none"),
        ("student:\n  seed: 1\n  seed: 2\n", "seal.yaml:3: seed occurs twice"),
        ("auditor: {teacher: foo}\n", "auditor.teacher must be a mapping"),
        ("[" * 10_000, "seal.yaml:1: nested too deeply"),
        ("student: {listen: nowhere}\n", "student.listen: nowhere is no HOST:PORT"),
        ("student: {listen: '127.0.0.1:99999'}\n", "student.listen: 127.0.0.1:99999 is no HOST:PORT"),
    ],
)
def test_a_bad_file_is_refused_with_line_and_key(content: str, said: str) -> None:
    Path("seal.yaml").write_text(content)
    with pytest.raises(BadInput) as refusal:
        plan()
    assert said in refusal.value.what


def test_a_file_that_was_named_must_exist() -> None:
    with pytest.raises(BadInput, match=r"other\.yaml: cannot be read: No such file"):
        plan(config=Path("other.yaml"))


@pytest.mark.parametrize("setting", ["listen=1", "cook.listen=1", "student.listen", "student.listen.port.x=1"])
def test_a_bad_setting_is_refused(setting: str) -> None:
    Path("seal.yaml").write_text("student: {listen: '127.0.0.1:6000'}\n")
    with pytest.raises(BadInput, match="--set"):
        plan(settings=[setting])


def test_every_service_has_its_health_name() -> None:
    assert [service.health_name.rpartition(".")[2].lower() for service in plan().services] == [
        f"{name}service" for name in SERVICES
    ]
