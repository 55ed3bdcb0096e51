"""Kernel work that flushes or syncs CPUs: socket filters, modules, text patching."""

from __future__ import annotations

from typing import Any

from tlbcore._input.numbers import count, quantity
from tlbcore.scenarios.actors import Actor, chain, cpu_list, spin, syscalls
from tlbcore.scenarios.isolated import _between
from tlbcore.scenarios.workload import Scenario

# Per attach and detach of a socket filter without the JIT (traces p4.w3i; docs/sources.md, FACTS 8): one
# flush_tlb_all of set_memory_ro; one purge by the free, full because its range runs from the direct map into
# vmalloc. In 14 % the next attach purges the area first: then both flushes are ranged (fitted to p4.w3i).
FILTER_STEPS: tuple[dict[str, Any], ...] = (
    {"program": "set_memory", "pages": 0, "cause": "set_memory"},
    {"program": "purge", "pages": 0, "cause": "aliases", "per_mille": 863},
    {"program": "purge", "pages": 3, "cause": "aliases", "per_mille": 137},
    {"program": "purge", "pages": 2, "cause": "aliases", "per_mille": 137},
)

# Per load and unload of a module (traces p4.w7): 5 full and 1 ranged flush_tlb_kernel_range, 3.3
# flush_tlb_all.
MODULE_STEPS: tuple[dict[str, Any], ...] = (
    *({"program": "purge", "pages": 0, "cause": "aliases"} for _ in range(5)),
    {"program": "purge", "pages": 4, "cause": "aliases"},
    *({"program": "set_memory", "pages": 0, "cause": "set_memory"} for _ in range(3)),
    {"program": "set_memory", "pages": 0, "cause": "set_memory", "per_mille": 333},
)


# One batch of text_poke_bp_batch: three syncs, however many instructions it patches.
STATIC_KEY_STEPS: tuple[dict[str, Any], ...] = ({"program": "text_poke", "pages": 0, "cause": "text_poke"},)


def filter_attach(
    *,
    duration_s: float = 60.0,
    cpus: int = 4,
    isolated: str | tuple[int, ...] = "2-3",
    rate_hz: float = 1.6,
) -> Scenario:
    """Return socket filters attached and detached without the JIT, `rate_hz` times a second."""
    return Scenario(
        name="filter-attach",
        duration_s=duration_s,
        cpus=cpus,
        isolated=cpu_list(isolated),
        abstraction="An attach and detach is its flushes as counted on 6.12 (fitted); the JIT has none.",
        actors=(
            spin("isolated"),
            spin("housekeeping"),
            chain(FILTER_STEPS, (0,), rate_hz=rate_hz, name="filter"),
        ),
    )


def module_load(
    *,
    duration_s: float = 60.0,
    cpus: int = 4,
    isolated: str | tuple[int, ...] = "2-3",
    rate_hz: float = 0.35,
    pokes: int = 0,
) -> Scenario:
    """Return modules loaded and unloaded, `rate_hz` times a second.

    `pokes` is the number of `text_poke_bp_batch` batches per cycle, of three syncs each: static keys that a module
    flips, ftrace updates while a tracer is on. The recorded module (nls_utf8) needs none: 21 traced cycles queued
    1,139 remote calls, none of them `do_sync_core`.
    """
    steps = (*MODULE_STEPS, *STATIC_KEY_STEPS * count(pokes, "pokes", most=1000))
    return Scenario(
        name="module-load",
        duration_s=duration_s,
        cpus=cpus,
        isolated=cpu_list(isolated),
        abstraction="A load and unload is its flushes as counted on 6.12 (fitted), where no text was patched"
        + (f"; {pokes} batches of text patching are added to each." if pokes else "."),
        actors=(
            spin("isolated"),
            spin("housekeeping"),
            chain(steps, (0,), rate_hz=rate_hz, name="module"),
        ),
    )


# Arming and disarming a kprobe: one sync each.
KPROBE_STEPS: tuple[dict[str, Any], ...] = (
    {"program": "text_breakpoint", "pages": 0, "cause": "text_poke"},
    {"program": "text_breakpoint", "pages": 0, "cause": "text_poke"},
)


def text_poke(
    *,
    duration_s: float = 600.0,
    cpus: int = 44,
    isolated: str | tuple[int, ...] = "18-43",
    static_keys_hz: float = 0.05,
    kprobes_hz: float = 0.01,
    calls_hz: float = 0.0,
    base_ns: float = 900.0,
) -> Scenario:
    """Return text patching on a housekeeping CPU: static keys flipped, kprobes armed and disarmed.

    Parameters
    ----------
    duration_s, cpus, isolated
        As in `Scenario`.
    static_keys_hz, kprobes_hz
        Batches of `text_poke_bp_batch` and kprobe cycles per second (both unsourced).
    calls_hz, base_ns
        System calls of the isolated CPUs, and the time of one; 0: they spin in user mode.
    """
    quantity(calls_hz, "calls_hz")
    gap_ns = _between(calls_hz, base_ns) if calls_hz else 0.0
    actors: tuple[Actor, ...] = (
        syscalls("isolated", base_ns=base_ns, gap_ns=gap_ns, poisson=True) if calls_hz else spin("isolated"),
        spin("housekeeping"),
    )
    if static_keys_hz:
        actors += (chain(STATIC_KEY_STEPS, (0,), rate_hz=static_keys_hz, name="static keys"),)
    if kprobes_hz:
        actors += (chain(KPROBE_STEPS, (0,), rate_hz=kprobes_hz, name="kprobes"),)
    return Scenario(
        name="text-poke",
        duration_s=duration_s,
        cpus=cpus,
        isolated=cpu_list(isolated),
        abstraction="A patch is its syncs: 3 per batch of static keys, 1 for arming and 1 for disarming a kprobe; "
        "what the breakpoint costs those who hit it is left out; rates are unsourced.",
        actors=actors,
    )
