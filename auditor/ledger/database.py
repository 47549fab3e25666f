"""Opens the ledger's database: engine, durability, migrations, and the lock that makes its holder the only writer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from auditor.database_url import PASSWORD_ELSEWHERE, holds_password
from common.errors import InvalidConfig, NotPossible

MIGRATIONS = Path(__file__).parent.parent / "migrations"
ADVISORY_LOCK = 0x5EA1_0001  # any constant: all auditors of one PostgreSQL database must agree on it


def open_engine(url: str, password_file: Path | None = None) -> Engine:
    """An engine for `url`. SQLite: WAL, synchronous=FULL, foreign keys. Raises InvalidConfig.

    password_file: read again for every connection, so that a password may be replaced while the auditor runs.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise InvalidConfig("database: not a database URL") from None
    if holds_password(url):
        raise InvalidConfig(f"database: {PASSWORD_ELSEWHERE}")
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise InvalidConfig(f"database: {parsed.get_backend_name()} is neither sqlite nor postgresql")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise InvalidConfig("database: an in-memory ledger would not survive its auditor; name a file")
    if parsed.get_backend_name() == "sqlite" and password_file is not None:
        raise InvalidConfig("database_password_file: a SQLite database has no password")
    try:
        engine = create_engine(parsed, pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise InvalidConfig(f"database: the driver {error.name} is not installed") from None
    if engine.dialect.name == "sqlite":
        Path(parsed.database or "").absolute().parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _make_durable)
    elif password_file is not None:
        _password(password_file)  # what is missing is found at the start

        @event.listens_for(engine, "do_connect")
        def _show(_dialect: object, _record: object, _arguments: object, parameters: dict[str, Any]) -> None:
            parameters["password"] = _password(password_file)

    return engine


def _password(file: Path) -> str:
    try:
        password = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"database_password_file: {file}: cannot be read: {type(error).__name__}") from None
    if not password:
        raise InvalidConfig(f"database_password_file: {file}: is empty; expected the password and nothing else")
    return password


def _make_durable(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def migrate(engine: Engine) -> None:
    """Brings the schema up to this package's revision. Safe to call at every start."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def hold(engine: Engine) -> Callable[[], None]:
    """Makes this process the ledger's only writer until the returned function is called.

    Raises NotPossible(LEDGER_HELD) when another process is.
    """
    return _hold_file(engine) if engine.dialect.name == "sqlite" else _hold_advisory(engine.connect())


def _hold_file(engine: Engine) -> Callable[[], None]:
    path = Path(engine.url.database or "").absolute()
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _held() from None
    return lock.release


def _hold_advisory(connection: Connection) -> Callable[[], None]:
    """PostgreSQL frees the lock with the session, so a killed holder leaves nothing behind."""
    if not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": ADVISORY_LOCK}):
        connection.close()
        raise _held()
    connection.commit()
    return connection.close


def _held() -> NotPossible:
    return NotPossible("another process holds the ledger; it has one writer", reason="LEDGER_HELD")
