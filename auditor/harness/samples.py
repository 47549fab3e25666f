"""Reads lm_eval's results: which metric counts, each document's mark and answer, and what the marks depend on. Pure.

auditor/harness/suite.py calls this, for the rehearsal and for every version.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from auditor.harness.config import HarnessTask
from auditor.measures import Measurement
from common.errors import InvalidConfig, NotPossible

# Of a task without a metric in the configuration, the first that it has.
METRICS = ("exact_match", "acc")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def chosen_metric(name: str, config: HarnessTask, results: Mapping[str, Any]) -> tuple[str, str]:
    """The metric and the filter whose marks count. Raises InvalidConfig that says which there are."""
    samples = [sample for found in results["samples"].values() for sample in found]
    if not samples:
        raise InvalidConfig(f"lm_eval.tasks.{name}: there is no document to ask about")
    shared = [metric for metric in samples[0]["metrics"] if all(metric in sample["metrics"] for sample in samples)]
    used = [[str(sample["filter"]) for sample in found] for found in results["samples"].values()]
    filters = [filter_ for filter_ in dict.fromkeys(used[0]) if all(filter_ in others for others in used)]
    metric = config.metric or next((metric for metric in METRICS if metric in shared), "")
    chosen = config.filter or next(iter(filters), "")
    for key, value, known in (("metric", metric, shared), ("filter", chosen, filters)):
        if not known:
            raise InvalidConfig(f"lm_eval.tasks.{name}: its tasks have no {key} in common; offer them one by one")
        if value not in known:
            raise InvalidConfig(f"lm_eval.tasks.{name}.{key}: set one of {', '.join(known)}")
    if any(not better.get(metric, True) for better in results["higher_is_better"].values()):
        raise InvalidConfig(f"lm_eval.tasks.{name}.metric: {metric} is better when it is lower")
    return metric, chosen


def marked(loaded: dict[str, Any], results: Mapping[str, Any], metric: str, chosen: str) -> list[Measurement]:
    """One mark a document. Raises NotPossible when a metric's value is no score of 0..1."""
    several = len(results["samples"]) > 1
    marked = []
    for name, samples in results["samples"].items():
        for sample in samples:
            if sample["filter"] != chosen:
                continue
            value = sample[metric]
            if not isinstance(value, (bool, int, float)) and not hasattr(value, "item"):
                raise NotPossible(f"{metric} gives no score per document", reason="MEASURE_FAILED")
            score = float(value)
            if not 0 <= score <= 1:
                raise NotPossible(f"{metric} gives a score outside 0..1", reason="MEASURE_FAILED")
            item_id = f"{name}:{sample['doc_id']}" if several else str(sample["doc_id"])
            answer = _answer(loaded["tasks"][name], sample, metric)
            marked.append(Measurement(item_id=item_id, answer=answer, score=score))
    return marked


def _answer(task: Any, sample: Mapping[str, Any], metric: str) -> str:
    """What was written, or the option found likeliest (a character, where the metric counts so)."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return str(sample["resps"][0][0])
    options = [str(option) for option in task.doc_to_choice(sample["doc"])]
    likelihoods = [float(likelihood) for likelihood, _ in sample["filtered_resps"][: len(options)]]
    lengths = [max(1, len(option)) if metric == "acc_norm" else 1 for option in options]
    return max(zip(likelihoods, lengths, options, strict=True), key=lambda found: found[0] / found[1])[2]


def definition(results: Mapping[str, Any]) -> list[object]:
    """What the marks depend on beside the requests: keys by hash, and the tasks' settings, wherever their files lie."""
    hashes = [
        [name, sample["doc_id"], sample["doc_hash"], sample["target_hash"]]
        for name, samples in results["samples"].items()
        for sample in samples
    ]
    elsewhere = {"metadata", "dataset_path", "dataset_kwargs"}
    settings = {
        name: {key: value for key, value in config.items() if key not in elsewhere}
        for name, config in results["configs"].items()
    }
    return [hashes, ADDRESS.sub("", json.dumps(settings, sort_keys=True, default=str))]
