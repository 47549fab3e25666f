"""Ours against the published procedure, in one command: `make tables`, and `make tables-small` to try it.

24 passages one at a time, and one sequence of four, both from recorded edits. Everything finished is kept, so the same
command goes on where it stopped. The last line is one JSON object; interval: of ours less the reference's, by contains.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.method import continual, passages
from benchmarks.method.__main__ import end_quietly
from benchmarks.method.asked import Option, resolved
from benchmarks.method.continual_results import ContinualTable
from benchmarks.method.continual_settings import REFERENCE, ContinualSettings
from benchmarks.method.results import CONTAINS, ArmFigures, Table
from benchmarks.method.runs import Done, written, written_continual
from benchmarks.method.settings import DATA, RECORDED, UNEDITED, BenchSettings
from benchmarks.passages import Passage, read_passages
from common.canonical import canonical_json
from common.errors import InvalidConfig, SealError
from common.files import write_atomically

OURS = "gate+replay"
PASSAGES, LENGTH = 24, 4
FIXED = ("arms", "procedures", "chains")  # what the last line is made of
# To try the command: the shortest passages, fewer questions beside them, and a fifth or so of either procedure.
SMALL: dict[str, object] = {
    "reference.epochs": 2,
    "seal.forms.shortened": 1,
    "seal.rehearsal": 32,
    "anchors_asked": 20,
}
SMALL_PASSAGES, SMALL_LENGTH = 3, 2


def main(arguments: Sequence[str] | None = None) -> None:
    told = parse(arguments)
    signal.signal(signal.SIGTERM, end_quietly)
    try:
        whole, sequence = settings_of(told)
        if told.small:
            epochs = whole.reference.epochs
            say(f"{whole.count} short passages; the published procedure with {epochs} epochs in place of 10, ours with")
            say("fewer wordings and less rehearsal: this tries the command, its figures say nothing about either.")
        apart = passages.run(whole)
        show(written(apart, whole.folder))
        chained = continual.run(sequence)
        show(written_continual(chained, sequence.folder))
    except SealError as error:
        sys.stderr.write(f"tables: {error.message}\n")
        sys.exit(2 if isinstance(error, InvalidConfig) else 1)
    sys.stdout.write(json.dumps(result(apart, chained)) + "\n")


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="three short passages and a sequence of two, for CI")
    parser.add_argument("--data", type=Path, default=DATA / "reported_passages.json")
    parser.add_argument("--edits", type=Path, default=DATA / "reported_passages_edits.json")
    parser.add_argument("--results", type=Path, help="[.seal/tables; .seal/tables-small]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as `seal bench` has it")
    return parser.parse_args(arguments)


def settings_of(told: argparse.Namespace) -> tuple[BenchSettings, ContinualSettings]:
    """Of the passages apart and of the sequence. Raises InvalidConfig for what cannot be used."""
    for setting in told.set:
        if (key := setting.partition("=")[0]) in FIXED:
            raise InvalidConfig(f"--set: {key}: the tables' own; `seal bench` takes any")
    folder = told.results or Path(".seal/tables-small" if told.small else ".seal/tables")
    known = read_passages(told.data)
    count, length = (SMALL_PASSAGES, SMALL_LENGTH) if told.small else (PASSAGES, LENGTH)
    options: list[Option] = [
        ("--data", "data", short(known, folder) if told.small else told.data),
        ("--edits", "edits", told.edits),
        ("--results", "folder", folder),
        ("tables", "arms", [UNEDITED, RECORDED]),
        ("tables", "count", min(count, len(known))),
    ]
    if told.small:
        options += [("tables --small", key, value) for key, value in SMALL.items()]
    chains: list[Option] = [
        ("tables", "length", length),
        ("tables", "sequences", 1),
        ("tables", "chains", [REFERENCE, OURS]),
    ]
    # What only sequences know is none of the passages' settings; what neither knows is refused.
    alone = ContinualSettings.model_fields.keys() - BenchSettings.model_fields.keys()
    shared = [setting for setting in told.set if setting.partition("=")[0].partition(".")[0] not in alone]
    whole = resolved(BenchSettings, options, shared)
    sequence = resolved(ContinualSettings, [*options, *chains], told.set)
    taken = min(sequence.count or len(known), len(known))
    if sequence.length > taken:
        raise InvalidConfig(f"{told.data}: {taken} passages are taken of it, and a sequence needs {sequence.length}")
    return whole, sequence


def short(known: Sequence[Passage], folder: Path) -> Path:
    """The shortest of the passages, as a file of their own."""
    shortest = sorted(known, key=lambda passage: (len(passage.context), passage.key))[:SMALL_PASSAGES]
    file = folder / "passages.json"
    write_atomically(file, canonical_json([passage.model_dump(mode="json") for passage in shortest]))
    return file


def result(apart: Table, chained: ContinualTable) -> dict[str, dict[str, Any]]:
    """The last line. Shares are 0..1; empty answers are of plain greedy output."""
    ours, reference = (arm_of(apart, procedure) for procedure in ("seal", "reference"))
    (difference,) = (one for one in apart.differences if one.arm == RECORDED)
    forgotten = {one.chain: one.figures["forgetting"].mean for one in chained.chains}
    return {
        "passages": {
            "ours": _rounded(ours.accuracy[CONTAINS].mean),
            "reference": _rounded(reference.accuracy[CONTAINS].mean),
            "interval": [_rounded(difference.accuracy[CONTAINS].low), _rounded(difference.accuracy[CONTAINS].high)],
            "empty_ours": _rounded(ours.empty / ours.questions),
            "empty_reference": _rounded(reference.empty / reference.questions),
        },
        "continual": {
            "forgetting_ours": _rounded(forgotten[OURS]),
            "forgetting_reference": _rounded(forgotten[REFERENCE]),
        },
    }


def arm_of(table: Table, procedure: str) -> ArmFigures:
    (found,) = (arm for arm in table.arms if (arm.arm, arm.procedure) == (RECORDED, procedure))
    return found


def show(done: Done) -> None:
    say(f"{done.report}\n\n{done.files}\n")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _rounded(value: float) -> float:
    return round(value, 4)


if __name__ == "__main__":
    main()
