"""What is learned and what is forgotten when passages are learned one after another: ours against the published way.

`make bench-retention`. Two arms learn the same passages in the same orders from the same recorded edits:
`reference` as published (benchmarks/reference.py), `ours` by the three services with gate, replay and scaling
(benchmarks/retention_ours.py). After every edit all questions about all passages are asked. Every finished step stands
in the results folder and is not done again. The tables, a picture and results.json come from there; the last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.forgetting import EditSequence, result
from benchmarks.heat_map import heat_map
from benchmarks.passages import Passage, RecordedEdits, chosen, read_edits, read_passages
from benchmarks.plan import Arm, print_plan
from benchmarks.retention_ours import OursArm
from benchmarks.retention_reference import ReferenceArm
from benchmarks.retention_settings import TEACHER, merged
from cli.failure import Failure
from common.canonical import derive_seed
from common.errors import InvalidConfig, SealError
from common.files import write_atomically
from student.config import DEFAULT_MODEL

DATA = Path(__file__).resolve().parent / "data"
ARMS = ("ours", "reference")


def orders_of(passages: Sequence[Passage], count: int) -> list[tuple[Passage, ...]]:
    """As they stand, backwards, and then shuffled, each with a seed of its own."""

    def shuffled(number: int) -> tuple[Passage, ...]:
        return tuple(sorted(passages, key=lambda passage: derive_seed("order", number, passage.key)))

    return [tuple(passages), tuple(reversed(passages)), *map(shuffled, range(2, count))][:count]


def print_table(sequences: Sequence[EditSequence]) -> None:
    print(f"\n{'arm':<10} order  accepted  learned  forgotten  at the end  unedited  empty at the end  minutes")
    for s in sequences:
        print(
            f"{s.arm:<10} {s.order + 1:>5}  {sum(s.accepted)} of {len(s.accepted)}   {s.learned:>8.1%}  "
            f"{s.forgetting:>9.1%}  {s.final_mean:>10.1%}  {s.unedited_mean:>8.1%}  "
            f"{s.empty[-1]:>6} of {sum(s.questions):<6}  {s.seconds / 60:>7.1f}"
        )


def write_results(folder: Path, sequences: Sequence[EditSequence]) -> None:
    """results.json (everything that the tables are made of) and matrix.svg."""
    everything = {
        "sequences": [
            {
                **sequence.model_dump(mode="json"),
                "learned": sequence.learned,
                "forgetting": sequence.forgetting,
                "backward_transfer": sequence.backward_transfer,
                "final_mean": sequence.final_mean,
                "unedited_mean": sequence.unedited_mean,
            }
            for sequence in sequences
        ]
    }
    write_atomically(folder / "results.json", (json.dumps(everything, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomically(folder / "matrix.svg", heat_map(sequences).encode())
    print(f"\n{folder / 'results.json'} and {folder / 'matrix.svg'} written", flush=True)


def load(options: argparse.Namespace) -> tuple[tuple[Passage, ...], dict[str, RecordedEdits]]:
    """Raises InvalidConfig for files that cannot be used, before anything is trained."""
    left_out = read_passages(options.leave_out) if options.leave_out else ()
    passages = chosen(read_passages(options.data), options.passages, left_out)
    edits = read_edits(options.edits)
    for passage in passages:
        if passage.context not in edits:
            raise InvalidConfig(f"{options.edits}: no edits for a passage titled {passage.title!r}")
    return passages, edits


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA / "invented_passages.json")
    parser.add_argument("--edits", type=Path, default=DATA / "invented_passages_edits.json")
    parser.add_argument("--leave-out", type=Path, help="passages of this file are not used (those one has tuned on)")
    parser.add_argument("--passages", type=int, default=8, help="the first so many with five questions or more")
    parser.add_argument("--orders", type=int, default=2)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--teacher",
        type=json.loads,
        default={},
        metavar="JSON",
        help='changes of the form, as {"recipe": {"epochs": 3}}',
    )
    parser.add_argument("--results", type=Path, default=Path(".seal/bench-retention"))
    parser.add_argument("--plan", action="store_true", help="only count tokens and say how long it will take")
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    try:
        passages, edits = load(options)
        orders = orders_of(passages, options.orders)
        folder = options.results.absolute()
        arms: dict[str, Arm] = {
            "ours": OursArm(
                folder / "ours",
                options.edits,
                edits,
                model=options.model,
                seed=options.seed,
                teacher=merged(TEACHER, options.teacher),
            ),
            "reference": ReferenceArm(folder / "reference", edits, model=options.model, seed=options.seed),
        }
        print_plan({name: arms[name] for name in options.arms}, orders)
        if options.plan:
            return
        sequences = [arms[name].run(order, number) for name in options.arms for number, order in enumerate(orders)]
    except SealError as error:
        sys.exit(f"bench-retention: {error.message}")
    except Failure as failure:
        sys.exit(f"bench-retention: {failure.what}\n{failure.next_step}")
    print_table(sequences)
    write_results(folder, sequences)
    if set(options.arms) == set(ARMS):
        by_arm = {name: [s for s in sequences if s.arm == name] for name in ARMS}
        sys.stdout.write(json.dumps(result(by_arm["ours"], by_arm["reference"])) + "\n")


if __name__ == "__main__":
    main()
