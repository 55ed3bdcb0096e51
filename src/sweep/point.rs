//! What one point computes: a simulation, reduced to a few figures.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::hw::Preset;
use crate::kernel::config::Config;
use crate::kernel::text::File;
use crate::sim::cost::Bound;
use crate::sim::run::Run;
use crate::sim::stats::{STATS, Stat};
use crate::sim::{Input, Output, Scenario};

/// The distinct parts of the points of a batch; a part that does not parse is its message.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Workloads.
    pub scenarios: Vec<Result<Scenario, String>>,
    /// CPU models.
    pub machines: Vec<Result<Arc<Preset>, String>>,
    /// Kernels.
    pub kernels: Vec<Result<Config, String>>,
    /// Policies.
    pub policies: Vec<Result<File, String>>,
}

/// One point: an index into each list of [`Parts`], and its seed.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Index of the workload.
    pub scenario: usize,
    /// Index of the CPU model.
    pub machine: usize,
    /// Index of the kernel.
    pub kernel: usize,
    /// Index of the policy.
    pub policy: usize,
    /// Seed.
    pub seed: u64,
}

impl Parts {
    /// Simulate one point; `None` when `cancel` was set before it ended.
    pub fn simulate(&self, choice: Choice, cancel: &AtomicBool) -> Result<Option<Output>, String> {
        let input = Input {
            scenario: self.scenarios[choice.scenario].clone()?,
            machine: self.machines[choice.machine].clone()?,
            kernel: self.kernels[choice.kernel].clone()?,
            policy: self.policies[choice.policy].clone()?,
            seed: choice.seed,
            skip: true,
            keep: 0,
            full: false,
            bound: Bound::Best,
        };
        let mut run = Run::new(input).map_err(|error| error.to_string())?;
        run.finish(cancel, |_| {});
        let output = run.output();
        Ok((!output.interrupted).then_some(output))
    }
}

/// Sums over a class of CPUs.
#[derive(Debug)]
pub struct Class {
    cpus: f64,
    sums: [u64; STATS],
    seconds: f64,
}

impl Class {
    fn of(output: &Output, isolated: bool) -> Self {
        let mut class = Class { cpus: 0.0, sums: [0; STATS], seconds: output.reached_ps as f64 * 1e-12 };
        for (row, _) in output.stats.iter().zip(&output.isolated).filter(|(_, is)| **is == isolated) {
            class.cpus += 1.0;
            for (sum, value) in class.sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
        class
    }

    fn sum(&self, stat: Stat) -> f64 {
        self.sums[stat as usize] as f64
    }

    fn per_hour(&self, stat: Stat) -> f64 {
        self.sum(stat) * 3600.0 / (self.cpus * self.seconds)
    }

    fn per_second(&self, stat: Stat) -> f64 {
        self.sum(stat) / (self.cpus * self.seconds)
    }

    /// Share of the time of these CPUs.
    fn share(&self, stat: Stat) -> f64 {
        self.sum(stat) * 1e-12 / (self.cpus * self.seconds)
    }

    fn mean(&self, time: Stat, count: Stat, scale: f64) -> f64 {
        self.sum(time) * scale / self.sum(count)
    }
}

/// A metric from the sums over isolated and over housekeeping CPUs.
pub type Figure = fn(&Class, &Class) -> f64;

/// Name, unit, sentence and computation (from isolated and housekeeping CPUs) of each metric. One that has no
/// meaning for a point, such as the cost of system calls where there are none, is not a number. Where `compare`
/// shows the same figure, it has the same name.
pub const METRICS: &[(&str, &str, &str, Figure)] = &[
    ("ipis_per_hour", "1/h", "Remote-call interrupts per isolated CPU.", |i, _| {
        i.per_hour(Stat::ipis_received)
    }),
    ("interference_per_hour", "1/h", "Interruptions of user mode per isolated CPU.", |i, _| {
        i.per_hour(Stat::interference)
    }),
    ("interference_us_per_hour", "us/h", "Their time, per isolated CPU.", |i, _| {
        i.per_hour(Stat::interference_ps) * 1e-6
    }),
    ("deferrals_per_hour", "1/h", "Flush requests over before an isolated CPU flushed.", |i, _| {
        i.per_hour(Stat::deferrals)
    }),
    (
        "entry_flushes_needed_per_hour",
        "1/h",
        "Entry flushes of an isolated CPU while one was owed.",
        |i, _| i.per_hour(Stat::entry_flushes_needed),
    ),
    (
        "entry_flushes_unneeded_per_hour",
        "1/h",
        "Entry flushes of an isolated CPU while none was owed.",
        |i, _| i.per_hour(Stat::entry_flushes_unneeded),
    ),
    ("syscalls_per_s", "1/s", "System calls that an isolated CPU completed.", |i, _| {
        i.per_second(Stat::syscalls)
    }),
    ("syscall_mean_ns", "ns", "Mean system call of an isolated CPU, refills included.", |i, _| {
        i.mean(Stat::kernel_ps, Stat::syscalls, 1e-3)
    }),
    (
        "entry_flush_ns",
        "ns",
        "Flush instructions in entry code, per system call of an isolated CPU.",
        |i, _| i.mean(Stat::entry_flush_ps, Stat::syscalls, 1e-3),
    ),
    ("refill_ns", "ns", "TLB misses caused by flushes, per system call of an isolated CPU.", |i, _| {
        i.mean(Stat::refill_ps, Stat::syscalls, 1e-3)
    }),
    ("exposures_per_hour", "1/h", "Windows of an isolated CPU in the kernel with a flush owed.", |i, _| {
        i.per_hour(Stat::exposures)
    }),
    ("exposure_mean_ns", "ns", "Mean length of such a window.", |i, _| {
        i.mean(Stat::exposure_ps, Stat::exposures, 1e-3)
    }),
    ("kernel_share", "1", "Share of time an isolated CPU was not in user mode.", |i, _| {
        1.0 - i.share(Stat::user_ps)
    }),
    ("user_share", "1", "Share of time an isolated CPU was in user mode.", |i, _| i.share(Stat::user_ps)),
    ("flushes_per_hour", "1/h", "Kernel-range flush requests, machine-wide.", |i, h| {
        (i.sum(Stat::flush_requests) + h.sum(Stat::flush_requests)) * 3600.0 / h.seconds
    }),
    ("purges_per_hour", "1/h", "Purges of the lazy list, machine-wide.", |i, h| {
        (i.sum(Stat::purges) + h.sum(Stat::purges)) * 3600.0 / h.seconds
    }),
    ("housekeeping_wait_us", "us", "Mean wait of a housekeeping CPU per flush it requested.", |_, h| {
        h.mean(Stat::wait_ps, Stat::flush_requests, 1e-6)
    }),
    ("housekeeping_wait_share", "1", "Share of time a housekeeping CPU waited so.", |_, h| {
        h.share(Stat::wait_ps)
    }),
    ("violations", "count", "Steps that broke a rule of the machine.", |i, h| {
        i.sum(Stat::violations) + h.sum(Stat::violations)
    }),
];

/// The metrics of one run, in the order of [`METRICS`].
pub fn metrics(output: &Output) -> Vec<f64> {
    let (isolated, housekeeping) = (Class::of(output, true), Class::of(output, false));
    METRICS.iter().map(|(_, _, _, figure)| figure(&isolated, &housekeeping)).collect()
}
