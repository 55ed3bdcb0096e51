//! Sums that a tool made before: rows of osnoise and rtla, counts of `perf stat -A`. They count where the recording has no
//! events that would tell the same more precisely.

use super::{
    Analysis,
    cpu::LatencySum,
    knowledge::{self, EVERY_INTERRUPT, FIRMWARE, NMIS, SOFTIRQS, TASKS},
};
use crate::trace::{
    cause::Cause,
    event::{Event, NoiseSums, Sum, Vector},
};

/// What the counts of a row are of, in their order.
const COUNTED: [(Cause, u32); 5] = [
    (Cause::Firmware, FIRMWARE),
    (Cause::Nmi, NMIS),
    (Cause::InterruptUnnamed, EVERY_INTERRUPT),
    (Cause::Softirq, SOFTIRQS),
    (Cause::TaskUnnamed, TASKS),
];

fn add(to: &mut NoiseSums, row: &NoiseSums) {
    to.periods += row.periods;
    to.runtime_ns = to.runtime_ns.saturating_add(row.runtime_ns);
    to.noise_ns = to.noise_ns.saturating_add(row.noise_ns);
    to.max_period_ns = to.max_period_ns.max(row.max_period_ns);
    to.max_single_ns = to.max_single_ns.max(row.max_single_ns);
    for (all, one) in to.counts.iter_mut().zip(row.counts) {
        *all = match (*all, one) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (known, None) | (None, known) => known,
        };
    }
}

impl Analysis {
    /// A sum, of one CPU.
    pub(super) fn sum(&mut self, e: &Event<'_>, sum: &Sum<'_>) {
        if !self.window.open {
            return;
        }
        match *sum {
            Sum::Noise(row) => {
                self.kinds.sums += 1;
                add(self.cpu(e.cpu).figures.sums.get_or_insert_default(), &row);
            }
            Sum::Latency { context, n, mean_ns, max_ns, .. } => {
                let context = self.symbols.number(context);
                self.cpu(e.cpu).figures.latency_sums.push(LatencySum { context, n, mean_ns, max_ns });
            }
            Sum::Count { vector, name, n, .. } => self.count(e.cpu, vector, name, n),
        }
    }

    fn count(&mut self, cpu: u32, vector: Option<Vector>, name: &[u8], n: u64) {
        if let Some(vector) = vector {
            self.kinds.vectors += n.max(1);
            let one = self.cpu(cpu);
            one.kinds |= knowledge::of_vector(vector);
            one.figures.vectors[vector as usize] += n;
            let cause = Self::cause_of_vector(vector);
            if n > 0 {
                *one.figures.causes.entry(cause).or_default() += n;
            }
            return;
        }
        let (cause, kind) = match name {
            b"softirq_entry" => (Cause::Softirq, SOFTIRQS),
            b"nmi_handler" => (Cause::Nmi, NMIS),
            _ => return,
        };
        self.kinds.softirqs += u64::from(kind == SOFTIRQS);
        let one = self.cpu(cpu);
        one.kinds |= kind;
        *one.figures.untimed.entry(cause).or_default() += n;
    }

    /// The end of the pass: sums count if no event tells more.
    pub(super) fn settle_sums(&mut self) {
        let k = &self.kinds;
        if k.sums == 0 || k.noise + k.nmis + k.vectors + k.switches + k.softirqs > 0 {
            self.kinds.sums = 0;
            self.cpus.iter_mut().for_each(|cpu| cpu.figures.sums = None);
            return;
        }
        for cpu in &mut self.cpus {
            let Some(sums) = cpu.figures.sums else { continue };
            for ((cause, kind), n) in COUNTED.into_iter().zip(sums.counts) {
                let Some(n) = n else { continue };
                cpu.kinds |= kind;
                if cause == Cause::InterruptUnnamed {
                    cpu.figures.unnamed += n;
                    if n > 0 {
                        *cpu.figures.causes.entry(cause).or_default() += n;
                    }
                } else {
                    *cpu.figures.untimed.entry(cause).or_default() += n;
                }
            }
        }
    }
}
