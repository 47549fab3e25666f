"""What `seal bench continual` can be told, and which passages make a sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import Field, field_validator

from benchmarks.method.settings import RECORDED, UNEDITED, UNTRAINED, BenchSettings
from benchmarks.method.versions import MOST_RANK
from benchmarks.passages import Passage
from benchmarks.reference import PUBLISHED
from common.canonical import derive_seed
from common.config import Config
from common.errors import InvalidConfig

Chain = Literal["reference", "bare", "replay", "gate", "gate+replay"]
REFERENCE: Chain = "reference"
CHAINS: tuple[Chain, ...] = get_args(Chain)


class GateSettings(Config):
    """The auditor's retention gate, and how an update that forgets too much is scaled down.

    So small a model as the built-in one loses a fifth of what it is asked by its first edit; the bound holds for a
    whole sequence, as the auditor's holds for a run (docs/retention.md).
    """

    max_drop: float = Field(default=0.5, ge=0, le=1, description="as RetentionSettings.max_drop")
    level: float = Field(default=0.1, gt=0, lt=1, description="of the bound's one-sided test")
    min_scale: float = Field(default=0.5, gt=0, le=1, description="no smaller part of an update is tried; 1: none is")
    anchors: int = Field(
        default=30, ge=0, description="that the gate asks; none of them is reported, and nothing was trained on any"
    )
    questions: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="share of a passage's questions that the gate asks; where a chain has a gate, of all chains the "
        "others alone are reported: what a gate keeps is chosen by what it asks",
    )


class ContinualSettings(BenchSettings):
    """Passages learned one after another. arms: of those that train, the one whose edits are learned."""

    arms: tuple[str, ...] = (UNEDITED, RECORDED)
    length: int = Field(default=8, ge=2, le=1_000, description="passages in a sequence")
    sequences: int = Field(default=4, ge=1, le=1_000)
    chains: tuple[Chain, ...] = Field(
        default=CHAINS,
        min_length=1,
        description="reference: the published procedure, merged after each edit; bare, replay, gate, gate+replay: ours",
    )
    replay_share: float = Field(default=0.5, gt=0, le=0.9, description="of an edit's examples, where there is replay")
    gate: GateSettings = GateSettings()

    @field_validator("chains")
    @classmethod
    def _each_once(cls, chains: tuple[Chain, ...]) -> tuple[Chain, ...]:
        return tuple(dict.fromkeys(chains))

    @property
    def gated(self) -> bool:
        """Whether a chain has a gate."""
        return any("gate" in chain for chain in self.chains)

    def judged(self, passage: Passage) -> tuple[int, ...]:
        """Places of the passage's questions that gates ask: by the seed, fewer than all."""
        if not self.gated:
            return ()
        places = range(len(passage.questions))
        drawn = sorted(places, key=lambda place: derive_seed("judged", self.seed, passage.key, place))
        return tuple(sorted(drawn[: int(self.gate.questions * len(places))]))

    @property
    def taught(self) -> str:
        """The arm whose edits are learned. Raises InvalidConfig unless there is exactly one."""
        training = [arm for arm in self.arms if arm not in UNTRAINED]
        if len(training) != 1:
            raise InvalidConfig(f"arms: one that trains is needed, and there are {len(training)}")
        return training[0]


def check_rank(settings: ContinualSettings) -> None:
    """Raises InvalidConfig for a published sequence that is too long to be one adapter."""
    longest = MOST_RANK // PUBLISHED.rank
    if REFERENCE in settings.chains and settings.length > longest:
        raise InvalidConfig(
            f"length: {settings.length} merged edits of rank {PUBLISHED.rank} make an adapter of rank "
            f"{settings.length * PUBLISHED.rank}, and {MOST_RANK} is the highest: at most {longest} passages, or "
            f"leave {REFERENCE} out of chains"
        )


def sequences_of(passages: Sequence[Passage], settings: ContinualSettings) -> list[tuple[Passage, ...]]:
    """Drawn by the seed; no passage is in two sequences while there are enough. Raises InvalidConfig."""
    if settings.length > len(passages):
        raise InvalidConfig(f"length: {settings.length} passages are needed, and there are {len(passages)}")
    used: set[str] = set()
    found = []
    for number in range(settings.sequences):
        # False before True: those that stand in no sequence yet come first.
        order = {p.key: (p.key in used, derive_seed("sequence", settings.seed, number, p.key)) for p in passages}
        chosen = tuple(sorted(passages, key=lambda passage: order[passage.key])[: settings.length])
        used |= {passage.key for passage in chosen}
        found.append(chosen)
    return found
