"""Drive a job over the points of a sweep: batches of about half a second, to threads or to any executor.

Every point that is not done yet is handed out once and comes back as one row, or as one row with its error; a
batch whose worker was lost is handed out again. Rows are handed on as they come.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tlbcore._core import SweepError
from tlbcore.sweeps.points import Batch, Points

BATCH_SECONDS = 0.5
LEAST_SECONDS = 0.2
BATCH_POINTS = 50_000
TRIES = 3


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a batch: a value per metric and point, an error or None, and whether the policy was inert."""

    metrics: Mapping[str, NDArray[np.float64]]
    errors: list[str | None]
    inert: NDArray[np.bool_] | None = None  # nowhere

    def select(self, chosen: NDArray[np.bool_]) -> Outcome:
        """Return the points of a mask."""
        return Outcome(
            metrics={name: values[chosen] for name, values in self.metrics.items()},
            errors=[error for error, here in zip(self.errors, chosen, strict=True) if here],
            inert=None if self.inert is None else self.inert[chosen],
        )


@dataclass(kw_only=True, eq=False)
class Interrupted(Exception):  # noqa: N818
    """Ctrl-C while a batch was running: which points were done, and what became of them."""

    done: NDArray[np.bool_]
    outcome: Outcome


class Job(Protocol):
    """Computes a batch; pickled when an executor runs it elsewhere."""

    def __call__(self, batch: Batch, threads: int) -> Outcome:
        """Compute the points on so many threads; raises `Interrupted`."""
        ...


Sink = Callable[[Batch, Outcome], None]
Contains = Callable[[NDArray[np.uint64]], NDArray[np.bool_]]


class _Pending:
    """The points still to do, in order."""

    def __init__(self, points: Points, done: Contains) -> None:
        self._points, self._done = points, done
        self._next = 0
        self._buffer: Batch | None = None
        self._seen: set[bytes] | None = set() if points.may_repeat else None

    @property
    def left(self) -> int:
        """How many points there are to do at most."""
        return len(self._points) - self._next + (0 if self._buffer is None else len(self._buffer))

    def take(self, count: int) -> Batch | None:
        while self._buffer is None or not len(self._buffer):
            if self._next >= len(self._points):
                return None
            batch = self._points.batch(self._next, self._next + max(count, 4096))
            self._next += len(batch)
            fresh = ~self._done(batch.keys)
            if self._seen is not None:
                for i, key in enumerate(batch.keys):
                    name = key.tobytes()
                    fresh[i] &= name not in self._seen
                    self._seen.add(name)
            self._buffer = batch.select(fresh)
        taken, self._buffer = self._buffer.select(slice(count)), self._buffer.select(slice(count, None))
        return taken


class _Pace:
    """How many points make a batch of the wanted length, learned from the batches so far."""

    def __init__(self) -> None:
        self.points = 1
        self._seconds = math.inf  # of a point

    def learn(self, points: int, seconds: float) -> None:
        self._seconds = max(seconds, 1e-9) / points
        self.points = max(1, min(int(BATCH_SECONDS / self._seconds), 8 * self.points, BATCH_POINTS))

    def share(self, left: int, workers: int) -> int:
        """Points of the next batch when at most so many are left: no worker is to wait for another at the end.

        The last batches get smaller, but not below `LEAST_SECONDS`.
        """
        least = max(1, int(LEAST_SECONDS / self._seconds))
        return min(self.points, max(least, left // (2 * workers)))


def drive_threads(points: Points, job: Job, done: Contains, sink: Sink, threads: int) -> Iterator[int]:
    """Compute in this process; yields the number of points finished, batch by batch."""
    pending, pace = _Pending(points, done), _Pace()
    while (batch := pending.take(pace.points)) is not None:
        start = time.perf_counter()
        try:
            outcome = job(batch, threads)
        except Interrupted as cut:
            if cut.done.any():
                sink(batch.select(cut.done), cut.outcome)
            raise KeyboardInterrupt from None
        pace.learn(len(batch), time.perf_counter() - start)
        sink(batch, outcome)
        yield len(batch)


@dataclass(eq=False)
class _Task:
    batch: Batch
    blame: int = 0  # how often it was in flight when a worker was lost, or failed as a whole


def drive_executor(
    points: Points,
    job: Job,
    done: Contains,
    sink: Sink,
    executor: Executor | Callable[[], Executor],
) -> Iterator[int]:
    """Compute on an executor; yields the number of points finished, batch by batch.

    When a process pool breaks, a function that makes executors is asked for a new one; an executor that was
    passed itself cannot be replaced, and the sweep ends with what is done.
    """
    make = None if isinstance(executor, Executor) or hasattr(executor, "submit") else executor
    pool: Any = _made(make) if make is not None else executor
    pending, pace = _Pending(points, done), _Pace()
    flying: dict[Future[tuple[Outcome, float]], _Task] = {}
    again: deque[_Task] = deque()
    refused = 0  # executors in a row that took nothing
    suspects: deque[_Task] = deque()  # blamed too often: each flies alone, so that the blame is its own
    try:
        while True:
            alone = any(task.blame >= TRIES for task in flying.values())
            room = 2 * _workers(pool)
            while not alone and len(flying) < room:
                if again:
                    task = again.popleft()
                elif suspects and not flying:
                    task, alone = suspects.popleft(), True
                elif (batch := pending.take(pace.share(pending.left, room // 2))) is not None:
                    task = _Task(batch)
                else:
                    break
                try:
                    flying[pool.submit(_timed, job, task.batch)] = task
                except BrokenExecutor as broken:
                    (suspects if task.blame >= TRIES else again).appendleft(task)
                    if flying:
                        break  # they will report it too
                    refused += 1
                    if refused == TRIES:
                        raise SweepError(
                            f"{TRIES} executors, one after the other, accepted no work ({broken}); what is done is"
                            " kept: sweep again to resume"
                        ) from broken
                    pool = _replace(pool, make, broken)
                    alone = False
                else:
                    refused = 0
            if not flying:
                if again or suspects:
                    continue
                return
            finished, _ = wait(flying, return_when=FIRST_COMPLETED)
            broken_by: BrokenExecutor | None = None
            for future in finished:
                task = flying.pop(future)
                try:
                    outcome, seconds = future.result()
                except BrokenExecutor as broken:
                    broken_by = broken
                    yield from _blame(task, "worker lost", again, suspects, sink)
                except Exception as error:
                    text = f"{type(error).__name__}: {error}"
                    yield from _blame(task, text, again, suspects, sink)
                else:
                    pace.learn(len(task.batch), seconds)
                    sink(task.batch, outcome)
                    yield len(task.batch)
            if broken_by is not None and not flying:
                pool = _replace(pool, make, broken_by)
    finally:
        for future in flying:
            future.cancel()
        if make is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _blame(task: _Task, error: str, again: deque[_Task], suspects: deque[_Task], sink: Sink) -> Iterator[int]:
    """Hand a failed batch out again, then alone, then in halves, down to the row of the point at fault."""
    task.blame += 1
    if task.blame < TRIES:
        again.append(task)
    elif task.blame == TRIES:
        suspects.append(task)
    elif len(task.batch) > 1:
        half = len(task.batch) // 2
        suspects.append(_Task(task.batch.select(slice(half)), TRIES))
        suspects.append(_Task(task.batch.select(slice(half, None)), TRIES))
    else:
        sink(task.batch, Outcome(metrics={}, errors=[error]))
        yield 1


def _replace(pool: Any, make: Callable[[], Executor] | None, broken: BrokenExecutor) -> Any:
    if make is None:
        raise SweepError(
            f"the executor lost a worker and accepts no more work ({broken}); what is done is kept:"
            " sweep again to resume, or pass a function that makes executors instead of an executor"
        ) from broken
    with suppress(Exception):
        pool.shutdown(wait=False, cancel_futures=True)
    return _made(make)


def _made(make: Callable[[], Executor]) -> Any:
    pool = make()
    if not hasattr(pool, "submit"):
        raise SweepError(f"executor must be an executor, or a function that makes one: it made {pool!r}")
    return pool


def _workers(pool: Any) -> int:
    """How many batches run at once, as far as the executor says."""
    client = getattr(pool, "_client", None)  # Dask's; workers may come and go
    if client is not None:
        return max(1, sum(int(threads) for threads in client.nthreads().values()))
    return int(getattr(pool, "_max_workers", None) or os.cpu_count() or 1)


def _timed(job: Job, batch: Batch) -> tuple[Outcome, float]:
    start = time.perf_counter()
    outcome = job(batch, 1)
    return outcome, time.perf_counter() - start
