//! Minimum of many: on a machine that does other things too, the least disturbed run is the one that tells the cost.
//! Repeated until the lowest runs agree, or reported as unstable.

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
}

/// Runs that agree differ by at most this share.
pub const AGREE: f64 = 0.03;
const AT_LEAST: u32 = 8;

/// Repeats `run` until the three lowest results agree, at least eight times and at most for `budget`.
pub fn minimum(budget: Duration, stop: &Stop, mut run: impl FnMut() -> f64) -> Sample {
    let began = Instant::now();
    let mut low = [f64::INFINITY; 3];
    let mut runs = 0;
    loop {
        let value = run();
        runs += 1;
        keep(&mut low, value);
        let stable = low[2] <= low[0] * (1.0 + AGREE);
        if (runs >= AT_LEAST && stable) || (runs >= 3 && (began.elapsed() >= budget || stop.is_set())) {
            return Sample { value: low[0], third: low[2], stable: stable && runs >= AT_LEAST, runs };
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
        assert_eq!(sample, Sample { value: 5.0, third: 5.1, stable: true, runs: 8 });
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
    fn a_stopped_measurement_ends_and_is_not_called_stable() {
        let stop = Stop::default();
        stop.stop();
        let sample = minimum(Duration::from_mins(1), &stop, || 1.0);
        assert_eq!((sample.runs, sample.stable), (3, false));
    }
}
