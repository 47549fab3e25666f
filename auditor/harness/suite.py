"""One task (or group) of lm_eval as a suite: rehearsed when it is opened, measured as often as a version asks.

The rehearsal runs the whole task with a model that says nothing. It finds out, before any run is ordered, that the data
is there, that every request can be put to a student, that the metric marks each document, and what the marks will
depend on. Keys stay in this process: a task whose requests hold them is refused.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from auditor.harness import library
from auditor.harness.asking import Choice, Voice, check
from auditor.harness.config import HarnessTask
from auditor.harness.threads import VoiceOnThread
from auditor.measures import Measurement, Speaker
from auditor.tasks import MAX_SUITE_ITEMS, Measured, Suite
from common.canonical import canonical_json, digest_bytes
from common.errors import InvalidConfig, NotPossible, SealError
from common.types import Sampling
from common.versions import OptionScore

PREFIX = "lm_eval:"
# Of a task without a metric in the configuration, the first that it has.
METRICS = ("exact_match", "acc")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class HarnessSuite:
    """Implements auditor/measures.py's port. Open one with `HarnessSuite.open`."""

    def __init__(self, suite: Suite, config: HarnessTask, loaded: dict[str, Any], metric: str, chosen: str) -> None:
        self._suite = suite
        self._config = config
        self._loaded = loaded
        self._metric = metric
        self._filter = chosen
        # lm_eval keeps a task's requests in the task.
        self._one_at_a_time = asyncio.Lock()

    @property
    def suite(self) -> Suite:
        return self._suite

    @classmethod
    def open(cls, name: str, config: HarnessTask, *, offline: bool) -> HarnessSuite:
        """Loads and rehearses a task. Raises InvalidConfig that names it and what is wrong."""
        version = library.prepare(offline=offline)
        try:
            loaded = library.load(name, config)
            _check(name, config, loaded["tasks"])
            silent = Silent()
            results = _evaluated(loaded, silent, config.limit)
            metric, chosen = _metric(name, config, results)
            marked = _marked(loaded, results, metric, chosen)
        except InvalidConfig:
            raise
        except SealError as error:
            raise InvalidConfig(f"lm_eval.tasks.{name}: {error.message}") from None
        except Exception as error:
            # lm_eval and the task's own code raise what they like.
            raise InvalidConfig(f"lm_eval.tasks.{name}: {type(error).__name__}: {error}") from error
        content = [version, metric, chosen, _definition(results), silent.asked]
        suite = Suite(
            suite_id=f"{PREFIX}{name}",
            title=f"lm-evaluation-harness: {config.task or name}, {metric}",
            measured=Measured(
                content=digest_bytes(canonical_json(content)).sha256, items=tuple(m.item_id for m in marked)
            ),
        )
        return cls(suite, config, loaded, metric, chosen)

    async def measure(self, speaker: Speaker) -> Sequence[Measurement]:
        """Raises what the speaker raises, and NotPossible(MEASURE_FAILED) when the task's own code fails."""
        voice = VoiceOnThread(speaker)
        async with self._one_at_a_time:
            return await voice.run(lambda: self._measure(voice))

    def _measure(self, voice: Voice) -> list[Measurement]:
        try:
            results = _evaluated(self._loaded, voice, self._config.limit)
            return _marked(self._loaded, results, self._metric, self._filter)
        except SealError:
            raise
        except Exception as error:
            # The task's own code marks answers that no rehearsal could foresee; what it says may quote them.
            raise NotPossible(
                f"{self._suite.suite_id} could not be marked: {type(error).__name__}", reason="MEASURE_FAILED"
            ) from error


class Silent:
    """A model that says nothing and finds everything equally likely. Notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def write(self, texts: Sequence[str], sampling: Sampling) -> list[str]:
        check(texts)
        self.asked.append([list(texts), sampling.model_dump(mode="json")])
        return [""] * len(texts)

    def score(self, choices: Sequence[Choice]) -> list[tuple[OptionScore, ...]]:
        for choice in choices:
            check([choice.context], choice.options)
        self.asked.append([[choice.context, *choice.options] for choice in choices])
        return [(OptionScore(tokens=1),) * len(choice.options) for choice in choices]


def _evaluated(loaded: dict[str, Any], voice: Voice, limit: int | None) -> dict[str, Any]:
    from auditor.harness.model import StudentModel

    return library.evaluate(loaded, StudentModel(voice), limit)


def _check(name: str, config: HarnessTask, tasks: Mapping[str, Any]) -> None:
    """Raises InvalidConfig for what cannot be a suite."""
    documents = 0
    for task in tasks.values():
        kind = str(task.OUTPUT_TYPE)
        if kind not in {"generate_until", "multiple_choice"}:
            why = "its continuations are answer keys" if kind == "loglikelihood" else "it gives no mark per document"
            raise InvalidConfig(f"lm_eval.tasks.{name}: output_type {kind} cannot be a suite: {why}")
        documents += min(len(task.eval_docs), config.limit or len(task.eval_docs))
        if task.get_config("num_fewshot") and _texts(task.fewshot_docs()) & _texts(task.eval_docs):
            raise InvalidConfig(
                f"lm_eval.tasks.{name}: its few-shot examples are taken from the documents that it asks about, whose "
                "answers must not be shown: give it a fewshot_split of others, or num_fewshot 0"
            )
    if documents > MAX_SUITE_ITEMS:
        raise InvalidConfig(f"lm_eval.tasks.{name}: {documents} documents; set a limit, {MAX_SUITE_ITEMS} in all")


def _texts(documents: Any) -> set[str]:
    return {json.dumps(document, sort_keys=True, default=str) for document in documents}


def _metric(name: str, config: HarnessTask, results: Mapping[str, Any]) -> tuple[str, str]:
    """The metric and the filter whose marks count. Raises InvalidConfig that says which there are."""
    samples = [sample for found in results["samples"].values() for sample in found]
    if not samples:
        raise InvalidConfig(f"lm_eval.tasks.{name}: there is no document to ask about")
    shared = [metric for metric in samples[0]["metrics"] if all(metric in sample["metrics"] for sample in samples)]
    filters = list(dict.fromkeys(str(sample["filter"]) for sample in samples))
    metric = config.metric or next((metric for metric in METRICS if metric in shared), "")
    chosen = config.filter or filters[0]
    for key, value, known in (("metric", metric, shared), ("filter", chosen, filters)):
        if value not in known:
            raise InvalidConfig(f"lm_eval.tasks.{name}.{key}: set one of {', '.join(known)}")
    if any(not better.get(metric, True) for better in results["higher_is_better"].values()):
        raise InvalidConfig(f"lm_eval.tasks.{name}.metric: {metric} is better when it is lower")
    return metric, chosen


def _marked(loaded: dict[str, Any], results: Mapping[str, Any], metric: str, chosen: str) -> list[Measurement]:
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


def _definition(results: Mapping[str, Any]) -> list[object]:
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
