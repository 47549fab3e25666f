"""Becomes a service that dies with its launcher. Run as `python -m cli.launcher.guard LAUNCHER_PID MODULE ARGS...`.

Asks the kernel for SIGTERM when the launcher goes away, however it goes, and then replaces itself with the service.
A step of its own rather than a hook between fork and exec, which is not safe in a process that has gRPC's threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    launcher, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(launcher):
        sys.exit("the launcher is gone")  # it died before the request above took hold
    os.execv(sys.executable, [sys.executable, "-P", "-m", *command])  # noqa: S606 - no shell is meant


if __name__ == "__main__":
    main(sys.argv[1:])
