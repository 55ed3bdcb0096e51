//! What results say of a class of CPUs, in one table: name, unit, sentence and how each figure follows from statistics and
//! latencies. `simulate`, `compare` and `sweep` compute theirs from it; pages, stubs and tests are held against it.
//!
//! Every figure is per CPU of its class, so that classes of different size can be compared.

use std::borrow::Cow;

use super::latencies::{Durations, Latencies};
use super::run::Output;
use super::stats::{STATS, Stat, TABLE};

/// Which CPUs a figure is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Isolated ones.
    Isolated,
    /// The others.
    Housekeeping,
    /// All of them.
    All,
}

impl Class {
    /// Each of them, in the order of results.
    pub const EACH: [Class; 3] = [Class::Isolated, Class::Housekeeping, Class::All];

    /// As shown.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Isolated => "isolated",
            Class::Housekeeping => "housekeeping",
            Class::All => "all",
        }
    }

    /// A CPU is one of them.
    pub fn has(self, isolated: bool) -> bool {
        self == Class::All || (self == Class::Isolated) == isolated
    }
}

/// What the latencies of a figure are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// From SYSCALL to the body.
    Entry,
    /// A system call.
    Syscall,
    /// An interruption of user mode.
    Interruption,
    /// A wait for acknowledgements.
    Wait,
}

impl Latency {
    /// Each of them, in the order of results.
    pub const EACH: [Latency; 4] = [Latency::Syscall, Latency::Entry, Latency::Interruption, Latency::Wait];

    /// As shown.
    pub const fn name(self) -> &'static str {
        match self {
            Latency::Entry => "entry",
            Latency::Syscall => "syscall",
            Latency::Interruption => "interruption",
            Latency::Wait => "wait",
        }
    }

    /// Those of a class of CPUs.
    pub fn of(self, all: &Latencies, class: Class) -> Cow<'_, Durations> {
        let [isolated, housekeeping] = match self {
            Latency::Entry => &all.entry,
            Latency::Syscall => &all.syscall,
            Latency::Interruption => &all.interruption,
            Latency::Wait => &all.wait,
        };
        match class {
            Class::Isolated => Cow::Borrowed(isolated),
            Class::Housekeeping => Cow::Borrowed(housekeeping),
            Class::All => Cow::Owned(isolated.with(housekeeping)),
        }
    }
}

/// A unit of time that latencies are shown in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Time {
    /// Nanoseconds.
    Ns,
    /// Microseconds.
    Us,
}

impl Time {
    const fn name(self) -> &'static str {
        match self {
            Time::Ns => "ns",
            Time::Us => "us",
        }
    }

    const fn of_ps(self) -> f64 {
        match self {
            Time::Ns => 1e3,
            Time::Us => 1e6,
        }
    }
}

/// How a figure is computed of the CPUs of a class.
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// Events per CPU and hour.
    PerHour(Stat),
    /// Microseconds per CPU and hour.
    UsPerHour(Stat),
    /// Events per CPU and second.
    PerSecond(Stat),
    /// Time per event.
    Per(Time, Stat, &'static [Stat]),
    /// Events per other event.
    Ratio(Stat, Stat),
    /// Share of the time of these CPUs.
    Share(Stat),
    /// The rest of that.
    Rest(Stat),
    /// The least of the CPUs, in seconds.
    Least(Stat),
    /// Mean of a latency.
    Mean(Latency, Time),
    /// Quantile of a latency, in thousandths.
    Quantile(Latency, u16, Time),
}

impl How {
    /// The unit.
    pub const fn unit(self) -> &'static str {
        match self {
            How::PerHour(_) => "1/h",
            How::UsPerHour(_) => "us/h",
            How::PerSecond(_) => "1/s",
            How::Per(time, ..) | How::Mean(_, time) | How::Quantile(_, _, time) => time.name(),
            How::Ratio(..) | How::Share(_) | How::Rest(_) => "1",
            How::Least(_) => "s",
        }
    }

    /// As a formula over statistics and latencies, sums over the CPUs of the class.
    pub fn text(self) -> String {
        let name = |stat: Stat| TABLE[stat as usize].0;
        match self {
            How::PerHour(s) | How::UsPerHour(s) => format!("{} / (cpus * hours)", name(s)),
            How::PerSecond(s) => format!("{} / (cpus * seconds)", name(s)),
            How::Per(_, time, [one]) => format!("{} / {}", name(time), name(*one)),
            How::Per(_, time, counts) => {
                let counts: Vec<_> = counts.iter().map(|s| name(*s)).collect();
                format!("{} / ({})", name(time), counts.join(" + "))
            }
            How::Ratio(a, b) => format!("{} / {}", name(a), name(b)),
            How::Share(s) => format!("{} / (cpus * time)", name(s)),
            How::Rest(s) => format!("1 - {} / (cpus * time)", name(s)),
            How::Least(s) => format!("least {} of the CPUs", name(s)),
            How::Mean(of, _) => format!("mean of latencies[{:?}]", of.name()),
            How::Quantile(of, 1000, _) => format!("maximum of latencies[{:?}]", of.name()),
            How::Quantile(of, share, _) => {
                format!("{}% quantile of latencies[{:?}]", f64::from(share) / 10.0, of.name())
            }
        }
    }

    /// It belongs in a table for a first look: of quantiles only the 99th percentile does.
    pub const fn brief(self) -> bool {
        !matches!(self, How::Quantile(_, share, _) if share != 990)
    }
}

/// One figure.
#[derive(Clone, Copy, Debug)]
pub struct Figure {
    /// Name; the unit is its end where it has one.
    pub name: &'static str,
    /// Where it comes from.
    pub how: How,
    /// One sentence.
    pub text: &'static str,
}

macro_rules! figures {
    ($($name:ident = $how:expr, $text:literal;)*) => {
        /// Every figure, in the order of results.
        pub const FIGURES: &[Figure] = {
            use How::{Least, Mean, Per, PerHour, PerSecond, Quantile, Ratio, Rest, Share, UsPerHour};
            use Latency::{Entry, Interruption, Syscall, Wait};
            use Time::{Ns, Us};
            &[$(Figure { name: stringify!($name), how: $how, text: $text },)*]
        };
    };
}

const REQUESTS: &[Stat] = &[Stat::flush_requests, Stat::user_flush_requests, Stat::sync_requests];

figures! {
    ipis_per_hour = PerHour(Stat::ipis_received), "Remote-call interrupts.";
    calls_per_hour = PerHour(Stat::calls_executed), "Remote calls executed.";
    coalescing_factor = Ratio(Stat::calls_executed, Stat::ipis_received), "Remote calls per remote-call interrupt.";
    interference_per_hour = PerHour(Stat::interference), "Interruptions of user mode.";
    interference_us_per_hour = UsPerHour(Stat::interference_ps), "Their time.";
    interruption_mean_ns = Mean(Interruption, Ns), "Mean interruption of user mode.";
    interruption_p50_ns = Quantile(Interruption, 500, Ns), "Median of interruptions.";
    interruption_p90_ns = Quantile(Interruption, 900, Ns), "90th percentile of interruptions.";
    interruption_p99_ns = Quantile(Interruption, 990, Ns), "99th percentile of interruptions.";
    interruption_p999_ns = Quantile(Interruption, 999, Ns), "99.9th percentile of interruptions.";
    interruption_max_ns = Quantile(Interruption, 1000, Ns), "Longest interruption.";
    shortest_longest_quiet_s = Least(Stat::longest_quiet_ps), "Longest quiet time, of the CPU where it is shortest.";
    deferrals_per_hour = PerHour(Stat::deferrals), "Flush requests over before the CPU flushed.";
    entry_flushes_needed_per_hour = PerHour(Stat::entry_flushes_needed), "Entry flushes while one was owed.";
    entry_flushes_unneeded_per_hour = PerHour(Stat::entry_flushes_unneeded), "Entry flushes while none was owed.";
    entry_mean_ns = Mean(Entry, Ns), "Mean time from SYSCALL to the body: entry code.";
    entry_p50_ns = Quantile(Entry, 500, Ns), "Median of entries.";
    entry_p90_ns = Quantile(Entry, 900, Ns), "90th percentile of entries.";
    entry_p99_ns = Quantile(Entry, 990, Ns), "99th percentile of entries.";
    entry_p999_ns = Quantile(Entry, 999, Ns), "99.9th percentile of entries.";
    entry_max_ns = Quantile(Entry, 1000, Ns), "Longest entry.";
    entry_flush_ns = Per(Ns, Stat::entry_flush_ps, &[Stat::syscalls]), "Flush instructions in entry code, per system call.";
    syscalls_per_s = PerSecond(Stat::syscalls), "System calls completed.";
    syscall_mean_ns = Mean(Syscall, Ns), "Mean system call, refills included.";
    syscall_p50_ns = Quantile(Syscall, 500, Ns), "Median of system calls.";
    syscall_p90_ns = Quantile(Syscall, 900, Ns), "90th percentile of system calls.";
    syscall_p99_ns = Quantile(Syscall, 990, Ns), "99th percentile of system calls.";
    syscall_p999_ns = Quantile(Syscall, 999, Ns), "99.9th percentile of system calls.";
    syscall_max_ns = Quantile(Syscall, 1000, Ns), "Longest system call.";
    refill_ns = Per(Ns, Stat::refill_ps, &[Stat::syscalls]), "TLB misses caused by flushes, per system call.";
    refill_misses_per_hour = PerHour(Stat::refill_misses), "TLB misses caused by flushes.";
    exposures_per_hour = PerHour(Stat::exposures), "Windows in the kernel with a flush owed.";
    exposure_mean_ns = Per(Ns, Stat::exposure_ps, &[Stat::exposures]), "Mean length of such a window.";
    hazards_per_hour = PerHour(Stat::hazards), "Ordinary kernel code run with a flush owed.";
    sync_deferrals_per_hour = PerHour(Stat::sync_deferrals), "Syncs of text over before the CPU had serialised.";
    text_hazards_per_hour = PerHour(Stat::text_hazards), "Ordinary kernel code run with a sync of text owed.";
    flush_requests_per_hour = PerHour(Stat::flush_requests), "Kernel-range flushes initiated.";
    flush_request_mean_us = Per(Us, Stat::flush_request_ps, &[Stat::flush_requests]), "Mean time of a kernel-range flush, until its caller relies on it.";
    user_flush_requests_per_hour = PerHour(Stat::user_flush_requests), "User-range flushes initiated.";
    user_flush_request_mean_us = Per(Us, Stat::user_flush_request_ps, &[Stat::user_flush_requests]), "Mean time of a user-range flush, until its caller relies on it.";
    user_pcid_flushes_per_hour = PerHour(Stat::user_pcid_flushes), "Returns to user mode that flushed the user PCID.";
    lazy_skips_per_hour = PerHour(Stat::lazy_skips), "CPUs that user-range flushes left alone because they were lazy.";
    purges_per_hour = PerHour(Stat::purges), "Purges of the lazy list run.";
    wait_mean_us = Per(Us, Stat::wait_ps, REQUESTS), "Mean wait of an initiator, per flush or sync that it requested.";
    wait_p50_us = Quantile(Wait, 500, Us), "Median of waits for acknowledgements.";
    wait_p90_us = Quantile(Wait, 900, Us), "90th percentile of waits.";
    wait_p99_us = Quantile(Wait, 990, Us), "99th percentile of waits.";
    wait_p999_us = Quantile(Wait, 999, Us), "99.9th percentile of waits.";
    wait_max_us = Quantile(Wait, 1000, Us), "Longest wait.";
    wait_share = Share(Stat::wait_ps), "Share of time waited for acknowledgements.";
    mm_switches_per_hour = PerHour(Stat::mm_switches), "Context switches to another address space.";
    migration_share = Ratio(Stat::migrations, Stat::mm_switches), "Migrations to another CPU, per context switch.";
    mm_switch_flush_share = Ratio(Stat::mm_switches_flushed, Stat::mm_switches), "Share of context switches that flushed.";
    user_share = Share(Stat::user_ps), "Share of time in user mode.";
    kernel_share = Rest(Stat::user_ps), "Share of time not in user mode.";
    violations_per_hour = PerHour(Stat::violations), "Steps that broke a rule of the machine.";
}

/// A figure of a class of CPUs: `NAME` of isolated ones, `housekeeping_NAME`, `all_NAME`.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Which CPUs.
    pub class: Class,
    /// Which figure.
    pub figure: &'static Figure,
}

impl Metric {
    /// The metric of a name, or what to say.
    pub fn named(name: &str) -> Result<Metric, String> {
        let class = [Class::Housekeeping, Class::All].into_iter();
        let prefixed = class.filter_map(|c| Some((c, name.strip_prefix(c.name())?.strip_prefix('_')?)));
        let mut readings = prefixed.chain([(Class::Isolated, name)]);
        let found = readings.find_map(|(class, name)| {
            FIGURES.iter().find(|f| f.name == name).map(|figure| Metric { class, figure })
        });
        found.ok_or_else(|| {
            format!("unknown metric `{name}`{}", crate::names::hint(name, FIGURES.iter().map(|f| f.name)))
        })
    }

    /// Its name.
    pub fn name(self) -> String {
        match self.class {
            Class::Isolated => self.figure.name.into(),
            class => format!("{}_{}", class.name(), self.figure.name),
        }
    }
}

/// What figures of a class are computed from.
#[derive(Debug)]
pub struct Sums<'a> {
    output: &'a Output,
    class: Class,
    cpus: u64,
    seconds: f64,
    totals: [u64; STATS],
}

impl<'a> Sums<'a> {
    /// Of one run.
    pub fn new(output: &'a Output, class: Class) -> Self {
        let seconds = output.reached_ps as f64 * 1e-12;
        let mut sums = Sums { output, class, cpus: 0, seconds, totals: [0; STATS] };
        for (row, _) in output.stats.iter().zip(&output.isolated).filter(|(_, is)| class.has(**is)) {
            sums.cpus += 1;
            for (sum, value) in sums.totals.iter_mut().zip(row) {
                *sum += value;
            }
        }
        sums
    }

    /// How many CPUs the class has.
    pub fn cpus(&self) -> u64 {
        self.cpus
    }

    /// A figure; what has no meaning here, such as a mean of nothing, is not a number.
    pub fn figure(&self, how: How) -> f64 {
        let sum = |stat: Stat| self.totals[stat as usize] as f64;
        let time = self.cpus as f64 * self.seconds;
        let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { f64::NAN };
        match how {
            How::PerHour(s) => ratio(sum(s) * 3600.0, time),
            How::UsPerHour(s) => ratio(sum(s) * 1e-6 * 3600.0, time),
            How::PerSecond(s) => ratio(sum(s), time),
            How::Per(unit, t, counts) => ratio(sum(t) / unit.of_ps(), counts.iter().map(|s| sum(*s)).sum()),
            How::Ratio(a, b) => ratio(sum(a), sum(b)),
            How::Share(s) => ratio(sum(s) * 1e-12, time),
            How::Rest(s) => 1.0 - ratio(sum(s) * 1e-12, time),
            How::Least(s) => {
                let rows = self.output.stats.iter().zip(&self.output.isolated);
                let own = rows.filter(|(_, is)| self.class.has(**is)).map(|(row, _)| row[s as usize]);
                own.min().map_or(f64::NAN, |least| least as f64 * 1e-12)
            }
            How::Mean(of, unit) => self.latency(of, |d| d.mean() / unit.of_ps()),
            How::Quantile(of, share, unit) => {
                self.latency(of, |d| d.quantile(f64::from(share) / 1000.0) as f64 / unit.of_ps())
            }
        }
    }

    fn latency(&self, of: Latency, value: impl Fn(&Durations) -> f64) -> f64 {
        let durations = of.of(&self.output.latencies, self.class);
        if durations.count() == 0 { f64::NAN } else { value(&durations) }
    }
}

#[cfg(test)]
mod tests;
