"""For all tests: how long an example of a property takes says nothing on a shared machine, so it fails none."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("seal", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("seal")


@pytest.fixture(autouse=True)
def small_numbers_stay() -> Iterator[None]:
    """Loading a model has this thread round numbers below 1e-308 to zero, which properties of later tests refuse."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_flush_denormal(False)
