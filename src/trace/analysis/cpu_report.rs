//! One isolated CPU in the report, as plain data for people and for JSON.

use std::collections::BTreeMap;

use serde::Serialize;

use super::knowledge::{Known, State};
use crate::trace::range::Range;

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
    /// When it began, seconds of the trace clock; null: not recorded.
    pub at_s: Option<f64>,
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
    /// Measurements; null: a tool summed them, and did not print how many.
    pub n: Option<u64>,
    /// Median, microseconds; null: a tool summed them.
    pub p50_us: Option<f64>,
    /// Mean; null: a tool did not print it.
    pub mean_us: Option<f64>,
    /// Longest.
    pub max_us: f64,
}

/// One row of osnoise or rtla for this CPU, or the sum of several.
#[derive(Clone, Debug, Serialize)]
pub struct Sums {
    /// Periods measured.
    pub periods: u64,
    /// Time measured, seconds.
    pub runtime_s: f64,
    /// Taken of it, milliseconds.
    pub noise_ms: f64,
    /// Most in one period, microseconds.
    pub max_period_us: f64,
    /// Longest single piece, microseconds.
    pub max_single_us: f64,
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
    /// What osnoise or rtla summed up before; null: events are recorded, or neither was there.
    pub sums: Option<Sums>,
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
