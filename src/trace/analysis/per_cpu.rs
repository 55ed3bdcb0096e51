//! One isolated CPU in the report: what is known of it, and everything that took it from its task.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{
    Analysis,
    cpu::{Cpu, Figures, IpiKey, Lengths, NEVER, Row},
    knowledge::{Known, State},
    sender::Op,
    tasks::{Sym, Symbols, text_counts},
};
use crate::trace::{
    cause::Cause,
    event::Vector,
    range::{Range, poisson_95},
};

const NAMES_SHOWN: usize = 20;

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

/// Whoever is behind some interference, by name.
#[derive(Clone, Debug, Serialize)]
pub struct By {
    /// A task, a soft interrupt, a handler.
    pub name: String,
    /// How often.
    pub n: u64,
    /// Time taken, milliseconds; null for interrupts, whose names are of their senders.
    pub total_ms: Option<f64>,
}

/// One cause of interference on one CPU.
#[derive(Clone, Debug, Serialize)]
pub struct Interference {
    /// Cause.
    pub cause: &'static str,
    /// `interrupt`, `softirq`, `task`, `nmi` or `firmware`.
    pub kind: &'static str,
    /// How often.
    pub n: u64,
    /// Time taken from the CPU's task, milliseconds; null: no length was recorded.
    pub total_ms: Option<f64>,
    /// Median length, microseconds.
    pub p50_us: Option<f64>,
    /// 95th percentile.
    pub p95_us: Option<f64>,
    /// Longest.
    pub max_us: Option<f64>,
    /// When that began, seconds of the trace clock.
    pub max_at_s: Option<f64>,
    /// By whom, most time (or most often) first.
    pub by: Vec<By>,
    /// Through what: the function that had text patched, the timer that was armed on this CPU.
    pub via: Vec<String>,
}

/// The longest piece of interference.
#[derive(Clone, Debug, Serialize)]
pub struct Longest {
    /// How long, microseconds.
    pub us: f64,
    /// When it began, seconds of the trace clock.
    pub at_s: f64,
    /// Cause.
    pub cause: &'static str,
    /// By whom, if that is known.
    pub by: Option<String>,
}

/// How late timerlat's interrupt or thread was.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// `irq`, `thread` or `user-ret`.
    pub context: String,
    /// Measurements.
    pub n: u64,
    /// Median, microseconds.
    pub p50_us: f64,
    /// Longest.
    pub max_us: f64,
}

/// One isolated CPU.
#[derive(Clone, Debug, Serialize)]
pub struct CpuReport {
    /// CPU.
    pub cpu: u32,
    /// Events recorded on it.
    pub events: u64,
    /// Seconds of its own window, 0 without a clock.
    pub seconds: f64,
    /// When that begins and ends, seconds of the trace clock.
    pub window_s: (f64, f64),
    /// What is known, by kind.
    pub knowledge: BTreeMap<&'static str, Known>,
    /// The same of interrupts as a whole.
    pub interrupts_known: State,
    /// Interrupts of every vector; null: not recorded.
    pub interrupts: Option<u64>,
    /// Of those, while it was idle.
    pub interrupts_idle: u64,
    /// They per hour, from a second of data on; the interval is the 95 % one of a Poisson process.
    pub interrupts_per_hour: Option<f64>,
    /// See there.
    pub interrupts_per_hour_95: Option<Range<f64>>,
    /// What was taken from its task, milliseconds; null: nothing that would show it is recorded.
    pub taken_ms: Option<f64>,
    /// That as a share of its window.
    pub taken_share: Option<f64>,
    /// The longest piece of interference.
    pub longest: Option<Longest>,
    /// Everything that took the CPU from its task, most time first.
    pub interference: Vec<Interference>,
    /// Calls and reschedules sent to it, whether or not the recording shows them arrive.
    pub sent: Vec<Initiator>,
    /// Functions of hrtimers that ran in its timer interrupts.
    pub hrtimers: BTreeMap<String, u64>,
    /// Latencies that timerlat measured.
    pub latencies: Vec<Latency>,
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

/// Kworkers differ by number; people want them together.
fn person(comm: &str) -> String {
    if comm.starts_with("kworker/") { "kworker".into() } else { comm.into() }
}

fn noises(f: &Figures, symbols: &Symbols) -> Vec<Noise> {
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

fn ipis(f: &Figures, symbols: &Symbols) -> BTreeMap<String, u64> {
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

pub(super) fn one(a: &Analysis, number: u32, cpu: &Cpu, rows: &[Row], causes: &[Cause]) -> CpuReport {
    let symbols = &a.symbols;
    let f = &cpu.figures;
    let mut by_cause: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut lengths: FxHashMap<Cause, Lengths> = f.lengths.clone();
    let mut sent: BTreeMap<(String, bool, &'static str), u64> = BTreeMap::new();
    for (cause, n) in &f.causes {
        *by_cause.entry(cause.entry().id).or_default() += n;
    }
    let mut lines: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
    for (cause, at) in &f.lines {
        lines.entry(cause.entry().id).or_default().extend(at);
    }
    let mut by_class: BTreeMap<&'static str, u64> = BTreeMap::new();
    let mut who: BTreeMap<(String, bool, &'static str), u64> = BTreeMap::new();
    let mut kept: FxHashMap<Sym, u64> = FxHashMap::default();
    for (row, cause) in rows.iter().zip(causes).filter(|(r, _)| r.cpu == number) {
        let entry = cause.entry();
        let op: Option<&Op> = a.ops.get(row.op as usize);
        if let Some(op) = op.filter(|_| row.queued_ns != NEVER) {
            *sent.entry((person(&a.initiator(op)), op.in_interrupt, entry.id)).or_default() += 1;
        }
        if row.ran_ns == NEVER {
            continue;
        }
        *by_class.entry(entry.class.name()).or_default() += 1;
        if row.traced {
            *kept.entry(row.func).or_default() += 1;
        }
        let comm = op.map_or_else(|| "unknown".into(), |op| person(&a.initiator(op)));
        *who.entry((comm, op.is_some_and(|op| op.in_interrupt), entry.id)).or_default() += 1;
        if row.first && row.irq != 0 {
            *by_cause.entry(entry.id).or_default() += 1;
            let at = lines.entry(entry.id).or_default();
            if at.len() < 1000 {
                at.push(row.irq_line);
            }
            if row.irq_len_ns > 0 {
                let outermost = !f.not_outermost.contains(&row.irq);
                lengths.entry(*cause).or_default().add(row.ran_ns, u64::from(row.irq_len_ns), outermost);
            }
        }
    }
    for ((comm, in_interrupt, cause), n) in &f.reschedulers {
        *who.entry((person(&symbols.text(*comm)), *in_interrupt, cause.entry().id)).or_default() += n;
    }
    for ((cause, comm, in_interrupt), n) in &f.sent_reschedules {
        *sent.entry((person(&symbols.text(*comm)), *in_interrupt, cause.entry().id)).or_default() += n;
    }
    let (initiators, sent) = (initiators(who), initiators(sent));
    let known = a.interrupts_known(cpu);
    let interrupts: u64 = f.vectors.iter().sum();
    let (seconds, from_ns, to_ns) = a.seconds_of(cpu);
    // A rate per hour from less than a second would be an invention.
    let hours = Some(seconds / 3600.0).filter(|_| seconds >= 1.0 && known != State::NotRecorded);
    let spread = poisson_95(interrupts);
    let mut handlers: Vec<_> = lengths.iter().map(|(cause, l)| handler(cause.entry().id, l)).collect();
    handlers.sort_by(|x, y| y.n.cmp(&x.n).then_with(|| x.cause.cmp(y.cause)));
    let interference = interference(a, cpu, &by_cause, &lengths, &initiators);
    let measured =
        known != State::NotRecorded || a.tasks_known(cpu) != State::NotRecorded || !f.others.is_empty();
    let taken_ms = measured.then(|| interference.iter().filter_map(|i| i.total_ms).sum::<f64>());
    let comparable = a.kinds.csd_queue > 0 && a.kinds.ipi > 0;
    CpuReport {
        cpu: number,
        events: f.events,
        seconds,
        window_s: (from_ns as f64 / 1e9, to_ns as f64 / 1e9),
        knowledge: a.knowledge(cpu),
        interrupts_known: known,
        interrupts: (known != State::NotRecorded).then_some(interrupts),
        interrupts_idle: f.idle_interrupts,
        interrupts_per_hour: hours.map(|h| interrupts as f64 / h),
        interrupts_per_hour_95: hours.map(|h| Range { low: spread.low / h, high: spread.high / h }),
        taken_share: taken_ms.filter(|_| seconds > 0.0).map(|ms| ms / 1e3 / seconds),
        taken_ms,
        longest: longest(a, cpu, &lengths),
        interference,
        sent,
        hrtimers: text_counts(&f.hrtimers, symbols),
        latencies: latencies(f, symbols),
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

fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

fn initiators(who: BTreeMap<(String, bool, &'static str), u64>) -> Vec<Initiator> {
    let mut rows: Vec<_> = who
        .into_iter()
        .filter(|(_, calls)| *calls > 0)
        .map(|((comm, in_interrupt, cause), calls)| Initiator { comm, in_interrupt, cause, calls })
        .collect();
    rows.sort_by(|x, y| y.calls.cmp(&x.calls).then_with(|| x.comm.cmp(&y.comm)));
    rows
}

fn handler(cause: &'static str, l: &Lengths) -> Handler {
    let h = &l.histogram;
    Handler {
        cause,
        n: h.len(),
        p50_us: us(h.value_at_quantile(0.5)).min(us(l.max_ns)),
        p95_us: us(h.value_at_quantile(0.95)).min(us(l.max_ns)),
        max_us: us(l.max_ns),
        total_ms: l.taken_ns as f64 / 1e6,
    }
}

/// Everything that took the CPU, one row per cause, most time first and then most often.
fn interference(
    a: &Analysis,
    cpu: &Cpu,
    by_cause: &BTreeMap<&'static str, u64>,
    lengths: &FxHashMap<Cause, Lengths>,
    initiators: &[Initiator],
) -> Vec<Interference> {
    let mut rows = Vec::new();
    for cause in Cause::ALL {
        let id = cause.entry().id;
        let mine: Vec<_> = cpu.figures.others.iter().filter(|((c, _), _)| c == cause).collect();
        let interrupts = by_cause.get(id).copied().unwrap_or(0);
        let mut all = Lengths::default();
        let mut by = Vec::new();
        for ((_, name), l) in &mine {
            all.extend(l);
            let name = if *name == Sym::NONE { String::new() } else { a.symbols.text(*name) };
            by.push(By { name, n: l.histogram.len(), total_ms: Some(l.taken_ns as f64 / 1e6) });
        }
        if interrupts > 0 {
            lengths.get(cause).into_iter().for_each(|l| all.extend(l));
            let senders = initiators.iter().filter(|i| i.cause == id);
            by.extend(senders.map(|i| By { name: i.comm.clone(), n: i.calls, total_ms: None }));
        }
        let n = interrupts + mine.iter().map(|(_, l)| l.histogram.len()).sum::<u64>();
        if n == 0 {
            continue;
        }
        by.sort_by(|x, y| {
            let ms = |b: &By| b.total_ms.unwrap_or(0.0);
            ms(y).total_cmp(&ms(x)).then_with(|| y.n.cmp(&x.n)).then_with(|| x.name.cmp(&y.name))
        });
        by.truncate(NAMES_SHOWN);
        let mut via: Vec<_> = cpu
            .figures
            .vias
            .iter()
            .filter(|((c, _), _)| c == cause)
            .map(|((_, v), n)| (*n, a.symbols.text(*v)))
            .collect();
        via.sort_by(|x, y| y.0.cmp(&x.0).then_with(|| x.1.cmp(&y.1)));
        let measured = !all.histogram.is_empty();
        let figures = handler(id, &all);
        rows.push(Interference {
            cause: id,
            kind: if mine.is_empty() { crate::trace::cause::Kind::Interrupt } else { cause.kind() }.name(),
            n,
            total_ms: measured.then_some(figures.total_ms),
            p50_us: measured.then_some(figures.p50_us),
            p95_us: measured.then_some(figures.p95_us),
            max_us: measured.then_some(figures.max_us),
            max_at_s: measured.then_some(all.max_at_ns as f64 / 1e9),
            by,
            via: via.into_iter().take(NAMES_SHOWN).map(|(_, name)| name).collect(),
        });
    }
    rows.sort_by(|x, y| {
        let ms = |i: &Interference| i.total_ms.unwrap_or(0.0);
        ms(y).total_cmp(&ms(x)).then_with(|| y.n.cmp(&x.n)).then_with(|| x.cause.cmp(y.cause))
    });
    rows
}

fn longest(a: &Analysis, cpu: &Cpu, lengths: &FxHashMap<Cause, Lengths>) -> Option<Longest> {
    let interrupts = lengths.iter().map(|(cause, l)| (*cause, Sym::NONE, l));
    let others = cpu.figures.others.iter().map(|((cause, name), l)| (*cause, *name, l));
    let (cause, name, l) = interrupts
        .chain(others)
        .filter(|(_, _, l)| !l.histogram.is_empty())
        .max_by_key(|(cause, name, l)| (l.max_ns, std::cmp::Reverse((*cause as u8, *name))))?;
    Some(Longest {
        us: us(l.max_ns),
        at_s: l.max_at_ns as f64 / 1e9,
        cause: cause.entry().id,
        by: (name != Sym::NONE).then(|| a.symbols.text(name)),
    })
}

fn latencies(f: &Figures, symbols: &Symbols) -> Vec<Latency> {
    let row = |(context, h): (&Sym, &Histogram<u64>)| Latency {
        context: symbols.text(*context),
        n: h.len(),
        p50_us: us(h.value_at_quantile(0.5)),
        max_us: us(h.max()),
    };
    let mut rows: Vec<_> = f.latencies.iter().map(row).collect();
    rows.sort_by(|x, y| x.context.cmp(&y.context));
    rows
}
