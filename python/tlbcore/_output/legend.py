"""What the words of reports mean: the legend of `tlbcore words` and of the option `--legend`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable

from tlbcore._output.width import LEAST

Word = tuple[str, str]

# Word, and one sentence. A `|` separates forms under which it stands in a report.
WORDS: tuple[Word, ...] = (
    ("isolated", "A CPU that is set aside for one task (nohz_full=, isolcpus=)."),
    ("housekeeping", "A CPU that does everything else."),
    ("interrupt|interrupts", "What an interrupt vector brought: remote calls, reschedules, timers, devices."),
    ("remote call|remote calls|calls", "A function that one CPU queued for another to run (smp_call_function)."),
    ("IPI|IPIs|ipis", "An interrupt that one CPU sends to another; several queued calls may share one."),
    ("flush|flushes", "Removal of translations from a TLB; a remote one needs a call, or a broadcast instruction."),
    ("purge|purges", "The flush of every CPU after enough freed vmalloc memory has piled up."),
    ("shootdown|shootdowns", "A flush of a user range that asked at least one other CPU."),
    ("waited|wait", "How long the sender of a call waited until the last CPU that it asked had answered."),
    ("handlers|handler", "The function of a remote call, as it runs on the CPU that was asked."),
    ("hull", "The one range of addresses, from the lowest to the highest, that a purge flushes."),
    ("ranged", "A flush page by page; full ones drop everything (from 34 pages on)."),
    ("lazy", "A CPU that runs a kernel thread and keeps the last process's page tables loaded."),
    ("elsewhere", "Another process ran on the CPU that was asked: it was interrupted for nothing."),
    ("scheduler tick kept", "The periodic tick went on although the CPU ran one task; the reason follows *kept for*."),
    ("deferred|deferral|defer", "Put off until the target enters the kernel by itself, in place of an interrupt."),
    ("pending", "How long something deferred had not been done yet."),
    ("entry flush|entry flushes", "A flush that code at kernel entry carries out."),
    ("policy|policies", "When and how the kernel flushes: a program of micro-ops. `ipi` is what mainline does."),
    ("inert", "The policy needs what the machine or kernel lacks, and so mainline's figures stand under its name."),
    ("measured", "Counted in the recording."),
    ("predicted", "Computed by the model, from the recording or from a scenario."),
    ("not recorded", "The recording has no event that would show it. Never the same as zero."),
    ("95 %", "The interval that holds the true rate in 95 of 100 such recordings (Poisson), or the mean of such runs."),
    ("p50|p95|p99|p999", "The length that 50, 95, 99 or 99.9 % of all are not longer than."),
    ("stolen", "Time in which the hypervisor ran something else."),
    ("SMI|firmware", "Time that the firmware took; the kernel does not see it but in a gap of the clock."),
    ("PTI|pti", "Page-table isolation: the kernel has page tables of its own, and CR3 changes at every entry."),
    ("nopti", "Without page-table isolation."),
    ("PCID|ASID", "The tag of a TLB entry: which address space it belongs to."),
    ("INVPCID|invpcid", "The instruction that drops entries by tag, on its own CPU."),
    ("INVLPGB|invlpgb", "AMD's broadcast of an invalidation to all CPUs, without an interrupt."),
    ("CR3|cr3", "The register that points to the page tables in use."),
    ("world", "The machine and kernel that a verdict is about: features such as `pti` or `nopti+invlpgb`."),
    ("verified", "No run within the stated bounds breaks a rule; outside them nothing is said."),
    ("violated", "There is a run that breaks a rule, and it is printed."),
    ("inconclusive", "A limit was met before the search was complete."),
    ("window exists", "The run needs an access that nobody has seen that code do."),
    ("a speculative walk suffices", "No code has to touch it: hardware may walk there by itself."),
    ("an access in the window is known", "Code that does the access of the run is named."),
    ("Assumption core", "The smallest set of assumptions about the machine that the run needs."),
    ("stale_access", "An access through a translation that its flush was relied on to remove (S5)."),
    ("reused", "Of a stale access: the address has been handed on meanwhile."),
    ("not_reused", "Of a stale access: the address is not mapped again."),
    ("freed_table_walk", "A walk through a page table that has been freed (S6)."),
    ("freed_table_read", "A walk in software reads a page table that has been freed (S12)."),
    ("stale_line", "A cache line stays of a page that was made uncached (S14)."),
    ("stale_text", "A CPU runs instructions that a text poke has replaced (S7)."),
    ("unmapped_access", "A touch of what the loaded page table does not map (S8)."),
    ("wrong_gs_access", "A %gs-relative access while GSBASE is the user's (S8)."),
    ("unusable_stack", "An exception without a stack of its own where RSP holds none (S13)."),
    ("wrong_address_space", "User memory of another address space than the one Linux believes loaded (S9)."),
    ("freed_mm", "Use of an address space, or of its tables, after it was freed (S9)."),
    ("deadlock", "A CPU that waits for ever (S11)."),
    ("residency", "Dead entries that may legally stay in a TLB: a diagnostic, never a failure (S10)."),
    ("buffer0|buffer1|buffer2|buffer3", "In a run: the CPU's store buffer; others do not see the store yet."),
    ("store visible", "In a run: the oldest buffered store reaches memory."),
    ("tlb0|tlb1|tlb2|tlb3", "In a run: the CPU's TLB; `va:v1` translates the address va by version v1 of its entry."),
    ("upper0|upper1|upper2|upper3", "In a run: the CPU's paging-structure cache, which keeps pointers to page tables."),
    ("lines0|lines1|lines2|lines3", "In a run: the CPU may hold a line of the page in its cache."),
    ("is dead", "In a run: somebody relies on this version being gone from every TLB."),
    ("walk caches", "In a run: the hardware loads a translation, without any code asking for it."),
    ("brings in a line", "In a run: an access caches it, or the hardware fetches ahead without any code asking."),
)  # fmt: skip


def legend(words: Iterable[Word] = WORDS, width: int = 100) -> str:
    """Return words and meanings as text."""
    lines = []
    for word, meaning in words:
        lines += textwrap.wrap(
            meaning, max(width, LEAST), initial_indent=f"  {_shown(word):<22}  ", subsequent_indent=" " * 26
        )
    return "\n".join(lines)


def _shown(word: str) -> str:
    return word.split("|", maxsplit=1)[0]


def used(report: str) -> list[Word]:
    """Return the words that a report uses."""
    return [
        word
        for word in WORDS
        if re.search(rf"(?<![\w-])(?:{'|'.join(map(re.escape, word[0].split('|')))})(?![\w-])", report)
    ]
