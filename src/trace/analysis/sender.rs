//! The sending side: which operation a queued call belongs to, and what that operation was for.
//!
//! An operation is one `smp_call_function_many` round or one single call. Its cause is read from what the same task
//! did just before (probes), from the shape of the range, from the purge event behind it, and best from a stack.

use rustc_hash::FxHashMap;

use super::tasks::Sym;
use crate::trace::{
    cause::Cause,
    import::scan::{Fields, hex},
};

const MAX_CONTEXTS: usize = 1 << 16;

/// What a cause rests on, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// Nothing.
    None,
    /// The function's name alone.
    Function,
    /// Another event of the sender just before: a timer it armed, a call chain without the call itself.
    Before,
    /// The place it was queued from.
    Callsite,
    /// The range has the shape only one caller gives it.
    Range,
    /// The purge event behind it.
    PurgeEvent,
    /// A probe in the same task before it.
    Probe,
    /// A call chain.
    Stack,
}

impl Evidence {
    /// The word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Function => "function",
            Self::Before => "before",
            Self::Callsite => "callsite",
            Self::Range => "range",
            Self::PurgeEvent => "purge_event",
            Self::Probe => "probe",
            Self::Stack => "stack",
        }
    }
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// Function the targets run.
    pub func: Sym,
    /// Task that sent it.
    pub comm: Sym,
    /// Its thread id.
    pub pid: u32,
    /// CPU it was sent from.
    pub cpu: u32,
    /// Sent in interrupt context: the task is only who was interrupted.
    pub in_interrupt: bool,
    /// When.
    pub at_ns: u64,
    /// Line of the first event that shows it.
    pub line: u64,
    /// What for.
    pub cause: Cause,
    /// How that is known.
    pub evidence: Evidence,
}

impl Op {
    /// Takes a better founded cause.
    pub fn refine(&mut self, cause: Cause, evidence: Evidence) {
        if evidence > self.evidence || self.cause == Cause::KernelFlushUnknown {
            self.cause = cause;
            self.evidence = evidence;
        }
    }
}

/// What a task is in the middle of.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // what was seen of one task, independent of each other
pub struct Context {
    set_memory: bool,
    draining: bool,
    reclaiming: bool,
    alias: Alias,
    purge_entered: bool,
    /// A flush announced by a probe whose calls are not queued yet.
    pub announced: Option<u32>,
    /// Operations calls are being queued for: function, operation, last target. More than one, because an
    /// interrupt may send in the middle of a round of its task.
    open: [Option<(Sym, u32, u32)>; 3],
    /// The latest kernel flush.
    pub latest: Option<u32>,
    /// The latest operation of any kind: a call chain right behind it is its own.
    pub last: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Alias {
    #[default]
    No,
    /// With `flush` from `vm_reset_perms`, which frees executable memory; without from `vm_unmap_aliases`.
    Entered { flush: bool },
    /// Its purge found nothing, so it may flush by itself.
    PurgedNothing,
}

impl Alias {
    fn cause(self) -> Option<Cause> {
        match self {
            Self::No => None,
            Self::Entered { flush: false } => Some(Cause::VmUnmapAliases),
            Self::Entered { flush: true } | Self::PurgedNothing => Some(Cause::ExecFree),
        }
    }
}

/// What a probe on a sending function means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `flush_tlb_kernel_range`, with its range if printed.
    KernelRange,
    /// `flush_tlb_all`.
    FlushAll,
    /// Only context for what comes next.
    Context,
    /// Not a sending function.
    Foreign,
}

/// Names recorders gave to probes whose function the source prints as a bare address.
const ALIASES: &[(&str, &str)] = &[
    ("tlbk", "flush_tlb_kernel_range"),
    ("tlbk_range_h", "do_kernel_range_flush"),
    ("tlbk_all_h", "do_flush_tlb_all"),
    ("drain_work", "drain_vmap_area_work"),
    ("vm_unmap_aliases", "_vm_unmap_aliases"),
    ("reclaim_purge", "reclaim_and_purge_vmap_areas"),
    ("cpa_tlb_h", "__cpa_flush_tlb"),
    ("cpa_all_h", "__cpa_flush_all"),
    ("sync_core_h", "do_sync_core"),
    ("text_sync", "text_poke_sync"),
    ("set_ro", "set_memory_ro"),
    ("set_rw", "set_memory_rw"),
    ("set_nx", "set_memory_nx"),
    ("set_rox", "set_memory_rox"),
    ("kp_purge", "__purge_vmap_area_lazy"),
    ("kp_free", "free_vmap_area_noflush"),
    ("kp_alloc_in", "alloc_vmap_area"),
    ("kp_alloc", "alloc_vmap_area"),
];

/// The function a probe sits on: as printed, or by the probe's name if that is an address.
pub fn probed<'a>(name: &'a [u8], function: &'a [u8]) -> &'a [u8] {
    if !function.is_empty() {
        return function;
    }
    ALIASES
        .iter()
        .find(|(alias, _)| alias.as_bytes() == name)
        .map_or(name, |(_, function)| function.as_bytes())
}

/// Start and end, if the probe prints them under these names.
pub fn range(args: &[u8]) -> Option<(u64, u64)> {
    let mut f = Fields(args);
    Some((f.get(b"start=").and_then(hex)?, f.get(b"end=").and_then(hex)?))
}

/// Pages the handler's loop would visit, and whether that is a full flush (FACTS 2.5: ceiling 33).
pub fn pages((start, end): (u64, u64)) -> (u64, bool) {
    let pages = (end.wrapping_sub(start).saturating_add(4095)) >> 12;
    (pages, end == u64::MAX || pages > 33)
}

impl Context {
    /// A probe of this task was hit.
    pub fn probe(&mut self, function: &[u8], args: &[u8]) -> Step {
        match function {
            b"flush_tlb_kernel_range" => return Step::KernelRange,
            b"flush_tlb_all" => return Step::FlushAll,
            b"drain_vmap_area_work" => {
                self.draining = true;
                self.set_memory = false;
            }
            b"reclaim_and_purge_vmap_areas" => self.reclaiming = true,
            b"_vm_unmap_aliases" | b"vm_unmap_aliases" => {
                let flush = Fields(args).get(b"flush=") == Some(b"1");
                // Without it the caller is vm_unmap_aliases(), which only code that changes attributes calls.
                self.set_memory |= Fields(args).get(b"flush=") == Some(b"0");
                self.alias = Alias::Entered { flush };
            }
            // Before 6.2 no event ends a purge, so a probe on its entry must do. The drain worker passes an empty
            // range; whoever frees executable memory passes the hull of its direct map (FACTS 3.3).
            b"__purge_vmap_area_lazy" => {
                let from_aliases = self.set_memory || range(args).is_some_and(|(start, _)| start != u64::MAX);
                self.purge_entered = true;
                if from_aliases {
                    self.alias = Alias::Entered { flush: !self.set_memory };
                } else {
                    self.draining = true;
                }
            }
            _ if function.starts_with(b"set_memory_") || function == b"change_page_attr_set_clr" => {
                self.set_memory = true;
            }
            _ => return Step::Foreign,
        }
        Step::Context
    }

    /// Why this task calls `flush_tlb_kernel_range` now.
    pub fn kernel_range(&mut self, range: Option<(u64, u64)>) -> (Cause, Evidence) {
        let why = self.why_range(range);
        if std::mem::take(&mut self.purge_entered) {
            self.alias = Alias::No;
            self.draining = false;
        }
        why
    }

    fn why_range(&self, range: Option<(u64, u64)>) -> (Cause, Evidence) {
        if let Some(cause) = self.alias.cause() {
            return (cause, Evidence::Probe);
        }
        if self.draining || self.reclaiming {
            return (Cause::VmallocPurge, Evidence::Probe);
        }
        match range {
            // pmd_free_pte_page passes addr, addr + PAGE_SIZE - 1; every other caller ends on a page boundary.
            Some((start, end)) if end.wrapping_sub(start) == 0xfff => {
                (Cause::KernelTableFree, Evidence::Range)
            }
            _ => (Cause::KernelFlushUnknown, Evidence::None),
        }
    }

    /// Why it calls `flush_tlb_all`.
    pub fn flush_all(&mut self) -> (Cause, Evidence) {
        self.alias = Alias::No;
        if std::mem::take(&mut self.purge_entered) {
            self.draining = false;
        }
        // One set_memory call may flush more than once: for each large page it splits, and in cpa_flush().
        if self.set_memory {
            (Cause::SetMemory, Evidence::Probe)
        } else {
            (Cause::KernelFlushUnknown, Evidence::None)
        }
    }

    /// Why it queues a kernel flush that no probe announced.
    pub fn unannounced(&self) -> (Cause, Evidence) {
        if self.alias == Alias::PurgedNothing {
            (Cause::ExecFree, Evidence::Probe)
        } else if self.draining {
            (Cause::VmallocPurge, Evidence::Probe)
        } else {
            (Cause::KernelFlushUnknown, Evidence::None)
        }
    }

    /// A purge of this task ended; what its flush turns out to have been. `drains` if it can only be the worker's.
    pub fn purged(&mut self, areas: u64, drains: bool) -> Option<(u32, Cause)> {
        let aliased = self.alias.cause();
        self.alias = match self.alias {
            Alias::Entered { flush: true } if areas == 0 => Alias::PurgedNothing,
            _ => Alias::No,
        };
        self.draining = false;
        self.reclaiming = false;
        self.purge_entered = false;
        self.close();
        self.announced = None;
        if areas == 0 {
            return None;
        }
        let cause = aliased.or(drains.then_some(Cause::VmallocPurge));
        self.latest.take().zip(cause)
    }

    /// The operation that `target` of `func` continues. One round queues its targets in ascending order
    /// (FACTS 2.9), so an equal or lower one begins the next.
    pub fn continued(&self, func: Sym, target: u32) -> Option<u32> {
        self.open.iter().flatten().find(|(f, _, last)| *f == func && target > *last).map(|(_, op, _)| *op)
    }

    /// A call was queued for `target`.
    pub fn queued(&mut self, func: Sym, op: u32, target: u32) {
        let same = self.open.iter().position(|o| o.is_some_and(|(f, ..)| f == func));
        let place = same.or_else(|| self.open.iter().position(Option::is_none)).unwrap_or(0);
        self.open[place..].rotate_left(1); // the oldest stands first and makes room
        self.open[2] = Some((func, op, target));
    }

    /// A new round begins, whatever came before.
    pub fn close(&mut self) {
        self.open = [None; 3];
    }

    /// A kernel-range flush of this task is over: the alias walk that asked for it is, too.
    pub fn flushed(&mut self) {
        if self.alias == Alias::PurgedNothing {
            self.alias = Alias::No;
        }
    }
}

/// Contexts by thread id.
#[derive(Default)]
pub struct Contexts {
    map: FxHashMap<u32, Context>,
}

impl Contexts {
    /// The context of a thread.
    pub fn of(&mut self, pid: u32) -> &mut Context {
        if self.map.len() >= MAX_CONTEXTS {
            self.map.clear();
        }
        self.map.entry(pid).or_default()
    }

    /// The context of a thread that has one.
    pub fn get(&mut self, pid: u32) -> Option<&mut Context> {
        self.map.get_mut(&pid)
    }

    /// A thread has ended.
    pub fn end(&mut self, pid: u32) {
        self.map.remove(&pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flush_is_full_beyond_33_pages_or_at_the_end_of_the_address_space() {
        assert_eq!(pages((0x1000, 0x1fff)), (1, false));
        assert_eq!(pages((0, 33 << 12)), (33, false));
        assert_eq!(pages((0, (33 << 12) + 1)), (34, true));
        assert!(pages((0, u64::MAX)).1);
    }

    #[test]
    fn the_same_range_flush_means_what_its_task_did_before() {
        let range = Some((0x1000, 0x9000));
        let mut drain = Context::default();
        drain.probe(b"drain_vmap_area_work", b"");
        assert_eq!(drain.kernel_range(range).0, Cause::VmallocPurge);
        let mut alias = Context::default();
        alias.probe(b"_vm_unmap_aliases", b"start=0x1 end=0x2 flush=1");
        assert_eq!(alias.kernel_range(range).0, Cause::ExecFree);
        let mut rights = Context::default();
        rights.probe(b"_vm_unmap_aliases", b"start=0xffffffffffffffff end=0x0 flush=0");
        assert_eq!(rights.kernel_range(range).0, Cause::VmUnmapAliases);
        assert_eq!(Context::default().kernel_range(range).0, Cause::KernelFlushUnknown);
        assert_eq!(Context::default().kernel_range(Some((0x1000, 0x1fff))).0, Cause::KernelTableFree);
    }

    #[test]
    fn set_memory_explains_flush_tlb_all_also_when_it_splits_a_large_page() {
        let mut task = Context::default();
        assert_eq!(task.flush_all().0, Cause::KernelFlushUnknown);
        task.probe(b"set_memory_ro", b"");
        assert_eq!(task.flush_all().0, Cause::SetMemory);
        assert_eq!(task.flush_all().0, Cause::SetMemory);
    }

    #[test]
    fn so_many_threads_are_kept_and_then_all_are_forgotten() {
        let mut all = Contexts::default();
        for pid in 0..MAX_CONTEXTS as u32 {
            all.of(pid);
        }
        assert_eq!(all.map.len(), MAX_CONTEXTS);
        all.of(MAX_CONTEXTS as u32);
        assert!(all.map.len() == 1 && all.get(MAX_CONTEXTS as u32).is_some() && all.get(0).is_none());
        all.end(MAX_CONTEXTS as u32);
        assert!(all.map.is_empty());
    }

    #[test]
    fn a_bare_address_falls_back_to_the_probes_name() {
        assert_eq!(probed(b"tlbk_all_h", b""), b"do_flush_tlb_all");
        assert_eq!(probed(b"anything", b"do_flush_tlb_all"), b"do_flush_tlb_all");
        assert_eq!(probed(b"flush_tlb_all", b""), b"flush_tlb_all");
    }
}
