"""Processes in the timed machine: address spaces, ASIDs, lazy TLB, shootdowns, and the kernel's options for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tlbcore as tc
from tlbcore import scenarios

MACHINE = "broadwell-ep-e5-2699v4"
NO_PTI = "cascade-lake-sp"
LITMUS = Path(__file__).parents[1] / "litmus" / "contexts"


def run(*actors: scenarios.Actor, cpus: int = 4, isolated: str = "3", **options: Any) -> tc.SimResult:
    load = scenarios.Scenario(
        name="tasks", duration_s=0.2, cpus=cpus, isolated=scenarios.cpu_list(isolated), actors=actors
    )
    machine = options.pop("machine", MACHINE)
    result = tc.simulate(load, machine=machine, **options)
    assert result.total("violations") == 0
    assert result.violation is None
    return result


def in_turn(processes: int, **more: Any) -> scenarios.Actor:
    return scenarios.tasks([{"do": "switch"}], on=(1,), rate_hz=5000, processes=processes, **more)


def unmaps(pages: int, **more: Any) -> scenarios.Actor:
    return scenarios.tasks([{"do": "unmap", "pages": pages}], rate_hz=1000, **more)


@pytest.mark.parametrize("machine", [MACHINE, NO_PTI])
@pytest.mark.parametrize("processes", [2, 6, 7, 40])
def test_six_processes_in_turn_find_their_asids_again_and_seven_never(machine: str, processes: int) -> None:
    result = run(in_turn(processes), machine=machine)
    switches, hits = result.total("mm_switches"), result.total("asid_hits")
    assert switches > 500
    assert result.total("asid_misses") + hits == switches
    # The first round misses, but for the one that is loaded at the start.
    assert switches - hits == (switches if processes > 6 else processes - 1)
    assert result.total("mm_switches_flushed") == switches - hits


def test_without_pcids_every_switch_flushes() -> None:
    result = run(in_turn(2), kernel=tc.Kernel(nopcid=True))
    assert result.total("mm_switches_flushed") == result.total("mm_switches") > 500


def test_threads_of_one_process_switch_without_loading_anything() -> None:
    result = run(scenarios.tasks([{"do": "switch"}], rate_hz=1000, shared=True))
    assert result.total("mm_switches") == 0


def test_a_process_of_one_thread_interrupts_nobody() -> None:
    job: list[dict[str, Any]] = [
        {"do": "fork"},
        {"do": "exec"},
        {"do": "unmap", "pages": 2},
        {"do": "unmap", "pages": 0, "tables": True},
        {"do": "exit"},
        {"do": "switch"},
    ]
    result = run(scenarios.tasks(job, rate_hz=500, processes=3), scenarios.spin("isolated"))
    assert result.total("user_flush_requests") > 500
    assert result.total("execs") > 100
    assert result.total("ipis_received") == 0


def test_a_shootdown_interrupts_the_process_s_other_threads_and_nobody_else() -> None:
    result = run(unmaps(4, on=(0,), shared=True, also_on=(2, 3)), scenarios.spin("isolated"))
    requests = result.total("user_flush_requests")
    assert requests > 100
    assert result.table["ipis_received"].tolist() == [0, 0, requests, requests]
    assert result.table["interrupts_user_flush"].tolist() == result.table["ipis_received"].tolist()
    assert result.total("interference", isolated=True) == requests


@pytest.mark.parametrize("tables", [False, True])
def test_lazy_cpus_are_skipped_unless_page_tables_are_freed(tables: bool) -> None:
    steps = [{"do": "switch"}, {"do": "unmap", "pages": 2, "tables": tables}, {"do": "sleep"}]
    result = run(scenarios.tasks(steps, on=(0, 1), rate_hz=1000, shared=True))
    requests = result.total("user_flush_requests")
    assert requests > 300
    if tables:
        # Who is told leaves for init_mm, and has to load the address space when its thread runs again.
        assert result.total("lazy_skips") == result.total("residency") == 0
        assert 0.3 * requests < result.total("mm_switches") / 2 <= result.total("ipis_received") <= requests
    else:
        assert result.total("lazy_skips") == result.total("residency") > 0.9 * requests
        assert result.total("ipis_received") < 0.1 * requests
        assert result.total("mm_switches") == 0


def test_the_flush_ceiling_decides_between_pages_and_everything() -> None:
    for ceiling, pages, full in [
        (33, 33, False),
        (33, 34, True),
        (2, 3, True),
        (64, 64, False),
        (0, 1, True),
    ]:
        kernel = tc.Kernel(flush_ceiling=ceiling)
        result = run(unmaps(pages, on=(0,), shared=True, also_on=(2,)), kernel=kernel)
        requests = result.total("user_flush_requests")
        assert requests > 100
        assert result.total("user_flush_requests_full") == (requests if full else 0), (ceiling, pages)


def test_the_flush_ceiling_decides_for_kernel_ranges_too() -> None:
    step = {"program": "vunmap", "pages": 40, "cause": "vunmap"}
    for ceiling, full in ((33, True), (40, False)):
        result = run(scenarios.chain([step], rate_hz=1000), kernel=tc.Kernel(flush_ceiling=ceiling))
        assert result.total("flush_requests") > 100
        assert result.total("flush_requests_full") == (result.total("flush_requests") if full else 0)


def test_without_vmap_stack_a_fork_frees_no_vmalloc_area() -> None:
    load = scenarios.spawn_storm(duration_s=60, rate_hz=800)
    with_it = tc.simulate(load, machine=MACHINE, policy="ipi")
    without = tc.simulate(load, machine=MACHINE, policy="ipi", kernel=tc.Kernel(vmap_stack=False))
    assert with_it.total("forks") == without.total("forks") > 10_000
    assert with_it.total("purges") > 0
    assert (
        without.total("purges") == without.total("stacks_allocated") == without.total("flush_requests") == 0
    )


def test_page_table_isolation_makes_the_user_half_owe_a_flush() -> None:
    threads = unmaps(64, on=(0,), shared=True, also_on="isolated")
    on = run(threads, scenarios.spin("isolated"))
    off = run(threads, scenarios.spin("isolated"), machine=NO_PTI)
    received = on.total("ipis_received", isolated=True)
    assert received > 100
    assert on.total("user_pcid_flushes", isolated=True) == received
    assert off.total("user_pcid_flushes") == 0


def test_a_ranged_kernel_flush_gives_up_the_other_asids() -> None:
    flush = scenarios.chain([{"program": "vunmap", "pages": 4, "cause": "vunmap"}], rate_hz=50)
    result = run(in_turn(4), flush)
    quiet = run(in_turn(4))
    assert quiet.total("residency") == 0
    assert result.total("residency") > 0
    assert result.total("asid_misses") > quiet.total("asid_misses")


@pytest.mark.parametrize("name", ["user-shootdown", "pthread-churn", "hackbench", "kernel-build"])
@pytest.mark.parametrize("policy", ["ipi", "coalesce-v7-fixed", "ct-late"])
def test_causes_add_up_and_nothing_stale_is_left(name: str, policy: str) -> None:
    result = tc.simulate(scenarios.by_name(name, duration_s=0.2), machine=MACHINE, policy=policy)
    assert result.violation is None
    causes = sum(v for k, v in result.table.items() if k.startswith("interrupts_"))
    assert (causes == result.table["interrupts"] + result.table["nmis"]).all()
    assert result.total("ipis_sent") == result.total("ipis_received")
    assert result.total("calls_queued") == result.total("calls_executed")


def test_mean_times_of_flushes_tell_kernel_ranges_from_user_ranges() -> None:
    load = scenarios.kernel_build(duration_s=1.0, isolated=())
    load = load.replace(actors=(*load.actors, scenarios.vfree(rate_hz=100.0, pages=20_000)))
    found = tc.compare(load, machine=MACHINE, policies=["ipi"])
    run = found.results[0]
    kernel, user = run.total("flush_requests"), run.total("user_flush_requests")
    assert kernel > 0
    assert user > kernel
    mean = {kind: found.table[f"{kind}flush_request_mean_us"][0] for kind in ("", "user_")}
    assert mean[""] == pytest.approx(run.total("flush_request_ps") * 1e-6 / kernel)
    assert mean["user_"] == pytest.approx(run.total("user_flush_request_ps") * 1e-6 / user)
    assert mean[""] != pytest.approx(mean["user_"])
    assert found.table["mm_switch_flush_share"][0] == pytest.approx(
        run.total("mm_switches_flushed") / run.total("mm_switches")
    )


def test_threads_and_details_change_no_byte() -> None:
    load = scenarios.kernel_build(duration_s=0.2)
    runs = [
        tc.compare(load, machine=MACHINE, policies=["ipi", "coalesce-v7"], replications=4, threads=threads)
        for threads in (1, 2, 8)
    ]
    for other in runs[1:]:
        for one, two in zip(runs[0].results, other.results, strict=True):
            for column, values in one.table.items():
                assert values.tobytes() == two.table[column].tobytes(), column


def test_an_interrupted_run_of_processes_goes_on_to_the_same_end(tmp_path: Path) -> None:
    load = scenarios.kernel_build(duration_s=6.0, switches_hz=20_000)
    file = tmp_path / "run.checkpoint"

    def stop(done: float, _total: float) -> None:
        if done > 0:
            raise KeyboardInterrupt

    first = tc.simulate(load, machine=MACHINE, checkpoint=file, progress=stop)
    assert first.interrupted
    assert first.total("execs") > 0
    rest = tc.simulate(load, machine=MACHINE, checkpoint=file)
    whole = tc.simulate(load, machine=MACHINE)
    for column, values in whole.table.items():
        assert values.tobytes() == rest.table[column].tobytes(), column


def test_looked_up_pages_survive_a_switch_back_only_where_an_asid_was_found() -> None:
    def misses(processes: int) -> int:
        spin = scenarios.spin((1,), user_pages=16)
        return run(in_turn(processes), spin, detail="full").total("refill_misses")

    assert misses(7) > 5 * misses(2)


def moving(per_mille: int = 1000, on: tuple[int, ...] = (0, 1, 2), **more: Any) -> scenarios.Actor:
    steps = [{"do": "switch"}, {"do": "unmap", "pages": 4}, {"do": "migrate", "per_mille": per_mille}]
    return scenarios.tasks(steps, on=on, rate_hz=2000, **{"processes": 3, **more})


def test_a_process_that_moves_leaves_a_lazy_cpu_behind_that_its_flushes_skip() -> None:
    alone = run(moving(on=(0, 1), processes=1), detail="full")
    assert alone.total("migrations") > 100
    assert alone.total("lazy_skips") > 100
    assert run(moving(0, on=(0, 1), processes=1)).total("lazy_skips") == 0


@pytest.mark.parametrize("policy", ["ipi", "coalesce-v7-fixed", "ct-late"])
def test_processes_spread_evenly_and_none_gets_lost(policy: str) -> None:
    result = run(moving(), policy=policy)
    moved = result.table["migrations"][:3]
    assert moved.min() > 0.8 * moved.max()
    assert result.total("migrations") > 700
    # A turn switches and moves; a move is followed by a switch to the next process in line.
    assert 1.5 < result.total("mm_switches") / result.total("migrations") < 2.1


def test_one_cpu_is_nowhere_to_move_to() -> None:
    still = run(moving(on=(1,)))
    assert still.total("migrations") == 0
    assert still.total("mm_switches") > 0


def test_children_that_exit_elsewhere_leave_their_stacks_there() -> None:
    def allocated(spread: int, on: tuple[int, ...] = (1, 2)) -> int:
        steps = [{"do": "fork"}, {"do": "exit", "spread": spread}]
        return run(scenarios.tasks(steps, on=on, rate_hz=1e4)).total("stacks_allocated")

    assert allocated(0) < 5 < 500 < allocated(474) < allocated(1000)
    assert allocated(1000, on=(1,)) < 5


def test_a_kernel_build_moves_as_often_as_one_was_measured_to() -> None:
    # mvermeulen.org/perf/?p=615: 4.3 % of the context switches of a kernel build on 16 CPUs.
    found = tc.compare(scenarios.kernel_build(duration_s=2.0), machine=MACHINE, policies=["ipi"])
    (share,) = found.table["migration_share"][found.table["cpu_class"] == "housekeeping"]
    assert share == pytest.approx(0.043, rel=0.1)


def test_a_run_with_moves_goes_on_from_a_checkpoint_as_if_never_stopped(tmp_path: Path) -> None:
    load = scenarios.kernel_build(duration_s=60.0, migrations=0.3)
    file = tmp_path / "run.checkpoint"

    def stop(done: float, _total: float) -> None:
        if done > 0:
            raise KeyboardInterrupt

    assert tc.simulate(load, machine=MACHINE, checkpoint=file, progress=stop).interrupted
    rest = tc.simulate(load, machine=MACHINE, checkpoint=file)
    whole = tc.simulate(load, machine=MACHINE)
    assert whole.total("migrations") > 1000
    for column, values in whole.table.items():
        assert values.tobytes() == rest.table[column].tobytes(), column


BAD = [
    ({"processes": 0}, "processes must be an integer from 1 to 65535: got 0"),
    ({"steps": [{"do": "migrate"}], "shared": True}, "has a thread on each CPU already"),
    ({"steps": [{"do": "exit", "spread": 1001}]}, "a chance per mille is at most 1000: got 1001"),
    ({"steps": [{"do": "fork", "spread": 5}]}, "`spread` is of exit, not of fork"),
    ({"processes": 3, "shared": True}, "threads share one process"),
    ({"also_on": "isolated"}, "also_on adds threads of a shared process"),
    ({"shared": True, "also_on": (9,)}, "CPU 9 does not exist"),
    ({"processes": 60_000}, "at most 50000 processes"),
    ({"steps": [{"do": "swich"}]}, "unknown variant `swich`"),
    ({"steps": [{"do": "exec"}], "shared": True}, "exec ends every other thread"),
    ({"steps": [{"do": "unmap"}]}, 'scenario "tasks": actor "tasks": unmap needs `pages`'),
    ({"steps": []}, 'actor "tasks": there is no step'),
    ({"steps": [{"do": "switch", "per_mile": 5}]}, "unknown field `per_mile`"),
    ({"steps": [{"do": "switch", "pages": 5}]}, "`pages` and `tables` are of unmap, not of switch"),
    ({"steps": [{"do": "switch", "per_mille": 3000}]}, "a chance per mille is at most 1000: got 3000"),
]


@pytest.mark.parametrize(("change", "rule"), BAD, ids=[rule for _, rule in BAD])
def test_processes_that_cannot_be_are_refused(change: dict[str, Any], rule: str) -> None:
    steps = change.pop("steps", [{"do": "switch"}])
    with pytest.raises(tc.SimError, match=rule):
        run(scenarios.tasks(steps, rate_hz=1, **change))


FORGETS = """policy forgets-the-shootdown
  "Raises the generation and flushes here, but tells nobody. Written for a test."

flush_tlb_mm_range
  inc_mm_tlb_gen
  flush info mm, gen
  flush_local_and_wait
"""


def test_a_policy_that_tells_nobody_is_caught_by_both_machines() -> None:
    policy = tc.Policy(text=FORGETS)
    load = scenarios.user_shootdown(duration_s=0.05)
    result = tc.simulate(load, machine=MACHINE, policy=policy)
    assert result.total("violations") == result.total("user_flush_requests") > 10
    assert result.violation is not None
    assert "stale_access" in result.violation
    text = (LITMUS / "switch-vs-flush.litmus").read_text()
    forgets = FORGETS.partition("\n\n")[2]
    assert tc.litmus(text.replace('"verified"', '"violated"') + "\n" + forgets).found.startswith(
        "violated: stale_access"
    )


def test_the_checker_runs_the_kernels_programs_as_roles(tmp_path: Path) -> None:
    verdict = tc.check("ipi", roles="flush_mm; switch_mm*3", assume={"D": "none", "N": "none"})
    assert verdict.status == "inconclusive"
    assert "used by nobody afterwards" in verdict.sentence  # a switch accesses no user memory
    uses = "  let next = 2\n  cli\n  switch_mm_irqs_off\n  sti\n  read u\n"
    text = f"policy uses\n  based on ipi\n  page u : user of 2\n\nrun_it\n{uses}"
    for broken, status in (("", "verified"), (f"\n{_NO_FLUSH}", "violated")):
        (file := tmp_path / "uses.policy").write_text(text + broken)
        found = tc.check(file, roles="flush_mm; run_it*2", assume={"D": "none", "N": "none"})
        assert found.status == status, found.sentence


_NO_FLUSH = "flush_tlb_mm_range\n  fence\n"


@pytest.mark.parametrize("where", ["ct_enter", "flush_kernel_range"])
@pytest.mark.parametrize(
    "words",
    [
        "  each cpu in mm_cpumask\n    put cpu into targets\n  ipi targets, flush_handler\n",
        "  let a = mm to flush\n",
        "  let a = next mm\n",
    ],
    ids=["mask", "flush", "next"],
)
def test_a_program_may_ask_of_processes_where_there_are_none(where: str, words: str, tmp_path: Path) -> None:
    """Nothing creates address spaces: nobody is in a mask, and what is asked for is `init_mm`."""
    text = tc.policies["noinstr-c"].replace(name="walks").text
    asks = f"\n{where}\n{words}"
    (file := tmp_path / "walks.policy").write_text(text.replace(f"\n{where}\n", asks, 1))
    (plain := tmp_path / "plain.policy").write_text(text)
    load = scenarios.syscall_heavy(duration_s=0.001, cpus=70, isolated="1-69")
    found, without = (tc.simulate(load, policy=one) for one in (file, plain))
    assert found.violation is None
    assert found.total("ipis_sent") == without.total("ipis_sent")
    assert found.total("syscalls") > 100
