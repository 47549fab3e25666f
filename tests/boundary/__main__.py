"""`make boundary`: what shows that the data boundary holds, in three parts; the last line is JSON.

Canaries in every key and rule of a real run, as it is and with leaks planted (canary/); every RPC asked as everybody
who may not (refusals.py); certificates replaced under load (rotation.py). The exit status is 0 if all of it holds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.boundary.canary.leaks import PLACES
from tests.boundary.canary.scene import Scene, played
from tests.boundary.refusals import Refusals, refusals
from tests.boundary.rotation import Rotation, rotate_under_load
from tests.support.tiny_services import Models


async def canaries(folder: Path) -> tuple[int, bool]:
    """How many canaries were found where none may be, and whether every planted leak was."""
    models = await asyncio.to_thread(Models.make, folder / "models")
    scene = await played(folder / "as-it-is", models)
    crossings = [*scene.crossings(), *scene.questions_astray(), *scene.live_questions_kept()]
    for hit in crossings:
        print(f"a canary crossed: {hit.place}, {hit.source}: {hit.form}: {hit.around!r}")
    searched = _searched(scene)
    print(f"searched {searched:,} bytes")
    found = {hit.place for hit in (await played(folder / "leaking", models, leaking=True)).crossings()}
    for place in sorted(PLACES - found):
        print(f"a planted leak was not found: {place}")
    return len(crossings), found >= PLACES


def _searched(scene: Scene) -> int:
    files = sum(path.stat().st_size for path in scene.folder.rglob("*") if path.is_file())
    return files + len(scene.traces) + sum(map(len, scene.metrics.values()))


def callers(found: Refusals) -> bool:
    for mistake in found.mistakes:
        print(f"wrong answer to a caller: {mistake}")
    print(f"refused: {dict(found.refused)}, admitted: {found.admitted}")
    return not found.mistakes


def rotation(found: Rotation) -> bool:
    for failure in found.failed[:10]:
        print(f"a call failed while certificates were replaced: {failure}")
    print(f"certificates replaced {found.rotations} times under {found.calls} calls")
    return not found.failed


async def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        crossings, planted = await canaries(Path(folder))
    refused = await refusals()
    rotated = await rotate_under_load()
    good = all((crossings == 0, planted, callers(refused), rotation(rotated)))
    said = {
        "crossings": crossings,
        "planted_leak_found": planted,
        "rpcs": refused.rpcs,
        "refused_wrong_identity": refused.refused_wrong_identity,
        "rotation_failed_calls": len(rotated.failed),
    }
    print(json.dumps(said))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
