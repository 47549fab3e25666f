"""All three services, from nothing to ready to gone.

What always holds: after the block nothing that it started is left, whether it ended well, by an error, by Ctrl-C or by
SIGTERM; and a launcher that is killed takes its children along (cli/launcher/guard.py). Used by `seal up`, `seal demo`
and tests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cli.failure import Failure
from cli.launcher.child import Child
from cli.launcher.holder import held
from cli.launcher.plan import Plan
from cli.launcher.ready import until_serving

REPORT_SECONDS = 0.5
SHOWN_LINES = 20

# Called every half second while starting: name of each service and what it is doing.
Report = Callable[[dict[str, str]], None]


@dataclass(frozen=True)
class Services:
    """Ready services. `target(name)` is where one is dialled."""

    plan: Plan
    children: tuple[Child, ...]

    def target(self, name: str) -> str:
        return self.plan.service(name).address.dialled

    async def died(self) -> Failure:
        """Returns when a child ends by itself, with what is to be said about it."""
        return await _first_death(self.children)


@asynccontextmanager
async def services_up(plan: Plan, report: Report | None = None) -> AsyncIterator[Services]:
    """Starts every service of the plan and stops them all behind the block.

    Raises Failure when the folder or a port is taken, when a service dies while starting, or after wait_seconds.
    """
    with held(plan.data):
        for service in plan.services:
            service.address.check_free()
            if service.metrics is not None:
                service.metrics.check_free()
        children: list[Child] = []
        try:
            for service in plan.services:
                children.append(await Child.start(service, plan.data, plan.environment()))
            await _until_ready(plan, children, report)
            yield Services(plan, tuple(children))
        finally:
            await asyncio.shield(_stop(children, plan.grace_seconds))


async def _until_ready(plan: Plan, children: Sequence[Child], report: Report | None) -> None:
    """Returns when all are SERVING; raises Failure when one dies or time is up."""
    waits = {
        child.name: asyncio.create_task(
            until_serving(child.service.address.dialled, child.service.health_name, child.service.tls)
        )
        for child in children
    }
    death = asyncio.create_task(_first_death(children))
    started = time.monotonic()
    try:
        while not all(wait.done() for wait in waits.values()):
            pending = [wait for wait in waits.values() if not wait.done()]
            await asyncio.wait([*pending, death], timeout=REPORT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if death.done():
                raise death.result()
            doing = {child.name: "ready" if waits[child.name].done() else child.doing() for child in children}
            if report is not None:
                report(doing)
            if time.monotonic() - started > plan.wait_seconds:
                late = ", ".join(f"{name} ({what})" for name, what in doing.items() if what != "ready")
                logs = plan.data / "logs"
                raise Failure(f"not ready after {plan.wait_seconds:.0f} s: {late}", f"See {logs}, or raise --wait.")
        for wait in waits.values():
            wait.result()
    finally:
        for task in (*waits.values(), death):
            task.cancel()
        await asyncio.gather(*waits.values(), death, return_exceptions=True)


async def _first_death(children: Sequence[Child]) -> Failure:
    waits = {asyncio.create_task(child.wait()): child for child in children}
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return _epitaph([waits[wait] for wait in waits if wait in done])


def _epitaph(dead: Sequence[Child]) -> Failure:
    said: list[str] = []
    for child in dead:
        code = child.returncode or 0
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        said.append(f"{child.name} {how}. Its last lines:")
        said += [f"  {line}" for line in child.last_lines(SHOWN_LINES)] or ["  (nothing)"]
    logs = ", ".join(str(child.log) for child in dead)
    return Failure("\n".join(said), f"The whole log: {logs}", reason="SERVICE_DIED")


async def _stop(children: Sequence[Child], grace_seconds: float) -> None:
    """Stops the auditor first: the others then finish without anybody asking."""
    for child in children[-1:]:
        await child.stop(grace_seconds)
    await asyncio.gather(*(child.stop(grace_seconds) for child in children[:-1]))
