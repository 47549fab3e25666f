"""The measures that an auditor's configuration offers. Imports nothing of lm_eval unless there are any."""

from __future__ import annotations

from auditor.harness.config import HarnessConfig
from auditor.measures import Measure


def open_measures(config: HarnessConfig) -> dict[str, Measure]:
    """By suite id. Raises InvalidConfig: what cannot be measured stops the auditor at start, not a run half-way."""
    if not config.tasks:
        return {}
    from auditor.harness.suite import HarnessSuite

    opened = [HarnessSuite.open(name, task, offline=config.offline) for name, task in config.tasks.items()]
    return {measure.suite.suite_id: measure for measure in opened}
