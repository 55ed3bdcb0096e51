//! The same recording under another policy: which of its remote calls would have been deferred, which interrupts
//! remain, and for how long an isolated CPU would have kept stale translations.
//!
//! A decision is read from the trace's own user and kernel intervals. Where they leave it open (mode unknown, a change
//! within the resolution of the time stamps, a caller the trace does not name) the result is an interval.

use serde::Serialize;

use super::{
    analysis::{
        Range,
        cpu::{Mode, NEVER, Row},
        sender::Op,
    },
    cause::{Cause, Deferral},
};

/// How a policy spares a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spares {
    /// It does not.
    Nobody,
    /// Calls on the kernel-range list of v7 30/31 are not sent to an isolated CPU in one of these modes.
    InMode(&'static [Mode]),
    /// As above, but more than the mode decides, which a recording does not show.
    AtMostInMode(&'static [Mode]),
    /// Hardware does it: no TLB flush of any kind interrupts anybody.
    EveryFlush,
    /// Address space is not reused until every CPU has flushed by itself; interrupts only beyond a limit.
    UntilALimit,
    /// Syncs of patched text are not sent to an isolated CPU in one of these modes; at most, for a recording does not
    /// show whether the patched text is `.noinstr.text`, whose syncs always interrupt (FACTS 1.2).
    SyncsInMode(&'static [Mode]),
}

/// What a policy does, as far as a recording can tell.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name everywhere in tlbcore.
    pub id: &'static str,
    /// One sentence.
    pub title: &'static str,
    /// Whom it spares.
    pub spares: Spares,
    /// Every kernel entry flushes, whether or not anything was deferred.
    pub flushes_every_entry: bool,
    /// What the machine must have.
    pub needs: &'static str,
    /// Where the rule comes from.
    pub source: &'static str,
}

const USER: Spares = Spares::InMode(&[Mode::User]);

macro_rules! rules {
    ($($id:literal: $spares:expr, $every:literal, $needs:literal, $title:literal, $source:literal;)*) => {
        &[$(Rule {
            id: $id, title: $title, spares: $spares, flushes_every_entry: $every, needs: $needs, source: $source,
        },)*]
    };
}

/// The policies a recording can be replayed under; one line each, the first four are shown unless others are asked
/// for. `lazy-tune` is missing: how often a longer list would be purged depends on frees after the recording.
pub const RULES: &[Rule] = rules! {
    "ipi": Spares::Nobody, false, "",
        "mainline: every call interrupts", "FACTS 1.8 P0";
    "ct-late": Spares::InMode(&[Mode::User, Mode::Idle]), false, "CONTEXT_TRACKING_WORK",
        "v4 29/30: work bits in context tracking, flush late in kernel entry",
        "FACTS 1.2 and 1.8 P1; also defers to idle CPUs, which RCU does not watch";
    "coalesce-v7": USER, true, "PTI",
        "v7 28-30/31: flush on every switch to the kernel CR3", "FACTS 1.2 and 1.8 P2";
    "coalesce-v7-fixed": USER, true, "PTI",
        "v7 with the flag written before the flush, and a full fence", "FACTS 1.4 and 1.8 P2b";
    "coalesce-tri-state": USER, true, "PTI",
        "v7 with a third flag value while entering", "SEMANTICS, policies beyond FACTS 1.8";
    "pending-bit": USER, false, "", "a pending bit set by compare-and-swap", "FACTS 1.8 P4";
    "fancy-state": USER, false, "", "a pair of status and work words, one exchange at entry", "FACTS 1.8 P5";
    "coalesce-v6": USER, true, "PTI", "v6 27-28/29", "FACTS 1.1";
    "coalesce-all": USER, true, "PTI", "v7 on every CPU, a debug mode", "SEMANTICS, policies beyond FACTS 1.8";
    "track-cr3-reconstructed": USER, true, "PTI",
        "v8/v9 as far as seen: the CR3 write of kernel entry is the flush", "FACTS 1.6 and 1.8 P3; no verdict on the posted series";
    "track-cr3-invpcid": USER, true, "PTI", "v8/v9 with INVPCID at entry", "FACTS 1.6";
    "track-cr3-saved-flag": USER, true, "PTI", "v8/v9 with the flag saved by NMIs", "FACTS 1.6 (b)";
    "pending-bit-plain": USER, false, "", "a pending bit set by a plain store", "FACTS 1.8 P4";
    "pending-bit-recheck": USER, false, "", "a pending bit, and a second look at the state", "FACTS 1.8 P4";
    "fancy-state-or": USER, false, "", "work set with OR, then the status read again", "FACTS 1.8 P5";
    "fancy-state-indeterminate": Spares::AtMostInMode(&[Mode::User]), false, "",
        "user mode promises nothing until an interrupt returned to it", "FACTS 1.8 P5";
    "quarantine": Spares::UntilALimit, false, "",
        "addresses are not reused until every CPU has flushed", "SEMANTICS, policies beyond FACTS 1.8";
    "invlpgb": Spares::EveryFlush, false, "INVLPGB, no PTI", "AMD broadcast invalidation", "FACTS 1.8 P6";
    "rar": Spares::EveryFlush, false, "RAR", "Intel remote action requests", "FACTS 1.8 P7; not in mainline";
    "flush-on-exit": USER, true, "", "flush before the return to user mode", "FACTS 1.8 P9";
    "noinstr-c": USER, true, "", "flush first thing in C entry code", "FACTS 1.8 P10";
    "text-defer-v7": Spares::SyncsInMode(&[Mode::User, Mode::Idle]), false, "CONTEXT_TRACKING_WORK",
        "v7 24-25/31: syncs of patched text wait for context tracking", "FACTS 1.2; .noinstr.text always interrupts";
    "text-sync-cr3-reconstructed": Spares::SyncsInMode(&[Mode::User]), false, "PTI",
        "v8/v9 as far as seen: the CR3 write of kernel entry is the sync", "FACTS 1.6; no verdict on the posted series";
    "text-sync-tri-state": Spares::SyncsInMode(&[Mode::User]), false, "PTI",
        "the CR3 write as the sync, with a third flag value while entering", "ours [OWN]";
};

/// How many of them are shown unless others are asked for.
pub const HEADLINE: usize = 4;

/// The rule of a policy.
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|r| r.id == id)
}

/// What one policy makes of one isolated CPU.
#[derive(Clone, Debug, Serialize)]
pub struct CpuOutcome {
    /// CPU.
    pub cpu: u32,
    /// Remote calls that could have been deferred.
    pub deferred: Range<u64>,
    /// Remote calls that still run there.
    pub remaining: Range<u64>,
    /// Interrupts of any vector that still happen.
    pub interrupts: Range<u64>,
    /// Entries into the kernel that still happen.
    pub entries: Range<u64>,
    /// Flushes at kernel entry.
    pub entry_flushes: Range<u64>,
    /// Seconds during which something deferred was pending.
    pub exposure_s: Range<f64>,
    /// The longest such stretch.
    pub exposure_longest_s: Range<f64>,
}

/// What one policy makes of the recording.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Policy.
    pub policy: &'static str,
    /// One sentence.
    pub title: &'static str,
    /// What the machine must have for the policy to be active.
    pub needs: &'static str,
    /// Remote calls that could have been deferred, by class.
    pub deferred_by_class: std::collections::BTreeMap<&'static str, Range<u64>>,
    /// Remote calls that still run, by class.
    pub remaining_by_class: std::collections::BTreeMap<&'static str, Range<u64>>,
    /// Sums over the isolated CPUs.
    pub deferred: Range<u64>,
    /// As above.
    pub remaining: Range<u64>,
    /// As above.
    pub interrupts: Range<u64>,
    /// Per isolated CPU.
    pub cpus: Vec<CpuOutcome>,
}

/// What is known of one CPU apart from its calls.
#[derive(Clone, Copy, Debug)]
pub struct Base {
    /// CPU.
    pub cpu: u32,
    /// Interrupts recorded.
    pub interrupts: u64,
    /// Entries recorded.
    pub entries: u64,
    /// Call interrupts of which neither sender nor function is known; each counts as one call whose fate is open.
    pub unknown_calls: u64,
    /// Seconds recorded.
    pub seconds: f64,
}

/// In the order of how much has to be certain: the lesser of two is what both allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Stays,
    Open,
    Deferred,
}

/// Would this call have been deferred?
fn fate(rule: &Rule, row: &Row, cause: Cause) -> Fate {
    let of_text = matches!(rule.spares, Spares::SyncsInMode(_));
    let by_cause = match cause.entry().deferral {
        Deferral::KernelRange if !of_text => Fate::Deferred,
        Deferral::TextSync if of_text => Fate::Deferred,
        Deferral::KernelRange | Deferral::TextSync | Deferral::Never => Fate::Stays,
        Deferral::Unknown => Fate::Open,
    };
    let by_mode = |modes: &[Mode]| match row.mode_sure {
        false => Fate::Open,
        true if modes.contains(&row.mode) => Fate::Deferred,
        true => Fate::Stays,
    };
    let by_policy = match rule.spares {
        Spares::Nobody => Fate::Stays,
        Spares::InMode(modes) => by_mode(modes),
        Spares::AtMostInMode(modes) | Spares::SyncsInMode(modes) => by_mode(modes).min(Fate::Open),
        Spares::UntilALimit => Fate::Open,
        Spares::EveryFlush => return if flushes_a_tlb(cause) { Fate::Deferred } else { Fate::Stays },
    };
    by_cause.min(by_policy)
}

/// Does this call only flush a TLB, so that hardware could do it?
fn flushes_a_tlb(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::VmallocPurge
            | Cause::Vunmap
            | Cause::VmUnmapAliases
            | Cause::KernelTableFree
            | Cause::SetMemory
            | Cause::KernelFlushUnknown
            | Cause::UserShootdown
    )
}

/// What a row was for: its operation's cause, else what its function says.
pub fn cause_of(row: &Row, ops: &[Op], by_function: impl Fn(&Row) -> Cause) -> Cause {
    ops.get(row.op as usize).map_or_else(|| by_function(row), |op| op.cause)
}

/// Replays the calls of the isolated CPUs under one rule.
pub fn replay(rule: &Rule, rows: &[Row], causes: &[Cause], bases: &[Base], end_ns: u64) -> Outcome {
    let fates: Vec<Fate> = rows.iter().zip(causes).map(|(row, cause)| fate(rule, row, *cause)).collect();
    let mut outcome = Outcome {
        policy: rule.id,
        title: rule.title,
        needs: rule.needs,
        deferred_by_class: std::collections::BTreeMap::new(),
        remaining_by_class: std::collections::BTreeMap::new(),
        deferred: Range::default(),
        remaining: Range::default(),
        interrupts: Range::default(),
        cpus: Vec::new(),
    };
    for ((row, cause), fate) in rows.iter().zip(causes).zip(&fates) {
        if row.ran_ns == NEVER {
            continue;
        }
        let class = cause.entry().class.name();
        outcome.deferred_by_class.entry(class).or_default().add(deferred(*fate));
        outcome.remaining_by_class.entry(class).or_default().add(remaining(*fate));
    }
    for base in bases {
        let mine: Vec<(&Row, Fate)> = rows
            .iter()
            .zip(&fates)
            .filter(|(r, _)| r.cpu == base.cpu && r.ran_ns != NEVER)
            .map(|(r, f)| (r, *f))
            .collect();
        let one = cpu(rule, *base, &mine, end_ns);
        let unknown = fate_of_unknown(rule);
        let class = Cause::CallUnknown.entry().class.name();
        for _ in 0..base.unknown_calls {
            outcome.deferred_by_class.entry(class).or_default().add(deferred(unknown));
            outcome.remaining_by_class.entry(class).or_default().add(remaining(unknown));
        }
        outcome.deferred.add(one.deferred);
        outcome.remaining.add(one.remaining);
        outcome.interrupts.add(one.interrupts);
        outcome.cpus.push(one);
    }
    outcome.deferred_by_class.retain(|_, r| r.high > 0);
    outcome.remaining_by_class.retain(|_, r| r.high > 0);
    outcome
}

/// What becomes of a call of which the recording has the interrupt only.
fn fate_of_unknown(rule: &Rule) -> Fate {
    if rule.spares == Spares::Nobody { Fate::Stays } else { Fate::Open }
}

fn deferred(fate: Fate) -> Range<u64> {
    Range { low: u64::from(fate == Fate::Deferred), high: u64::from(fate != Fate::Stays) }
}

fn remaining(fate: Fate) -> Range<u64> {
    Range { low: u64::from(fate == Fate::Stays), high: u64::from(fate != Fate::Deferred) }
}

fn cpu(rule: &Rule, base: Base, rows: &[(&Row, Fate)], end_ns: u64) -> CpuOutcome {
    let mut out = CpuOutcome {
        cpu: base.cpu,
        deferred: Range::default(),
        remaining: Range::default(),
        interrupts: Range::exactly(base.interrupts),
        entries: Range::exactly(base.entries),
        entry_flushes: Range::default(),
        exposure_s: Range::default(),
        exposure_longest_s: Range::default(),
    };
    for (_, fate) in rows {
        out.deferred.add(deferred(*fate));
        out.remaining.add(remaining(*fate));
    }
    // An interrupt or a stay in the kernel goes if every call in it goes and it had no other reason.
    let gone = groups(rows, |r| Some(r.irq).filter(|irq| *irq != 0));
    out.interrupts.low = out.interrupts.low.saturating_sub(gone.high);
    out.interrupts.high = out.interrupts.high.saturating_sub(gone.low);
    let gone = groups(rows, |r| Some(r.stay).filter(|stay| *stay != 0 && !r.stay_other));
    out.entries.low = out.entries.low.saturating_sub(gone.high);
    out.entries.high = out.entries.high.saturating_sub(gone.low);
    let unknown = fate_of_unknown(rule);
    for _ in 0..base.unknown_calls {
        out.deferred.add(deferred(unknown));
        out.remaining.add(remaining(unknown));
        out.interrupts.low = out.interrupts.low.saturating_sub(deferred(unknown).high);
        out.entries.low = out.entries.low.saturating_sub(deferred(unknown).high);
    }
    if rule.spares == Spares::EveryFlush {
        return out; // nothing is ever pending
    }
    let (low, low_longest, low_flushes) = exposure(rows, end_ns, |f| f == Fate::Deferred);
    let (mut high, mut high_longest, mut high_flushes) = exposure(rows, end_ns, |f| f != Fate::Stays);
    if unknown == Fate::Open && base.unknown_calls > 0 {
        // Nothing bounds what might have been pending but the recording itself.
        (high, high_longest) = (base.seconds, base.seconds);
        high_flushes += base.unknown_calls;
    }
    out.exposure_s = Range { low, high };
    out.exposure_longest_s = Range { low: low_longest, high: high_longest };
    out.entry_flushes = if rule.flushes_every_entry {
        out.entries
    } else {
        Range { low: low_flushes.min(high_flushes), high: high_flushes.max(low_flushes) }
    };
    out
}

/// How many groups consist of deferred calls only: surely, and at most.
fn groups(rows: &[(&Row, Fate)], key: impl Fn(&Row) -> Option<u32>) -> Range<u64> {
    let mut worst: rustc_hash::FxHashMap<u32, Fate> = rustc_hash::FxHashMap::default();
    for (row, fate) in rows {
        if let Some(key) = key(row) {
            let seen = worst.entry(key).or_insert(*fate);
            *seen = (*seen).min(*fate);
        }
    }
    let count = |which: &[Fate]| worst.values().filter(|f| which.contains(f)).count() as u64;
    Range { low: count(&[Fate::Deferred]), high: count(&[Fate::Deferred, Fate::Open]) }
}

/// Seconds with something pending, the longest stretch, and how many entries ended one. What is pending ends at the
/// next entry into the kernel that would still happen.
fn exposure(rows: &[(&Row, Fate)], end_ns: u64, defers: impl Fn(Fate) -> bool) -> (f64, f64, u64) {
    let mut runs: Vec<u64> = rows.iter().filter(|(_, f)| !defers(*f)).map(|(r, _)| r.ran_ns).collect();
    runs.sort_unstable();
    let mut total = 0u64;
    let mut longest = 0u64;
    let mut flushes = 0;
    let mut until = 0u64;
    for (row, _) in rows.iter().filter(|(_, f)| defers(*f)) {
        let from = if row.queued_ns == NEVER { row.ran_ns } else { row.queued_ns };
        let next = runs.get(runs.partition_point(|&t| t < from)).copied().unwrap_or(NEVER);
        let end = row.other_ns.min(next).min(end_ns).max(from);
        if end > until {
            total += end - from.max(until);
            flushes += u64::from(end < end_ns);
            until = end;
        }
        longest = longest.max(end - from);
    }
    (total as f64 / 1e9, longest as f64 / 1e9, flushes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::analysis::{cpu::NONE, tasks::Sym};

    fn row(queued_ns: u64, ran_ns: u64, irq: u32, mode: Mode) -> Row {
        Row {
            op: NONE,
            func: Sym::NONE,
            cpu: 2,
            queued_ns,
            ran_ns,
            ran_line: 1,
            irq_line: 0,
            other_ns: NEVER,
            irq,
            irq_len_ns: 0,
            stay: irq,
            mode,
            mode_sure: mode != Mode::Unknown,
            stay_other: false,
            first: true,
            traced: true,
            counted: true,
        }
    }

    fn run(id: &str, rows: &[Row], causes: &[Cause]) -> CpuOutcome {
        let base = Base { cpu: 2, interrupts: 10, entries: 10, unknown_calls: 0, seconds: 100.0 };
        replay(rule(id).expect("known"), rows, causes, &[base], 10_000_000_000).cpus.remove(0)
    }

    #[test]
    fn ipi_changes_nothing() {
        let rows = [row(0, 5, 1, Mode::User)];
        let out = run("ipi", &rows, &[Cause::VmallocPurge]);
        assert_eq!((out.deferred, out.interrupts), (Range::exactly(0), Range::exactly(10)));
    }

    #[test]
    fn a_purge_in_user_mode_goes_and_one_in_the_kernel_stays() {
        let rows = [
            row(1_000_000_000, 1_000_000_005, 1, Mode::User),
            row(2_000_000_000, 2_000_000_005, 2, Mode::Kernel),
        ];
        let out = run("coalesce-v7", &rows, &[Cause::VmallocPurge; 2]);
        assert_eq!(
            (out.deferred, out.remaining, out.interrupts, out.entries),
            (Range::exactly(1), Range::exactly(1), Range::exactly(9), Range::exactly(9))
        );
        // Pending from its queueing until the call that still interrupts.
        assert!((out.exposure_s.low - 1.000_000_005).abs() < 1e-9);
    }

    #[test]
    fn table_frees_and_rights_are_never_deferred() {
        for cause in [Cause::KernelTableFree, Cause::SetMemory, Cause::UserShootdown] {
            let out = run("coalesce-v7-fixed", &[row(0, 5, 1, Mode::User)], &[cause]);
            assert_eq!(out.deferred, Range::exactly(0), "{cause:?}");
        }
    }

    #[test]
    fn what_the_trace_cannot_tell_is_an_interval() {
        let rows = [row(0, 5, 1, Mode::Unknown), row(10, 15, 2, Mode::User)];
        let out = run("coalesce-v7", &rows, &[Cause::VmallocPurge, Cause::KernelFlushUnknown]);
        assert_eq!(out.deferred, Range { low: 0, high: 2 });
        assert_eq!(out.interrupts, Range { low: 8, high: 10 });
    }

    #[test]
    fn a_call_interrupt_that_nothing_explains_may_go_or_stay_under_every_policy_but_mainline() {
        let base = Base { cpu: 2, interrupts: 10, entries: 9, unknown_calls: 4, seconds: 60.0 };
        let outcome = |id| replay(rule(id).expect("known"), &[], &[], &[base], 10);
        let out = outcome("coalesce-v7-fixed");
        assert_eq!(out.deferred, Range { low: 0, high: 4 });
        assert_eq!(out.interrupts, Range { low: 6, high: 10 });
        assert_eq!(out.cpus[0].entries, Range { low: 5, high: 9 });
        assert!((out.cpus[0].exposure_s.high - 60.0).abs() < 1e-12);
        assert_eq!(out.deferred_by_class["unknown"], Range { low: 0, high: 4 });
        assert!(outcome("invlpgb").cpus[0].exposure_s.high.abs() < 1e-12);
        let mainline = outcome("ipi");
        assert_eq!((mainline.deferred, mainline.interrupts), (Range::exactly(0), Range::exactly(10)));
        assert_eq!(mainline.remaining, Range::exactly(4));
    }

    #[test]
    fn an_interrupt_goes_only_if_all_its_calls_go() {
        let rows = [row(0, 5, 1, Mode::User), row(1, 6, 1, Mode::User)];
        let out = run("coalesce-v7", &rows, &[Cause::VmallocPurge, Cause::NohzKick]);
        assert_eq!((out.deferred, out.interrupts), (Range::exactly(1), Range::exactly(10)));
    }

    #[test]
    fn broadcast_hardware_spares_every_flush_in_every_mode_and_leaves_nothing_pending() {
        let rows = [row(0, 5, 1, Mode::Kernel), row(7, 9, 2, Mode::User)];
        let out = run("invlpgb", &rows, &[Cause::KernelTableFree, Cause::NohzKick]);
        assert_eq!((out.deferred, out.interrupts), (Range::exactly(1), Range::exactly(9)));
        assert!(out.exposure_s.high.abs() < 1e-12);
    }

    #[test]
    fn syncs_of_text_go_by_the_policies_of_text_alone_and_for_sure_only_outside_noinstr() {
        let rows = [row(0, 5, 1, Mode::User), row(10, 15, 2, Mode::User), row(20, 25, 3, Mode::Kernel)];
        let causes = [Cause::VmallocPurge, Cause::TextSync, Cause::TextSync];
        assert_eq!(run("coalesce-v7", &rows, &causes).deferred, Range::exactly(1));
        for policy in ["text-defer-v7", "text-sync-cr3-reconstructed", "text-sync-tri-state"] {
            let out = run(policy, &rows, &causes);
            assert_eq!(
                (out.deferred, out.interrupts),
                (Range { low: 0, high: 1 }, Range { low: 9, high: 10 }),
                "{policy}"
            );
        }
    }

    #[test]
    fn every_rule_is_a_policy_of_the_table_and_only_lazy_tune_has_none() {
        let table: Vec<_> = crate::kernel::policy::POLICIES.iter().map(|p| p.id).collect();
        assert!(RULES.iter().all(|r| table.contains(&r.id)));
        let without: Vec<_> = table.iter().filter(|id| rule(id).is_none()).collect();
        assert_eq!(without, [&"lazy-tune"]);
    }

    #[test]
    fn only_ct_late_defers_to_idle_cpus() {
        let rows = [row(0, 5, 1, Mode::Idle)];
        assert_eq!(run("ct-late", &rows, &[Cause::VmallocPurge]).deferred, Range::exactly(1));
        assert_eq!(run("coalesce-v7", &rows, &[Cause::VmallocPurge]).deferred, Range::exactly(0));
    }
}
