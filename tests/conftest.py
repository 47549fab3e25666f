"""For all tests: how long an example of a property takes says nothing on a shared machine, so it fails none."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("seal", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("seal")
