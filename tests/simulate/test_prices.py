"""What each op costs, one at a time: a price in a sum over a scenario can be swapped with another one unnoticed.

Each op stands alone on the way into the kernel of one interrupt, on the made-up machine of `test_statistics`, whose
costs all differ; a row has the costs that the op adds.
"""

from __future__ import annotations

import pytest
from test_statistics import COST, PLAIN, REQUEST, C, actor, load, machine, steps

import tlbcore as tc

INTEL, NO_PTI, AMD, RAR = "broadwell-ep-e5-2699v4", "cascade-lake-sp", "zen4-epyc", "sapphire-rapids"
SERIALIZE = 100

# Lines of the policy, machine, costs. `s` is a variable that all CPUs share: its line comes from another CPU's cache.
OPS: dict[str, tuple[str, int]] = {
    "fence": (INTEL, C.mfence),
    "lfence": (INTEL, C.mem_l1),
    "sfence": (INTEL, C.mem_l1),
    "serialize": (INTEL, SERIALIZE),
    "swapgs; swapgs": (INTEL, 2 * C.swapgs),
    "mov gsbase, kernel": (INTEL, C.swapgs),
    "let x = gsbase": (INTEL, PLAIN),
    "let x = cr3": (INTEL, PLAIN),
    "let x = 1": (INTEL, PLAIN),
    "let x = v": (INTEL, C.mem_l1),
    "v = 1": (INTEL, PLAIN),
    "s = 1": (INTEL, PLAIN + C.remote_line),
    "let x = s": (INTEL, C.mem_l1 + C.remote_line),
    "let x = xchg v, 1": (INTEL, C.lock),
    "let x = or v, 1": (INTEL, C.lock),
    "let x = xchg s, 1": (INTEL, C.lock + C.remote_line),
    "let x = cas v, 0, 1": (INTEL, C.lock),
    "let x = cas s, 0, 1": (INTEL, C.lock + C.remote_line),
    "mov cr3, kernel noflush": (INTEL, C.mov_cr3_noflush),
    "mov cr3, kernel": (INTEL, C.mov_cr3_flush),
    "mov cr3, kernel flush": (INTEL, C.mov_cr3_flush),
    "mov cr4, pge off; mov cr4, pge on": (INTEL, C.cr4_pge_toggle),
    "invpcid all-including-global": (INTEL, C.invpcid_all),
    "invpcid all": (INTEL, C.invpcid_non_global),
    "invpcid context kernel": (INTEL, C.invpcid_context),
    "invlpgb all": (AMD, C.invlpgb),
    "tlbsync": (AMD, C.tlbsync),
    "invlpgb all; tlbsync": (AMD, C.invlpgb + C.tlbsync),
    "rar others": (RAR, C.rar),
    "cli; sti; cli": (INTEL, 3 * PLAIN),
    "walk entries of p": (INTEL, 2 * C.mem_l2),
    "walk p": (INTEL, 2 * C.mem_l2 + C.mem_l1),
    # Where nobody waits for a grace period they are no ops.
    "rcu lock; rcu watch; rcu unwatch; rcu unlock; lfence": (INTEL, C.mem_l1),
    "migrate; cli": (INTEL, PLAIN),  # nobody preempts in the timed machine
}


def took(base: str, lines: str, **changed: int) -> int:
    """Return the cycles of an interrupt that meets these lines in the entry code."""
    body = "".join(f"  {line}\n" for line in lines.split("; ")) or "  touch percpu\n"
    policy = tc.Policy(
        text='policy priced\n  "One op more on the way into the kernel."\n  source "made up"\n'
        "  page p : vmalloc\n  var v : 2 bits, per cpu, starts 0\n  var s : 2 bits, shared, starts 0\n\n"
        f"ct_enter\n{body}"
    )
    work = load(actor("spin", 0, 1, 2, 3), actor("interrupts", 2, us=100, body_ps=0, cause="tick"), us=150)
    result = tc.simulate(work, machine=machine(base, **changed), policy=policy)
    assert result.violation is None
    assert bool(result.inert) == (not lines)
    time = int(result.table["interrupt_ps"][2])
    assert time % 1000 == 0
    return time // 1000


@pytest.mark.parametrize("lines", OPS)
def test_an_op_costs_what_its_row_says(lines: str) -> None:
    base, cycles = OPS[lines]
    assert took(base, lines) - took(base, "") == cycles
    assert took(base, f"{lines}; {lines}") - took(base, "") == 2 * cycles


# The flush of one's own CPU, by the number of pages; none of them is more than the ceiling.
@pytest.mark.parametrize(
    ("base", "pages", "cycles"),
    [
        (INTEL, 1, C.invlpg),
        (INTEL, 2, 2 * C.invlpg),
        (INTEL, 33, 33 * C.invlpg),
        (INTEL, 34, C.invpcid_all),
        (INTEL, 0, C.invpcid_all),
        (NO_PTI, 2, 2 * C.invlpg),
    ],
)
def test_a_range_is_flushed_page_by_page_up_to_the_ceiling(base: str, pages: int, cycles: int) -> None:
    work = load(actor("spin", 0, 1, 2, 3), steps("vunmap", pages, 0, us=100), us=150)
    alone = tc.Policy(
        text='policy alone\n  "Nobody else is asked."\n  source "made up"\n\nflush_kernel_range\n  flush_here\n'
    )
    result = tc.simulate(work, machine=machine(base), policy=alone)
    assert result.table["flush_request_ps"].tolist()[0] // 1000 - cycles in (PLAIN, 2 * PLAIN)


def test_the_sender_pays_for_its_interrupts_and_the_near_ones_come_sooner() -> None:
    def request(**changed: int) -> int:
        work = load(actor("spin", 0, 1, 2, 3), steps("vunmap", 3, 0, us=100), us=150)
        return int(tc.simulate(work, machine=machine(**changed)).table["flush_request_ps"][0]) // 1000

    assert request() == REQUEST
    for name, cycles in {
        "ipi_send": 1,  # one write for all three
        "lock": 4,  # a call queued on each, and the target's look at its queue
        "remote_line": 3,
        "ipi_cross_socket": 1,
        "remote_line_cross_socket": 1,
        "ipi_same_socket": 0,  # the near CPU has answered long before
        "interrupt_entry": 1,
        "interrupt_exit": 0,  # nobody waits for it
        "sysret": 0,
        "swapgs": 1,
        "mov_cr3_noflush": 1,
        "invlpg": 3,
        "mem_l1": 1,
        "mfence": 0,
        "mov_cr3_flush": 0,
        "ipi_first": 0,  # these two are what `validate` compares with
        "ipi_next": 0,
    }.items():
        assert request(**{name: COST[name] + 10}) - REQUEST == 10 * cycles, name


def test_every_priced_cost_has_a_row() -> None:
    """Each cost that a preset has changes some row when it is changed, or is named here with its own test."""
    elsewhere = {
        "nmi_entry": "test_statistics: noise",
        "nmi_exit": "test_statistics: noise",
        "interrupt_entry": "test_statistics: unmap",
        "interrupt_exit": "test_statistics: unmap",
        "syscall": "test_statistics: unmap",
        "sysret": "test_statistics: unmap",
        "ipi_send": "the test above",
        "ipi_same_socket": "test_statistics: unmap",
        "ipi_cross_socket": "the test above",
        "remote_line_cross_socket": "the test above",
        "invlpg": "the pages above",
        "invpcid_address": "test_statistics: user",
        "walk_setup": "test_statistics: deferred",
        "mem_l2": "test_statistics: deferred",
        "stlb_hit": "test_tlb: what a hit costs is counted by nobody on the timed machine",
        "mem_l3": "calibration only",
        "mem_dram": "calibration only",
        "ipi_first": "validation only",
        "ipi_next": "validation only",
    }
    for name in set(COST) - set(elsewhere):
        dearer = {name: COST[name] + 10}
        paid = [took(base, op, **dearer) - took(base, "", **dearer) for op, (base, _) in OPS.items()]
        assert paid != [cycles for _, cycles in OPS.values()], f"no row is of {name}"


def flushing(lines: str, more: str = "") -> tc.Policy:
    """Return a policy that asks nobody, and has these lines behind its flush."""
    return tc.Policy(
        text='policy alone\n  "Nobody else is asked."\n  source "made up"\n\nflush_kernel_range\n  flush_here\n'
        + "".join(f"  {line}\n" for line in lines.split("; ") if line)
        + more
    )


@pytest.mark.parametrize(("call", "periods"), [((), 1), ((140, 100), 2), ((160, 100), 1)])
def test_a_grace_period_takes_what_the_scenario_says_and_again_while_a_stay_goes_on(
    call: tuple[int, ...], periods: int
) -> None:
    """The unmap is at 150 us, a period takes 50 us; a call of another CPU begins at so many us and takes so many."""

    def request(lines: str) -> int:
        others = [actor("spin", 0, 1, 2, 3)]
        if call:
            begins, takes = call
            calls = {"base_ps": takes * 1_000_000, "kernel_pages": 0, "user_pages": 0, "by": "syscall"}
            others = [actor("spin", 0, 1, 3), actor("syscalls", 2, us=begins, **calls)]
        work = load(*others, steps("vunmap", 3, 0, us=150), us=290, rcu_ms=0.05)
        result = tc.simulate(work, machine=machine(INTEL), policy=flushing(lines))
        assert result.violation is None
        return int(result.table["flush_request_ps"][0])

    assert request("synchronize") - request("") == periods * 50_000_000 + PLAIN * 1000


@pytest.mark.parametrize(("until", "interrupted"), [(140, 0), (180, 1)])
def test_what_is_called_later_runs_when_the_period_is_over(until: int, interrupted: int) -> None:
    later = "\ntell\n  ipi others, flush_handler\n"
    work = load(actor("spin", 0, 1, 2, 3), steps("vunmap", 3, 0, us=100), us=until, rcu_ms=0.05)
    result = tc.simulate(work, machine=machine(INTEL), policy=flushing("call later tell", later))
    assert result.violation is None
    assert result.table["ipis_received"].tolist() == [0, *[interrupted] * 3]


def interrupt_of(policy: str) -> tuple[int, int]:
    """Return the cycles of one interrupt of CPU 2 and the flushes at its entry, under a built-in policy."""
    work = load(actor("spin", 0, 1, 2, 3), actor("interrupts", 2, us=100, body_ps=0, cause="tick"), us=150)
    result = tc.simulate(work, machine=machine(INTEL), policy=policy)
    flushes = int(result.table["entry_flushes_needed"][2]) + int(result.table["entry_flushes_unneeded"][2])
    return int(result.table["interrupt_ps"][2]) // 1000, flushes


def test_a_generation_that_did_not_move_costs_an_exchange_and_two_loads_at_entry() -> None:
    """`flushes` comes from another CPU's cache, `seen` is this CPU's; a comparison, and a store on the way out."""
    (base, _), (generation, flushes) = interrupt_of("ipi"), interrupt_of("generation-at-entry")

    assert flushes == 0
    assert generation - base == C.lock + (C.mem_l1 + C.remote_line) + C.mem_l1 + 2 * PLAIN


def test_without_figures_of_fred_a_policy_that_needs_it_is_mainline_s_and_says_so() -> None:
    """No cost of event delivery is published: *not recorded*, so no machine has it."""
    text = 'policy f\n  "x"\n  needs fred\n  based on ipi\n\nct_enter\n  fence\n'
    work = load(actor("spin", 0, 1, 2, 3), us=150)
    result = tc.simulate(work, machine=machine(INTEL), policy=tc.Policy(text=text))
    assert "it needs fred, and it is off" in str(result.inert)


@pytest.mark.parametrize("noinvpcid", [False, True])
def test_with_looked_up_tlbs_a_flush_by_cr4_refills_what_one_by_invpcid_does(noinvpcid: bool) -> None:
    """After each, every page that a system call touches is walked for, whichever instruction it was."""
    load = tc.scenarios.syscall_heavy(duration_s=0.002)
    kernel = tc.Kernel(noinvpcid=noinvpcid)
    run = tc.simulate(load, machine="skylake-sp", policy="coalesce-v7", kernel=kernel, detail="full")
    flushes = run.total("entry_flushes_needed") + run.total("entry_flushes_unneeded")

    assert flushes > 2_000
    assert round(run.total("refill_misses_entry") / flushes) == 18
