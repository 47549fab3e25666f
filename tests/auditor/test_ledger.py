"""The ledger cannot be changed unnoticed, survives erasure of payloads, and has one writer."""

from __future__ import annotations

import importlib
import io
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import IntegrityError

from auditor.events import RunFailed
from auditor.ledger import database
from auditor.ledger.__main__ import main as admin
from auditor.ledger.chain import GENESIS
from auditor.ledger.models import Base
from auditor.ledger.store import GivenAnswer, Ledger
from common.canonical import digest_bytes
from common.errors import Conflict, InvalidConfig, NotFound, NotPossible
from common.lora.proof import Liveness


def url(folder: Path) -> str:
    return f"sqlite:///{folder / 'ledger.db'}"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(url(tmp_path)) as opened:
        for i in range(5):
            opened.append(
                RunFailed(reason="R", detail=str(i)), run_id="run", step=f"s{i}", payloads=[f"payload {i}".encode()]
            )
        yield opened


def tamper(folder: Path, *statements: str) -> None:
    """What somebody does who has the file, and takes the triggers away first."""
    with closing(sqlite3.connect(folder / "ledger.db")) as connection:
        for statement in ("DROP TRIGGER events_no_update", "DROP TRIGGER events_no_delete", *statements):
            connection.execute(statement)
        connection.commit()


def test_untouched_chain_is_intact(ledger: Ledger) -> None:
    verdict = ledger.verify()
    assert (verdict.intact, verdict.events, verdict.broken_at) == (True, 5, 0)
    assert ledger.head() == (5, verdict.head)
    assert ledger.events()[0].prev_hash == GENESIS


@pytest.mark.parametrize(
    ("statement", "broken_at"),
    [
        ("UPDATE events SET payload = replace(payload, '2', '9') WHERE seq = 3", 3),
        ("UPDATE events SET time = '2020-01-01T00:00:00+00:00' WHERE seq = 2", 2),
        ("UPDATE events SET step = 'other' WHERE seq = 4", 4),
        ("UPDATE events SET run_id = 'other' WHERE seq = 1", 1),
        ("UPDATE events SET payload_refs = '[]' WHERE seq = 5", 5),
        ("DELETE FROM events WHERE seq = 2", 2),
        ("UPDATE payloads SET content = CAST('forged' AS BLOB) WHERE sha256 = '{payload}'", 4),
        ("DELETE FROM payloads WHERE sha256 = '{payload}'", 4),
        ("UPDATE payloads SET content = NULL WHERE sha256 = '{payload}'", 4),
        ("UPDATE payloads SET content = NULL, erased_seq = 1 WHERE sha256 = '{payload}'", 4),
    ],
)
def test_tampering_is_found_at_the_first_broken_event(
    ledger: Ledger, tmp_path: Path, statement: str, broken_at: int
) -> None:
    tamper(tmp_path, statement.format(payload=digest_bytes(b"payload 3").sha256))
    verdict = ledger.verify()
    assert not verdict.intact
    assert verdict.broken_at == broken_at
    assert "payload 3" not in verdict.detail


def test_cut_off_tail_shows_against_the_expected_head(ledger: Ledger, tmp_path: Path) -> None:
    seq, head = ledger.head()
    assert ledger.verify(seq, head).intact
    tamper(tmp_path, "DELETE FROM events WHERE seq = 5")
    assert ledger.verify().intact
    assert ledger.verify(seq, head).broken_at == 5
    assert not ledger.verify(0, head).intact
    assert not ledger.verify(4, head).intact


def test_chain_that_grew_since_still_holds_the_expected_head(ledger: Ledger) -> None:
    seq, head = ledger.head()
    ledger.append(RunFailed(reason="R", detail="later"))
    assert ledger.verify(seq, head).intact
    assert ledger.verify(0, head).intact


def test_events_can_be_neither_updated_nor_deleted(ledger: Ledger, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        for statement in ("UPDATE events SET type = 'x'", "DELETE FROM events"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                connection.execute(statement)


def test_erased_payload_leaves_a_tombstone_and_a_valid_chain(ledger: Ledger) -> None:
    sha256 = digest_bytes(b"payload 3").sha256
    link = ledger.erase(sha256, decided_by="operator", reason="asked by the customer")
    assert ledger.payload(sha256) is None
    assert ledger.verify().intact
    assert ledger.verify().erased == 1
    assert link.payload == {"payload": sha256, "decided_by": "operator", "reason": "asked by the customer"}
    with pytest.raises(NotFound):
        ledger.erase(sha256, decided_by="operator", reason="again")


def test_erasing_an_answer_forgets_it_in_the_cache(ledger: Ledger) -> None:
    ledger.remember([GivenAnswer("k" * 64, "base", Liveness.BASE, "an answer")])
    cached = ledger.recall(["k" * 64])["k" * 64]
    assert ledger.payload(cached.answer) == b"an answer"
    ledger.erase(cached.answer, decided_by="operator", reason="personal data")
    assert ledger.recall(["k" * 64]) == {}


def test_no_step_of_a_run_is_completed_twice(ledger: Ledger) -> None:
    with pytest.raises(Conflict):
        ledger.append(RunFailed(reason="R", detail="again"), run_id="run", step="s1")
    ledger.append(RunFailed(reason="R", detail="another run"), run_id="other", step="s1")
    assert ledger.verify().events == 6


def test_second_writer_in_another_process_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom auditor.ledger.store import Ledger\nfrom common.errors import SealError\n"
        f"try:\n    Ledger.open({url(tmp_path)!r})\nexcept SealError as error:\n    sys.exit(error.reason)\n"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert other.stderr.strip() == "LEDGER_HELD"


def test_reader_beside_the_writer_may_read_and_verify_but_not_append(ledger: Ledger, tmp_path: Path) -> None:
    with Ledger.open(url(tmp_path), writer=False) as reader:
        assert reader.verify().events == 5
        with pytest.raises(NotPossible) as refused:
            reader.append(RunFailed(reason="R", detail="x"))
    assert refused.value.reason == "LEDGER_HELD"


def test_closed_ledger_can_be_opened_again_and_goes_on(tmp_path: Path) -> None:
    for number in (1, 2):
        with Ledger.open(url(tmp_path)) as ledger:
            assert ledger.append(RunFailed(reason="R", detail="x")).seq == number


def test_migrated_schema_is_the_models_schema(ledger: Ledger, tmp_path: Path) -> None:
    found = inspect(create_engine(url(tmp_path)))
    for table in Base.metadata.sorted_tables:
        columns = {column["name"]: column["nullable"] for column in found.get_columns(table.name)}
        assert columns == {column.name: bool(column.nullable) for column in table.columns}


def test_durable_settings_are_on_for_every_connection(tmp_path: Path) -> None:
    engine = database.open_engine(url(tmp_path))
    with engine.connect() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert found == ["wal", 2, 1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not a url", "not a database URL"),
        ("mysql://host/db", "neither sqlite nor postgresql"),
        ("sqlite://", "in-memory"),
    ],
)
def test_unusable_database_urls_are_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidConfig, match=said):
        database.open_engine(text)


def test_unique_columns_refuse_a_second_chain_of_the_same_head(ledger: Ledger, tmp_path: Path) -> None:
    """What still stands when two writers slip past the lock (a network file system, say)."""
    with create_engine(url(tmp_path)).connect() as connection, pytest.raises(IntegrityError):
        connection.exec_driver_sql(
            "INSERT INTO events SELECT 6, time, type, run_id, 'x', payload, payload_refs, prev_hash, 'h' "
            "FROM events WHERE seq = 5"
        )


def test_migration_speaks_postgresql_too() -> None:
    """Its statements, not its server: the append-only rule and portable types are there."""
    written = io.StringIO()
    options = {"as_sql": True, "output_buffer": written}
    revision = importlib.import_module("auditor.migrations.versions.0001_ledger")
    with Operations.context(MigrationContext.configure(dialect_name="postgresql", opts=options)):
        revision.upgrade()
    assert "BEFORE UPDATE OR DELETE OR TRUNCATE ON events" in written.getvalue()
    assert "content BYTEA" in written.getvalue()
    assert "seq BIGINT NOT NULL" in written.getvalue()


def test_operator_can_check_and_tend_a_ledger_by_hand(
    ledger: Ledger, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sha256 = digest_bytes(b"payload 3").sha256
    database = ["--database", url(tmp_path)]
    assert admin([*database, "verify"]) == 0
    assert json.loads(capsys.readouterr().out)["events"] == 5
    assert admin([*database, "erase", sha256, "--reason", "asked by the customer"]) == 1
    assert "one writer" in capsys.readouterr().err
    ledger.close()
    assert admin([*database, "erase", sha256, "--reason", "asked by the customer"]) == 0
    erased = json.loads(capsys.readouterr().out)
    assert admin([*database, "head"]) == 0
    assert json.loads(capsys.readouterr().out) == {"seq": 6, "head": erased["head"]}
    assert admin([*database, "verify", "--expected-seq", "7"]) == 1
