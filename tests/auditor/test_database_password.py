"""The ledger's database password comes from a file, anew for every connection, and what is wrong with the file is said.

At the other end is a server that speaks as much of PostgreSQL's protocol as it takes to be told a password.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from auditor.ledger.database import open_engine
from common.errors import InvalidConfig

CLEARTEXT = b"R" + struct.pack("!ii", 8, 3)
REFUSED = b"SFATAL\0VFATAL\0C28P01\0Mpassword refused\0\0"


@contextmanager
def _asking() -> Iterator[tuple[int, list[str]]]:
    """A port at which a server asks for a password, notes it, and refuses it."""
    heard: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, connection.makefile("rb") as stream:
                    stream.read(struct.unpack("!i", stream.read(4))[0] - 4)
                    connection.sendall(CLEARTEXT)
                    if stream.read(1) == b"p":
                        heard.append(stream.read(struct.unpack("!i", stream.read(4))[0] - 4).rstrip(b"\0").decode())
                    connection.sendall(b"E" + struct.pack("!i", 4 + len(REFUSED)) + REFUSED)

        threading.Thread(target=answer, daemon=True).start()
        yield listening.getsockname()[1], heard
        listening.shutdown(socket.SHUT_RDWR)


def test_every_connection_shows_what_the_file_holds_then(tmp_path: Path) -> None:
    file = tmp_path / "password"
    with _asking() as (port, heard):
        file.write_text("first\n")
        url = f"postgresql+psycopg://seal@127.0.0.1:{port}/seal?sslmode=disable&gssencmode=disable"
        engine = open_engine(url, file)
        assert "first" not in repr(engine.url)
        with pytest.raises(OperationalError, match="password refused"):
            engine.connect()
        file.write_text("second")
        with pytest.raises(OperationalError, match="password refused"):
            engine.connect()
    assert heard == ["first", "second"]


@pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), ("\n", "is empty")])
def test_a_file_that_holds_no_password_is_named_at_the_start(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidConfig, match=f"database_password_file: .*password: {said}"):
        open_engine("postgresql+psycopg://seal@127.0.0.1/seal", file)


def test_a_password_for_sqlite_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="SQLite"):
        open_engine(f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path / "password")
