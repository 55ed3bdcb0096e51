//! How long things took: quantiles from HDR histograms, means from exact sums.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Below a nanosecond and above 18 minutes the histogram counts the nearest end; the sum is exact all the same.
const BOUNDS: (u64, u64) = (1000, 1 << 50);

/// Durations of one kind, in picoseconds.
#[derive(Clone, Debug)]
pub struct Durations {
    histogram: Histogram<u64>,
    sum: u128,
}

/// The same counts and the same sum; what a histogram remembers of its past beside that is no part of it.
impl PartialEq for Durations {
    fn eq(&self, other: &Self) -> bool {
        let recorded = |d: &Self| -> Vec<(u64, u64)> {
            d.histogram.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect()
        };
        self.sum == other.sum && recorded(self) == recorded(other)
    }
}

/// What [`Durations`] are in a checkpoint: values with their counts, and the sum.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedDurations(Vec<(u64, u64)>, String);

impl Durations {
    fn new() -> Self {
        let (low, high) = BOUNDS;
        let histogram = Histogram::new_with_bounds(low, high, 2).expect("the bounds are constants");
        Durations { histogram, sum: 0 }
    }

    /// Counts one.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts several alike.
    pub fn record_n(&mut self, value: u64, count: u64) {
        self.histogram.saturating_record_n(value.max(BOUNDS.0), count);
        self.sum += u128::from(value) * u128::from(count);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// Their exact mean; 0 if there are none.
    pub fn mean(&self) -> f64 {
        if self.count() == 0 { 0.0 } else { self.sum as f64 / self.count() as f64 }
    }

    /// The value below which this share of them lies, to two digits.
    pub fn quantile(&self, share: f64) -> u64 {
        self.histogram.value_at_quantile(share)
    }

    /// As plain data.
    pub fn save(&self) -> SavedDurations {
        let values = self.histogram.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value()));
        SavedDurations(values.collect(), self.sum.to_string())
    }

    /// From plain data; `false` if it is none.
    pub fn restore(&mut self, saved: &SavedDurations) -> bool {
        let Ok(sum) = saved.1.parse() else { return false };
        self.histogram.reset();
        for &(value, count) in &saved.0 {
            self.histogram.saturating_record_n(value, count);
        }
        self.sum = sum;
        true
    }
}

/// How long system calls and interruptions took, by class of CPU (0 isolated, 1 housekeeping).
#[derive(Clone, Debug)]
pub struct Latencies {
    /// From SYSCALL to the body: hardware and entry code.
    pub entry: [Durations; 2],
    /// System calls, refills included.
    pub syscall: [Durations; 2],
    /// Interruptions of user mode.
    pub interruption: [Durations; 2],
    /// Waits of initiators.
    pub wait: Durations,
    /// Of `entry` and `syscall`: the value seen last and how often it is still to be recorded. Most are as before.
    same: [[(u64, u64); 2]; 2],
}

impl Latencies {
    /// Nothing took any time yet.
    pub fn new() -> Self {
        let d = Durations::new;
        Latencies {
            entry: [d(), d()],
            syscall: [d(), d()],
            interruption: [d(), d()],
            wait: d(),
            same: [[(0, 0); 2]; 2],
        }
    }

    /// All of them with their names, in the order of results.
    pub fn each(&self) -> [(&'static str, &Durations); 7] {
        let Latencies { entry, syscall, interruption, wait, .. } = self;
        [
            ("syscall_isolated", &syscall[0]),
            ("syscall_housekeeping", &syscall[1]),
            ("entry_isolated", &entry[0]),
            ("entry_housekeeping", &entry[1]),
            ("interruption_isolated", &interruption[0]),
            ("interruption_housekeeping", &interruption[1]),
            ("initiator_wait", wait),
        ]
    }

    /// All of them, in the same order.
    pub fn each_mut(&mut self) -> [&mut Durations; 7] {
        let ([a, b], [c, d]) = (self.syscall.each_mut(), self.entry.each_mut());
        let [e, f] = self.interruption.each_mut();
        [a, b, c, d, e, f, &mut self.wait]
    }

    /// A system call reached its body.
    #[inline]
    pub fn entered(&mut self, class: usize, value: u64) {
        let same = &mut self.same[0][class];
        if same.0 != value {
            settle(&mut self.entry[class], same, value);
        }
        same.1 += 1;
    }

    /// A system call is over.
    #[inline]
    pub fn returned(&mut self, class: usize, value: u64) {
        let same = &mut self.same[1][class];
        if same.0 != value {
            settle(&mut self.syscall[class], same, value);
        }
        same.1 += 1;
    }

    /// Records what has not been yet.
    pub fn settle(&mut self) {
        let [entered, returned] = &mut self.same;
        for (d, same) in self.entry.iter_mut().zip(entered).chain(self.syscall.iter_mut().zip(returned)) {
            let value = same.0;
            settle(d, same, value);
        }
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

fn settle(d: &mut Durations, same: &mut (u64, u64), next: u64) {
    if same.1 > 0 {
        d.record_n(same.0, same.1);
    }
    *same = (next, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_exact_and_survives_saving() {
        let mut d = Durations::new();
        d.record_n(770_030, 999);
        d.record(1);
        assert_eq!(d.count(), 1000);
        assert!((d.mean() - (770_030.0 * 999.0 + 1.0) / 1000.0).abs() < 1e-6, "{}", d.mean());
        let mut again = Durations::new();
        assert!(again.restore(&d.save()));
        assert_eq!(again, d);
        assert!(!again.restore(&SavedDurations(Vec::new(), "x".into())));
    }

    #[test]
    fn quantiles_are_those_of_the_values_in_two_digits() {
        let mut d = Durations::new();
        for value in 1..=1000 {
            d.record(value * 10_000);
        }
        for (share, value) in
            [(0.5, 5_000_000.0), (0.9, 9_000_000.0), (0.99, 9_900_000.0), (0.999, 9_990_000.0)]
        {
            let found = d.quantile(share) as f64;
            assert!((found / value - 1.0).abs() < 0.01, "{share}: {found}");
        }
    }
}
