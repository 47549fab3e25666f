"""Runs one command shut in, and says on standard output what became of it. A program by itself, standard library alone.

`python -I -S confine.py` reads what to run from standard input (auditor/graders/command.py writes it: four bytes of
length, big-endian, then Spec as JSON; the rest is the command's). In the strongest sandbox, "namespaces", the command
has process, user, IPC, mount and host name spaces of its own, no network but its own loopback (unless allowed), no
capability, and dies with all its children when it ends, when its time is up, or when this program is killed. In this
one and in "landlock" it can open nothing but the system's programs and libraries, what is listed as readable, and its
own folder, which alone it can write to or below which alone it can change modes, owners and times ("landlock": of
nothing at all). In all of them it has a session of its own, no environment but what is given, and limits of memory,
processor time and file size; in "namespaces" also of processes, unless it is root's. SIGTERM ends it, and so does the
auditor's death. Everything is set up between fork and exec of this single-threaded program, so that nothing of it
happens inside the auditor.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
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
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypedDict

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS = 1 << 17
CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (1 << bit for bit in range(26, 31))
SIOCSIFFLAGS, IFF_UP, IFF_RUNNING = 0x8914, 0x1, 0x40
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 36, 38
MS_BIND, MS_REC, MS_PRIVATE = 1 << 12, 1 << 14, 1 << 18
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
# linux/landlock.h: rights over files by the version of the interface that brought them.
EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, IOCTL = 1 << 14, 1 << 15
RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: TRUNCATE, 5: IOCTL}
OF_A_FILE = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL
TCP, OUTSIDE = 0b11, 0b11  # bind and connect; abstract sockets and signals beyond the sandbox
# What Landlock has no right for: mode, owner, times and attributes of any file that the user owns. By architecture: its
# AUDIT_ARCH, ioctl, and chmod, chown, utime, setxattr, removexattr with all their kin. Then those that have
# one number everywhere: fchmodat2, setxattrat, removexattrat, file_setattr, and io_uring_setup (a way round the rest).
FILTERED = {
    "x86_64": (0xC000003E, 16, (*range(90, 95), 132, 188, 189, 190, 197, 198, 199, 235, 260, 261, 268, 280)),
    "aarch64": (0xC00000B7, 29, (5, 6, 7, 14, 15, 16, 52, 53, 54, 55, 88)),
}
FILTERED_ANYWHERE = (425, 452, 463, 466, 469)
SET_FLAGS = (0x40086602, 0x40046602, 0x401C5820)  # FS_IOC_SETFLAGS, the same of 32 bits, FS_IOC_FSSETXATTR
X32 = 0x40000000  # from here on, x86-64 has a second set of numbers
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, KILL_PROCESS, DENY = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
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
    # Whatever ends the auditor ends what it started.
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    spec: Spec = json.loads(exactly(int.from_bytes(exactly(4), "big")))
    report = os.dup(1)
    try:
        found = shut_in(spec)
    except (Broken, OSError) as error:
        found = broken(error)
    os.write(report, json.dumps(found).encode())


def exactly(size: int) -> bytes:
    """The next bytes of standard input. What follows them is left to the command."""
    parts = b""
    while len(parts) < size:
        if not (part := os.read(0, size - len(parts))):
            raise EOFError
        parts += part
    return parts


def broken(error: BaseException) -> dict[str, object]:
    return {"outcome": "broken", "why": str(error)[:1_000] or type(error).__name__}


def tell(pipe: int, found: dict[str, object]) -> None:
    """One line, in one piece. The first that is told counts."""
    os.write(pipe, json.dumps(found).encode() + b"\n")


def shut_in(spec: Spec) -> dict[str, object]:
    """Runs the command below an init process of its own, for as long as it may."""
    if spec["sandbox"] == "namespaces":
        enter_namespaces(spec["folder"], network=spec["network"])
    elif spec["sandbox"] == "limits" and not spec["network"]:
        raise Broken("limits alone leave the network open; say so with network: true")
    # Those whom init leaves behind come to this process.
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    told, tells = os.pipe()
    init = os.fork()
    if not init:
        try:
            as_init(spec, tells)
        except BaseException as error:  # noqa: BLE001 - the edge of a process: no failure of it is the command's
            tell(tells, broken(error))
        finally:
            os._exit(1)
    os.close(tells)
    ending = signal.SIGKILL if spec["sandbox"] == "namespaces" else signal.SIGTERM
    signal.signal(signal.SIGTERM, lambda *_: os.kill(init, ending))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    ended = within(init, spec["timeout_seconds"])
    if not ended:
        with contextlib.suppress(ProcessLookupError):
            os.kill(init, ending)
    # From here on init's number may be another's.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _, status = os.waitpid(init, 0)
    end_all()
    if not ended:
        return {"outcome": "timeout"}
    os.set_blocking(told, False)
    if (found := what_was_told(told)) is not None:
        return found
    code = os.waitstatus_to_exitcode(status)
    return {"outcome": "signal", "status": -code} if code < 0 else {"outcome": "broken", "why": "init told nothing"}


def what_was_told(pipe: int) -> dict[str, object] | None:
    try:
        line = os.read(pipe, 8_192).partition(b"\n")[0]
        found: dict[str, object] = json.loads(line)
    except (BlockingIOError, ValueError):
        return None
    return found


def within(pid: int, seconds: float) -> bool:
    """Whether a child ends in time. It is not waited for."""
    watched = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        return bool(poll.poll(math.ceil(seconds * 1_000)))
    finally:
        os.close(watched)


def as_init(spec: Spec, tells: int) -> NoReturn:
    """The command's parent: tells how it ended, and leaves nobody behind."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    command = os.fork()
    if not command:
        try:
            start(spec)
        except BaseException as error:  # noqa: BLE001 - the edge of a process: no failure of it is the command's
            tell(tells, broken(error))
        finally:
            os._exit(1)
    # Without process namespaces an end by the clock comes as SIGTERM: children are then ended here, one by one.
    signal.signal(signal.SIGTERM, lambda *_: end_all())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == command:
            break
    code = os.waitstatus_to_exitcode(status)
    tell(tells, {"outcome": "exit", "status": code} if code >= 0 else {"outcome": "signal", "status": -code})
    end_all()
    os._exit(0)


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
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for capability in range(64):
        # Without CAP_SETPCAP there is none to drop; beyond the last one the kernel says no.
        LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.chdir(spec["folder"])
    if spec["sandbox"] != "limits":
        enter_landlock(spec)
    if spec["sandbox"] == "landlock":
        filter_calls()
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


def enter_namespaces(folder: str, *, network: bool) -> None:
    """New namespaces for what this process forks from now on; the user stays who it is, without its powers.

    Every mount but the folder is read-only, which keeps modes, owners, times and attributes of files as they are.
    Nothing that Landlock holds can mount anything anew.
    """
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNS | (0 if network else CLONE_NEWNET)
    call(LIBC.unshare, "this machine gives no namespaces: unshare", flags)
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1", encoding="ascii")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1", encoding="ascii")
    call(LIBC.mount, "mounts: make private", None, b"/", None, MS_REC | MS_PRIVATE, None)
    call(LIBC.mount, "mounts: bind", folder.encode(), folder.encode(), None, MS_BIND, None)
    for path, flags, add, drop in (("/", AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0), (folder, 0, 0, MOUNT_ATTR_RDONLY)):
        attributes = struct.pack("4Q", add, drop, 0, 0)
        call(LIBC.syscall, "mount_setattr", MOUNT_SETATTR, AT_FDCWD, path.encode(), flags, attributes, len(attributes))
    if not network:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loopback:
            fcntl.ioctl(loopback, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP | IFF_RUNNING))


def enter_landlock(spec: Spec) -> None:
    """Nothing but these paths can be opened, run or written from now on, by this process and all that it starts."""
    version = LIBC.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version < 1:
        raise Broken(f"this machine's kernel ({platform.release()}) has no Landlock")
    if spec["sandbox"] == "landlock" and version < 3:
        raise Broken("this kernel's Landlock lets files of others be truncated")
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


def filter_calls() -> None:
    """Answers EPERM to every call of FILTERED, wherever the file lies. Another architecture's calls end the command.

    Landlock's rights say nothing of these calls, and a filter cannot see which file they name.
    """
    if platform.machine() not in FILTERED:
        raise Broken(f"modes and times of files cannot be protected on {platform.machine()}")
    architecture, ioctl, numbers = FILTERED[platform.machine()]
    denied = [(EQUAL, number) for number in (*numbers, *FILTERED_ANYWHERE)]
    if platform.machine() == "x86_64":
        denied.append((AT_LEAST, X32))
    flags = [(EQUAL, number) for number in SET_FLAGS]
    # Offsets in seccomp_data: number 0, architecture 4, second argument 24 (its low half: both are little-endian).
    program = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture), (RETURN, 0, 0, KILL_PROCESS), (LOAD, 0, 0, 0)]
    last = len(program) + len(denied) + 2 + len(flags) + 1
    for code, number in denied:
        program.append((code, last - len(program) - 1, 0, number))
    program += [(EQUAL, 0, 1 + len(flags), ioctl), (LOAD, 0, 0, 24)]
    for code, number in flags:
        program.append((code, last - len(program) - 1, 0, number))
    program += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, DENY)]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in program))
    described = ctypes.create_string_buffer(struct.pack("HP", len(program), ctypes.addressof(packed)))
    call(LIBC.prctl, "seccomp", PR_SET_SECCOMP, 2, described, 0, 0)


def call(function: Callable[..., int], name: str, *arguments: object) -> int:
    """A system call's result. Raises Broken."""
    result = function(*arguments)
    if result < 0:
        raise Broken(f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


if __name__ == "__main__":
    main()
