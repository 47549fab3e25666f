"""`seal up` with tiny children, as a process that tests can interrupt or kill.

`python -m tests.cli.tiny_up FOLDER` prints the pids of its children once all are ready.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cli.execute import execute
from cli.failure import Failure
from cli.launcher.plan import HEALTH_NAMES, SERVICES, Plan, Service
from cli.launcher.ports import free_port
from cli.launcher.services import services_up


def tiny_plan(data: Path, wait_seconds: float = 30.0, **settings: dict[str, Any]) -> Plan:
    """Three tiny services; `settings` says by name how one behaves."""
    services = tuple(
        Service(
            name,
            {"listen": f"127.0.0.1:{free_port()}", **settings.get(name, {})},
            "tests.cli.tiny_service",
            HEALTH_NAMES[name],
        )
        for name in SERVICES
    )
    return Plan(data=data, services=services, wait_seconds=wait_seconds, grace_seconds=2.0)


async def hold(data: Path) -> None:
    async with services_up(tiny_plan(data)) as services:
        print(*(child.pid for child in services.children), flush=True)
        raise await services.died()


if __name__ == "__main__":
    try:
        execute(hold(Path(sys.argv[1])), interrupted="stopped")
    except Failure as failure:
        print(failure.what, file=sys.stderr)
        sys.exit(failure.code)
