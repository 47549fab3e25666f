"""The command grader: a real process, really shut in."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from auditor.graders import confine
from auditor.graders.command import CONFINE
from auditor.graders.config import CommandConfig
from auditor.recorder import Recorder
from common.errors import InvalidConfig, NotPossible
from tests.auditor.graders.items import graders, item, submitted

PYTHON = "/usr/bin/python3"
NOBODY = 65_534
SUM = item("COMMAND", "KEY-42", question="Write code that prints 42.")


def shut_in(own: Recorder, *argv: str, **changes: Any) -> Any:
    content = {"argv": argv, "timeout_seconds": 20, "memory_mib": 512, "concurrency": 2, **changes}
    return graders(own, commands={"check": CommandConfig.model_validate(content)})


def sandbox_works(kind: str) -> bool:
    try:
        graders(None, commands={"probe": CommandConfig(argv=("true",), sandbox=kind)})  # type: ignore[arg-type]
    except InvalidConfig:
        return False
    return True


needs_namespaces = pytest.mark.skipif(not sandbox_works("namespaces"), reason="this machine gives no namespaces")
needs_landlock = pytest.mark.skipif(not sandbox_works("landlock"), reason="this kernel has no Landlock")
needs_python = pytest.mark.skipif(not Path(PYTHON).exists(), reason="no python of the system's")
pytestmark = needs_namespaces


async def mark(own: Recorder, *argv: str, answer: str = "print(42)", **changes: Any) -> float:
    return float((await shut_in(own, *argv, **changes).mark([submitted(answer, SUM)]))[0])


async def test_status_0_is_right_and_any_other_end_is_wrong(own: Recorder) -> None:
    for script, right in (
        ("exit 0", 1),
        ("exit 1", 0),
        ("exit 125", 0),
        ("exit 128", 0),
        ("exit 255", 0),
        ("kill -9 $$", 0),
    ):
        assert await mark(own, "sh", "-c", script) == right, script


async def test_the_command_gets_answer_question_and_keys_and_nothing_else(own: Recorder) -> None:
    os.environ["SEAL_TEST_SECRET"] = "1"
    script = """
    grep -q 'print(42)' answer.txt || exit 1
    read -r asked
    case "$asked" in *'"answers":["KEY-42"]'*) ;; *) exit 2;; esac
    case "$asked" in *'"question":"Write code that prints 42."'*) ;; *) exit 3;; esac
    [ -z "$(cat)" ] || exit 4
    [ "$(ls -A)" = answer.txt ] || exit 5
    [ "$HOME" = "$PWD" ] || exit 6
    [ "$OWN" = yes ] || exit 7
    [ -z "$SEAL_TEST_SECRET" ] || exit 8
    """
    try:
        assert await mark(own, "sh", "-c", script, environment={"OWN": "yes"}) == 1
    finally:
        del os.environ["SEAL_TEST_SECRET"]


async def test_a_mark_is_remembered_until_the_command_changes(tmp_path: Path, own: Recorder) -> None:
    count = tmp_path / "count"
    count.touch()
    argv = ("sh", "-c", f"echo once >> {count}")
    open_to: dict[str, Any] = {"sandbox": "limits", "network": True}
    for revision in ("1", "1", "2"):
        assert await mark(own, *argv, revision=revision, **open_to) == 1
    assert count.read_text().splitlines() == ["once", "once"]


@pytest.mark.parametrize("kind", ["namespaces", "landlock", "limits"])
async def test_time_is_limited_and_nobody_is_left_behind(own: Recorder, kind: str) -> None:
    name = f"31{os.getpid() % 10_000:04d}{len(kind)}"
    script = f"setsid sleep {name} & (sleep {name} &) ; sleep {name}"
    began = time.monotonic()
    more: dict[str, Any] = {"timeout_seconds": 1, "sandbox": kind, "network": kind == "limits"}
    assert await mark(own, "sh", "-c", script, **more) == 0
    assert time.monotonic() - began < 10
    assert not sleeping(name)


@pytest.mark.parametrize("kind", ["namespaces", "landlock", "limits"])
async def test_what_a_finished_command_left_running_is_ended(own: Recorder, kind: str) -> None:
    name = f"32{os.getpid() % 10_000:04d}{len(kind)}"
    script = f"setsid sleep {name} & (sleep {name} &) ; exit 0"
    assert await mark(own, "sh", "-c", script, sandbox=kind, network=kind == "limits") == 1
    assert not sleeping(name)


@pytest.mark.parametrize("kind", ["namespaces", "landlock", "limits"])
async def test_a_cancelled_run_ends_its_command_and_all_it_started(own: Recorder, kind: str) -> None:
    name = f"33{os.getpid() % 10_000:04d}{len(kind)}"
    script = f"setsid sleep {name} & (sleep {name} &) ; sleep {name}"
    desk = shut_in(own, "sh", "-c", script, sandbox=kind, network=kind == "limits")
    task = asyncio.create_task(desk.mark([submitted("x", SUM)]))
    await until(lambda: len(sleeping(name)) == 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: not sleeping(name))


@pytest.mark.parametrize("kind", ["namespaces", "landlock", "limits"])
def test_an_auditor_that_is_killed_leaves_nobody_behind(tmp_path: Path, kind: str) -> None:
    name = f"34{os.getpid() % 10_000:04d}{len(kind)}"
    stdin = framed(["sh", "-c", f"setsid sleep {name} & (sleep {name} &) ; sleep {name}"], tmp_path, kind)
    (tmp_path / "stdin").write_bytes(stdin)
    # Stands for the auditor: it starts the sandbox and waits.
    keep = f"import subprocess, sys; subprocess.run({list(CONFINE)!r}, stdin=open({str(tmp_path / 'stdin')!r}))"
    with subprocess.Popen([sys.executable, "-c", keep]) as auditor:
        asyncio.run(until(lambda: len(sleeping(name)) == 3))
        auditor.kill()
    asyncio.run(until(lambda: not sleeping(name)))


def framed(argv: list[str], folder: Path, kind: str, processes: int = 64) -> bytes:
    """What confine.py reads."""
    spec: confine.Spec = {
        "argv": argv,
        "folder": str(folder),
        "environment": {},
        "sandbox": kind,
        "network": kind == "limits",
        "readable": [],
        "timeout_seconds": 20,
        "memory_bytes": 512 << 20,
        "file_bytes": 1 << 20,
        "processes": processes,
    }
    written = json.dumps(spec).encode()
    return len(written).to_bytes(4, "big") + written


@pytest.mark.parametrize("what", ["limit", "as_init"])
def test_a_sandbox_that_fails_inside_is_broken_and_no_wrong_answer(tmp_path: Path, what: str) -> None:
    program = tmp_path / "confine.py"
    text = Path(confine.__file__).read_text()
    failing = re.sub(rf"(def {what}\(.*?\n)(    |def )", r"\1    raise MemoryError\n\2", text, count=1)
    assert failing != text
    program.write_text(failing)
    folder = tmp_path / "own"
    folder.mkdir()
    stdin = framed(["true"], folder, "limits")
    done = subprocess.run([sys.executable, "-I", "-S", program], input=stdin, capture_output=True, check=True)
    assert json.loads(done.stdout) == {"outcome": "broken", "why": "MemoryError"}


async def until(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        await asyncio.sleep(0.02)
    pytest.fail("not within ten seconds")


def sleeping(name: str) -> list[int]:
    """Processes of this command line; a zombie has none."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cmdline").read_bytes() == f"sleep\0{name}\0".encode():
                found.append(int(entry.name))
    return found


@needs_python
async def test_memory_is_limited(own: Recorder) -> None:
    take = "import sys; data = bytearray(int(sys.argv[1]) << 20); sys.exit(0)"
    assert await mark(own, PYTHON, "-c", take, "64", memory_mib=256) == 1
    assert await mark(own, PYTHON, "-c", take, "400", memory_mib=256) == 0


async def test_file_size_is_limited(own: Recorder) -> None:
    write = "head -c {}000000 /dev/zero > big"
    assert await mark(own, "sh", "-c", write.format(1), max_file_mib=2) == 1
    assert await mark(own, "sh", "-c", write.format(3), max_file_mib=2) == 0


@needs_python
@pytest.mark.parametrize(
    ("kind", "network", "reached"), [("namespaces", False, 0), ("landlock", False, 0), ("namespaces", True, 1)]
)
async def test_the_network_is_cut_off_unless_it_is_allowed(
    own: Recorder, kind: str, network: bool, reached: float
) -> None:
    connect = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        threading.Thread(target=server.accept, daemon=True).start()
        more: dict[str, Any] = {"sandbox": kind, "network": network}
        assert await mark(own, PYTHON, "-c", connect, port, **more) == reached
        socket.create_connection(server.getsockname(), 5).close()


@needs_python
async def test_a_command_may_talk_to_itself_over_its_own_loopback(own: Recorder) -> None:
    talk = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname(), 5)"
    assert await mark(own, PYTHON, "-c", talk) == 1


@pytest.mark.parametrize("kind", ["namespaces", "landlock"])
async def test_files_of_others_can_be_neither_read_nor_written(tmp_path: Path, own: Recorder, kind: str) -> None:
    secret = tmp_path / "ledger-of-keys"
    secret.write_text("KEY")
    probe = (
        f"cat {secret} && exit 1; echo forged > {secret} && exit 2; ls {tmp_path} && exit 3; echo mine > own && exit 0"
    )
    assert await mark(own, "sh", "-c", probe, sandbox=kind) == 1
    assert secret.read_text() == "KEY"
    only_read = f"cat {secret} || exit 1; echo forged > {secret} && exit 2; exit 0"
    assert await mark(own, "sh", "-c", only_read, sandbox=kind, readable=[str(secret)]) == 1
    assert secret.read_text() == "KEY"


@pytest.mark.parametrize("kind", ["namespaces", "landlock"])
async def test_modes_owners_and_times_of_others_files_stay(tmp_path: Path, own: Recorder, kind: str) -> None:
    secret = tmp_path / "ledger-of-keys"
    secret.write_text("KEY")
    secret.chmod(0o600)
    tries = ("chmod 666", "chgrp 0", "chown 0", "touch -d 2001-01-01", "touch -h -d 2001-01-01")
    script = " || ".join(f"{how} {secret}" for how in tries)
    # Even where it may be read.
    for readable in ([], [str(secret)]):
        before = secret.stat()
        assert await mark(own, "sh", "-c", script, sandbox=kind, readable=readable) == 0
        now = secret.stat()
        assert (now.st_mode, now.st_uid, now.st_mtime_ns, now.st_ctime_ns) == (
            before.st_mode,
            before.st_uid,
            before.st_mtime_ns,
            before.st_ctime_ns,
        )


@needs_python
@pytest.mark.parametrize("kind", ["namespaces", "landlock"])
async def test_attributes_of_others_files_stay(tmp_path: Path, own: Recorder, kind: str) -> None:
    folder = tmp_path / "readable"
    folder.mkdir()
    (folder / "keys").touch()
    tries = """
import ctypes, errno, fcntl, os, sys
def refused(try_it):
    try: try_it()
    except OSError as e: return e.errno in (errno.EPERM, errno.EROFS)
    return False
libc = ctypes.CDLL(None, use_errno=True)
def raw(*arguments):
    if libc.syscall(*arguments): raise OSError(ctypes.get_errno(), "")
file = os.open(sys.argv[1], os.O_RDONLY)
sys.exit(not all([
    refused(lambda: os.setxattr(sys.argv[1], "user.seal", b"1")),
    refused(lambda: os.removexattr(sys.argv[1], "user.seal")),
    refused(lambda: fcntl.ioctl(file, 0x40086602, b"\\0" * 8)),
    refused(lambda: os.fchmod(file, 0o777)),
    refused(lambda: os.utime(file)),
    refused(lambda: raw(452, -100, sys.argv[1].encode(), 0o777, 0)),  # fchmodat2
]))
"""
    assert await mark(own, PYTHON, "-c", tries, str(folder / "keys"), sandbox=kind, readable=[str(folder)]) == 1


async def test_a_command_makes_its_own_files_executable(own: Recorder) -> None:
    script = "printf '#!/bin/sh\\nexit 0' > built && chmod 755 built && touch -d 2001-01-01 built && ./built"
    assert await mark(own, "sh", "-c", script) == 1


async def test_a_command_sees_no_other_process_and_has_no_power(own: Recorder) -> None:
    me = os.getpid()
    probe = f"kill -0 {me} && exit 1; cat /proc/{me}/environ && exit 2; mount -t tmpfs x . && exit 3; exit 0"
    assert await mark(own, "sh", "-c", probe) == 1


@needs_python
@pytest.mark.parametrize(("children", "right"), [(3, True), (4, False)])
def test_processes_are_limited(children: int, right: bool) -> None:
    """As a user that is not root, whose processes the kernel does not count."""
    script = f"for i in $(seq {children}); do sleep 1 & done; wait"
    root = os.getuid() == 0
    with tempfile.TemporaryDirectory() as place:
        program = Path(shutil.copy(confine.__file__, place))
        folder = Path(place, "own")
        folder.mkdir()
        for path in (Path(place), folder) if root else ():
            os.chown(path, NOBODY, NOBODY)
        argv = [PYTHON, "-I", "-S", str(program)]
        stdin = framed(["sh", "-c", script], folder, "namespaces", processes=4)
        if root:
            done = subprocess.run(
                argv, input=stdin, capture_output=True, check=False, user=NOBODY, group=NOBODY, extra_groups=[]
            )
        else:
            done = subprocess.run(argv, input=stdin, capture_output=True, check=False)
    found = json.loads(done.stdout)
    assert found["outcome"] == "exit"
    assert (found["status"] == 0) is right


async def test_a_program_that_cannot_be_started_is_an_error_and_no_mark(tmp_path: Path, own: Recorder) -> None:
    program = tmp_path / "program"
    program.write_text("no program at all")
    program.chmod(0o755)
    argvs = (str(program),), ("sh", "-c", "no-such-program"), ("sh", "-c", "/dev/null")
    for argv in argvs:
        with pytest.raises(NotPossible) as failed:
            await mark(own, *argv, sandbox="limits", network=True)
        assert failed.value.reason == "COMMAND_BROKEN"


@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "./answer.txt"])
def test_a_program_that_is_not_there_stops_the_auditor(own: Recorder, program: str) -> None:
    with pytest.raises(InvalidConfig, match=rf"commands\.check\.argv: {program}"):
        shut_in(own, program)


async def test_items_that_a_command_can_tell_apart_share_no_mark(own: Recorder) -> None:
    desk = shut_in(own, "sh", "-c", """grep -q '"item_id":"q"'""")
    twin = SUM.model_copy(update={"item_id": "other"})
    assert await desk.mark([submitted("x", SUM), submitted("x", twin)]) == [1, 0]


@needs_python
async def test_nothing_of_a_folder_stays_however_deep_and_shut(own: Recorder, tmp_path: Path) -> None:
    dig = "import os\nfor _ in range(1500): os.mkdir('d'); os.chdir('d')"
    for argv in ((PYTHON, "-c", dig), ("sh", "-c", "mkdir -p a/b && touch a/b/c && chmod 000 a/b a")):
        tempfile.tempdir = str(tmp_path)
        try:
            assert await mark(own, *argv, sandbox="limits", network=True) == 1
        finally:
            tempfile.tempdir = None
        assert not left_in(tmp_path)


def left_in(folder: Path) -> list[Path]:
    return list(folder.glob("seal-command-*"))


def command_lines() -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(entry.read_bytes().decode(errors="replace"))
    return found


def test_what_a_command_is_given_is_shown_to_nobody(own: Recorder, tmp_path: Path) -> None:
    marker = shut_in(own, "sh", "-c", "sleep 1", environment={"TOKEN": "SECRET-TOKEN"})

    async def seen() -> list[str]:
        task = asyncio.create_task(marker.mark([submitted("x", SUM)]))
        found = []
        while not task.done():
            found += command_lines()
            await asyncio.sleep(0.05)
        return found

    lines = asyncio.run(seen())
    assert any("confine.py" in line for line in lines)
    assert not any("SECRET-TOKEN" in line for line in lines)


@pytest.mark.parametrize(
    "config",
    [
        {"readable": ["/no/such/folder"]},
        {"sandbox": "limits"},
    ],
)
def test_what_cannot_be_shut_in_as_configured_stops_the_auditor(own: Recorder, config: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match=r"commands\.check\.sandbox"):
        shut_in(own, "true", **config)
