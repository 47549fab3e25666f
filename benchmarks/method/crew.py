"""Several processes with a model each: on a CPU two of one thread do twice what one of two threads does.

A turn is a piece of a benchmark that needs nothing of another: an arm on a passage, or one sequence. Everything that it
finishes stands on disk (benchmarks/method/workshop.py), so a crew may be killed at any moment and begun again. No
process of a crew outlives the one that called for it.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

from benchmarks.method.progress import say
from benchmarks.method.settings import BenchSettings
from benchmarks.method.workshop import Workshop, work_folder
from common.errors import SealError

TurnT = TypeVar("TurnT")
OutcomeT = TypeVar("OutcomeT")

PROGRESS_SECONDS = 30.0

_workshop: Workshop | None = None


def size(settings: BenchSettings, turns: int) -> int:
    """Processes at work."""
    wanted = settings.workers or (1 if settings.model.device != "cpu" else len(os.sched_getaffinity(0)))
    return max(1, min(wanted, turns))


def each(
    settings: BenchSettings, work: Callable[[Workshop, TurnT], OutcomeT], turns: Sequence[TurnT]
) -> Iterator[tuple[TurnT, OutcomeT]]:
    """(turn, outcome) as they end. work: a function of a module, for another process to find.

    Raises what the first turn raised that failed, or SealError when a process is gone; turns under way are given up.
    """
    if not turns:
        return
    workers = size(settings, len(turns))
    _make_room(settings)
    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_open,
        initargs=(settings, workers),
    )
    try:
        pending = {pool.submit(_take, work, turn): turn for turn in turns}
        for done in as_completed(pending):
            yield pending[done], done.result()
    except BrokenProcessPool as error:
        raise SealError(
            "a process at work ended unasked, perhaps for lack of memory; what was finished stands: run it again, "
            "with fewer workers"
        ) from error
    except BaseException:
        for process in list((pool._processes or {}).values()):
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _make_room(settings: BenchSettings) -> None:
    """The model that wrote or rehearsed here is gone, but torch keeps its memory on a GPU from other processes."""
    if settings.model.device != "cpu":
        gc.collect()
        torch.cuda.empty_cache()


def _open(settings: BenchSettings, workers: int) -> None:
    global _workshop  # noqa: PLW0603 - one a process, which is what an initializer is for
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends the others
    model = settings.model
    if workers > 1 and model.device == "cpu":
        model = model.model_copy(update={"threads": 1})
    _workshop = Workshop(work_folder(settings.folder), model, progress=Sparing(PROGRESS_SECONDS))


def _end_with_parent() -> None:
    """However it ends: nobody would take the outcome of the turn under way, nor give another."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _take(work: Callable[[Workshop, TurnT], OutcomeT], turn: TurnT) -> OutcomeT:
    assert _workshop is not None
    return work(_workshop, turn)


class Sparing:
    """Says how far a training is now and then: thousands of steps would hide which turns are done."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._said = time.monotonic()

    def __call__(self, text: str) -> None:
        if time.monotonic() - self._said >= self._seconds:
            self._said = time.monotonic()
            say(f"  {text}")
