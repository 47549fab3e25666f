"""Runs one command shut in, and says on standard output what became of it. A program by itself, standard library alone.

`python -I -S confine.py SPEC` (JSON; auditor/graders/command.py writes it). In the strongest sandbox, "namespaces",
the command has process, user, IPC and host name spaces of its own, no network but its own loopback (unless allowed),
no capability, and dies with all its children when it ends, when its time is up, or when this program is killed. In
this one and in "landlock" it can open nothing but the system's programs and libraries, what is listed as readable, and
its own folder, which alone it can write to. In all of them it has a session of its own, no environment but what is
given, and limits of memory, processor time and file size; in "namespaces" also of processes, unless it is root's.
Everything is set up between fork and exec of this single-threaded program, so that nothing of it happens inside the
auditor.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import math
import os
import platform
import resource
import select
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypedDict

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (1 << bit for bit in range(26, 31))
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
# linux/landlock.h: rights over files by the version of the interface that brought them.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL = 1 << 14, 1 << 15
RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: TRUNCATE, 5: IOCTL}
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL
TCP, OUTSIDE = 0b11, 0b11  # bind and connect; abstract sockets and signals beyond the sandbox
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Spec(TypedDict):
    """What to run, and within what. sandbox: namespaces, landlock or limits."""

    argv: list[str]
    folder: str
    environment: dict[str, str]
    sandbox: str
    network: bool
    readable: list[str]
    timeout_seconds: float
    memory_bytes: int
    file_bytes: int
    processes: int


class Broken(Exception):
    """The sandbox cannot be built, or the command not started."""


def main() -> None:
    spec: Spec = json.loads(sys.argv[1])
    report = os.dup(1)
    try:
        found = shut_in(spec)
    except (Broken, OSError) as error:
        found = {"outcome": "broken", "why": str(error)}
    os.write(report, json.dumps(found).encode())


def shut_in(spec: Spec) -> dict[str, object]:
    """Runs the command below an init process of its own, for as long as it may."""
    if spec["sandbox"] == "namespaces":
        enter_namespaces(network=spec["network"])
    elif spec["sandbox"] == "limits" and not spec["network"]:
        raise Broken("limits alone leave the network open; say so with network: true")
    setup_read, setup_write = os.pipe()
    init = os.fork()
    if not init:
        with contextlib.suppress(BaseException):
            os.close(setup_read)
            as_init(spec, setup_write)
        os._exit(1)
    os.close(setup_write)
    ended = within(init, spec["timeout_seconds"])
    if not ended:
        with contextlib.suppress(ProcessLookupError):
            os.kill(init, signal.SIGTERM if spec["sandbox"] != "namespaces" else signal.SIGKILL)
    _, status = os.waitpid(init, 0)
    why = os.read(setup_read, 4_096).decode(errors="replace") if ended else ""
    if why:
        return {"outcome": "broken", "why": why}
    if not ended:
        return {"outcome": "timeout"}
    code = os.waitstatus_to_exitcode(status)
    return {"outcome": "exit", "status": code} if 0 <= code < 128 else {"outcome": "signal", "status": abs(code) % 128}


def within(pid: int, seconds: float) -> bool:
    """Whether a child ends in time. It is not waited for."""
    watched = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        return bool(poll.poll(math.ceil(seconds * 1_000)))
    finally:
        os.close(watched)


def as_init(spec: Spec, setup: int) -> NoReturn:
    """The command's parent: passes on how it ended, and leaves nobody behind."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    command = os.fork()
    if not command:
        try:
            start(spec)
        except (Broken, OSError) as error:
            os.write(setup, str(error).encode())
        finally:
            os._exit(1)
    os.close(setup)
    # Without process namespaces an end by the clock comes as SIGTERM: children are then ended here, one by one.
    signal.signal(signal.SIGTERM, lambda *_: end_all())
    status = 0
    while True:
        try:
            ended, status = os.waitpid(-1, 0)
        except ChildProcessError:
            os._exit(1)
        if ended == command:
            break
    end_all()
    code = os.waitstatus_to_exitcode(status)
    os._exit(min(code, 127) if code >= 0 else 128 - code)


def end_all() -> None:
    """Kills every child, and their children as they come to this process."""
    while True:
        try:
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()
        except OSError:
            return  # a process namespace without /proc of its own: all in it die with its init
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(child), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def start(spec: Spec) -> NoReturn:
    """Becomes the command."""
    os.setsid()
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(64):
        # Without CAP_SETPCAP there is none to drop; beyond the last one the kernel says no.
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.chdir(spec["folder"])
    if spec["sandbox"] != "limits":
        enter_landlock(spec)
    limit(spec)
    nowhere = os.open("/dev/null", os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    environment = {"PATH": PATH, "LANG": "C.UTF-8", **spec["environment"]}
    try:
        os.execvpe(spec["argv"][0], spec["argv"], environment)  # noqa: S606 - the operator's own argv
    except OSError as error:
        raise Broken(f"{spec['argv'][0]} cannot be started: {error.strerror}") from None


def limit(spec: Spec) -> None:
    limits = {
        resource.RLIMIT_AS: spec["memory_bytes"],
        resource.RLIMIT_CPU: math.ceil(spec["timeout_seconds"]) + 1,
        resource.RLIMIT_FSIZE: spec["file_bytes"],
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_CORE: 0,
    }
    if spec["sandbox"] == "namespaces":
        # Counted by user and user namespace: this program and its init are in it. Elsewhere the auditor's own would be.
        limits[resource.RLIMIT_NPROC] = spec["processes"] + 2
    for what, most in limits.items():
        _, hard = resource.getrlimit(what)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (bound, bound))


def enter_namespaces(*, network: bool) -> None:
    """New namespaces for what this process forks from now on; the user stays who it is, without its powers."""
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | (0 if network else CLONE_NEWNET)
    call(LIBC.unshare, "this machine gives no namespaces: unshare", flags)
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    if not network:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loopback:
            fcntl.ioctl(loopback, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING))


def enter_landlock(spec: Spec) -> None:
    """Nothing but these paths can be opened, run or written from now on, by this process and all that it starts."""
    version = LIBC.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        raise Broken(f"this machine's kernel ({platform.release()}) has no Landlock")
    # In a network of its own it may do what it likes.
    cut_off = spec["sandbox"] == "landlock" and not spec["network"]
    if cut_off and version < 4:
        raise Broken("this kernel's Landlock leaves the network open; say so with network: true")
    rights = sum(more for since, more in RIGHTS.items() if version >= since)
    attributes = struct.pack("QQQ", rights, TCP if cut_off else 0, OUTSIDE if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = call(LIBC.syscall, "landlock_create_ruleset", LANDLOCK_CREATE, attributes[:size], size, 0)
    read = EXECUTE | READ_FILE | READ_DIR
    for path in SYSTEM:
        allow(ruleset, path, read, must=False)
    for path in DEVICES:
        allow(ruleset, path, rights & (READ_FILE | WRITE_FILE | IOCTL), must=False)
    for path in spec["readable"]:
        allow(ruleset, path, read, must=True)
    allow(ruleset, spec["folder"], rights, must=True)
    call(LIBC.syscall, "landlock_restrict_self", LANDLOCK_RESTRICT, ruleset, 0)
    os.close(ruleset)


def allow(ruleset: int, path: str, rights: int, *, must: bool) -> None:
    """Lets a folder with all below it, or a file, be used. must: its absence is an error."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if must:
            raise Broken(f"{path}: {error.strerror}") from None
        return
    try:
        mine = rights if stat.S_ISDIR(os.fstat(place).st_mode) else rights & OF_A_FILE
        # PATH_BENEATH, its attribute: rights, and the open path.
        rule = struct.pack("=Qi", mine, place)
        call(LIBC.syscall, f"landlock_add_rule {path}", LANDLOCK_ADD, ruleset, 1, rule, 0)
    finally:
        os.close(place)


def call(function: Callable[..., int], name: str, *arguments: object) -> int:
    """A system call's result. Raises Broken."""
    result = function(*arguments)
    if result < 0:
        raise Broken(f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


if __name__ == "__main__":
    main()
