"""A ledger to remember marks in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from auditor.ledger.store import Ledger
from auditor.recorder import Recorder
from auditor.watch import Watchers


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}"), Watchers())
    yield recorder
    recorder.close()
    recorder.ledger.close()
