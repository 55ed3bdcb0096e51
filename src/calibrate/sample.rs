//! Minimum of many: on a machine that does other things too, the least disturbed run is the one that tells the cost.
//! Repeated until the lowest runs agree, or reported as unstable.
//!
//! A run that the CPU was taken from, by another task or by the hypervisor, does not count: the thread's own CPU time
//! then lags behind the wall clock.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Set by the caller to end a calibration early; checked between runs.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Ends the calibration after the run in progress.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was stopped.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Processor time of the calling thread. The kernel leaves out what the hypervisor stole, where it is told.
pub fn thread_time() -> Duration {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(at.tv_sec.cast_unsigned(), at.tv_nsec.cast_unsigned() as u32)
}

/// Was the CPU taken away in a run that took `wall` and got `cpu`? A twentieth may go to interrupts and clock reads.
pub fn was_preempted(wall: Duration, cpu: Duration) -> bool {
    wall > cpu + wall / 20 + Duration::from_micros(2)
}

/// What many runs of one measurement gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// The lowest run.
    pub value: f64,
    /// The third lowest run: together they say how far the lowest can be trusted.
    pub third: f64,
    /// Whether the three lowest agree within [`AGREE`].
    pub stable: bool,
    /// Runs made.
    pub runs: u32,
    /// Runs that did not count, because the CPU was taken away.
    pub preempted: u32,
}

impl Sample {
    /// Two visits to the same measurement, some time apart: what only one of them saw was the machine's business.
    #[must_use]
    pub fn and(self, later: Sample) -> Sample {
        let (low, high) = if self.value <= later.value { (self, later) } else { (later, self) };
        Sample {
            value: low.value,
            third: low.third.max(high.value),
            stable: self.stable && later.stable && high.value <= low.value * (1.0 + APART),
            runs: self.runs + later.runs,
            preempted: self.preempted + later.preempted,
        }
    }
}

/// Runs that agree differ by at most this share.
pub const AGREE: f64 = 0.03;
/// Two visits agree if they differ by at most this share.
pub const APART: f64 = 0.06;
const AT_LEAST: u32 = 8;

/// Repeats `run` until the three lowest results agree, at least eight times and at most for `budget`. Runs in which
/// this thread sleeps are compared with nothing; others use [`minimum_on_cpu`].
pub fn minimum(budget: Duration, stop: &Stop, mut run: impl FnMut() -> f64) -> Sample {
    repeat(budget, stop, || (run(), false))
}

/// The same for runs in which this thread never sleeps: those the CPU was taken from do not count.
pub fn minimum_on_cpu(budget: Duration, stop: &Stop, mut run: impl FnMut() -> f64) -> Sample {
    repeat(budget, stop, || {
        let (wall, cpu) = (Instant::now(), thread_time());
        let value = run();
        let cpu = thread_time().saturating_sub(cpu);
        (value, was_preempted(wall.elapsed(), cpu))
    })
}

fn repeat(budget: Duration, stop: &Stop, mut run: impl FnMut() -> (f64, bool)) -> Sample {
    let began = Instant::now();
    let mut low = [f64::INFINITY; 3];
    let mut disturbed = [f64::INFINITY; 3];
    let (mut runs, mut preempted) = (0, 0);
    loop {
        let (value, was_preempted) = run();
        runs += 1;
        preempted += u32::from(was_preempted);
        keep(if was_preempted { &mut disturbed } else { &mut low }, value);
        let good = runs - preempted;
        let stable = low[2] <= low[0] * (1.0 + AGREE);
        let over = began.elapsed() >= budget || stop.is_set();
        if (good >= AT_LEAST && stable) || (runs >= 3 && over) {
            let stable = stable && good >= AT_LEAST;
            if good < 3 {
                // Better a disturbed figure, reported as unstable, than none.
                for value in disturbed {
                    keep(&mut low, value);
                }
            }
            let third = if low[2].is_finite() { low[2] } else { low[0] };
            return Sample { value: low[0], third, stable, runs, preempted };
        }
    }
}

/// Keeps the three lowest in order.
pub fn keep(low: &mut [f64; 3], value: f64) {
    if value < low[2] {
        low[2] = value;
        low.sort_by(f64::total_cmp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_agree_end_early_and_are_stable() {
        let mut runs = [9.0, 5.0, 7.0, 5.05, 8.0, 5.1, 6.0, 9.0, 1.0].into_iter();
        let sample = minimum(Duration::from_mins(1), &Stop::default(), || runs.next().unwrap());
        assert_eq!(sample, Sample { value: 5.0, third: 5.1, stable: true, runs: 8, preempted: 0 });
    }

    #[test]
    fn runs_that_never_agree_are_reported_unstable_when_the_time_is_up() {
        let mut value = 1e9;
        let sample = minimum(Duration::from_millis(20), &Stop::default(), || {
            std::thread::sleep(Duration::from_millis(1));
            value *= 0.5;
            value
        });
        assert!(!sample.stable && sample.runs >= 3);
    }

    #[test]
    fn runs_the_cpu_was_taken_from_do_not_count() {
        let mut runs = (0..).map(|i| if i % 2 == 0 { (1.0, true) } else { (5.0, false) });
        let sample = repeat(Duration::from_mins(1), &Stop::default(), || runs.next().unwrap());
        assert_eq!((sample.value, sample.stable, sample.runs, sample.preempted), (5.0, true, 16, 8));
        let mut always = std::iter::repeat((7.0, true));
        let sample = repeat(Duration::ZERO, &Stop::default(), || always.next().unwrap());
        assert_eq!((sample.value, sample.stable, sample.preempted), (7.0, false, 3));
    }

    #[test]
    fn sleeping_is_noticed_and_computing_is_not() {
        let (wall, cpu) = (Instant::now(), thread_time());
        std::thread::sleep(Duration::from_millis(20));
        assert!(was_preempted(wall.elapsed(), thread_time().saturating_sub(cpu)));
        assert!(!was_preempted(Duration::from_micros(100), Duration::from_micros(97)));
        assert!(was_preempted(Duration::from_millis(5), Duration::from_millis(4)));
    }

    #[test]
    fn two_visits_that_disagree_are_not_stable() {
        let of = |value| Sample { value, third: value * 1.01, stable: true, runs: 8, preempted: 1 };
        let near = of(10.0).and(of(10.2));
        assert_eq!(
            (near.value, near.third, near.stable, near.runs, near.preempted),
            (10.0, 10.2, true, 16, 2)
        );
        let far = of(15.0).and(of(10.0));
        assert_eq!((far.value, far.third, far.stable), (10.0, 15.0, false));
    }

    #[test]
    fn a_stopped_measurement_ends_and_is_not_called_stable() {
        let stop = Stop::default();
        stop.stop();
        let sample = minimum(Duration::from_mins(1), &stop, || 1.0);
        assert_eq!((sample.runs, sample.stable), (3, false));
    }
}
