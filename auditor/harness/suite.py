"""One task (or group) of lm_eval as a suite: rehearsed when it is opened, measured as often as a version asks.

The rehearsal runs the whole task with a model that says nothing. It finds out, before any run is ordered, that the data
is there, that every request can be put to a student, that the metric marks each document, and what the marks will
depend on. Keys stay in this process: a task whose requests hold them is refused.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from auditor.harness import library, samples
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
            metric, chosen = samples.chosen_metric(name, config, results)
            measurements = samples.marked(loaded, results, metric, chosen)
        except InvalidConfig:
            raise
        except SealError as error:
            raise InvalidConfig(f"lm_eval.tasks.{name}: {error.message}") from None
        except Exception as error:
            # lm_eval and the task's own code raise what they like.
            raise InvalidConfig(f"lm_eval.tasks.{name}: {type(error).__name__}: {error}") from error
        content = [version, metric, chosen, samples.definition(results), silent.asked]
        suite = Suite(
            suite_id=f"{PREFIX}{name}",
            title=f"lm-evaluation-harness: {config.task or name}, {metric}",
            measured=Measured(
                content=digest_bytes(canonical_json(content)).sha256, items=tuple(m.item_id for m in measurements)
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
            return samples.marked(self._loaded, results, self._metric, self._filter)
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
