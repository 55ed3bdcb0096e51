//! What a pass found, as plain data for people and for JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    Analysis, CpuReport, Kinds, RangeCalls,
    cpu::Cpu,
    knowledge,
    lazy::{Charge, PurgeRow, by_areas},
    per_cpu,
    tasks::{Sym, Symbols, text_counts},
};
use crate::order;
use crate::trace::{
    cause::{self, Cause},
    event::Vector,
    replay::{self, Base, Recorded},
};

/// An owner of purged areas.
#[derive(Clone, Debug, Serialize)]
pub struct Owner {
    /// Task that allocated them (for a kernel stack: the one that forked), or its control group.
    pub comm: String,
    /// Areas.
    pub areas: u64,
    /// Pages, guard pages included.
    pub pages: u64,
    /// Of the size and alignment of a kernel stack.
    pub stacks: u64,
}

/// One purge.
#[derive(Clone, Debug, Serialize)]
pub struct Purge {
    /// Seconds of the trace clock.
    pub at_s: f64,
    /// Line of its event.
    pub line: u64,
    /// Who ran it.
    pub by: String,
    /// Areas handed back.
    pub areas: u64,
    /// Pages of the flushed hull.
    pub span_pages: u64,
    /// Largest owners.
    pub charged: Vec<Owner>,
    /// Largest control groups.
    pub cgroups: Vec<Owner>,
    /// Areas of others and of nobody the trace knows.
    pub unknown: u64,
}

/// Purges in all.
#[derive(Clone, Debug, Serialize)]
pub struct Purges {
    /// Events, or probe hits where the kernel has no event.
    pub events: u64,
    /// That purged something.
    pub effective: u64,
    /// That found nothing and flushed nothing.
    pub empty: u64,
    /// Owners of everything purged.
    pub charged: Vec<Owner>,
    /// The same by control group, as far as the recording tells.
    pub cgroups: Vec<Owner>,
    /// Areas charged to nobody.
    pub unknown_areas: u64,
    /// The first hundred.
    pub first: Vec<Purge>,
}

/// A question the recording does not answer.
#[derive(Clone, Debug, Serialize)]
pub struct Missing {
    /// The question.
    pub question: String,
    /// What is missing, and where to get it.
    pub because: &'static str,
    /// Without it the main question, who interrupted whom, stays open.
    pub essential: bool,
}

/// The whole.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Events counted.
    pub events: u64,
    /// Seconds of trace clock they span.
    pub seconds: f64,
    /// Marker texts that frame what is counted.
    pub window: Option<(String, String)>,
    /// The marker that opens it occurs.
    pub window_found: bool,
    /// `x86_64`, `aarch64` or `riscv64`, where events of only one of them occur.
    pub architecture: Option<&'static str>,
    /// Recordings that stand one behind the other in the text.
    pub recordings: u64,
    /// There is more than one, and each is of one CPU.
    pub one_cpu_each: bool,
    /// Rings were overwritten: each CPU has its own window.
    pub overwritten: bool,
    /// `given`, `recorded`, `context_tracking`, `only_cpu` or `none`.
    pub isolated_from: &'static str,
    /// Pieces of a flight recorder, 0 for a recording in one piece.
    pub snapshots: u64,
    /// Seconds from the first to the last event; more than `seconds` for a flight recorder.
    pub elapsed_s: f64,
    /// The recording tells control groups.
    pub has_cgroups: bool,
    /// CPUs with events.
    pub cpus_seen: Vec<u32>,
    /// CPUs that calls or reschedules were sent to.
    pub cpus_named: Vec<u32>,
    /// Kinds of events.
    pub kinds: Kinds,
    /// What cannot be said, and for want of which events.
    pub cannot_say: Vec<Missing>,
    /// Probe hits by function.
    pub probes: BTreeMap<String, u64>,
    /// Tasks created.
    pub forks: u64,
    /// Kernel-range flushes.
    pub flush_tlb_kernel_range: RangeCalls,
    /// `flush_tlb_all` calls seen by a probe.
    pub flush_tlb_all: u64,
    /// Purges.
    pub purges: Purges,
    /// Areas allocated and freed.
    pub vmalloc_traffic: (u64, u64),
    /// `lazy_max_pages()` as the kernel printed it.
    pub nr_lazy_max: Option<u64>,
    /// Per isolated CPU.
    pub isolated: Vec<CpuReport>,
    /// Calls beyond what is kept for replay.
    pub calls_not_kept: u64,
    /// Time stamps that step back.
    pub backwards: u64,
}

/// Is each of several recordings of another CPU, as files of `per_cpu` are that stand one behind the other?
fn one_cpu_each(a: &Analysis) -> bool {
    let seen = || a.cpus.iter().filter(|c| c.seen);
    let first: BTreeSet<u64> = order::gather(seen().filter_map(|c| c.recording));
    let count = a.window.recording() + 1;
    count > 1 && first.len() as u64 == count && seen().count() == first.len() && seen().all(|c| !c.in_several)
}

pub(super) fn build(a: &Analysis) -> Report {
    let (isolated, isolated_from) = a.isolated();
    let (first_ns, last_ns) = a.span_ns();
    let seconds = a.seconds();
    let (rows, ops, symbols) = a.calls();
    let causes: Vec<Cause> = rows
        .iter()
        .map(|row| replay::cause_of(row, ops, |r| cause::of_function(symbols.bytes(r.func))))
        .collect();
    let nothing = Cpu::default();
    let cpus: Vec<CpuReport> = isolated
        .iter()
        .map(|&cpu| per_cpu::one(a, cpu, a.cpus.get(cpu as usize).unwrap_or(&nothing), &rows, &causes))
        .collect();
    Report {
        events: a.events,
        seconds,
        window: a.window.markers.clone(),
        window_found: a.window.found(),
        architecture: architecture(a),
        recordings: a.window.recording() + 1,
        one_cpu_each: one_cpu_each(a),
        overwritten: a.window.overwritten,
        isolated_from,
        snapshots: a.snapshots,
        elapsed_s: if a.no_clock { 0.0 } else { (last_ns - first_ns) as f64 / 1e9 },
        has_cgroups: a.tasks.has_cgroups(),
        cpus_seen: (0u32..).zip(&a.cpus).filter(|(_, c)| c.seen).map(|(i, _)| i).collect(),
        cpus_named: (0u32..).zip(&a.cpus).filter(|(_, c)| !c.named.is_empty()).map(|(i, _)| i).collect(),
        kinds: a.kinds,
        cannot_say: cannot_say(a, &cpus),
        probes: text_counts(&a.probe_counts, symbols),
        forks: a.forks,
        flush_tlb_kernel_range: a.range_calls,
        flush_tlb_all: a.flush_all_calls,
        purges: purges(a, symbols),
        vmalloc_traffic: a.lazy.traffic,
        nr_lazy_max: a.lazy.nr_lazy_max,
        isolated: cpus,
        calls_not_kept: a.rows_dropped,
        backwards: a.backwards,
    }
}

/// What a replay needs of a pass.
pub(super) fn recorded(a: &Analysis) -> Recorded {
    let (workload, causes) = a.workload();
    Recorded { workload, causes, bases: bases(a, &a.isolated_cpus()) }
}

/// Which machine this is, by interrupts that only one architecture has.
fn architecture(a: &Analysis) -> Option<&'static str> {
    let has = |which: fn(Vector) -> bool| {
        Vector::ALL.iter().any(|v| which(*v) && a.cpus.iter().any(|c| c.figures.vectors[*v as usize] > 0))
    };
    // Several have an interrupt that is only called `IPI`.
    let arm = |v: Vector| !v.is_x86() && !matches!(v, Vector::Device | Vector::IpiOther | Vector::RiscvTimer);
    match (has(Vector::is_x86), has(arm), has(|v| v == Vector::RiscvTimer)) {
        (true, false, false) => Some("x86_64"),
        (false, true, false) => Some("aarch64"),
        (false, false, true) => Some("riscv64"),
        _ => None,
    }
}

fn bases(a: &Analysis, cpus: &[u32]) -> Vec<Base> {
    let nothing = Cpu::default();
    cpus.iter()
        .map(|&cpu| {
            let figures = &a.cpus.get(cpu as usize).unwrap_or(&nothing).figures;
            Base { cpu, interrupts: figures.interrupts(), entries: figures.entries }
        })
        .collect()
}

fn purges(a: &Analysis, symbols: &Symbols) -> Purges {
    let (effective, empty) = a.lazy.counts;
    Purges {
        events: if effective + empty > 0 { effective + empty } else { a.purge_probes },
        effective,
        empty,
        charged: by_areas(&a.lazy.charged, symbols).into_iter().take(100).map(owner).collect(),
        cgroups: by_areas(&a.lazy.cgroups, symbols).into_iter().take(100).map(owner).collect(),
        unknown_areas: a.lazy.unknown,
        first: a.lazy.purges.iter().take(100).map(|p| purge(p, symbols)).collect(),
    }
}

fn owner((comm, c): (String, Charge)) -> Owner {
    Owner { comm, areas: c.areas, pages: c.pages, stacks: c.stacks }
}

fn purge(p: &PurgeRow, symbols: &Symbols) -> Purge {
    let owners = |rows: &[(Sym, Charge)]| rows.iter().map(|(s, c)| owner((symbols.text(*s), *c))).collect();
    Purge {
        at_s: p.at_ns as f64 / 1e9,
        line: p.line,
        by: symbols.text(p.by),
        areas: p.areas,
        span_pages: p.span_pages,
        charged: owners(&p.charged),
        cgroups: owners(&p.cgroups),
        unknown: p.unknown,
    }
}

/// What is missing, in the order of how much it hurts.
fn cannot_say(a: &Analysis, cpus: &[CpuReport]) -> Vec<Missing> {
    let mut out = Vec::new();
    let mut say = |question: &str, because, essential| {
        out.push(Missing { question: question.into(), because, essential });
    };
    let k = &a.kinds;
    if cpus.is_empty() {
        say(
            "which CPUs are isolated",
            "no user_enter/user_exit events, which only nohz_full CPUs have; pass --isolated",
            true,
        );
    }
    let on = |kind: u32| a.noted_kinds & kind != 0;
    if k.sums > 0 {
        say(
            "which interrupts, tasks and soft interrupts they were, and how long each kind took",
            "sums of osnoise, no events; its events tell: `rtla osnoise top -t trace.txt`, or `trace-cmd record -p osnoise -e \
             osnoise`",
            false,
        );
    }
    if k.vectors == 0 && k.noise + k.sums == 0 && !on(knowledge::EVERY_INTERRUPT) {
        let nothing = k.nmis + k.csd_entry + k.csd_queue + k.ipi + k.probes + k.firmware + k.switches == 0;
        say(
            "how often a CPU was interrupted, and for how long",
            "no irq_vectors events (on arm64: no irq_handler_entry and ipi_entry)",
            nothing,
        );
    }
    if k.switches == 0 && k.noise + k.sums == 0 && !on(knowledge::TASKS) {
        say("whether other tasks took the CPU from its task", "no sched_switch events", false);
    }
    if k.softirqs == 0 && k.noise + k.sums == 0 && !on(knowledge::SOFTIRQS) {
        say("whether soft interrupts took time", "no softirq_entry events", false);
    }
    let timers: u64 = [Cause::Timer, Cause::SchedulerTick]
        .iter()
        .flat_map(|cause| cpus.iter().filter_map(|c| c.interrupts_by_cause.get(cause.entry().id)))
        .sum();
    if timers > 0 && k.tick_stop == 0 {
        say("why the tick was not stopped (its dependency)", "no tick_stop events", false);
    }
    if a.no_clock {
        say(
            "how often, only how long",
            "function_graph without the funcgraph-abstime option has no clock",
            false,
        );
    }
    let unknown: u64 =
        cpus.iter().filter_map(|c| c.interrupts_by_cause.get(Cause::CallUnknown.entry().id)).sum();
    if unknown > 0 {
        say(
            &format!("who sent {unknown} call interrupts and what they ran: vector known, sender unknown"),
            "no csd_queue_cpu, csd_function_entry or ipi_send_* events, and no probes on the handlers; record \
             csd:* and ipi:* on all CPUs, or let `tlbcore record` do it",
            false,
        );
    } else if k.csd_queue == 0 {
        say("which task queued a call", "no csd_queue_cpu events (kernel 6.5 or newer has them)", false);
    }
    if k.ipi == 0 {
        say(
            "where reschedules come from, and whether call-queue order explains the interrupts",
            "no ipi_send_* events (kernel 6.4 or newer has them)",
            false,
        );
    }
    if k.user == 0 && !cpus.is_empty() {
        say(
            "whether a CPU was in user mode when a call was queued for it",
            "no user_enter/user_exit events",
            false,
        );
    }
    let of_x86 = !matches!(architecture(a), Some("aarch64" | "riscv64"));
    if k.vmalloc == 0 && of_x86 {
        say(
            "whose freed areas filled the lazy list",
            "no vmalloc events (kernel 6.2 or newer has them)",
            false,
        );
    }
    if k.probes == 0 && of_x86 {
        say("how many pages a kernel-range flush covered", "no probe on flush_tlb_kernel_range", false);
    }
    out
}
