"""The timed machine from Python: scenarios, runs, comparisons, and what they refuse."""

from __future__ import annotations

import json
import pickle
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tlbcore as tc
from tlbcore import op, scenarios
from tlbcore.cli import main
from tlbcore.simulation.figures import markdown

MACHINE = "broadwell-ep-e5-2699v4"

OWN_TEXT = """policy count-and-defer
  "Skip CPUs in user mode; they flush at entry. Written for a test."
  needs pti
  var inside : 1 bit, per cpu, starts 1, user mapped

to_kernel
  inside = 1
  fence
  mov cr3, kernel noflush
  if me in nohz_full
    flush_all_here

to_user
  inside = 0
  mov cr3, user owed

flush_kernel_range
  each cpu in others
    if cpu in housekeeping or inside[cpu]
      put cpu into targets
  ipi targets, flush_handler
  flush_here
  await acks
"""


@pytest.fixture(scope="module")
def published() -> tc.Comparison:
    """The published noise measurement, one hour of it."""
    load = scenarios.rteval(duration_s=3600)
    return tc.compare(load, machine=MACHINE, policies=["ipi", "coalesce-v7", "coalesce-v7-fixed"])


def stream_alone(pattern, **options) -> tc.SimResult:
    """A task that spins over a stream of a touch per microsecond, and 20 full flushes."""
    flushes = scenarios.chain(
        [{"program": "purge", "pages": 0, "cause": "purge"}], (0,), rate_hz=100, poisson=False
    )
    load = scenarios.Scenario(
        name="stream",
        duration_s=0.205,
        cpus=2,
        isolated=(1,),
        actors=(
            scenarios.spin("all"),
            flushes,
            scenarios.stream("isolated", pattern, rate_hz=1e6),
        ),
    )
    return tc.simulate(load, machine=MACHINE, **options)


@pytest.mark.parametrize(
    ("pattern", "pages"),
    [
        (scenarios.sequential(50, stride=3), 50),
        (scenarios.pointer_chase(50), 50),
        (scenarios.zipf(20, s=0.8), 20),
        (scenarios.from_array(np.array([3, 1 << 33, 3, 77], dtype=np.uint64)), 3),
        ([(30, scenarios.sequential(10)), (40, scenarios.pointer_chase(25))], 25),
    ],
)
def test_a_stream_that_fits_is_walked_once_per_page_and_flush(pattern, pages):
    run = stream_alone(pattern, policy="ipi", detail="full")
    assert run.total("stream_first", isolated=True) == pages
    assert run.total("stream_evicted", isolated=True) == 0
    # The page of the entry code and the stack are walked again too.
    assert run.total("refill_misses_remote", isolated=True) == 20 * (pages + 2)
    deferred = stream_alone(pattern, policy="coalesce-v7", detail="full")
    assert deferred.total("refill_misses", isolated=True) <= 2  # the task never enters the kernel
    assert deferred.total("stream_first", isolated=True) == pages


def test_a_stream_that_cannot_be_is_refused_with_its_rule():
    with pytest.raises(tc.SimError, match="is an access stream: it needs detail"):
        stream_alone(scenarios.zipf(4), policy="ipi")
    with pytest.raises(tc.SimError, match=r"page numbers are integers from 0 to 2\*\*64 - 1: got -1 at 1"):
        scenarios.from_array([4, -1])
    with pytest.raises(tc.SimError, match=r"got 1\.5 at 0"):
        scenarios.from_array(np.array([1.5]))
    with pytest.raises(tc.SimError, match="s must be a finite number of at least 0: got nan"):
        scenarios.zipf(4, s=float("nan"))
    with pytest.raises(tc.SimError, match="pages must be an integer from 1 to 16777216: got 0"):
        scenarios.pointer_chase(0)
    with pytest.raises(tc.SimError, match="pages must be 1 to 16777216: got 0"):
        stream_alone(scenarios.from_array([]), policy="ipi", detail="full")
    with pytest.raises(tc.SimError, match="at least one phase"):
        stream_alone([], policy="ipi", detail="full")


def test_deferral_removes_the_published_noise(published):
    table = published.table
    rows = {p: i for i, p in enumerate(table["policy"]) if table["cpu_class"][i] == "isolated"}
    assert 20 < table["ipis_per_hour"][rows["ipi"]] < 50
    assert table["ipis_per_hour"][rows["coalesce-v7"]] == 0
    assert table["deferrals_per_hour"][rows["coalesce-v7"]] == table["ipis_per_hour"][rows["ipi"]]


def test_every_purge_interrupts_every_isolated_cpu_under_mainline(published):
    ipi = published["ipi"]
    received = ipi.table["ipis_received"][ipi.table["isolated"]]
    assert (received == ipi.total("flush_requests")).all()
    assert ipi.table["interrupts_purge"][ipi.table["isolated"]].sum() == received.sum()


def test_a_policy_written_in_python_and_one_as_text_stand_beside_built_in_ones():
    mine = tc.policies["coalesce-v7"].replace(
        name="mine", coalesce=[op.store("kernel_cr3_loaded", 1), op.fence(), op.invpcid(2)]
    )
    text = tc.Policy(text=OWN_TEXT)
    load = scenarios.syscall_heavy(duration_s=0.2)
    result = tc.compare(load, machine=MACHINE, policies=["ipi", mine, text])
    assert list(result) == ["ipi", "mine", "count-and-defer"]
    assert result["mine"].total("entry_flushes_unneeded", isolated=True) > 1000
    assert result["count-and-defer"].total("entry_flushes_unneeded", isolated=True) > 1000


def test_the_same_seed_gives_the_same_bytes_for_any_number_of_threads():
    load = scenarios.spawn_storm(duration_s=30, rate_hz=400)
    runs = [
        tc.compare(load, machine=MACHINE, policies=["ipi", "ct-late"], replications=4, threads=threads)
        for threads in (1, 2, 8)
    ]
    for name, column in runs[0].table.items():
        for other in runs[1:]:
            assert column.tobytes() == other.table[name].tobytes() or column.dtype == object, name
    for one, two in zip(runs[0].results, runs[2].results, strict=True):
        for name, column in one.table.items():
            assert column.tobytes() == two.table[name].tobytes(), name


@pytest.mark.parametrize("name", sorted(scenarios.SCENARIOS))
def test_skipping_changes_nothing_in_any_scenario(name):
    dense = ("syscall-heavy", "trading", "hackbench", "user-shootdown", "pthread-churn", "kernel-build")
    load = scenarios.by_name(name, duration_s=0.05 if name in dense else 20.0)
    for policy in ("ipi", "coalesce-v7"):
        fast = tc.simulate(load, machine=MACHINE, policy=policy)
        slow = tc.simulate(load, machine=MACHINE, policy=policy, skip=False)
        for column in fast.table:
            assert fast.table[column].tobytes() == slow.table[column].tobytes(), column
        assert fast.latencies == slow.latencies
        assert fast.program_runs == slow.program_runs


def test_seeds_give_confidence_intervals():
    load = scenarios.spawn_storm(duration_s=60, rate_hz=800)
    table = tc.compare(load, machine=MACHINE, policies=["ipi"], replications=5).table
    low, mean, high = (table[f"ipis_per_hour{s}"][0] for s in ("_low", "", "_high"))
    assert low <= mean <= high
    assert table["replications"][0] == 5


def test_page_table_isolation_off_makes_coalescing_inert_and_says_why():
    load = scenarios.syscall_heavy(duration_s=0.1, base_ns=270)
    with pytest.warns(tc.InertPolicyWarning, match="coalesce-v7"):
        result = tc.compare(load, machine="cascade-lake-sp", policies=["ipi", "coalesce-v7"])
    assert "inert" in result["coalesce-v7"].notes[0]
    assert result.table["syscall_mean_ns"][0] == result.table["syscall_mean_ns"][2]


def test_every_statistic_is_a_column_with_its_unit(published):
    names = [s.name for s in tc.statistics()]
    assert list(published["ipi"].table) == ["cpu", "isolated", *names]
    assert all(s.name.endswith("_ps") == (s.unit == "ps") for s in tc.statistics())


def test_a_result_survives_pickling_and_replace(published):
    ipi = published["ipi"]
    again = pickle.loads(pickle.dumps(ipi))
    assert again.table["ipis_received"].tolist() == ipi.table["ipis_received"].tolist()
    assert ipi.replace(seed=7).seed == 7
    with pytest.raises(ValueError, match="read-only"):
        ipi.table["ipis_received"][0] = 1


@pytest.mark.parametrize("detail", ["summary", "full"])
def test_ctrl_c_keeps_what_there_is_within_a_tenth_of_a_second(detail):
    load = scenarios.trading(duration_s=1000)
    main_thread = threading.main_thread().ident
    assert main_thread is not None
    sent = []

    def interrupt() -> None:
        time.sleep(0.4)
        sent.append(time.monotonic())
        signal.pthread_kill(main_thread, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = tc.simulate(load, machine=MACHINE, skip=False, detail=detail)
    thread.join()
    assert sent, "the signal was sent"
    assert result.interrupted
    assert 0 < result.duration_s < 1000
    assert result.total("syscalls") > 0


def test_two_foregrounds_on_one_cpu_are_refused():
    load = scenarios.quiet()
    with pytest.raises(tc.SimError, match="both are the foreground of CPU 2"):
        load.replace(actors=(*load.actors, scenarios.syscalls("isolated", base_ns=100)))


def test_a_scenario_is_data_that_can_be_changed_and_pickled():
    load = scenarios.rteval()
    assert pickle.loads(pickle.dumps(load)) == load
    assert load.replace(duration_s=1.0).duration_s == 1.0
    assert json.loads(load.to_json())["isolated"] == list(range(18, 44))


def test_a_scenario_pickled_when_all_of_it_was_one_module_is_read():
    load = scenarios.rteval()
    today = pickle.dumps(load, protocol=0)
    one_file = re.sub(rb"tlbcore\.scenarios\.\w+", b"tlbcore.scenarios", today)
    assert one_file != today
    assert pickle.loads(one_file) == load


def test_compare_prints_five_policies_by_default(capsys):
    assert main(["compare", "--scenario", "rteval", "--duration", "600"]) == 0
    shown = capsys.readouterr().out
    for name in ("ipi", "ct-late", "coalesce-v7", "coalesce-v7-fixed", "pending-bit"):
        assert name in shown


def test_compare_as_json_has_schema_and_columns(capsys):
    assert main(["compare", "--scenario", "quiet", "--duration", "5", "--policy", "ipi", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "tlbcore.compare"
    assert document["version"] == 2
    assert document["table"]["policy"] == ["ipi", "ipi", "ipi"]


def test_compare_refuses_bad_input_with_status_two(capsys):
    assert main(["compare", "--scenario", "rtevil"]) == 2
    assert "did you mean" in capsys.readouterr().err
    assert main(["compare", "--policy", "ipl"]) == 2
    assert main(["compare", "--isolated", "99"]) == 2


def test_the_timeline_is_in_order_and_names_its_events(published):
    events = published["coalesce-v7"].timeline
    assert (np.diff(events["time_ps"].astype(np.int64)) >= 0).all()
    assert set(events["kind"]) >= {"request", "deferral"}


def test_the_page_on_simulation_lists_every_statistic_figure_and_scenario():
    page = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text()
    assert markdown() in page
    for name, make in scenarios.SCENARIOS.items():
        assert make.__doc__ is not None
        first = make.__doc__.splitlines()[0].removeprefix("Return ").strip()
        assert f"| `{name}` | {first} |" in page


@pytest.mark.parametrize("detail", ["summary", "full"])
def test_an_interrupted_run_goes_on_from_its_checkpoint_to_the_same_end(tmp_path, detail):
    load = scenarios.trading(duration_s=200.0 if detail == "summary" else 5.0)
    file = tmp_path / "run.checkpoint"

    def stop(done: float, _total: float) -> None:
        if done > 0:
            raise KeyboardInterrupt

    options = {"machine": MACHINE, "policy": "ct-late", "detail": detail}
    first = tc.simulate(load, **options, skip=False, checkpoint=file, progress=stop)
    assert first.interrupted
    assert file.exists()
    rest = tc.simulate(load, **options, checkpoint=file)
    whole = tc.simulate(load, **options)
    assert not file.exists()
    for name, column in whole.table.items():
        assert column.tobytes() == rest.table[name].tobytes(), name
    assert rest.latencies == whole.latencies


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path):
    file = tmp_path / "run.checkpoint"
    file.write_bytes(b"nonsense")
    with pytest.raises(tc.SimError, match="not a checkpoint, or damaged"):
        tc.simulate("quiet", machine=MACHINE, checkpoint=file)


def test_misses_are_counted_by_the_flush_that_caused_them_and_windows_by_where_they_opened():
    load = scenarios.syscall_heavy(duration_s=1, spawn_hz=4000, gap_ns=2000.0)
    ticks = scenarios.interrupts("all", rate_hz=1000, body_us=0.5)
    rights = [{"program": "set_memory", "pages": 0, "cause": "set_memory"}]
    flushes = scenarios.chain(rights, (0, 2), rate_hz=500)
    purges = scenarios.vfree((0,), rate_hz=300, pages=25_000)
    load = load.replace(actors=(*load.actors, ticks, flushes, purges))
    seen: set[str] = set()
    for policy in ("ipi", "ct-late", "coalesce-v7", "pending-bit"):
        for detail in ("summary", "full"):
            run = tc.simulate(
                load.replace(duration_s=1 if detail == "summary" else 0.1),
                machine="broadwell-ep",
                policy=policy,
                detail=detail,
            )
            for whole, parts in (
                ("refill_misses", ("entry", "remote", "local", "other")),
                ("exposures", ("syscall", "interrupt", "nmi", "other")),
            ):
                counts = {part: run.total(f"{whole}_{part}") for part in parts}
                assert run.total(whole) == sum(counts.values()), (policy, whole)
                seen |= {f"{whole}_{part}" for part, count in counts.items() if count}
            times = [run.total(f"exposure_{part}_ps") for part in ("syscall", "interrupt", "nmi", "other")]
            assert run.total("exposure_ps") == sum(times)
    assert {"refill_misses_entry", "refill_misses_remote", "refill_misses_local"} <= seen
    assert {"exposures_syscall", "exposures_interrupt"} <= seen


def test_entry_latency_is_what_the_policy_adds_to_the_entry():
    load = scenarios.syscall_heavy(duration_s=0.1)
    found = tc.compare(load, machine="broadwell-ep", policies=["ipi", "coalesce-v7"])
    entry, call = (
        {p: found[p].latencies[f"{kind}_isolated"] for p in found} for kind in ("entry", "syscall")
    )
    assert entry["ipi"]["count"] == call["ipi"]["count"]
    added = entry["coalesce-v7"]["mean_ps"] - entry["ipi"]["mean_ps"]
    assert added > 300_000, "an INVPCID and two stores"
    assert added < call["coalesce-v7"]["mean_ps"] - call["ipi"]["mean_ps"], "the refills come on top"


def test_every_cost_of_a_result_has_its_mark_and_its_source():
    costs = tc.simulate("quiet", machine="broadwell-ep", policy="coalesce-v7").costs
    facts = {fact.key: fact for fact in tc.machines["broadwell-ep"].facts}
    for name, mark, source in zip(costs["name"], costs["mark"], costs["source"], strict=True):
        assert source
        assert (facts[f"costs.{name}"].mark, facts[f"costs.{name}"].source) == (mark, source)


def test_a_figure_that_rests_on_an_unsourced_cost_is_an_interval():
    load = tc.scenarios.spawn_storm(duration_s=60)
    found = tc.compare(
        load,
        machine="zen4-epyc",
        kernel=tc.Kernel(broadcast_tlb_flush=True),
        policies=["ipi", "invlpgb"],
    )
    assert found["invlpgb"].unsourced == ("invlpgb", "tlbsync")
    rests = "`invlpgb`: figures rest on unsourced costs (invlpgb, tlbsync) and are intervals at best"
    assert rests in found["invlpgb"].notes
    assert not any("unsourced" in note for note in found["ipi"].notes)
    rows = {
        (p, c): i
        for i, (p, c) in enumerate(zip(found.table["policy"], found.table["cpu_class"], strict=True))
    }
    broadcast, mainline = rows["invlpgb", "housekeeping"], rows["ipi", "housekeeping"]
    low, took, high = (found.table[f"flush_request_mean_us{end}"] for end in ("_low", "", "_high"))
    assert np.isnan(took[broadcast])
    assert 0 < low[broadcast] < high[broadcast]
    assert took[mainline] > 0
    assert found.table["ipis_per_hour"][rows["invlpgb", "isolated"]] == 0, "no cost changes this"
    assert pickle.loads(pickle.dumps(found)).table["flush_request_mean_us_low"][broadcast] == low[broadcast]


def test_work_that_falls_due_in_an_interrupt_on_two_cpus_at_once_starts_after_it():
    """Ticks and chains on the same CPUs: they used to wait for each other's clock for ever."""
    load = scenarios.syscall_heavy(duration_s=0.05, spawn_hz=4000)
    ticks = scenarios.interrupts("all", rate_hz=1000, body_us=0.5, poisson=False)
    rights = [{"program": "set_memory", "pages": 0, "cause": "set_memory"}]
    flushes = scenarios.chain(rights, (0, 1, 2), rate_hz=1000, poisson=False)
    run = tc.simulate(load.replace(actors=(*load.actors, ticks, flushes)), machine="broadwell-ep")
    assert run.duration_s == pytest.approx(0.05)
    assert run.total("flush_requests") == pytest.approx(150, abs=4)


def test_the_help_of_compare_names_every_scenario(capsys):
    assert main(["compare", "--help"]) == 0
    shown = "".join(capsys.readouterr().out.split()).replace("-", "")
    for name in scenarios.SCENARIOS:
        assert name.replace("-", "") in shown, name
