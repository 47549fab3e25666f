"""Passages learned one after another, and what becomes of those learned before: `seal bench continual`.

Chains differ in what they do about forgetting, and learn the same sequences from the same completions: the published
procedure merged after every edit, and ours with gate and replay on and off. benchmarks/method/__main__.py is the
caller; one sequence of one chain is a turn (benchmarks/method/continual_turns.py).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

from benchmarks.method import anchors
from benchmarks.method.continual_results import ContinualTable, chain_figures, differences
from benchmarks.method.continual_settings import REFERENCE, Chain, ContinualSettings, check_rank, sequences_of
from benchmarks.method.continual_turns import Played, Turn, played
from benchmarks.method.crew import each, size
from benchmarks.method.edits import materials_of
from benchmarks.method.loading import Loaded, load
from benchmarks.method.materials import Material, rehearsal, training_of
from benchmarks.method.passages import found_anchors
from benchmarks.method.progress import say
from benchmarks.method.settings import Procedure, told
from benchmarks.method.versions import Training
from benchmarks.method.workshop import work_folder
from benchmarks.passages import Passage
from common.canonical import digest_of

Trainings = Mapping[tuple[Procedure, str], Training]


def run(settings: ContinualSettings) -> ContinualTable:
    """The whole table. Raises SealError; what was finished stays, and the same call goes on there."""
    check_rank(settings)
    loaded = load(settings)
    sequences_of(loaded.passages, settings)  # too few are refused before edits are written
    materials = materials_of(settings, settings.taught, loaded)
    able = [passage for passage in loaded.passages if passage.key in materials]
    sequences = sequences_of(able, settings)
    trainings = trainings_of(settings, sequences, materials, loaded)
    turns = list(turns_of(settings, sequences, trainings, loaded))
    found: dict[tuple[str, int], Played] = {}
    begun = time.monotonic()
    for number, (turn, outcome) in enumerate(each(settings, played, turns), start=1):
        found[turn.chain, turn.order] = outcome
        say(f"{number} of {len(turns)}: {_said(outcome)} ({time.monotonic() - begun:.0f} s)")
    return tabled(settings, loaded, sequences, found)


def tabled(
    settings: ContinualSettings,
    loaded: Loaded,
    sequences: Sequence[Sequence[Passage]],
    found: Mapping[tuple[str, int], Played],
) -> ContinualTable:
    by_chain: dict[str, list[Played]] = {
        chain: [found[chain, order] for order in range(settings.sequences)] for chain in settings.chains
    }
    return ContinualTable(
        model=settings.model.model,
        base=loaded.base,
        data=digest_of([passage.model_dump(mode="json") for passage in loaded.passages]).sha256,
        # Whole updates answer in a sequence, unless a gate scales them.
        settings={
            **told(settings, {"seal": {"scale"}, "reference": {"scale"}}),
            "teacher": loaded.teacher,
        },
        judged=sum(len(settings.judged(passage)) for sequence in sequences for passage in sequence),
        uncounted=tuple(sorted(loaded.rehearsed)),
        chains=tuple(chain_figures(chain, outcomes, settings.seed) for chain, outcomes in by_chain.items()),
        differences=differences(by_chain, settings.seed),
        sequences=tuple(outcome for outcomes in by_chain.values() for outcome in outcomes),
    )


def trainings_of(
    settings: ContinualSettings,
    sequences: Sequence[Sequence[Passage]],
    materials: Mapping[str, Material],
    loaded: Loaded,
) -> Trainings:
    """Of every passage by itself on the base, by each procedure that is asked for: what chains make theirs of."""
    procedures: list[Procedure] = list(dict.fromkeys(procedure_of(chain) for chain in settings.chains))
    rehearse = rehearsal(settings, work_folder(settings.folder))
    keys = dict.fromkeys(passage.key for sequence in sequences for passage in sequence)
    return {
        (procedure, key): training_of([materials[key]], procedure, settings, base=loaded.base, rehearse=rehearse)
        for procedure in procedures
        for key in keys
    }


def turns_of(
    settings: ContinualSettings, sequences: Sequence[tuple[Passage, ...]], trainings: Trainings, loaded: Loaded
) -> Iterator[Turn]:
    """As many sequences at once as there are processes, and chain by chain, so that chains of one sequence, which share
    trainings, seldom meet: where there are more processes than sequences they do, and both train the same."""
    pool = _pool(settings, loaded)
    at_once = size(settings, len(sequences))
    for first in range(0, len(sequences), at_once):
        for chain in settings.chains:
            for order in range(len(sequences))[first : first + at_once]:
                yield turn_of(settings, chain, order, sequences[order], trainings=trainings, loaded=loaded, pool=pool)


def turn_of(
    settings: ContinualSettings,
    chain: Chain,
    order: int,
    passages: tuple[Passage, ...],
    *,
    trainings: Trainings,
    loaded: Loaded,
    pool: Sequence[int],
) -> Turn:
    """pool: anchors that the base has right. Every chain is asked the same anchors and questions, the gate others."""
    reported = anchors.drawn(pool, settings.anchors_asked, settings.seed, f"sequence {order}")
    rest = [place for place in pool if place not in reported and place not in loaded.rehearsed]
    return Turn(
        chain=chain,
        order=order,
        passages=passages,
        trainings=tuple(trainings[procedure_of(chain), passage.key] for passage in passages),
        tokens=settings.answer_tokens,
        replay_share=settings.replay_share if "replay" in chain else 0.0,
        gate=settings.gate if "gate" in chain else None,
        judged=tuple(map(settings.judged, passages)),
        items=loaded.anchors,
        gated=anchors.drawn(rest, settings.gate.anchors, settings.seed, f"gate of sequence {order}"),
        reported=reported,
        uncounted=tuple(place for place in reported if place in loaded.rehearsed),
    )


def procedure_of(chain: Chain) -> Procedure:
    return "reference" if chain == REFERENCE else "seal"


def _pool(settings: ContinualSettings, loaded: Loaded) -> tuple[int, ...]:
    """Anchors that the base has right, where any are asked."""
    gated = settings.gate.anchors if settings.gated else 0
    if not settings.anchors_asked + gated:
        return ()
    ((_, pool),) = each(settings, found_anchors, [loaded.anchors])
    say(f"{len(pool)} of {len(loaded.anchors)} anchors are answered rightly unedited")
    return pool


def _said(outcome: Played) -> str:
    found = outcome.sequence
    return (
        f"{found.arm}, sequence {found.order + 1}: {sum(found.accepted)} of {len(found.accepted)} edits accepted, "
        f"learned {found.learned:.1%}, at the end {found.final_mean:.1%}, unedited {found.unedited_mean:.1%}"
    )
