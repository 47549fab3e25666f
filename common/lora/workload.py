"""The jobs of one training call: those that wait, those under way, and what the others came to.

Jobs are taken up longest first, as many at once as the token budget and the memory hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.errors import InvalidRequest
from common.lora.attachment import AttachedModel
from common.lora.memory import GIB, TrainMemory
from common.lora.outcomes import NON_FINITE, FailedJob, Outcome, Report, TrainProgress, too_large, unless_no_memory
from common.lora.render import Rendered
from common.lora.shares import step_tokens
from common.lora.update import NotFinite, TrainJob, Update, fresh_spec, set_


@dataclass(frozen=True)
class Waiting:
    """A job that was not taken up yet, and what it will take."""

    number: int
    job: TrainJob
    examples: Sequence[Rendered]
    needs: Needs


@dataclass(frozen=True)
class Needs:
    """Bytes of the adapter, bytes of a token, and tokens that one of the job's passes may have, at most."""

    adapter: int
    token: int
    share: int


class Workload:
    """Jobs that wait, jobs under way by their number, and what the others came to."""

    def __init__(
        self,
        attached: AttachedModel,
        memory: TrainMemory,
        budget: int,
        report: Report,
        ended: Callable[[Outcome], None],
    ) -> None:
        self._attached = attached
        self._memory = memory
        self._available = memory.available()
        self._budget = budget
        self._report = report
        self._ended = ended
        self._started = time.perf_counter()
        self._tokens = 0
        self.waiting: list[Waiting] = []
        self.active: dict[int, Update] = {}
        self._needs: dict[int, Needs] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.total = 0

    def wait(self, number: int, job: TrainJob, examples: Sequence[Rendered]) -> None:
        """Puts a job in line, or ends it with the reason why it will never fit."""
        longest = max(len(example.tokens) for example in examples)
        batch = min(set_(job.recipe.batch_size), len(examples))
        share = max(longest, min(self._budget, batch * longest))
        spec = job.parent.spec if job.parent is not None else fresh_spec(job.recipe, self._attached.base.digest.sha256)
        token = self._memory.token(spec, set_(job.recipe.dropout))
        needs = Needs(self._memory.adapter(spec), token, share)
        if (needed := _together([needs])) > self._available:
            detail = f"training takes about {needed / GIB:.1f} GiB and {self._available / GIB:.1f} are there"
            self.end(number, too_large(job, detail))
            return
        self.waiting.append(Waiting(number, job, examples, needs))

    def ready(self, total: int) -> None:
        """All `total` jobs have been put in line or refused."""
        self.total = total
        # Longest first: what is long would otherwise be trained alone at the end.
        self.waiting.sort(key=lambda entry: (-_total_tokens(entry.job, entry.examples), entry.number))

    def room(self) -> int:
        """Tokens of one pass of several jobs: the budget, or what memory the adapters leave."""
        if not self._needs:
            return self._budget
        left = self._available - sum(needs.adapter for needs in self._needs.values())
        return min(self._budget, left // max(needs.token for needs in self._needs.values()))

    def fill(self) -> None:
        """Takes up waiting jobs as long as a step of each still fits into budget and memory; one at least."""
        used = float(sum(step_tokens(update) for update in self.active.values()))
        for entry in list(self.waiting):
            batch = min(set_(entry.job.recipe.batch_size), len(entry.examples))
            step = sum(len(e.tokens) for e in entry.examples) / len(entry.examples) * batch
            needed = _together([*self._needs.values(), entry.needs])
            if self.active and (used + step > self._budget or needed > self._available):
                return
            self.waiting.remove(entry)
            if self._take_up(entry):
                used += step

    def _take_up(self, entry: Waiting) -> bool:
        slot = f"training-{entry.number}"
        try:
            self.active[entry.number] = Update(entry.job, entry.examples, self._attached, slot)
            self._needs[entry.number] = entry.needs
        except InvalidRequest as error:
            self.end(entry.number, FailedJob(entry.job.job_id, error.reason, error.message))
        except RuntimeError as error:
            unless_no_memory(error)
            self.end(entry.number, too_large(entry.job, "the device has not enough memory for the adapter"))
        finally:
            if entry.number not in self.active:
                self._attached.detach(slot)
        return entry.number in self.active

    def step(self, number: int, update: Update, loss: float) -> None:
        """Lets a job take its step, and end if that was its last or broke it."""
        try:
            self._tokens += step_tokens(update)
            update.advance(loss)
            speed = self._tokens / max(time.perf_counter() - self._started, 1e-9)
            self._report(
                TrainProgress(
                    update.job.job_id, len(self.outcomes), self.total, update.step, update.steps, update.loss, speed
                )
            )
            if update.ended:
                self.leave(number, update, update.result())
        except NotFinite as error:
            self.leave(number, update, FailedJob(update.job.job_id, NON_FINITE, str(error)))
        except RuntimeError as error:
            unless_no_memory(error)
            self.leave(number, update, too_large(update.job, "the device has not enough memory for the optimizer"))

    def end(self, number: int, outcome: Outcome) -> None:
        self.outcomes[number] = outcome
        self._ended(outcome)

    def leave(self, number: int, update: Update, outcome: Outcome) -> None:
        del self.active[number], self._needs[number]
        self._attached.detach(update.slot)
        self.end(number, outcome)


def _together(needs: Sequence[Needs]) -> int:
    """Bytes of jobs that are trained at once: their adapters, and one pass that holds the largest share of any."""
    return sum(one.adapter for one in needs) + max(one.share for one in needs) * max(one.token for one in needs)


def _total_tokens(job: TrainJob, examples: Sequence[Rendered]) -> int:
    return sum(len(example.tokens) for example in examples) * set_(job.recipe.epochs)
