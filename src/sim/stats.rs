//! What is counted, in one table. Results, stubs and documentation are generated from it or tested against it.

macro_rules! statistics {
    ($($name:ident, $unit:ident, $text:literal;)*) => {
        /// One statistic of one CPU.
        #[allow(non_camel_case_types, missing_docs)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum Stat { $($name,)* }

        /// Name, unit and sentence of each, in the order of [`Stat`].
        pub const TABLE: &[(&str, Unit, &str)] = &[$((stringify!($name), Unit::$unit, $text),)*];
    };
}

/// Unit of a statistic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Events.
    Count,
    /// Picoseconds.
    Ps,
}

impl Unit {
    /// As shown.
    pub const fn name(self) -> &'static str {
        match self {
            Unit::Count => "count",
            Unit::Ps => "ps",
        }
    }
}

statistics! {
    syscalls, Count, "System calls completed.";
    faults, Count, "Page faults and other exceptions of the task in user mode.";
    interrupts, Count, "Interrupts taken, whatever their cause.";
    nmis, Count, "NMIs taken.";
    ipis_received, Count, "Interrupts taken because of a remote call.";
    ipis_empty, Count, "Remote-call interrupts that found the queue already empty.";
    calls_executed, Count, "Remote calls executed, the unit that a CSD trace counts.";
    interference, Count, "Times that user mode was left against the task's will.";
    interference_ps, Ps, "Time away from user mode against the task's will, handlers included.";
    longest_quiet_ps, Ps, "Longest time without such an interruption.";
    deferrals, Count, "Flush requests that were over before this CPU flushed.";
    entry_flushes_needed, Count, "Flushes in entry code while a flush was owed.";
    entry_flushes_unneeded, Count, "Flushes in entry code while none was owed.";
    remote_flushes, Count, "Flushes in a remote call.";
    local_flushes, Count, "Flushes by an initiator on its own CPU.";
    entry_flush_ps, Ps, "Time that flush instructions took in entry code.";
    refill_misses, Count, "TLB misses caused by flushes: touched pages that had to be walked again.";
    refill_misses_entry, Count, "Of those, after a flush in entry code.";
    refill_misses_remote, Count, "Of those, after a flush in a remote call.";
    refill_misses_local, Count, "Of those, after an initiator's flush on its own CPU.";
    refill_misses_other, Count, "Of those, after anything else: a CR3 write that flushes, a broadcast, a cold start.";
    refill_ps, Ps, "Time those misses took.";
    stream_touches, Count, "User pages touched by access streams.";
    stream_first, Count, "Walks of access streams for pages never touched before.";
    stream_evicted, Count, "Walks of access streams for pages that left for lack of room: no flush since their last touch.";
    stream_ps, Ps, "Time that the misses of access streams took; the rate of the stream includes it.";
    user_ps, Ps, "Time in user mode.";
    kernel_ps, Ps, "Time in system calls and kernel work.";
    interrupt_ps, Ps, "Time in interrupts and NMIs.";
    idle_ps, Ps, "Time in idle.";
    exposures, Count, "Times that kernel translations were loaded in kernel mode while a flush was owed.";
    exposure_ps, Ps, "Time of those windows.";
    exposures_syscall, Count, "Of those windows, the ones that opened in a system call.";
    exposure_syscall_ps, Ps, "Time of those.";
    exposures_interrupt, Count, "The ones that opened in an interrupt.";
    exposure_interrupt_ps, Ps, "Time of those.";
    exposures_nmi, Count, "The ones that opened in an NMI.";
    exposure_nmi_ps, Ps, "Time of those.";
    exposures_other, Count, "The ones that opened in idle, in an initiator's work or before the first return to user mode.";
    exposure_other_ps, Ps, "Time of those.";
    hazards, Count, "Times that ordinary kernel code ran while a flush was owed.";
    sync_requests, Count, "Syncs of text patching this CPU asked for.";
    sync_deferrals, Count, "Syncs of text patching that were over before this CPU had serialised.";
    syncs_caught_up, Count, "Serialising instructions that made up for such syncs.";
    text_hazards, Count, "Times that ordinary kernel code ran while a sync of text patching was owed.";
    flush_requests, Count, "Kernel-range flush requests this CPU initiated.";
    flush_requests_full, Count, "Of those, the ones beyond the single-page ceiling.";
    flush_request_ps, Ps, "Time from such a request to the moment its caller relies on it.";
    purges, Count, "Purges of the lazy list this CPU ran, tail purges included.";
    purges_tail, Count, "Purges that were queued while another one still waited.";
    purges_postponed, Count, "Purges that gave up because some CPU had not flushed yet.";
    areas_purged, Count, "vmalloc areas those purges freed.";
    calls_queued, Count, "Remote calls this CPU queued on others.";
    ipis_sent, Count, "Interrupts this CPU sent: calls that found an empty queue.";
    ipi_rounds, Count, "Sends, each to one CPU or a mask, the unit that ipi_send events count.";
    wait_ps, Ps, "Time this CPU waited for acknowledgements.";
    wait_max_ps, Ps, "Longest single wait.";
    forks, Count, "Processes or threads created.";
    stacks_reused, Count, "Kernel stacks taken from the per-CPU cache.";
    stacks_allocated, Count, "Kernel stacks newly allocated in vmalloc space.";
    execs, Count, "Address spaces replaced by a fresh one: exec, or exit and another process in its place.";
    migrations, Count, "Processes that moved from this CPU to another one.";
    mm_switches, Count, "Context switches that loaded another address space.";
    mm_switches_flushed, Count, "Of those, the ones that flushed: the ASID was new, behind, or there are no PCIDs.";
    asid_hits, Count, "Context switches that found one of the six ASIDs still holding the address space.";
    asid_misses, Count, "Context switches that had to take an ASID over from another address space.";
    user_pcid_flushes, Count, "Switches to the user CR3 that flushed the user PCID, as user_pcid_flush_mask demanded.";
    user_flush_requests, Count, "Flushes of user ranges this CPU initiated: munmap, mprotect, madvise, exec, exit.";
    user_flush_requests_full, Count, "Of those, the ones beyond the single-page ceiling.";
    user_flush_request_ps, Ps, "Time from such a request to the moment its caller relies on it.";
    lazy_skips, Count, "CPUs of mm_cpumask that this CPU's user flushes left alone: they were lazy.";
    residency, Count, "Dead translations kept legally: a lazy CPU behind, or an ASID given up because of invalidate_other.";
    violations, Count, "Steps that broke a rule of the machine.";
}

/// What flushed a CPU last: which misses its refills are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum FlushKind {
    /// A CR3 write that flushes, a broadcast, or nothing yet.
    Other,
    /// Entry code.
    Entry,
    /// A remote call.
    Remote,
    /// An initiator on its own CPU.
    Local,
}

impl FlushKind {
    /// The misses after such a flush.
    pub const fn misses(self) -> Stat {
        match self {
            FlushKind::Other => Stat::refill_misses_other,
            FlushKind::Entry => Stat::refill_misses_entry,
            FlushKind::Remote => Stat::refill_misses_remote,
            FlushKind::Local => Stat::refill_misses_local,
        }
    }
}

/// What a CPU was doing when a window of exposure opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Window {
    /// Idle, an initiator's work, or the boot.
    #[default]
    Other,
    /// A system call.
    Syscall,
    /// An interrupt.
    Interrupt,
    /// An NMI.
    Nmi,
}

impl Window {
    /// How many such windows there were, and their time.
    pub const fn stats(self) -> (Stat, Stat) {
        match self {
            Window::Other => (Stat::exposures_other, Stat::exposure_other_ps),
            Window::Syscall => (Stat::exposures_syscall, Stat::exposure_syscall_ps),
            Window::Interrupt => (Stat::exposures_interrupt, Stat::exposure_interrupt_ps),
            Window::Nmi => (Stat::exposures_nmi, Stat::exposure_nmi_ps),
        }
    }
}

/// Number of statistics.
pub const STATS: usize = TABLE.len();

/// The statistics of one CPU.
pub type Row = [u64; STATS];

macro_rules! causes {
    ($($(#[$default:meta])? $name:ident, $id:literal, $text:literal;)*) => {
        /// Why a CPU was interrupted or a flush requested.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(u8)]
        pub enum Cause { $(#[doc = $text] $(#[$default])? $name,)* }

        /// Name and sentence of each cause, in the order of [`Cause`].
        pub const CAUSES: &[(&str, &str)] = &[$(($id, $text),)*];
    };
}

causes! {
    Purge, "purge", "Purge of vmalloc's lazy list.";
    Aliases, "aliases", "_vm_unmap_aliases: set_memory and frees that reset permissions.";
    SetMemory, "set_memory", "cpa_flush after a change of rights or cache attributes.";
    TableFree, "table_free", "A page-table page was freed.";
    Vunmap, "vunmap", "An unmap whose caller relies on it at once.";
    TextPoke, "text_poke", "A sync of text patching.";
    Percpu, "percpu", "A per-CPU chunk was depopulated.";
    Tick, "tick", "A timer tick.";
    Residual, "residual", "Residual kernel noise: kicks, deadline timers.";
    Device, "device", "A device interrupt.";
    Nmi, "nmi", "A non-maskable interrupt, perf among them.";
    UserFlush, "user_flush", "A shootdown of user translations.";
    #[default] Other, "other", "Anything else.";
}

/// Number of causes.
pub const N_CAUSES: usize = CAUSES.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_says_so_in_its_name() {
        for (name, unit, text) in TABLE {
            assert_eq!(name.ends_with("_ps"), *unit == Unit::Ps, "{name}");
            assert!(text.ends_with('.'), "{name}");
        }
    }
}
