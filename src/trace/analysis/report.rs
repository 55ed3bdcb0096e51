//! What a pass found, as plain data for people and for JSON.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{
    Analysis, Kinds, RangeCalls,
    cpu::{Cpu, IpiKey, NEVER, Row, histogram},
    lazy::{Charge, PurgeRow, by_areas},
    sender::Op,
    tasks::{Sym, Symbols},
};
use crate::trace::{
    cause::{self, Cause},
    event::Vector,
    replay::{self, Base, Outcome, Recorded},
};

/// An interval; equal ends are a figure the trace decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Range<T> {
    /// At least.
    pub low: T,
    /// At most.
    pub high: T,
}

impl<T: Copy + std::ops::AddAssign> Range<T> {
    /// Both ends.
    pub fn exactly(value: T) -> Self {
        Self { low: value, high: value }
    }

    /// Adds end to end.
    pub fn add(&mut self, other: Self) {
        self.low += other.low;
        self.high += other.high;
    }
}

/// The exact 95 % interval of a Poisson mean.
pub fn poisson_95(events: u64) -> Range<f64> {
    let (low, high) = crate::interval::poisson(events, 0.95);
    Range { low, high }
}

/// Who made an isolated CPU run something.
#[derive(Clone, Debug, Serialize)]
pub struct Initiator {
    /// Task name; `unknown` if the trace has none.
    pub comm: String,
    /// It was only interrupted: the sender is an interrupt handler on its CPU.
    pub in_interrupt: bool,
    /// Cause.
    pub cause: &'static str,
    /// Calls, or reschedules.
    pub calls: u64,
}

/// How long handlers of one cause ran.
#[derive(Clone, Debug, Serialize)]
pub struct Handler {
    /// Cause.
    pub cause: &'static str,
    /// Interrupts measured.
    pub n: u64,
    /// Median, microseconds.
    pub p50_us: f64,
    /// 95th percentile.
    pub p95_us: f64,
    /// Longest.
    pub max_us: f64,
    /// All together, milliseconds (two significant digits per handler).
    pub total_ms: f64,
}

/// A difference between call-queue order and the interrupts recorded.
#[derive(Clone, Debug, Serialize)]
pub struct UnexplainedIpi {
    /// Line where the call was queued.
    pub line: u64,
    /// Function.
    pub function: String,
    /// The queue was empty as far as the trace shows, so an interrupt was due.
    pub derived: bool,
    /// The trace has one.
    pub recorded: bool,
}

/// The baseline check of one CPU.
#[derive(Clone, Debug, Serialize)]
pub struct Baseline {
    /// The calls kept for replay are the calls executed, function by function.
    pub executions_equal: bool,
    /// Interrupts call-queue order asks for, by function; null without csd and ipi events.
    pub derived_ipis: Option<BTreeMap<String, u64>>,
    /// Interrupts recorded for these calls.
    pub recorded_ipis: Option<BTreeMap<String, u64>>,
    /// Calls queued while a handler was about to take the queue: they may have joined it or not.
    pub raced: u64,
    /// How often the two differ.
    pub unexplained: u64,
    /// The first hundred.
    pub unexplained_first: Vec<UnexplainedIpi>,
}

/// osnoise of one kind and name.
#[derive(Clone, Debug, Serialize)]
pub struct Noise {
    /// `irq`, `softirq`, `thread`, `nmi` or `sample`.
    pub kind: String,
    /// What.
    pub name: String,
    /// How often.
    pub n: u64,
    /// Median, microseconds.
    pub p50_us: f64,
    /// 95th percentile.
    pub p95_us: f64,
    /// Longest.
    pub max_us: f64,
    /// All together, milliseconds.
    pub total_ms: f64,
}

/// Interrupts less than 10 ms apart, three or more.
#[derive(Clone, Debug, Serialize)]
pub struct BurstReport {
    /// How many bursts.
    pub n: u64,
    /// Most interrupts in one.
    pub largest: u64,
    /// When that began, seconds of the trace clock.
    pub largest_at_s: f64,
}

/// Interrupts over time.
#[derive(Clone, Debug, Serialize)]
pub struct TimelineReport {
    /// Beginning of the first stretch, seconds of the trace clock.
    pub from_s: f64,
    /// Length of a stretch, seconds.
    pub step_s: f64,
    /// Interrupts in each.
    pub counts: Vec<u32>,
}

/// Quiet time between interrupts.
#[derive(Clone, Debug, Serialize)]
pub struct Gaps {
    /// Gaps measured.
    pub n: u64,
    /// Median, seconds.
    pub p50_s: f64,
    /// Longest, seconds.
    pub longest_s: f64,
    /// When it began, seconds of the trace clock.
    pub longest_from_s: f64,
}

/// One isolated CPU.
#[derive(Clone, Debug, Serialize)]
pub struct CpuReport {
    /// CPU.
    pub cpu: u32,
    /// Events recorded on it.
    pub events: u64,
    /// Interrupts of every vector.
    pub interrupts: u64,
    /// They per hour; the interval is the 95 % one of a Poisson process.
    pub interrupts_per_hour: f64,
    /// See there.
    pub interrupts_per_hour_95: Range<f64>,
    /// By vector.
    pub interrupts_by_vector: BTreeMap<&'static str, u64>,
    /// By cause, ids of the catalogue.
    pub interrupts_by_cause: BTreeMap<&'static str, u64>,
    /// Remote calls executed, by function: `csd_function_entry`, or a kprobe on the function.
    pub calls_by_function: BTreeMap<String, u64>,
    /// Calls an interrupt must have run although no event shows it (irq_work).
    pub implied_calls_by_function: BTreeMap<String, u64>,
    /// All of these by class.
    pub calls_by_class: BTreeMap<&'static str, u64>,
    /// Who.
    pub initiators: Vec<Initiator>,
    /// IPIs sent to it; reschedules as `resched:place`.
    pub ipis_by_function: BTreeMap<String, u64>,
    /// Entries into the kernel, `user_exit`.
    pub entries: u64,
    /// Returns to user mode, `user_enter`.
    pub returns: u64,
    /// Quiet time between interrupts.
    pub gaps: Option<Gaps>,
    /// How long handlers ran.
    pub handlers: Vec<Handler>,
    /// Interrupts close together.
    pub bursts: BurstReport,
    /// Interrupts over time.
    pub timeline: TimelineReport,
    /// osnoise, longest total first.
    pub noise: Vec<Noise>,
    /// Lines where the interrupts of a cause began; the first thousand of each.
    pub lines: BTreeMap<&'static str, Vec<u64>>,
    /// Times another task was switched in, by its name.
    pub tasks_switched_in: BTreeMap<String, u64>,
    /// Work items run, by function.
    pub work: BTreeMap<String, u64>,
    /// Why the tick was kept, `tick_stop`.
    pub tick_dependencies: BTreeMap<String, u64>,
    /// Baseline check.
    pub baseline: Baseline,
}

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
    /// Those of [`replay::HEADLINE`].
    pub policies: Vec<Outcome>,
    /// Calls beyond what is kept for replay.
    pub calls_not_kept: u64,
    /// Time stamps that step back.
    pub backwards: u64,
}

fn text_counts(map: &FxHashMap<Sym, u64>, symbols: &Symbols) -> BTreeMap<String, u64> {
    map.iter().filter(|(_, n)| **n > 0).map(|(s, n)| (symbols.text(*s), *n)).collect()
}

/// Kworkers differ by number; people want them together.
fn person(comm: &str) -> String {
    if comm.starts_with("kworker/") { "kworker".into() } else { comm.into() }
}

pub(super) fn build(a: &Analysis) -> Report {
    let (isolated, isolated_from) = a.isolated();
    let (first_ns, last_ns) = a.span_ns();
    let seconds = recorded_seconds(a);
    let (rows, ops, symbols) = a.calls();
    let causes: Vec<Cause> = rows
        .iter()
        .map(|row| replay::cause_of(row, ops, |r| cause::of_function(symbols.bytes(r.func))))
        .collect();
    let nothing = Cpu::default();
    let cpus: Vec<CpuReport> = isolated
        .iter()
        .map(|&cpu| one(a, cpu, a.cpus.get(cpu as usize).unwrap_or(&nothing), &rows, &causes, seconds))
        .collect();
    let policies = replay::headline(&recorded(a));
    let window = a.window.begin.as_ref().map(|(_, begin)| {
        (
            begin.clone(),
            a.window.end.as_ref().map_or_else(|| "end of the recording".into(), |(_, t)| t.clone()),
        )
    });
    Report {
        events: a.events,
        seconds,
        window,
        isolated_from,
        snapshots: a.snapshots,
        elapsed_s: if a.no_clock { 0.0 } else { (last_ns - first_ns) as f64 / 1e9 },
        has_cgroups: a.tasks.has_cgroups(),
        cpus_seen: (0u32..).zip(&a.cpus).filter(|(_, c)| c.seen).map(|(i, _)| i).collect(),
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
        policies,
        calls_not_kept: a.rows_dropped,
        backwards: a.backwards,
    }
}

/// What a replay needs of a pass.
pub(super) fn recorded(a: &Analysis) -> Recorded {
    let (workload, causes) = a.workload();
    Recorded { workload, causes, bases: bases(a, &a.isolated_cpus()) }
}

/// Seconds that were recorded; 0 for a clock that has none.
fn recorded_seconds(a: &Analysis) -> f64 {
    let (first_ns, last_ns) = a.span_ns();
    if a.no_clock { 0.0 } else { (last_ns - first_ns).saturating_sub(a.unrecorded_ns) as f64 / 1e9 }
}

fn bases(a: &Analysis, cpus: &[u32]) -> Vec<Base> {
    let nothing = Cpu::default();
    cpus.iter()
        .map(|&cpu| {
            let figures = &a.cpus.get(cpu as usize).unwrap_or(&nothing).figures;
            Base { cpu, interrupts: figures.vectors.iter().sum(), entries: figures.entries }
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
    if k.vectors == 0 && k.noise == 0 {
        let nothing = k.csd_entry + k.csd_queue + k.ipi + k.probes == 0;
        say("how often a CPU was interrupted, and for how long", "no irq_vectors events", nothing);
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
    if k.vmalloc == 0 {
        say(
            "whose freed areas filled the lazy list",
            "no vmalloc events (kernel 6.2 or newer has them)",
            false,
        );
    }
    if k.probes == 0 {
        say("how many pages a kernel-range flush covered", "no probe on flush_tlb_kernel_range", false);
    }
    out
}

fn noises(f: &super::cpu::Figures, symbols: &Symbols) -> Vec<Noise> {
    let us = |ns: u64| ns as f64 / 1000.0;
    let mut rows: Vec<_> = f
        .noise
        .iter()
        .map(|((kind, name), h)| Noise {
            kind: symbols.text(*kind),
            name: if *name == Sym::NONE { String::new() } else { symbols.text(*name) },
            n: h.len(),
            p50_us: us(h.value_at_quantile(0.5)),
            p95_us: us(h.value_at_quantile(0.95)),
            max_us: us(h.max()),
            total_ms: h.mean() * h.len() as f64 / 1e6,
        })
        .collect();
    rows.sort_by(|a, b| b.total_ms.total_cmp(&a.total_ms).then_with(|| a.name.cmp(&b.name)));
    rows
}

fn ipis(f: &super::cpu::Figures, symbols: &Symbols) -> BTreeMap<String, u64> {
    let mut out = BTreeMap::new();
    for (key, n) in f.ipis.iter().filter(|(_, n)| **n > 0) {
        let name = match key {
            // An interrupt for a call nobody was seen to queue.
            IpiKey::Call(Sym::NONE) => "?".into(),
            IpiKey::Call(s) | IpiKey::Other(s) => symbols.text(*s),
            IpiKey::Reschedule(s) => format!("resched:{}", symbols.text(*s)),
        };
        *out.entry(name).or_default() += n;
    }
    out
}

fn one(a: &Analysis, number: u32, cpu: &Cpu, rows: &[Row], causes: &[Cause], seconds: f64) -> CpuReport {
    let symbols = &a.symbols;
    let f = &cpu.figures;
    let mut by_cause: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut lengths: BTreeMap<&'static str, Histogram<u64>> = BTreeMap::new();
    for (cause, n) in &f.causes {
        *by_cause.entry(cause.entry().id).or_default() += n;
    }
    let mut lines: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
    for (cause, at) in &f.lines {
        lines.entry(cause.entry().id).or_default().extend(at);
    }
    for (cause, h) in &f.lengths {
        lengths.entry(cause.entry().id).or_insert_with(histogram).add(h).expect("same precision");
    }
    let mut by_class: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut who: BTreeMap<(String, bool, &'static str), u64> = BTreeMap::new();
    let mut kept: FxHashMap<Sym, u64> = FxHashMap::default();
    for (row, cause) in rows.iter().zip(causes).filter(|(r, _)| r.cpu == number && r.ran_ns != NEVER) {
        let entry = cause.entry();
        *by_class.entry(entry.class.name()).or_default() += 1;
        if row.traced {
            *kept.entry(row.func).or_default() += 1;
        }
        let op: Option<&Op> = a.ops.get(row.op as usize);
        let comm = op.map_or_else(|| "unknown".into(), |op| person(&a.initiator(op)));
        *who.entry((comm, op.is_some_and(|op| op.in_interrupt), entry.id)).or_default() += 1;
        if row.first && row.irq != 0 {
            *by_cause.entry(entry.id).or_default() += 1;
            let at = lines.entry(entry.id).or_default();
            if at.len() < 1000 {
                at.push(row.irq_line);
            }
            if row.irq_len_ns > 0 {
                lengths
                    .entry(entry.id)
                    .or_insert_with(histogram)
                    .record(u64::from(row.irq_len_ns))
                    .unwrap_or_default();
            }
        }
    }
    for ((comm, in_interrupt, cause), n) in &f.reschedulers {
        *who.entry((person(&symbols.text(*comm)), *in_interrupt, cause.entry().id)).or_default() += n;
    }
    let mut initiators: Vec<_> = who
        .into_iter()
        .map(|((comm, in_interrupt, cause), calls)| Initiator { comm, in_interrupt, cause, calls })
        .collect();
    initiators.sort_by(|x, y| y.calls.cmp(&x.calls).then_with(|| x.comm.cmp(&y.comm)));
    let interrupts = f.vectors.iter().sum();
    let hours = seconds / 3600.0;
    let per_hour = |n: f64| if hours > 0.0 { n / hours } else { 0.0 };
    let spread = poisson_95(interrupts);
    let us = |ns: u64| ns as f64 / 1000.0;
    let mut handlers: Vec<_> = lengths
        .iter()
        .map(|(cause, h)| Handler {
            cause,
            n: h.len(),
            p50_us: us(h.value_at_quantile(0.5)),
            p95_us: us(h.value_at_quantile(0.95)),
            max_us: us(h.max()),
            total_ms: h.mean() * h.len() as f64 / 1e6,
        })
        .collect();
    handlers.sort_by(|x, y| y.n.cmp(&x.n).then_with(|| x.cause.cmp(y.cause)));
    let comparable = a.kinds.csd_queue > 0 && a.kinds.ipi > 0;
    CpuReport {
        cpu: number,
        events: f.events,
        interrupts,
        interrupts_per_hour: per_hour(interrupts as f64),
        interrupts_per_hour_95: Range { low: per_hour(spread.low), high: per_hour(spread.high) },
        interrupts_by_vector: Vector::ALL
            .iter()
            .map(|v| (v.name(), f.vectors[*v as usize]))
            .filter(|(_, n)| *n > 0)
            .collect(),
        interrupts_by_cause: by_cause,
        calls_by_function: text_counts(&f.calls, symbols),
        implied_calls_by_function: text_counts(&f.implied, symbols),
        calls_by_class: by_class,
        initiators,
        ipis_by_function: ipis(f, symbols),
        entries: f.entries,
        returns: f.returns,
        gaps: f.quiet.histogram.as_ref().map(|h| Gaps {
            n: h.len(),
            p50_s: h.value_at_quantile(0.5) as f64 / 1e6,
            longest_s: f.quiet.longest_ns as f64 / 1e9,
            longest_from_s: f.quiet.longest_from_ns as f64 / 1e9,
        }),
        handlers,
        bursts: BurstReport {
            n: f.bursts.count,
            largest: f.bursts.largest,
            largest_at_s: f.bursts.largest_at_ns as f64 / 1e9,
        },
        timeline: TimelineReport {
            from_s: f.timeline.from_ns.unwrap_or(0) as f64 / 1e9,
            step_s: f.timeline.step_ns as f64 / 1e9,
            counts: f.timeline.counts.to_vec(),
        },
        noise: noises(f, symbols),
        lines,
        tasks_switched_in: text_counts(&f.switched_to, symbols),
        work: text_counts(&f.work, symbols),
        tick_dependencies: text_counts(&f.tick_kept, symbols),
        baseline: Baseline {
            executions_equal: a.rows_dropped > 0 || kept == f.calls,
            derived_ipis: comparable.then(|| text_counts(&f.derived, symbols)),
            recorded_ipis: comparable.then(|| text_counts(&f.recorded, symbols)),
            raced: f.raced,
            unexplained: f.unexplained_count,
            unexplained_first: f
                .unexplained
                .iter()
                .map(|u| UnexplainedIpi {
                    line: u.line,
                    function: symbols.text(u.func),
                    derived: u.derived,
                    recorded: u.recorded,
                })
                .collect(),
        },
    }
}
