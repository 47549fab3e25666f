"""What the teacher keeps on disk survives, is found by edit, and is refused when damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Conflict, Corrupt, NotFound
from common.types import TaskKind
from teacher.learner import draw_pairs
from teacher.memory import EditMemory, Memory, Pair
from teacher.messages import FailedProposal, ProposeRequest
from teacher.pieces import Candidate, Statement, spread
from teacher.proposals import Proposals
from tests.support.writing_model import context

EDIT = "ab" * 32
PAIR = Pair(prompt_ids=(1, 2), completion_ids=(3,), completion="x", read=2, kept=1)


def memory_of(pairs: tuple[Pair, ...]) -> EditMemory:
    return EditMemory(edit=EDIT, policy_version="base", prompt_variant="rewrite", pairs=pairs)


def test_an_edit_keeps_its_first_pairs(tmp_path: Path) -> None:
    Memory(tmp_path).keep(memory_of((PAIR,)))
    Memory(tmp_path).keep(memory_of(()))
    assert Memory(tmp_path).recall(EDIT).pairs == (PAIR,)
    with pytest.raises(NotFound, match="cd" * 32):
        Memory(tmp_path).recall("cd" * 32)


def test_damaged_pairs_are_refused(tmp_path: Path) -> None:
    memory = Memory(tmp_path)
    memory.keep(memory_of((PAIR,)))
    (file,) = (tmp_path / "pairs").iterdir()
    file.write_bytes(file.read_bytes().replace(b"[3]", b"[4]"))
    with pytest.raises(Corrupt):
        memory.recall(EDIT)


def test_a_proposal_is_found_again_with_the_policy_it_began_with(tmp_path: Path) -> None:
    request = ProposeRequest(request_id="any / id", kind=TaskKind.KNOWLEDGE, context=context(), count=2)
    proposal = Proposals(tmp_path).open(request, "base")
    proposal.record(FailedProposal(index=1, reason="EMPTY_EDIT"))
    again = Proposals(tmp_path).open(request, "1" * 64)
    assert again.policy_version == "base"
    assert again.outcome(0) is None
    assert again.outcome(1) == FailedProposal(index=1, reason="EMPTY_EDIT")
    with pytest.raises(Conflict):
        Proposals(tmp_path).open(request.model_copy(update={"count": 3}), "base")


PIECES = st.lists(st.sampled_from("abc"), max_size=20).map(
    lambda sources: [(Statement(str(i), source), i) for i, source in enumerate(sources)]
)


@given(PIECES, st.integers(min_value=1, max_value=12))
def test_the_cap_takes_from_all_sources_alike_and_keeps_the_order(
    pieces: list[tuple[Candidate, int]], cap: int
) -> None:
    chosen = spread(pieces, cap, lambda entry: entry[0].source)
    assert len(chosen) == min(cap, len(pieces))
    assert chosen == [piece for piece in pieces if piece in chosen]
    if cap >= 3:
        assert {piece.source for piece, _ in chosen} == {piece.source for piece, _ in pieces}


@given(st.integers(min_value=0, max_value=30), st.integers(min_value=1, max_value=12), st.integers(0, 2**40))
def test_pairs_are_drawn_the_same_for_the_same_seed(count: int, most: int, seed: int) -> None:
    pairs = [PAIR.model_copy(update={"completion_ids": (i + 1,)}) for i in range(count)]
    drawn = draw_pairs(pairs, most, seed)
    assert drawn == draw_pairs(pairs, most, seed)
    assert len(drawn) == min(count, most)
    assert drawn == [pair for pair in pairs if pair in drawn]
