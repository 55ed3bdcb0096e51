"""Every statistic of `SimResult.table` has a value that was worked out by hand, on runs of a few events.

The machine is made up: 1 cycle is 1 ns, and every cost is another number, so that no two of them can be swapped and no
op can be left out or paid twice without a wrong sum. Paths are those of `linux.kernel` with page-table isolation, PCIDs
and INVPCID; `PLAIN` instructions take a cycle each. Four CPUs: 0 and 1 in one socket, 2 and 3, which are isolated, in
the other. A row is: statistic, run, and the value on CPUs 0 to 3; times in cycles.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

import tlbcore as tc
from tlbcore import scenarios as s

US = 1000  # cycles
COST = {
    "mov_cr3_flush": 211, "mov_cr3_noflush": 103, "invpcid_address": 307, "invpcid_context": 401, "invpcid_all": 503,
    "invpcid_non_global": 601, "invlpg": 127, "cr4_pge_toggle": 442, "mfence": 33, "lock": 19, "syscall": 47,
    "sysret": 41, "swapgs": 29, "interrupt_entry": 701, "interrupt_exit": 353, "nmi_entry": 809, "nmi_exit": 227,
    "ipi_send": 61, "ipi_same_socket": 1009, "ipi_cross_socket": 2003, "ipi_first": 2, "ipi_next": 3, "remote_line": 73,
    "remote_line_cross_socket": 167, "invlpgb": 907, "tlbsync": 1103, "rar": 1201, "stlb_hit": 7, "walk_setup": 53,
    "mem_l1": 5, "mem_l2": 11, "mem_l3": 43, "mem_dram": 251,
}  # fmt: skip
C = type("Costs", (), COST)


def machine(base: str = "broadwell-ep-e5-2699v4", **changed: int) -> tc.Machine:
    """Return a machine of 1 GHz with these costs."""
    costs = [
        f'{name} = {{ cycles = {cycles}, mark = "unsourced", source = "made up" }}'
        for name, cycles in {**COST, **changed}.items()
    ]
    head = ['name = "unit"', 'title = "made up"', f'inherits = "{base}"', "[cpu]"]
    mhz = 'mhz = { value = 1000, mark = "unsourced", source = "made up" }'
    return tc.Machine(name="unit", text="\n".join([*head, mhz, "[costs]", *costs, ""]))


def actor(kind: str, *on: int, us: float | None = None, **params: Any) -> tc.Actor:
    """Return an actor whose events come every `us` microseconds, the first one after as many."""
    gap = {} if us is None else {"gap": {"mean_ps": round(us * 1e6), "exponential": False}}
    return tc.Actor(name=kind, on=on, kind=kind, params={**gap, **params})


def steps(program: str, pages: int = 3, *on: int, us: float, cause: str | None = None) -> tc.Actor:
    """Return a CPU that runs a program of the kernel: of 3 pages, or 0 for a full flush."""
    return actor("chain", *on, us=us, steps=[{"program": program, "pages": pages, "cause": cause or program}])


def load(*actors: tc.Actor, us: float, **more: Any) -> tc.Scenario:
    """Return four CPUs of two sockets, 2 and 3 isolated, for `us` microseconds."""
    return tc.Scenario(
        name="few", duration_s=us * 1e-6, cpus=4, isolated=(2, 3), sockets=2, actors=actors, **more
    )


def tasks(*on: int, us: float, do: list[dict[str, Any]], also: tuple[int, ...] = (), **more: Any) -> tc.Actor:
    """Return processes: one each, or one address space for all of `on` and `also`."""
    given = {"processes": 1, "shared": False, "also_on": {"cpus": list(also)} if also else None, **more}
    return actor("tasks", *on, us=us, steps=do, **given)


NEVER_ASKED = tc.Policy(
    text="""policy never-asked
  "Isolated CPUs are left out of everything, and make up for nothing. Broken, of course."
  source "made up"

flush_kernel_range
  each cpu in others
    if cpu in housekeeping
      put cpu into targets
  ipi targets, flush_handler
  flush_here
  await acks

text_sync
  each cpu in others
    if cpu in housekeeping
      put cpu into targets
  ipi targets, sync_handler
  serialize
  await acks
"""
)
ALONE = tc.Policy(
    text="""policy alone
  "Nobody else is asked. Broken, of course."
  source "made up"

flush_kernel_range
  flush_here
"""
)
STUCK = tc.Policy(
    text="""policy stuck
  "The sender waits for what nobody does."
  source "made up"
  var done : 1 bit, shared

flush_kernel_range
  await done == 1
"""
)
SPIN = actor("spin", 0, 1, 2, 3)

RUNS: dict[str, Callable[[], tuple[tc.Scenario, dict[str, Any]]]] = {
    # CPU 0 unmaps three pages at 1 ms.
    "unmap": lambda: (load(SPIN, steps("vunmap", 3, 0, us=1000), us=1500), {}),
    # The same, flushed as a whole.
    "unmap all": lambda: (load(SPIN, steps("vunmap", 0, 0, us=1000), us=1500), {}),
    # CPU 1 idles meanwhile.
    "idle": lambda: (
        load(actor("spin", 0, 2, 3), actor("idle", 1), steps("vunmap", 3, 0, us=1000), us=1500),
        {},
    ),
    # Ticks on CPU 0 at 400, 800, 1,200 us, kicks on 1 at 500 and 1,000 and an NMI at 800, a device on 2 at 600 and
    # 1,200 and a fault at 700 and 1,400, another interrupt on 3 at 900.
    "noise": lambda: (
        load(
            SPIN,
            actor("interrupts", 0, us=400, body_ps=5_000_000, cause="tick"),
            actor("interrupts", 1, us=500, body_ps=6_000_000, cause="residual"),
            actor("interrupts", 2, us=600, body_ps=7_000_000, cause="device"),
            actor("interrupts", 3, us=900, body_ps=8_000_000, cause="other"),
            actor("nmis", 1, us=800, body_ps=9_000_000),
            actor("faults", 2, us=700, body_ps=3_000_000, by="exception"),
            us=1500,
        ),
        {},
    ),
    # Under v7: CPU 2 calls the kernel at 400, 850 and 1,300 us for 50 us; CPUs 2 and 3 are in user mode when CPU 0
    # unmaps.
    "deferred": lambda: (
        load(
            actor("spin", 0, 1, 3),
            actor("syscalls", 2, us=400, base_ps=50_000_000, kernel_pages=7, user_pages=5, by="syscall"),
            steps("vunmap", 3, 0, us=1000),
            us=1500,
        ),
        {"policy": "coalesce-v7"},
    ),
    # Under v7 an interrupt of CPU 3 and an NMI of CPU 2 are the first into the kernel after the deferral.
    "late": lambda: (
        load(
            SPIN,
            steps("vunmap", 3, 0, us=1000),
            actor("nmis", 2, us=1010, body_ps=1_000_000),
            actor("interrupts", 3, us=1010, body_ps=2_000_000, cause="tick"),
            us=1500,
        ),
        {"policy": "coalesce-v7"},
    ),
    # Nobody tells CPUs 2 (in a call from 900 to 1,200 us) and 3 (idle, interrupted at 1,100 us) of an unmap at 1 ms.
    "untold": lambda: (
        load(
            actor("spin", 0, 1),
            actor("idle", 3),
            actor("syscalls", 2, us=900, base_ps=300_000_000, kernel_pages=0, user_pages=0, by="syscall"),
            steps("vunmap", 3, 0, us=1000),
            actor("interrupts", 3, us=1100, body_ps=0, cause="tick"),
            us=1250,
        ),
        {"policy": NEVER_ASKED},
    ),
    # CPU 1 is in an interrupt from 990 us on for 100 us. CPU 2 changes rights at 1 ms and waits for it; meanwhile, at
    # 1,010 us, CPU 0 unmaps and tells nobody.
    "untold at work": lambda: (
        load(
            SPIN,
            actor("interrupts", 1, us=990, body_ps=100_000_000, cause="device"),
            steps("set_memory", 3, 2, us=1000),
            steps("vunmap", 3, 0, us=1010),
            us=1500,
        ),
        {"policy": ALONE},
    ),
    # Nor of the three syncs of a poke at 1 ms: CPU 2 is in a call from 900 to 1,200 us, and interrupted there at 1,050.
    "untold text": lambda: (
        load(
            actor("spin", 0, 1, 3),
            actor("syscalls", 2, us=900, base_ps=300_000_000, kernel_pages=0, user_pages=0, by="syscall"),
            actor("interrupts", 2, us=1050, body_ps=0, cause="tick"),
            steps("text_poke", 0, 0, us=1000),
            us=1250,
        ),
        {"policy": NEVER_ASKED},
    ),
    # The three syncs of a poke, left to the next entry: CPU 2 comes in at 1,050 us.
    "text": lambda: (
        load(
            actor("spin", 0, 1, 3),
            actor("syscalls", 2, us=1050, base_ps=50_000_000, kernel_pages=0, user_pages=0, by="syscall"),
            steps("text_poke", 0, 0, us=1000),
            us=1200,
        ),
        {"policy": "text-defer-v7"},
    ),
    # 40 pages are freed every 100 us, and more than 100 are too many: the third free purges three areas, the sixth too.
    "purges": lambda: (
        load(
            SPIN,
            actor("vfree", 0, us=100, pages=40, then=[], apart_ps=0, roams_ps=None),
            us=900,
            lazy_max_pages=100,
        ),
        {},
    ),
    # A flush takes 200 us: what is freed meanwhile is queued while the first purge waits. At 50, 100 us, ... CPUs 0 and
    # 1 free 60 pages each.
    "tail": lambda: (
        load(
            SPIN,
            actor("vfree", 0, 1, us=50, pages=60, then=[], apart_ps=0, roams_ps=None),
            us=700,
            lazy_max_pages=100,
        ),
        {"machine": machine(invpcid_all=200 * US)},
    ),
    # Reuse waits until every CPU has flushed; no CPU comes in.
    "quarantine": lambda: (
        load(
            SPIN,
            actor("vfree", 0, us=100, pages=60, then=[], apart_ps=0, roams_ps=None),
            us=240,
            lazy_max_pages=100,
        ),
        {"policy": "quarantine"},
    ),
    # Children at 100 us, 200, ...; three live at a time, and all exit when the fourth is due.
    "forks": lambda: (
        load(SPIN, actor("forks", 0, us=100, batch=3, spread=False), us=950, rcu_ms=0.05),
        {},
    ),
    # Two processes in turn, at 100 us, 200, ..., 900.
    "switch": lambda: (load(SPIN, tasks(0, us=100, do=[{"do": "switch"}], processes=2), us=950), {}),
    # Eight of them, and six ASIDs.
    "switch of eight": lambda: (
        load(SPIN, tasks(0, us=100, do=[{"do": "switch"}], processes=8), us=950),
        {},
    ),
    # Two processes in turn at 100, 200 and 300 us. At 250 us three kernel pages are flushed: of the two ASIDs the one
    # that is not loaded must be given up, since INVLPG left what it holds of them.
    "given up": lambda: (
        load(
            SPIN,
            tasks(0, us=100, do=[{"do": "switch"}], processes=2),
            steps("vunmap", 3, 0, us=250),
            us=350,
        ),
        {},
    ),
    # At 300 us the process becomes another one.
    "exec": lambda: (load(SPIN, tasks(0, us=300, do=[{"do": "exec"}]), us=500), {}),
    # At 300 us the CPUs 0 and 1 each send one of their two processes to the other.
    "migrate": lambda: (load(SPIN, tasks(0, 1, us=300, do=[{"do": "migrate"}], processes=2), us=500), {}),
    # CPU 0 unmaps pages of a process that CPU 2 runs too: three of them, or more than the ceiling.
    "user": lambda: (
        load(SPIN, tasks(0, us=500, do=[{"do": "unmap", "pages": 3}], also=(2,), shared=True), us=750),
        {},
    ),
    "user all": lambda: (
        load(SPIN, tasks(0, us=500, do=[{"do": "unmap", "pages": 0}], also=(2,), shared=True), us=750),
        {},
    ),
    # CPU 1 runs a thread that sleeps at 200 us: lazy at 500 us, when CPU 0 unmaps, and left alone.
    "lazy": lambda: (
        load(
            SPIN,
            tasks(0, 1, us=300, do=[{"do": "unmap", "pages": 3}, {"do": "sleep"}], shared=True),
            us=650,
        ),
        {},
    ),
    # A second call is queued on CPUs 2 and 3 while they handle the first one, which takes 20 us: both run in that
    # interrupt, and the second interrupt finds nothing.
    "twice": lambda: (
        load(SPIN, steps("vunmap", 0, 0, us=1000), steps("vunmap", 0, 1, us=1004), us=1500),
        {"machine": machine(invpcid_all=20 * US)},
    ),
    # CPU 2 touches three pages in turn, every 10 us, ten times; after a full flush at 65 us all three are walked again.
    "stream": lambda: (
        load(
            SPIN,
            s.stream((2,), s.sequential(3), rate_hz=1e5),
            steps("vunmap", 0, 0, us=65),
            us=105,
        ),
        {"detail": "full"},
    ),
    # 2,000 pages in turn, twice: more than the 1,536 + 64 entries hold.
    "long stream": lambda: (
        load(SPIN, s.stream((2,), s.sequential(2000), rate_hz=1e7), us=400.05),
        {"detail": "full"},
    ),
    "stuck": lambda: (load(SPIN, steps("vunmap", 3, 0, us=100), us=200), {"policy": STUCK}),
    # What requests a flush is the cause of its interrupts.
    "causes": lambda: (
        load(
            SPIN,
            steps("vunmap", 3, 0, us=100, cause="aliases"),
            steps("set_memory", 3, 0, us=200),
            steps("table_free", 3, 0, us=300),
            steps("vunmap", 3, 0, us=400, cause="percpu"),
            us=450,
        ),
        {},
    ),
}


@cache
def run(name: str) -> tc.SimResult:
    scenario, given = RUNS[name]()
    return tc.simulate(scenario, **{"machine": machine(), **given})


MS = 1000 * US
PLAIN = 1

# Sums of costs that several rows share, each along its path in `linux.kernel`.
INTERRUPT = (
    C.interrupt_entry + 2 * C.swapgs + 2 * C.mov_cr3_noflush + C.lock + PLAIN + C.interrupt_exit
)  # nothing queued
PAGES = 3 * C.invlpg
CALL = C.lock + 3 * PLAIN  # and the flush: one more look at the queue
HANDLER = INTERRUPT + CALL + PAGES
QUEUED = C.lock + C.remote_line  # for each CPU, on the sender
ENTRY = C.syscall + C.swapgs + C.mov_cr3_noflush
EXIT = C.mov_cr3_noflush + C.swapgs + C.sysret
TARGET = (
    C.interrupt_entry + C.swapgs + C.mov_cr3_noflush + C.lock
)  # from the interrupt's arrival to the flush
# Of three CPUs, the farther ones are last; the sender flushes its own meanwhile.
REQUEST = (
    3 * QUEUED
    + C.ipi_send
    + C.ipi_cross_socket
    + TARGET
    + PAGES
    + C.remote_line_cross_socket
    + C.mem_l1
    + 16 * PLAIN
)
REQUEST_OF_ONE = (
    QUEUED + C.ipi_send + C.ipi_same_socket + TARGET + PAGES + C.remote_line + C.mem_l1 + 17 * PLAIN
)
WORK = ENTRY + C.lock + REQUEST + EXIT + 4 * PLAIN
BOOT = C.mov_cr3_noflush + C.swapgs  # a run begins with the way into user mode
WALK = (C.walk_setup + 2 * C.mem_l2) * 10 // 25  # two reads, overlapped
COLD, WARM = (
    (C.walk_setup + reads * C.mem_l2) * 10 // 25 for reads in (4, 1)
)  # nothing cached; the last level left

Values = list[int]

# Statistic, run, values of CPUs 0 to 3.
ROWS: list[tuple[str, str, Values]] = [
    # CPU 0's unmap is a call of its own.
    ("syscalls", "deferred", [1, 0, 3, 0]),
    ("faults", "noise", [0, 0, 2, 0]),
    ("interrupts", "noise", [3, 2, 2, 1]),
    ("interrupts", "twice", [1, 1, 2, 2]),
    ("nmis", "noise", [0, 1, 0, 0]),
    ("ipis_received", "unmap", [0, 1, 1, 1]),
    ("ipis_received", "noise", [0, 0, 0, 0]),
    ("ipis_empty", "twice", [0, 0, 1, 1]),
    ("ipis_empty", "unmap", [0, 0, 0, 0]),
    ("calls_executed", "twice", [1, 1, 2, 2]),
    # An idle CPU has no task to interrupt; a fault is the task's own.
    ("interference", "idle", [0, 0, 1, 1]),
    ("interference", "noise", [3, 3, 2, 1]),
    ("interference_ps", "unmap", [0, HANDLER, HANDLER, HANDLER]),
    (
        "interference_ps",
        "noise",
        [
            3 * (INTERRUPT + 5 * US),
            2 * (INTERRUPT + 6 * US)
            + (C.nmi_entry + 2 * C.swapgs + 2 * C.mov_cr3_noflush + 9 * US + PLAIN + C.nmi_exit),
            2 * (INTERRUPT + 7 * US),
            INTERRUPT + 8 * US,
        ],
    ),
    # Of the two interrupts one finds two calls and the other none.
    (
        "interference_ps",
        "twice",
        [INTERRUPT + CALL + 20 * US] * 2 + [2 * INTERRUPT + 2 * (CALL + 20 * US)] * 2,
    ),
    # Until the interrupt of the near CPU, and of the far ones.
    (
        "longest_quiet_ps",
        "unmap",
        [
            1500 * US,
            MS + ENTRY + C.lock + 3 * QUEUED + C.ipi_send + C.ipi_same_socket + 14 * PLAIN,
            *[MS + ENTRY + C.lock + 3 * QUEUED + C.ipi_send + C.ipi_cross_socket + 14 * PLAIN] * 2,
        ],
    ),
    ("longest_quiet_ps", "noise", [400 * US, 500 * US, 600 * US, 900 * US]),
    ("deferrals", "deferred", [0, 0, 1, 1]),
    ("deferrals", "untold", [0, 0, 1, 1]),
    ("deferrals", "unmap", [0, 0, 0, 0]),
    # v7 flushes at every entry of CPU 2; at the third one it owes a flush.
    ("entry_flushes_needed", "deferred", [0, 0, 1, 0]),
    ("entry_flushes_unneeded", "deferred", [0, 0, 2, 0]),
    ("entry_flush_ps", "deferred", [0, 0, 3 * C.invpcid_all, 0]),
    ("entry_flush_ps", "late", [0, 0, C.invpcid_all, C.invpcid_all]),
    ("remote_flushes", "unmap", [0, 1, 1, 1]),
    ("remote_flushes", "deferred", [0, 1, 0, 0]),
    ("local_flushes", "unmap", [1, 0, 0, 0]),
    ("local_flushes", "user", [1, 0, 0, 0]),
    ("local_flushes", "user all", [1, 0, 0, 0]),
    ("remote_flushes", "user", [0, 0, 1, 0]),
    ("remote_flushes", "user all", [0, 0, 1, 0]),
    ("local_flushes", "switch", [0, 0, 0, 0]),
    # Seven pages of the kernel and five of the task, after each of three flushes.
    ("refill_misses", "deferred", [0, 0, 36, 0]),
    ("refill_misses_entry", "deferred", [0, 0, 36, 0]),
    ("refill_ps", "deferred", [0, 0, 36 * WALK, 0]),
    # The page of the entry code and the stack's, once cold; CPU 2's three pages are no refill until they were flushed.
    ("refill_misses", "long stream", [2, 2, 2, 2]),
    ("refill_misses_other", "long stream", [2, 2, 2, 2]),
    ("refill_ps", "long stream", [COLD + WARM] * 4),
    ("refill_misses_remote", "stream", [0, 2, 5, 2]),
    ("refill_misses_local", "stream", [2, 0, 0, 0]),
    ("stream_touches", "stream", [0, 0, 10, 0]),
    ("stream_first", "stream", [0, 0, 3, 0]),
    ("stream_evicted", "stream", [0, 0, 0, 0]),
    # Both times the first of three neighbours is walked from the top.
    ("stream_ps", "stream", [0, 0, 2 * (COLD + 2 * WARM), 0]),
    # The first touch is 0.1 us after the way into user mode; the 2,000 pages come twice, and none is still there.
    ("stream_touches", "long stream", [0, 0, 3998, 0]),
    ("stream_first", "long stream", [0, 0, 2000, 0]),
    ("stream_evicted", "long stream", [0, 0, 1998, 0]),
    ("user_ps", "unmap", [1500 * US - WORK, *[1500 * US - HANDLER] * 3]),
    ("kernel_ps", "unmap", [WORK, 0, 0, 0]),
    # 3 us each, three plain instructions, and what an interrupt takes but for its queue.
    (
        "kernel_ps",
        "noise",
        [0, 0, 2 * (3 * US + INTERRUPT - C.lock - PLAIN + 3 * PLAIN), 0],
    ),
    # Out of idle there is no CR3 and no GSBASE to change.
    ("interrupt_ps", "idle", [0, HANDLER - 2 * (C.swapgs + C.mov_cr3_noflush), HANDLER, HANDLER]),
    ("idle_ps", "idle", [0, 1500 * US - (HANDLER - 2 * (C.swapgs + C.mov_cr3_noflush)), 0, 0]),
    # From the kernel's CR3 to the end of the flush that follows a store.
    ("exposures", "deferred", [0, 0, 1, 0]),
    ("exposure_ps", "deferred", [0, 0, PLAIN + C.invpcid_all, 0]),
    ("exposures", "late", [0, 0, 1, 1]),
    ("exposures_syscall", "deferred", [0, 0, 1, 0]),
    ("exposure_syscall_ps", "deferred", [0, 0, PLAIN + C.invpcid_all, 0]),
    ("exposures_interrupt", "late", [0, 0, 0, 1]),
    ("exposure_interrupt_ps", "late", [0, 0, 0, PLAIN + C.invpcid_all]),
    ("exposures_nmi", "late", [0, 0, 1, 0]),
    ("exposure_nmi_ps", "late", [0, 0, PLAIN + C.invpcid_all, 0]),
    # CPU 0 waits for CPU 1 only; from its promise to the user's CR3 at the end of CPU 2's call, and to CPU 3's return
    # to idle.
    (
        "exposure_ps",
        "untold",
        [
            0,
            0,
            (BOOT + 1200 * US - C.swapgs - C.sysret) - (MS + ENTRY + C.lock + PLAIN + REQUEST_OF_ONE),
            C.lock + PLAIN + C.interrupt_exit,
        ],
    ),
    ("exposures_other", "untold at work", [0, 0, 1, 0]),
    ("exposures_other", "late", [0, 0, 0, 0]),
    # CPU 0's promise, with a flush of its own only; CPU 1's word after its interrupt of 100 us, and CPU 2's way out.
    (
        "exposure_other_ps",
        "untold at work",
        [
            0,
            0,
            (990 * US + INTERRUPT + 100 * US + TARGET + PAGES + C.remote_line_cross_socket + C.mem_l1)
            + (C.mov_cr3_noflush + 5 * PLAIN)
            - (1010 * US + ENTRY + C.lock + PLAIN + PAGES + 2 * PLAIN),
            0,
        ],
    ),
    # CPU 2's call and the interrupt of CPU 3 run kernel code though a flush is owed.
    ("hazards", "untold", [0, 0, 1, 1]),
    ("hazards", "deferred", [0, 0, 0, 0]),
    ("sync_requests", "text", [3, 0, 0, 0]),
    ("sync_deferrals", "text", [0, 0, 3, 3]),
    # One serialising instruction makes up for all three; CPU 3 does not come in.
    ("syncs_caught_up", "text", [0, 0, 1, 0]),
    # The interrupt within the call, and the rest of the call.
    ("text_hazards", "untold text", [0, 0, 2, 0]),
    ("text_hazards", "text", [0, 0, 0, 0]),
    ("flush_requests", "twice", [1, 1, 0, 0]),
    ("flush_requests_full", "unmap", [0, 0, 0, 0]),
    ("flush_requests_full", "unmap all", [1, 0, 0, 0]),
    ("flush_request_ps", "unmap", [REQUEST, 0, 0, 0]),
    ("flush_request_ps", "unmap all", [REQUEST - PAGES + C.invpcid_all, 0, 0, 0]),
    ("purges", "purges", [2, 0, 0, 0]),
    ("areas_purged", "purges", [6, 0, 0, 0]),
    ("purges_tail", "purges", [0, 0, 0, 0]),
    # At 70, 273, 477 and 680 us, on the CPU whose free was the second; each but the first was queued while one ran.
    # Freed are 2 areas, then those of 100 to 250 us, of 300 to 450 and of 500 to 650.
    ("purges", "tail", [0, 4, 0, 0]),
    ("purges_tail", "tail", [0, 3, 0, 0]),
    ("areas_purged", "tail", [0, 2 + 8 + 8 + 8, 0, 0]),
    ("purges_postponed", "quarantine", [1, 0, 0, 0]),
    ("purges_postponed", "purges", [0, 0, 0, 0]),
    ("calls_queued", "unmap", [3, 0, 0, 0]),
    ("calls_queued", "deferred", [1, 0, 0, 0]),
    ("calls_queued", "twice", [3, 3, 0, 0]),
    ("ipis_sent", "unmap", [3, 0, 0, 0]),
    ("ipi_rounds", "unmap", [1, 0, 0, 0]),
    ("ipi_rounds", "text", [3, 0, 0, 0]),
    # From the end of its own flush to the word of the farther CPUs, which flush as long.
    (
        "wait_ps",
        "unmap",
        [C.ipi_cross_socket + TARGET + C.remote_line_cross_socket + PLAIN, 0, 0, 0],
    ),
    ("wait_max_ps", "unmap", [C.ipi_cross_socket + TARGET + C.remote_line_cross_socket + PLAIN, 0, 0, 0]),
    (
        "wait_ps",
        "purges",
        [2 * (C.ipi_cross_socket + TARGET + C.remote_line_cross_socket + PLAIN), 0, 0, 0],
    ),
    (
        "wait_max_ps",
        "purges",
        [C.ipi_cross_socket + TARGET + C.remote_line_cross_socket + PLAIN, 0, 0, 0],
    ),
    # Two stacks stay in the CPU's cache; the third joins them a grace period later, when one has been taken.
    ("forks", "forks", [9, 0, 0, 0]),
    ("stacks_reused", "forks", [6, 0, 0, 0]),
    ("stacks_allocated", "forks", [3, 0, 0, 0]),
    ("execs", "exec", [1, 0, 0, 0]),
    ("migrations", "migrate", [1, 1, 0, 0]),
    ("mm_switches", "switch", [9, 0, 0, 0]),
    # The other process is new once; then both keep their ASIDs. Eight in turn never do.
    ("mm_switches_flushed", "switch", [1, 0, 0, 0]),
    ("mm_switches_flushed", "switch of eight", [9, 0, 0, 0]),
    ("asid_hits", "switch", [8, 0, 0, 0]),
    ("asid_hits", "switch of eight", [0, 0, 0, 0]),
    ("asid_misses", "switch", [1, 0, 0, 0]),
    ("asid_misses", "switch of eight", [9, 0, 0, 0]),
    ("asid_misses", "given up", [2, 0, 0, 0]),
    # A new ASID's user half is flushed on the way out.
    ("user_pcid_flushes", "switch", [1, 0, 0, 0]),
    ("user_pcid_flushes", "user all", [1, 0, 1, 0]),
    ("user_flush_requests", "user", [1, 0, 0, 0]),
    ("user_flush_requests_full", "user", [0, 0, 0, 0]),
    ("user_flush_requests_full", "user all", [1, 0, 0, 0]),
    ("user_flush_requests", "unmap", [0, 0, 0, 0]),
    # At 600 us each CPU finds the other asleep.
    ("lazy_skips", "lazy", [1, 1, 0, 0]),
    ("lazy_skips", "user", [0, 0, 0, 0]),
    # The slot of init_mm and that of the process that was not loaded.
    ("residency", "given up", [2, 0, 0, 0]),
    ("residency", "switch", [0, 0, 0, 0]),
    ("violations", "stuck", [1, 0, 0, 0]),
    ("violations", "untold", [0, 0, 0, 0]),
    ("interrupts_purge", "purges", [0, 2, 2, 2]),
    # Every 100, 200, 300 and 400 us, for 450 us.
    ("interrupts_aliases", "causes", [0, 4, 4, 4]),
    ("interrupts_set_memory", "causes", [0, 2, 2, 2]),
    ("interrupts_table_free", "causes", [0, 1, 1, 1]),
    ("interrupts_percpu", "causes", [0, 1, 1, 1]),
    ("interrupts_vunmap", "unmap", [0, 1, 1, 1]),
    ("interrupts_text_poke", "text", [0, 3, 0, 0]),
    ("interrupts_tick", "noise", [3, 0, 0, 0]),
    ("interrupts_residual", "noise", [0, 2, 0, 0]),
    ("interrupts_device", "noise", [0, 0, 2, 0]),
    ("interrupts_nmi", "noise", [0, 1, 0, 0]),
    ("interrupts_user_flush", "user", [0, 0, 1, 0]),
    ("interrupts_other", "noise", [0, 0, 0, 1]),
]
UNITS = {one.name: one.unit for one in tc.statistics()}

# Statistic, two runs, and how much more it is in the first, where only the difference is worked out.
DIFFERENCES: list[tuple[str, str, str, Values]] = [
    # Three pages with INVLPG, and with INVPCID in the user half; all of them by a CR3 write. The victim's exit then
    # pays for the flush of the user half.
    (
        "user_flush_request_ps",
        "user",
        "user all",
        [3 * (C.invlpg + C.invpcid_address) - C.mov_cr3_flush - PLAIN, 0, 0, 0],
    ),
    (
        "interference_ps",
        "user",
        "user all",
        [
            0,
            0,
            3 * (C.invlpg + C.invpcid_address)
            - C.mov_cr3_flush
            - (C.mov_cr3_flush - C.mov_cr3_noflush)
            - PLAIN,
            0,
        ],
    ),
]


def found(statistic: str, name: str) -> Values:
    values = run(name).table[statistic].tolist()
    if UNITS[statistic] == "ps":
        assert all(value % 1000 == 0 for value in values), "whole cycles"
        return [value // 1000 for value in values]
    return values


@pytest.mark.parametrize(("statistic", "name", "expected"), ROWS, ids=[f"{row[0]}-{row[1]}" for row in ROWS])
def test_a_statistic_has_the_value_of_its_row(statistic: str, name: str, expected: Values) -> None:
    assert found(statistic, name) == expected


@pytest.mark.parametrize(("statistic", "name", "other", "expected"), DIFFERENCES)
def test_two_runs_differ_by_what_was_worked_out(
    statistic: str, name: str, other: str, expected: Values
) -> None:
    assert [a - b for a, b in zip(found(statistic, name), found(statistic, other), strict=True)] == expected


def test_every_statistic_has_a_row_with_a_value_that_differs_from_nothing_and_between_cpus() -> None:
    told = {row[0] for row in ROWS if any(row[2])} | {row[0] for row in DIFFERENCES}
    assert told == set(UNITS)
    lopsided = {row[0] for row in ROWS if len(set(row[2])) > 1} | {row[0] for row in DIFFERENCES}
    assert lopsided == set(UNITS) - {"refill_misses_other"}, "a cold start is the same everywhere"
    assert {row[1] for row in ROWS} | {"user all"} == set(RUNS), "no run without a row"


def test_the_time_of_a_cpu_adds_up_in_every_run() -> None:
    for name in RUNS:
        result = run(name)
        times = sum(result.table[part] for part in ("user_ps", "kernel_ps", "interrupt_ps", "idle_ps"))
        assert set(times.tolist()) == {round(result.duration_s * 1e12)}, name
        of_which = ("exposure_syscall_ps", "exposure_interrupt_ps", "exposure_nmi_ps", "exposure_other_ps")
        assert (sum(result.table[part] for part in of_which) == result.table["exposure_ps"]).all(), name
        refills = (
            "refill_misses_entry",
            "refill_misses_remote",
            "refill_misses_local",
            "refill_misses_other",
        )
        assert (sum(result.table[part] for part in refills) == result.table["refill_misses"]).all(), name
