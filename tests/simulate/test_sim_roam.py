"""A process that moves to another CPU while kernel work occupies its own."""

from __future__ import annotations

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import scenarios


def file_tables(*, roams_ms: float | None, wait_ms: float, on: tuple[int, ...] = (0, 1)) -> tc.SimResult:
    """A process that frees tables of 2,000 and 5 pages, the second a millisecond later; purges wait for `wait_ms`."""
    frees = scenarios.vfree(on, rate_hz=10, pages=2000, then=(5,), apart_ms=1.0, roams_ms=roams_ms)
    load = tc.Scenario(
        name="files",
        duration_s=20,
        cpus=4,
        isolated=(2, 3),
        lazy_max_pages=6100,
        work_delay_us=50.0,
        actors=(scenarios.spin("isolated"), scenarios.idle("housekeeping"), frees),
    )
    machine = tc.Machine(
        name="slow",
        text=f"""
            name = "slow"
            inherits = "haswell-ep-e5-2699v3"
            [costs]
            ipi_same_socket = {{ ns = {round(wait_ms * 1e6)}, mark = "unsourced", source = "a test" }}
        """,
    )
    return tc.simulate(load, machine=machine)


def test_a_process_that_stays_behind_its_purge_makes_no_tail_purge_and_one_that_is_pulled_does():
    stays = file_tables(roams_ms=None, wait_ms=12.0, on=(0,))
    roams = file_tables(roams_ms=4.0, wait_ms=12.0)
    assert stays.total("purges_tail") == 0
    assert stays.total("purges") > 30
    assert roams.total("purges_tail") > 0.4 * roams.total("purges")


def test_it_is_pulled_at_a_tick_and_a_purge_that_ends_before_keeps_it():
    quick = file_tables(roams_ms=4.0, wait_ms=0.01)
    assert quick.total("purges_tail") == 0
    # All but the purges in whose few microseconds the tick falls ran where the process began.
    assert float(quick.table["purges"][1]) < 0.1 * quick.total("purges")
    slow = file_tables(roams_ms=4.0, wait_ms=12.0)
    assert min(float(slow.table["purges"][cpu]) for cpu in (0, 1)) > 10


def test_one_process_frees_as_often_on_two_cpus_as_on_one():
    one, two = (file_tables(roams_ms=4.0, wait_ms=0.01, on=on) for on in ((0,), (0, 1)))
    assert two.total("areas_purged") == pytest.approx(one.total("areas_purged"), rel=0.2)


def test_a_tail_purge_runs_where_the_purge_before_it_did():
    # `__queue_work`; in p4.w6 and q4.w1st kworker/N runs both. Slow acknowledgements, so frees arrive in between.
    load = scenarios.spawn_storm(duration_s=20, rate_hz=2000, batch=64)
    run = tc.simulate(load.replace(lazy_max_pages=2000, extra_ipi_ms=5.0), machine="broadwell-ep")
    tails = np.flatnonzero(run.purges["tail"])
    assert len(tails) > 20
    assert set(run.purges["cpu"].tolist()) == {0, 1}
    assert (run.purges["cpu"][tails] == run.purges["cpu"][tails - 1]).all()


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"then": (0,), "apart_ms": 1.0}, "pages must be an integer from 1"),
        ({"then": (5,)}, "the time between two frees must be above 0"),
        ({"roams_ms": 0.0}, "the time between two ticks must be above 0"),
        ({"roams_ms": float("nan")}, "roams_ms must be a finite number"),
    ],
)
def test_a_round_that_cannot_be_is_refused(change, rule):
    with pytest.raises(tc.SimError, match=rule):
        tc.Scenario(
            name="files",
            duration_s=1,
            cpus=2,
            isolated=(1,),
            actors=(scenarios.vfree((0,), rate_hz=1, pages=9, **change),),
        )
