"""Driving a job over points: each point exactly one row, whatever becomes of the workers."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlbcore import SweepError
from tlbcore.sweeps import batches
from tlbcore.sweeps.batches import Outcome, drive_executor, drive_threads
from tlbcore.sweeps.parts import Keys
from tlbcore.sweeps.points import Batch, Points, grid_axes, sample_axis


@dataclass(frozen=True)
class Square:
    """A job: the square of x. Kills its process at some points, once or always."""

    deadly: tuple[int, ...] = ()
    marks: Path | None = None
    failing: tuple[int, ...] = ()
    delay: float = 0.0

    def __call__(self, batch: Batch, threads: int) -> Outcome:
        x = np.asarray(batch.columns["x"])
        for value in x:
            time.sleep(self.delay)
            if value in self.deadly:
                mark = self.marks / str(value) if self.marks else None
                if mark is None or not mark.exists():
                    if mark is not None:
                        mark.touch()
                    os.kill(os.getpid(), 9)
            if value in self.failing:
                raise RuntimeError(f"no square of {value:g}")
        return Outcome(metrics={"square": x * x}, errors=[None] * len(batch))


class Rows:
    """Collects what a sweep hands on."""

    def __init__(self, done: Keys | None = None) -> None:
        self.done = done or Keys(np.empty((0, 2), dtype=np.uint64))
        self.keys: list[bytes] = []
        self.squares: dict[float, float] = {}
        self.errors: dict[float, str] = {}

    def sink(self, batch: Batch, outcome: Outcome) -> None:
        self.keys += [key.tobytes() for key in batch.keys]
        for i, error in enumerate(outcome.errors):
            x = float(batch.columns["x"][i])
            if error is None:
                self.squares[x] = float(outcome.metrics["square"][i])
            else:
                self.errors[x] = error

    def none_twice(self) -> bool:
        return max(Counter(self.keys).values(), default=1) == 1


def points(count: int, **options: object) -> Points:
    return Points("base", 1, grid_axes({"x": range(count)}), **options)


def test_threads_compute_every_point_once():
    rows = Rows()
    finished = sum(drive_threads(points(1000), Square(), rows.done.contains, rows.sink, 2))
    assert finished == 1000
    assert rows.none_twice()
    assert rows.squares == {x: x * x for x in range(1000)}


def test_done_points_are_not_computed_again():
    some = points(1000).batch(100, 900)
    rows = Rows(Keys(some.keys))
    assert sum(drive_threads(points(1000), Square(), rows.done.contains, rows.sink, 1)) == 200
    assert sorted(rows.squares) == [*range(100), *range(900, 1000)]


def test_a_widened_grid_computes_only_what_is_new():
    rows = Rows(Keys(points(100).batch(0, 100).keys))
    assert sum(drive_threads(points(150), Square(), rows.done.contains, rows.sink, 1)) == 50


def test_a_repeated_sample_is_computed_once():
    rows = Rows()
    again = Points("base", 1, [sample_axis({"x": [1.0, 2.0, 1.0, 3.0, 2.0]})])
    assert sum(drive_threads(again, Square(), rows.done.contains, rows.sink, 1)) == 3
    assert rows.none_twice()


@pytest.mark.parametrize("make", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_any_executor_computes_every_point_once(make):
    rows = Rows()
    with make(2) as executor:
        assert sum(drive_executor(points(500), Square(), rows.done.contains, rows.sink, executor)) == 500
    assert rows.none_twice()
    assert rows.squares == {x: x * x for x in range(500)}


def test_killed_workers_lose_and_double_nothing(tmp_path: Path):
    rows = Rows()
    job = Square(deadly=(3, 40, 170), marks=tmp_path, delay=0.001)
    finished = drive_executor(points(300), job, rows.done.contains, rows.sink, lambda: ProcessPoolExecutor(2))
    assert sum(finished) == 300
    assert len(list(tmp_path.iterdir())) == 3, "three workers died"
    assert rows.none_twice()
    assert rows.squares == {x: x * x for x in range(300)}


def test_a_point_that_kills_every_worker_is_a_row_with_its_error():
    rows = Rows()
    finished = drive_executor(
        points(40), Square(deadly=(17,)), rows.done.contains, rows.sink, lambda: ProcessPoolExecutor(2)
    )
    assert sum(finished) == 40
    assert rows.none_twice()
    assert rows.errors == {17: "worker lost"}
    assert rows.squares == {x: x * x for x in range(40) if x != 17}


def test_a_batch_that_raises_is_halved_down_to_the_point_at_fault():
    rows = Rows()
    with ThreadPoolExecutor(2) as executor:
        finished = drive_executor(
            points(200), Square(failing=(11, 150)), rows.done.contains, rows.sink, executor
        )
        assert sum(finished) == 200
    assert rows.errors == {x: f"RuntimeError: no square of {x}" for x in (11, 150)}
    assert len(rows.squares) == 198


def test_an_executor_that_breaks_and_cannot_be_replaced_says_how_to_go_on():
    rows = Rows()
    with ProcessPoolExecutor(1) as executor, pytest.raises(SweepError, match="sweep again to resume"):
        list(drive_executor(points(9), Square(deadly=(4,)), rows.done.contains, rows.sink, executor))
    assert rows.none_twice()


class Refusing:
    """An executor that takes some work, and then none."""

    def __init__(self, takes: int = 0) -> None:
        self.takes, self.shut = takes, 0

    def submit(self, work, *arguments):
        if not self.takes:
            raise BrokenExecutor("no more")
        self.takes -= 1
        done: Future[object] = Future()
        done.set_result(work(*arguments))
        return done

    def shutdown(self, **_: object) -> None:
        self.shut += 1


def test_executors_that_take_nothing_are_not_asked_for_ever():
    made: list[Refusing] = []

    def make(takes: int) -> Refusing:
        made.append(Refusing(takes))
        return made[-1]

    rows = Rows()
    with pytest.raises(
        SweepError, match=r"3 executors, one after the other, accepted no work \(no more\); what is done is"
    ):
        list(drive_executor(points(9), Square(), rows.done.contains, rows.sink, lambda: make(0)))
    assert [one.shut for one in made] == [1, 1, 1]
    # One that takes a batch each time is replaced as often as it takes.
    made.clear()
    finished = drive_executor(
        points(300), Square(delay=0.002), rows.done.contains, rows.sink, lambda: make(1)
    )
    assert sum(finished) == 300
    assert len(made) > 3
    assert rows.none_twice()


class Held:
    """An executor of three workers whose batches end when the test says so."""

    _max_workers = 3

    def __init__(self, takes: int = 1 << 30) -> None:
        self.takes = takes

    def submit(self, work, job, batch):
        if not self.takes:
            raise BrokenExecutor("no more")
        self.takes -= 1
        flying: Future[object] = Future()
        flying.ends = lambda: flying.set_result((job(batch, 1), 0.3 * len(batch)))  # type: ignore[attr-defined]
        return flying

    def shutdown(self, **_: object) -> None:
        """Nothing is held on to."""


@pytest.mark.parametrize("takes", [1 << 30, 0], ids=["willing", "first refused"])
def test_two_batches_for_each_worker_are_in_flight_until_few_are_left(takes: int, monkeypatch):
    seen: list[int] = []

    def wait(flying, return_when):
        seen.append(len(flying))
        first = next(iter(flying))
        first.ends()
        return {first}, set()

    monkeypatch.setattr(batches, "wait", wait)
    pools = iter([Held(takes), Held()])
    rows = Rows()
    finished = drive_executor(points(12), Square(), rows.done.contains, rows.sink, lambda: next(pools))
    assert sum(finished) == 12
    # A point takes 0.3 s, so that each is a batch: six in flight as long as there are more.
    assert seen == [6] * 7 + [5, 4, 3, 2, 1]


def test_who_is_suspected_flies_alone(monkeypatch):
    """A batch that failed three times: nobody else is in flight, so that the blame is its own."""
    together: list[set[float]] = []

    def wait(flying, return_when):
        together.append({float(x) for task in flying.values() for x in task.batch.columns["x"]})
        for one in list(flying):
            try:
                one.ends()
            except RuntimeError as error:
                one.set_exception(error)
        return set(flying), set()

    monkeypatch.setattr(batches, "wait", wait)
    pool, rows = Held(), Rows()
    finished = drive_executor(points(8), Square(failing=(2,)), rows.done.contains, rows.sink, lambda: pool)
    assert sum(finished) == 8
    assert rows.errors == {2: "RuntimeError: no square of 2"}
    # With five others; again with what was left; once more; and alone.
    assert together == [{0, 1, 2, 3, 4, 5}, {2, 6, 7}, {2}, {2}]


def test_what_replaces_an_executor_is_one():
    pools = iter([Refusing(), 3])
    with pytest.raises(SweepError, match="a function that makes one: it made 3"):
        list(drive_executor(points(9), Square(), Rows().done.contains, Rows().sink, lambda: next(pools)))


def test_how_many_workers_an_executor_says_it_has():
    class Pool:
        _max_workers = 7

    class Client:
        def nthreads(self):
            return {"a": 3, "b": 2}

    class Dask:
        _client = Client()

    class Empty(Client):
        def nthreads(self):
            return {}

    assert (batches._workers(Pool()), batches._workers(Dask())) == (7, 5)
    assert batches._workers(object()) == os.cpu_count()
    Dask._client = Empty()
    assert batches._workers(Dask()) == 1


def test_who_is_blamed_flies_again_then_alone_then_in_halves():
    again, suspects, rows = deque(), deque(), Rows()
    task = batches._Task(points(5).batch(0, 5))
    for blame in (1, 2):
        assert list(batches._blame(task, "lost", again, suspects, rows.sink)) == []
        assert (task.blame, again.pop(), len(suspects)) == (blame, task, 0)
    assert list(batches._blame(task, "lost", again, suspects, rows.sink)) == []
    assert (suspects.pop(), len(again)) == (task, 0)
    assert list(batches._blame(task, "lost", again, suspects, rows.sink)) == []
    assert [(len(half.batch), half.blame) for half in suspects] == [(2, 3), (3, 3)]
    one = batches._Task(points(5).batch(4, 5), 3)
    assert list(batches._blame(one, "lost", again, suspects, rows.sink)) == [1]
    assert rows.errors == {4: "lost"}
    assert (len(again), len(suspects)) == (0, 2)


def test_points_to_do_are_counted_down_and_handed_out_in_order():
    some = points(10)
    pending = batches._Pending(some, Keys(some.batch(2, 5).keys).contains)
    assert pending.left == 10
    first = pending.take(4)
    assert first is not None
    assert first.columns["x"].tolist() == [0, 1, 5, 6]
    assert pending.left == 3, "three were done"
    rest = pending.take(99)
    assert rest is not None
    assert rest.columns["x"].tolist() == [7, 8, 9]
    assert (pending.take(1), pending.left) == (None, 0)
    every = batches._Pending(points(10), Keys(some.design().keys).contains)
    assert every.take(1) is None


def test_an_outcome_is_cut_to_what_was_done():
    outcome = Outcome(
        metrics={"m": np.array([1.0, 2.0, 3.0])},
        errors=[None, "no", None],
        inert=np.array([True, False, True]),
    )
    part = outcome.select(np.array([False, True, True]))
    assert (part.metrics["m"].tolist(), part.errors, part.inert.tolist()) == (
        [2, 3],
        ["no", None],
        [False, True],
    )
    assert Outcome(metrics={}, errors=[None]).select(np.array([True])).inert is None
    with pytest.raises(AttributeError, match="cannot assign to field 'errors'"):
        outcome.errors = []  # type: ignore[misc]


def test_ctrl_c_amid_a_batch_hands_on_what_was_done():
    rows = Rows()

    def job(batch: Batch, threads: int) -> Outcome:
        assert threads == 2
        done = np.asarray(batch.columns["x"]) < stop
        outcome = Square()(batch, 1)
        if not done.all():
            raise batches.Interrupted(done=done, outcome=outcome.select(done))
        return outcome

    for stop in (0, 3):
        rows.squares.clear()
        with pytest.raises(KeyboardInterrupt):
            list(drive_threads(points(9), job, rows.done.contains, rows.sink, 2))
        assert sorted(rows.squares) == list(range(stop))


def test_a_pace_is_no_faster_than_eight_times_the_last_nor_than_fifty_thousand():
    pace = batches._Pace()
    sizes = []
    for _ in range(7):
        pace.learn(pace.points, 0.0)
        sizes.append(pace.points)
    assert sizes == [8, 64, 512, 4096, 32768, 50_000, 50_000]
    pace.learn(100, 100.0)  # a second each: half a point in half a second, and one at least
    assert (pace.points, pace.share(100, 1)) == (1, 1)


def test_batches_grow_until_they_take_half_a_second():
    pace = batches._Pace()
    for _ in range(20):
        pace.learn(pace.points, pace.points * 0.001)
    assert pace.points == 500
    pace.learn(500, 500.0)
    assert pace.points == 1


def test_the_last_batches_are_shared_among_the_workers_but_stay_a_fifth_of_a_second_long():
    pace = batches._Pace()
    assert pace.share(1000, 2) == 1, "nothing is known of the first"
    for _ in range(20):
        pace.learn(pace.points, pace.points * 0.001)
    assert [pace.share(left, 2) for left in (10_000, 1600, 800, 10)] == [500, 400, 200, 200]


def test_points_run_through_the_product_of_axes():
    some = Points(
        "base", 1, grid_axes({"x": [1, 2], ("y", "policy"): [(5, "ipi"), (6, "rar")]}), replications=3
    )
    batch = some.batch(0, 100)
    assert len(some) == len(batch) == 12
    rows = list(zip(*batch.columns.values(), batch.replications.tolist(), strict=True))
    assert rows[:4] == [(1, 5, "ipi", 0), (1, 5, "ipi", 1), (1, 5, "ipi", 2), (1, 6, "rar", 0)]
    assert len(set(rows)) == 12


@given(st.data())
def test_a_point_is_the_same_in_any_batch(data: st.DataObject):
    some = Points("base", 7, grid_axes({"x": range(5), "policy": ["ipi", "rar"]}), replications=4)
    start = data.draw(st.integers(0, 39))
    stop = data.draw(st.integers(start, 50))
    whole, part = some.batch(0, 40), some.batch(start, stop)
    assert (part.keys == whole.keys[start:stop]).all()
    assert (part.seeds == whole.seeds[start:stop]).all()


def test_policies_share_the_seed_of_their_point():
    batch = Points("base", 7, grid_axes({"x": [1, 2], "policy": ["ipi", "rar"]})).batch(0, 4)
    assert batch.seeds[0] == batch.seeds[1] != batch.seeds[2] == batch.seeds[3]
    assert len({key.tobytes() for key in batch.keys}) == 4


def test_whole_and_real_numbers_are_the_same_values():
    assert (
        points(3).batch(0, 3).keys == Points("base", 1, grid_axes({"x": [0.0, 1.0, 2.0]})).batch(0, 3).keys
    ).all()


def test_samples_come_as_columns_records_or_rows_with_names():
    columns = {"x": [1.0, 2.0], "y": [3.0, 4.0]}
    record = np.array([(1.0, 3.0), (2.0, 4.0)], dtype=[("x", float), ("y", float)])
    for samples, names in ((columns, None), (record, None), (np.array([[1.0, 3.0], [2.0, 4.0]]), ["x", "y"])):
        batch = Points("base", 1, [sample_axis(samples, names)]).batch(0, 9)
        assert {name: list(column) for name, column in batch.columns.items()} == columns


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: grid_axes({"x": []}), "the grid is empty: 'x' has no values"),
        (lambda: grid_axes({"x": "abc"}), "must be a list of values"),
        (lambda: grid_axes({"x": [1, 2, 1]}), "has the value 1.0 twice"),
        (lambda: grid_axes({"x": [1, "a"]}), "numbers only or names only: got 'a'"),
        (lambda: grid_axes({"x": [1, float("nan")]}), "must hold finite numbers"),
        (lambda: grid_axes({("x", "y"): [(1,)]}), "needs 2 values in each row"),
        (lambda: sample_axis(np.ones((3, 2))), "samples without names"),
        (lambda: sample_axis(np.ones((3, 2)), ["x"]), r"must have shape \(n, 1\): got \(3, 2\)"),
        (lambda: sample_axis({"x": [1], "y": [1, 2]}), r"differ in length: \[1, 2\]"),
        (lambda: sample_axis({}), "the samples are empty"),
        (lambda: Points("", 1, grid_axes({"x": [1], ("x", "y"): [(1, 2)]})), "'x' is given twice"),
        (lambda: points(3, replications=0), "replications must be an integer .* got 0"),
    ],
)
def test_bad_grids_are_refused(make, message: str):
    with pytest.raises(SweepError, match=message):
        make()
