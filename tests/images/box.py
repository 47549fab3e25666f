"""A container without a container engine: a read-only root, a few writable folders, a user without rights.

What a Dockerfile's base image would be is this machine's own root, seen through an overlay that is thrown away, with
this Python in /usr/local, as in Python's images. Each call has mount and process namespaces of its own; what must stay
between calls lies in folders of the host. Needs root.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

USER = 10001
# How this machine reaches its package index.
PASSED_ON = ("PIP_", "SSL_CERT", "REQUESTS_CA", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy")
NEEDS = ("unshare", "setpriv", "chroot", "mount", "ip")

SET_UP = """
set -eu
root={space}/root
mount -t tmpfs -o mode=755 tmpfs {space}
mkdir {space}/upper {space}/work {space}/root
mount -t overlay overlay -o lowerdir=/,upperdir={space}/upper,workdir={space}/work "$root"
# A Python with a library of its own loads it from where it was built.
for folder in {opened}; do chmod o+x "$root$folder"; done
[ {prefix} = /usr ] || mount --bind -o ro {prefix} "$root/usr/local"
place() {{ chroot "$root" mkdir -p "$(dirname "$2")"; if [ -d "$1" ]; then chroot "$root" mkdir -p "$2"; else
    chroot "$root" touch "$2"; fi; printf %s "$root$(chroot "$root" realpath -m "$2")"; }}
{places}
{as_root}
mount -o remount,ro "$root"
{binds}
for file in /etc/resolv.conf /etc/hosts; do mount --bind "$file" "$root$file"; done
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
{network}
exec chroot "$root" setpriv --reuid={user} --regid={user} --clear-groups --no-new-privs --inh-caps=-all \\
    --bounding-set=-all env -i {environment} sh -c {command}
"""


@dataclass(frozen=True)
class Box:
    """What is the same for every call: folders inside to folders of the host."""

    scratch: Path
    writable: Mapping[str, Path] = field(default_factory=dict)
    readable: Mapping[str, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    # Shell commands that a Dockerfile runs as root, before the root is closed.
    as_root: Sequence[str] = ()
    network: bool = True

    def run(self, command: str, *, cwd: str, seconds: float = 900) -> subprocess.CompletedProcess[str]:
        """A shell command inside. The caller looks at the result."""
        self.scratch.mkdir(exist_ok=True)
        spaces = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        spaces += [] if self.network else ["--net"]
        return subprocess.run(
            ["unshare", *spaces, "sh", "-c", self._script(f"cd {shlex.quote(cwd)} && {command}")],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def _script(self, command: str) -> str:
        mounts = [(inside, host, "rw") for inside, host in self.writable.items()]
        mounts += [(inside, host, "ro") for inside, host in self.readable.items()]
        prefix = Path(sys.base_prefix).resolve()
        passed = {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}
        environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", **passed, **self.environment}
        return SET_UP.format(
            space=shlex.quote(str(self.scratch)),
            prefix=shlex.quote(str(prefix)),
            opened=" ".join(shlex.quote(str(folder)) for folder in prefix.parents),
            places="\n".join(
                f"at{i}=$(place {shlex.quote(str(host))} {shlex.quote(inside)})"
                for i, (inside, host, _) in enumerate(mounts)
            ),
            as_root="\n".join(f'chroot "$root" sh -euc {shlex.quote(line)}' for line in self.as_root),
            binds="\n".join(
                f'mount --bind {shlex.quote(str(host))} "$at{i}"'
                + (f'; mount -o remount,bind,ro "$at{i}"' if mode == "ro" else "")
                for i, (_, host, mode) in enumerate(mounts)
            ),
            network="" if self.network else "ip link set lo up",
            user=USER,
            environment=" ".join(shlex.quote(f"{name}={value}") for name, value in environment.items()),
            command=shlex.quote(command),
        )


def why_not() -> str:
    """Why no box can be had here; empty if one can."""
    missing = [tool for tool in NEEDS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    if os.geteuid() != 0:
        return "namespaces of this kind need root"
    tried = subprocess.run(["unshare", "--mount", "--pid", "--fork", "--net", "true"], capture_output=True, check=False)
    return "" if tried.returncode == 0 else "namespaces are not to be had"
