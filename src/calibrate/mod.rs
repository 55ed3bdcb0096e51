//! Measurements of the machine this runs on, from user space and without privileges: the reach of its TLBs, what a
//! miss costs, what a system call and an interrupt to another CPU cost.
//!
//! Not part of the simulator: nothing else depends on it, and no result of a simulation does. What is measured here
//! becomes a machine preset whose other numbers are inherited.

#![allow(clippy::similar_names)] // step and stop, last and least are the words for these things

use std::io;
use std::time::{Duration, Instant};

pub mod chase;
pub mod fit;
pub mod probes;
pub mod sample;

mod reach;

use chase::{Arena, lines};
use probes::{Company, MULTIPLY_CYCLES, Null};
use sample::{Sample, Stop, minimum, minimum_on_cpu};

/// One measured figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// What: `section.key` of a preset where there is one.
    pub key: &'static str,
    /// The figure.
    pub value: f64,
    /// Its unit: `ns`, `entries`, `MHz`, `ways`, `sets`.
    pub unit: &'static str,
    /// How far repeated measurements lay apart, as a share of the value.
    pub spread: f64,
    /// Whether they agreed before the time was up.
    pub stable: bool,
    /// Runs made.
    pub runs: u32,
    /// Runs that did not count, because the CPU was taken away.
    pub preempted: u32,
    /// How it was measured.
    pub how: String,
}

impl Measurement {
    fn of(key: &'static str, sample: Sample, unit: &'static str, how: impl Into<String>) -> Measurement {
        Measurement {
            key,
            value: sample.value,
            unit,
            spread: (sample.third - sample.value) / sample.value,
            stable: sample.stable,
            runs: sample.runs,
            preempted: sample.preempted,
            how: how.into(),
        }
    }

    /// A second visit to the same figure, later: see [`Sample::and`].
    fn and(&mut self, later: &Measurement) {
        let of = |m: &Measurement| Sample {
            value: m.value,
            third: m.value * (1.0 + m.spread),
            stable: m.stable,
            runs: m.runs,
            preempted: m.preempted,
        };
        // For the clock the highest reading is the least disturbed.
        let both = if self.unit == "MHz" {
            let time = |s: Sample| Sample { value: 1.0 / s.value, third: 1.0 / s.value, ..s };
            let both = time(of(self)).and(time(of(later)));
            Sample { value: 1.0 / both.value, third: 1.0 / both.third, ..both }
        } else {
            of(self).and(of(later))
        };
        let spread = ((both.third - both.value) / both.value).abs();
        *self = Measurement {
            value: both.value,
            spread: spread.max(self.spread.min(later.spread)),
            stable: both.stable,
            runs: both.runs,
            preempted: both.preempted,
            key: self.key,
            unit: self.unit,
            how: std::mem::take(&mut self.how),
        };
    }
}

/// A cost curve as measured, for plots and for doubt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curve {
    /// Pages in the chain.
    pub pages: Vec<f64>,
    /// Nanoseconds per load, the same number of lines in few pages subtracted.
    pub ns: Vec<f64>,
}

/// Everything one calibration found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Figures in the order in which they were measured.
    pub measurements: Vec<Measurement>,
    /// Load latency against pages, whole range.
    pub curve: Curve,
    /// CPU the measuring thread was bound to.
    pub cpu: u32,
    /// CPUs that took part in measurements of two and more.
    pub others: Vec<u32>,
    /// What could not be measured, and why.
    pub missing: Vec<(&'static str, String)>,
    /// Share of the time in which the measuring thread wanted its CPU and another task, or the hypervisor, had it.
    pub taken_share: f64,
    /// Share of the time the hypervisor says it took this CPU away; `None` where the kernel does not tell.
    pub steal_share: Option<f64>,
}

/// How to calibrate.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Time for everything together.
    pub seconds: f64,
    /// CPU to measure on; the last allowed one if `None`.
    pub cpu: Option<u32>,
}

/// Names of the stages, in order; [`run`] reports each as it begins.
pub const STAGES: &[&str] =
    &["clock", "TLB reach", "caches", "system calls", "interrupts", "threads", "all but the reach again"];

/// Measures everything. `stage` is told the index of the stage that begins.
pub fn run(settings: Settings, stop: &Stop, stage: &mut dyn FnMut(usize)) -> io::Result<Report> {
    let cpus = probes::allowed()?;
    let cpu = match settings.cpu {
        Some(cpu) if cpus.contains(&cpu) => cpu,
        Some(cpu) => {
            let rule = format!("the process may not run on cpu {cpu}: it may on {cpus:?}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, rule));
        }
        None => *cpus.last().ok_or_else(|| io::Error::other("the process may run on no cpu"))?,
    };
    probes::pin(cpu)?;
    // At most eight: the slope per further CPU needs no more.
    let others: Vec<u32> = cpus.into_iter().filter(|&other| other != cpu).take(8).collect();
    let mut report = Report { cpu, others, ..Report::default() };
    let budget = Duration::from_secs_f64(settings.seconds.clamp(0.2, 600.0));
    let (began, busy, steal) = (Instant::now(), sample::thread_time(), stolen(cpu));
    let mut slept = Duration::ZERO;
    for (number, share) in [0.025, 0.4, 0.1, 0.05, 0.1, 0.05, 0.275].into_iter().enumerate() {
        if stop.is_set() {
            break;
        }
        stage(number);
        let budget = budget.mul_f64(share);
        match number {
            0 => clock(&mut report, budget, stop),
            1 => reach::measure(&mut report, budget, stop)?,
            2 => caches(&mut report, budget, stop)?,
            3 => system_calls(&mut report, budget, stop),
            4 => interrupts(&mut report, budget, stop, &mut slept),
            5 => threads(&mut report, budget, stop, &mut slept),
            _ => again(&mut report, budget, stop, &mut slept)?,
        }
    }
    let wall = began.elapsed().saturating_sub(slept);
    let used = sample::thread_time().saturating_sub(busy);
    report.taken_share = wall.saturating_sub(used).as_secs_f64() / wall.as_secs_f64().max(1e-9);
    report.steal_share = steal.zip(stolen(cpu)).map(|(before, after)| {
        // In ticks of USER_HZ, which is 100 on x86.
        (after.saturating_sub(before) as f64 / 100.0 / began.elapsed().as_secs_f64()).min(1.0)
    });
    Ok(report)
}

/// Everything a second time, some time after the first: a machine that was busy with something else then shows it.
fn again(report: &mut Report, budget: Duration, stop: &Stop, slept: &mut Duration) -> io::Result<()> {
    let mut later = Report { cpu: report.cpu, others: report.others.clone(), ..Report::default() };
    // The caches subtract what the reach has found.
    let found = |key: &str| report.measurements.iter().find(|m| m.key == key).cloned();
    later.measurements = ["costs.stlb_hit", "l2.entries"].into_iter().filter_map(found).collect();
    let borrowed = later.measurements.len();
    clock(&mut later, budget.mul_f64(0.1), stop);
    caches(&mut later, budget.mul_f64(0.3), stop)?;
    system_calls(&mut later, budget.mul_f64(0.15), stop);
    interrupts(&mut later, budget.mul_f64(0.3), stop, slept);
    threads(&mut later, budget.mul_f64(0.15), stop, slept);
    for second in &later.measurements[borrowed..] {
        if let Some(first) = report.measurements.iter_mut().find(|m| m.key == second.key) {
            first.and(second);
        }
    }
    Ok(())
}

/// Ticks the hypervisor says it took this CPU away (`/proc/stat`, eighth number).
fn stolen(cpu: u32) -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let name = format!("cpu{cpu} ");
    stat.lines().find_map(|line| line.strip_prefix(&name))?.split_whitespace().nth(7)?.parse().ok()
}

fn clock(report: &mut Report, budget: Duration, stop: &Stop) {
    let step = minimum_on_cpu(budget / 2, stop, || probes::multiply_step(100_000));
    let mhz = Sample {
        value: MULTIPLY_CYCLES * 1000.0 / step.value,
        third: MULTIPLY_CYCLES * 1000.0 / step.third,
        ..step
    };
    let mut found =
        Measurement::of("cpu.mhz", mhz, "MHz", "a chain of 100,000 multiplications of 4 cycles each");
    found.spread = found.spread.abs();
    report.measurements.push(found);
    let lock = minimum_on_cpu(budget / 2, stop, || probes::locked_add(20_000));
    report.measurements.push(Measurement::of(
        "costs.lock",
        lock,
        "ns",
        "20,000 dependent locked additions in the L1",
    ));
}

/// Sizes of the first CPU's data caches in bytes, nearest first, as the kernel knows them.
fn cache_sizes(cpu: u32) -> Vec<usize> {
    let mut sizes: Vec<usize> = (0..8)
        .filter_map(|index| {
            let read = |name: &str| {
                let place = format!("/sys/devices/system/cpu/cpu{cpu}/cache/index{index}/{name}");
                std::fs::read_to_string(place).ok()
            };
            let kind = read("type")?;
            let size = read("size")?;
            let kib: usize = size.trim().strip_suffix('K')?.parse().ok()?;
            (kind.trim() != "Instruction").then_some(kib << 10)
        })
        .collect();
    sizes.sort_unstable();
    sizes
}

fn caches(report: &mut Report, budget: Duration, stop: &Stop) -> io::Result<()> {
    let sizes = cache_sizes(report.cpu);
    let [l1, l2, l3] = match sizes[..] {
        [l1, l2, l3, ..] => [l1, l2, l3],
        [l1, l2] => [l1, l2, 4 << 20],
        _ => [32 << 10, 1 << 20, 16 << 20],
    };
    let figure = |key: &str| report.measurements.iter().find(|m| m.key == key).map(|m| m.value);
    let (hit, reach) =
        (figure("costs.stlb_hit"), figure("l2.entries").unwrap_or(1024.0) as usize * chase::PAGE);
    // In a random order over all lines, which no prefetcher follows: the first two within 48 pages, less than any
    // first-level TLB holds; the third within half of the second-level TLB's reach, whose hit is then subtracted.
    let footprints = [
        ("costs.mem_l1", l1 / 4),
        ("costs.mem_l2", (l2 / 2).clamp(2 * l1, 48 * chase::PAGE)),
        ("costs.mem_l3", (l3 / 4).min(2 * l2).min(reach / 2).max(3 * l2 / 2)),
        ("costs.mem_dram", (4 * l3).clamp(64 << 20, 128 << 20)),
    ];
    let mut arena = Arena::huge(footprints[3].1)?;
    for (key, bytes) in footprints {
        let kib = bytes >> 10;
        let (start, loads, less, how) = if key == "costs.mem_dram" {
            // Eight lines of each page, one page after the other: a walk is shared by eight loads.
            let start = arena.link_in_blocks(lines(bytes / chase::LINE / 8, 8), 5);
            (
                start,
                50_000,
                0.0,
                format!("pointer chase over {kib} KiB, eight lines of a page after the other"),
            )
        } else {
            let start = arena.link(lines(bytes / chase::LINE, 1), 5);
            let loads = (2 * (bytes / chase::LINE) as u32).max(20_000);
            let less = if key == "costs.mem_l3" { hit.unwrap_or(0.0) } else { 0.0 };
            let corrected = if less > 0.0 { ", less the second-level TLB hit" } else { "" };
            (start, loads, less, format!("pointer chase over {kib} KiB in random order{corrected}"))
        };
        arena.run(start, loads);
        let sample = minimum_on_cpu(budget / 4, stop, || (arena.run(start, loads) - less).max(0.0));
        report.measurements.push(Measurement::of(key, sample, "ns", how));
        if stop.is_set() {
            break;
        }
    }
    Ok(())
}

fn system_calls(report: &mut Report, budget: Duration, stop: &Stop) {
    for (key, which) in [
        ("getppid", Null::Getppid),
        ("getuid", Null::Getuid),
        ("getgid", Null::Getgid),
        ("getpid", Null::Getpid),
    ] {
        let sample = minimum_on_cpu(budget / 4, stop, || probes::system_call(which, 2000));
        report.measurements.push(Measurement::of(key, sample, "ns", "2,000 calls in a row"));
    }
}

type Call = fn() -> io::Result<Duration>;

/// An interrupt to one CPU and to each further one: what the same call costs more while threads run there.
fn interrupts(report: &mut Report, budget: Duration, stop: &Stop, slept: &mut Duration) {
    // Starting and joining threads sleeps: that is no time the CPU was taken.
    let (wall, cpu) = (Instant::now(), sample::thread_time());
    between_cpus(report, budget, stop);
    *slept += wall.elapsed().saturating_sub(sample::thread_time().saturating_sub(cpu));
}

fn between_cpus(report: &mut Report, budget: Duration, stop: &Stop) {
    let others = report.others.clone();
    if others.is_empty() {
        let why = "the process may run on one cpu only".to_owned();
        report.missing.push(("costs.ipi_first", why.clone()));
        report.missing.push(("costs.remote_line", why));
        return;
    }
    let line = minimum_on_cpu(budget / 6, stop, || probes::line_transfer(others[0], 500));
    let how = format!("a line passed to and fro between cpus {} and {}", report.cpu, others[0]);
    report.measurements.push(Measurement::of("costs.remote_line", line, "ns", how));

    let has_membarrier = probes::register_membarrier().is_ok();
    if !has_membarrier {
        report.missing.push(("membarrier", "the kernel refuses it".to_owned()));
    }
    let calls: [(&'static str, [&'static str; 3], Call); 3] = [
        ("membarrier", ["membarrier_alone", "membarrier_first", "membarrier_next"], probes::membarrier_call),
        ("mprotect", ["mprotect_alone", "mprotect_first", "mprotect_next"], probes::mprotect_call),
        ("munmap", ["munmap_alone", "munmap_first", "munmap_next"], probes::munmap_call),
    ];
    for (name, keys, call) in calls {
        if name == "membarrier" && !has_membarrier {
            continue;
        }
        let each = budget.mul_f64(0.8) / (3 * (others.len() as u32 + 1));
        let mut by_count: Vec<Sample> = Vec::new();
        for count in 0..=others.len() {
            let company = Company::on(&others[..count]);
            let sample =
                minimum(each, stop, || probes::disturbing(&company, 200, call).unwrap_or(f64::INFINITY));
            if sample.value.is_finite() {
                by_count.push(sample);
            }
        }
        differences(report, name, keys, &by_count);
    }
}

/// Turns the cost of a call with 0, 1, ... other CPUs into its cost alone, for the first, and for each further one.
fn differences(report: &mut Report, name: &str, keys: [&'static str; 3], by_count: &[Sample]) {
    let Some((&alone, with)) = by_count.split_first() else { return };
    report.measurements.push(Measurement::of(keys[0], alone, "ns", format!("{name}, no other thread runs")));
    let Some((&first, further)) = with.split_first() else { return };
    let difference = |upper: Sample, lower: Sample, share: f64| Sample {
        value: (upper.value - lower.value) / share,
        third: (upper.third - lower.value) / share,
        stable: upper.stable && lower.stable,
        runs: upper.runs + lower.runs,
        preempted: upper.preempted + lower.preempted,
    };
    report.measurements.push(Measurement::of(
        keys[1],
        difference(first, alone, 1.0),
        "ns",
        format!("{name} with a thread running on one other cpu, less the same alone"),
    ));
    if let Some(&last) = further.last() {
        report.measurements.push(Measurement::of(
            keys[2],
            difference(last, first, further.len() as f64),
            "ns",
            format!("{name} with {} other cpus against one, per cpu", with.len()),
        ));
    }
}

fn threads(report: &mut Report, budget: Duration, stop: &Stop, slept: &mut Duration) {
    let (began, cpu) = (Instant::now(), sample::thread_time());
    let life = minimum(budget, stop, || probes::thread_life(50));
    report.measurements.push(Measurement::of(
        "thread_life",
        life,
        "ns",
        "50 threads started and joined in a row",
    ));
    *slept += began.elapsed().saturating_sub(sample::thread_time().saturating_sub(cpu));
}

/// Time left of a budget.
fn left(began: Instant, budget: Duration) -> Duration {
    budget.saturating_sub(began.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_calibration_measures_every_stage() {
        let found = std::thread::spawn(|| {
            let mut stages = Vec::new();
            let settings = Settings { seconds: 0.2, cpu: None };
            let report = run(settings, &Stop::default(), &mut |stage| stages.push(stage)).unwrap();
            (report, stages)
        });
        let (report, stages) = found.join().unwrap();
        assert_eq!(stages, (0..STAGES.len()).collect::<Vec<_>>());
        let has = |key: &str| report.measurements.iter().any(|m| m.key == key && m.value > 0.0);
        for key in ["cpu.mhz", "costs.lock", "l1.entries", "costs.mem_dram", "getpid", "thread_life"] {
            assert!(has(key), "{key} is missing: {report:?}");
        }
        assert!(report.measurements.iter().all(|m| m.value.is_finite()), "{report:?}");
    }

    #[test]
    fn a_stopped_calibration_ends_after_the_stage() {
        let stop = Stop::default();
        stop.stop();
        let settings = Settings { seconds: 60.0, cpu: None };
        let report = std::thread::spawn(move || run(settings, &stop, &mut |_| {}).unwrap()).join().unwrap();
        assert!(report.measurements.is_empty());
    }

    #[test]
    fn a_cpu_that_is_not_allowed_is_refused() {
        let settings = Settings { seconds: 1.0, cpu: Some(100_000) };
        let error = run(settings, &Stop::default(), &mut |_| {}).unwrap_err().to_string();
        assert!(error.starts_with("the process may not run on cpu 100000"), "{error}");
    }
}
