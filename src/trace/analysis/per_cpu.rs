//! What a pass found on one isolated CPU: what is known of it, and everything that took it from its task.

use std::collections::BTreeMap;

use super::{
    Analysis,
    cpu::{Cpu, Figures, IpiKey},
    cpu_report::{
        Baseline, BurstReport, By, CpuReport, Gaps, Handler, Initiator, Interference, Latency, Longest,
        Noise, Sums, TimelineReport, UnexplainedIpi,
    },
    folded::Who,
    knowledge::State,
    lengths::{Lengths, Times},
    row::Row,
    tasks::{Sym, Symbols, text_counts},
};
use crate::order;
use crate::trace::{
    cause::Cause,
    event::Vector,
    range::{Range, poisson_95},
};
use rustc_hash::FxHashMap;

const NAMES_SHOWN: usize = 20;
const LINES_SHOWN: usize = 1000;

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
            n: h.histogram.len(),
            p50_us: us(h.quantile(0.5)),
            p95_us: us(h.quantile(0.95)),
            max_us: us(h.max_ns),
            total_ms: h.sum_ns as f64 / 1e6,
        })
        .collect();
    order::by(&mut rows, |a, b| b.total_ms.total_cmp(&a.total_ms).then_with(|| a.name.cmp(&b.name)));
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
    let mut calls = f.folded.clone();
    for (row, cause) in rows.iter().zip(causes).filter(|(r, _)| r.cpu == number) {
        calls.add(row, *cause, a.ops.get(row.op));
    }
    let mut by_cause: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (cause, n) in f.causes.iter().chain(&calls.interrupts) {
        *by_cause.entry(cause.entry().id).or_default() += n;
    }
    let mut lines: BTreeMap<&'static str, Vec<u64>> = BTreeMap::new();
    for (cause, at) in f.lines.iter().chain(&calls.lines) {
        lines.entry(cause.entry().id).or_default().extend(at);
    }
    for at in lines.values_mut() {
        at.truncate(LINES_SHOWN);
    }
    let mut by_class: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (cause, n) in &calls.calls {
        *by_class.entry(cause.entry().class.name()).or_default() += n;
    }
    let mut lengths: FxHashMap<Cause, Lengths> = f.lengths.clone();
    for (cause, l) in &calls.lengths {
        lengths.entry(*cause).or_default().extend(l);
    }
    let named = |of: &FxHashMap<(Who, bool, Cause), u64>| {
        let mut out: BTreeMap<(String, bool, &'static str), u64> = BTreeMap::new();
        for ((who, in_interrupt, cause), n) in of {
            *out.entry((person(&a.name_of(*who)), *in_interrupt, cause.entry().id)).or_default() += n;
        }
        out
    };
    let (mut who, mut sent) = (named(&calls.who), named(&calls.sent));
    for ((comm, in_interrupt, cause), n) in &f.reschedulers {
        *who.entry((person(&symbols.text(*comm)), *in_interrupt, cause.entry().id)).or_default() += n;
    }
    for ((cause, comm, in_interrupt), n) in &f.sent_reschedules {
        *sent.entry((person(&symbols.text(*comm)), *in_interrupt, cause.entry().id)).or_default() += n;
    }
    let (initiators, sent) = (initiators(who), initiators(sent));
    let known = a.interrupts_known(cpu);
    let interrupts = f.interrupts();
    let (seconds, from_ns, to_ns) = a.seconds_of(cpu);
    // A rate per hour from less than a second would be an invention.
    let hours = Some(seconds / 3600.0).filter(|_| seconds >= 1.0 && known != State::NotRecorded);
    let spread = poisson_95(interrupts);
    let mut handlers: Vec<_> = lengths.iter().map(|(cause, l)| handler(cause.entry().id, l)).collect();
    order::by(&mut handlers, |x, y| y.n.cmp(&x.n).then_with(|| x.cause.cmp(y.cause)));
    let interference = interference(a, cpu, &by_cause, &lengths, &initiators);
    let measured =
        known != State::NotRecorded || a.tasks_known(cpu) != State::NotRecorded || !f.others.is_empty();
    let timed = interference.iter().filter_map(|i| i.total_ms);
    let taken_ms = match &f.sums {
        Some(sums) => Some(sums.noise_ns as f64 / 1e6),
        // Counted, and nothing says for how long.
        None if !interference.is_empty() && timed.clone().next().is_none() => None,
        None => measured.then(|| timed.fold(0.0, |all, ms| all + ms)), // a sum of none is -0.0
    };
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
        interrupts_by_vector: order::gather(
            Vector::ALL.iter().map(|v| (v.name(), f.vectors[*v as usize])).filter(|(_, n)| *n > 0),
        ),
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
            // The histogram answers with the end of a bucket, which may lie beyond every gap.
            p50_s: (h.value_at_quantile(0.5) as f64 / 1e6).min(f.quiet.longest_ns as f64 / 1e9),
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
        sums: f.sums.map(|s| Sums {
            periods: s.periods,
            runtime_s: s.runtime_ns as f64 / 1e9,
            noise_ms: s.noise_ns as f64 / 1e6,
            max_period_us: us(s.max_period_ns),
            max_single_us: us(s.max_single_ns),
        }),
        lines,
        tasks_switched_in: text_counts(&f.switched_to, symbols),
        work: text_counts(&f.work, symbols),
        tick_dependencies: text_counts(&f.tick_kept, symbols),
        baseline: Baseline {
            executions_equal: a.rows_dropped > 0 || calls.traced == f.calls,
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
    order::by(&mut rows, |x, y| y.calls.cmp(&x.calls).then_with(|| x.comm.cmp(&y.comm)));
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
        let untimed = cpu.figures.untimed.get(cause).copied().unwrap_or(0);
        let n = interrupts + mine.iter().map(|(_, l)| l.histogram.len()).sum::<u64>() + untimed;
        if n == 0 {
            continue;
        }
        order::by(&mut by, |x, y| {
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
        order::by(&mut via, |x, y| y.0.cmp(&x.0).then_with(|| x.1.cmp(&y.1)));
        let measured = !all.histogram.is_empty();
        let figures = handler(id, &all);
        rows.push(Interference {
            cause: id,
            kind: if mine.is_empty() && untimed == 0 {
                crate::trace::cause::Kind::Interrupt
            } else {
                cause.kind()
            }
            .name(),
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
    order::by(&mut rows, |x, y| {
        let ms = |i: &Interference| i.total_ms.unwrap_or(0.0);
        ms(y).total_cmp(&ms(x)).then_with(|| y.n.cmp(&x.n)).then_with(|| x.cause.cmp(y.cause))
    });
    rows
}

fn longest(a: &Analysis, cpu: &Cpu, lengths: &FxHashMap<Cause, Lengths>) -> Option<Longest> {
    let interrupts = lengths.iter().map(|(cause, l)| (*cause, Sym::NONE, l));
    let others = cpu.figures.others.iter().map(|((cause, name), l)| (*cause, *name, l));
    if let Some(sums) = &cpu.figures.sums {
        let cause = Cause::NoiseUnnamed.entry().id;
        return Some(Longest { us: us(sums.max_single_ns), at_s: None, cause, by: None });
    }
    let (cause, name, l) = interrupts
        .chain(others)
        .filter(|(_, _, l)| !l.histogram.is_empty())
        .max_by_key(|(cause, name, l)| (l.max_ns, std::cmp::Reverse((*cause as u8, *name))))?;
    Some(Longest {
        us: us(l.max_ns),
        at_s: Some(l.max_at_ns as f64 / 1e9),
        cause: cause.entry().id,
        by: (name != Sym::NONE).then(|| a.symbols.text(name)),
    })
}

fn latencies(f: &Figures, symbols: &Symbols) -> Vec<Latency> {
    let row = |(context, h): (&Sym, &Times)| Latency {
        context: symbols.text(*context),
        n: Some(h.histogram.len()),
        p50_us: Some(us(h.quantile(0.5))),
        mean_us: Some(us(h.sum_ns) / h.histogram.len().max(1) as f64),
        max_us: us(h.max_ns),
    };
    let summed = f.latency_sums.iter().map(|sum| Latency {
        context: symbols.text(sum.context),
        n: sum.n,
        p50_us: None,
        mean_us: sum.mean_ns.map(us),
        max_us: us(sum.max_ns),
    });
    let mut rows: Vec<_> = f.latencies.iter().map(row).chain(summed).collect();
    order::by(&mut rows, |x, y| x.context.cmp(&y.context));
    rows
}
