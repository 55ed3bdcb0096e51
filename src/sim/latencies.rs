//! How long things took: quantiles from HDR histograms, means from exact sums.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Below a nanosecond and above 18 minutes the histogram counts the nearest end; the sum is exact all the same.
const BOUNDS: (u64, u64) = (1000, 1 << 50);

/// Durations of one kind, in picoseconds.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    /// None yet: an empty histogram takes 40 KB, and a short run has use for few of them.
    histogram: Option<Histogram<u64>>,
    sum: u128,
}

/// The same counts and the same sum; what a histogram remembers of its past beside that is no part of it.
impl PartialEq for Durations {
    fn eq(&self, other: &Self) -> bool {
        self.sum == other.sum && self.recorded() == other.recorded()
    }
}

/// What [`Durations`] are in a checkpoint: values with their counts, and the sum.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedDurations(Vec<(u64, u64)>, String);

impl Durations {
    /// The histogram, made when it is first needed.
    fn histogram(&mut self) -> &mut Histogram<u64> {
        let (low, high) = BOUNDS;
        let new = || Histogram::new_with_bounds(low, high, 2).expect("the bounds are constants");
        self.histogram.get_or_insert_with(new)
    }

    /// Values with their counts.
    fn recorded(&self) -> Vec<(u64, u64)> {
        let each = self.histogram.iter().flat_map(Histogram::iter_recorded);
        each.map(|v| (v.value_iterated_to(), v.count_at_value())).collect()
    }

    /// These and others.
    #[must_use]
    pub fn with(&self, others: &Durations) -> Durations {
        let mut both = self.clone();
        if let Some(histogram) = &others.histogram {
            both.histogram().add(histogram).expect("all have the same bounds");
        }
        both.sum += others.sum;
        both
    }

    /// Counts one.
    #[inline]
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts several alike.
    pub fn record_n(&mut self, value: u64, count: u64) {
        self.histogram().saturating_record_n(value.max(BOUNDS.0), count);
        self.sum += u128::from(value) * u128::from(count);
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, Histogram::len)
    }

    /// Their exact mean; 0 if there are none.
    pub fn mean(&self) -> f64 {
        if self.count() == 0 { 0.0 } else { self.sum as f64 / self.count() as f64 }
    }

    /// The value below which this share of them lies, to two digits; 0 if there are none.
    pub fn quantile(&self, share: f64) -> u64 {
        self.histogram.as_ref().map_or(0, |h| h.value_at_quantile(share))
    }

    /// As plain data.
    pub fn save(&self) -> SavedDurations {
        SavedDurations(self.recorded(), self.sum.to_string())
    }

    /// From plain data; `false` if it is none.
    pub fn restore(&mut self, saved: &SavedDurations) -> bool {
        let Ok(sum) = saved.1.parse() else { return false };
        self.histogram = None;
        for &(value, count) in &saved.0 {
            self.histogram().saturating_record_n(value, count);
        }
        self.sum = sum;
        true
    }
}

/// How long system calls, interruptions and waits took, by class of CPU (0 isolated, 1 housekeeping).
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    /// From SYSCALL to the body: hardware and entry code.
    pub entry: [Durations; 2],
    /// System calls, refills included.
    pub syscall: [Durations; 2],
    /// Interruptions of user mode.
    pub interruption: [Durations; 2],
    /// Waits of initiators.
    pub wait: [Durations; 2],
    /// Of `entry`, `syscall` and `interruption`: the value seen last and how often it is still to be recorded. Most are as
    /// before.
    same: [[(u64, u64); 2]; 3],
}

impl Latencies {
    /// All of them, kind by kind.
    pub fn each(&self) -> impl Iterator<Item = &Durations> {
        [&self.syscall, &self.entry, &self.interruption, &self.wait].into_iter().flatten()
    }

    /// All of them, in the same order.
    pub fn each_mut(&mut self) -> impl Iterator<Item = &mut Durations> {
        let Latencies { syscall, entry, interruption, wait, .. } = self;
        [syscall, entry, interruption, wait].into_iter().flatten()
    }

    /// A system call reached its body.
    #[inline]
    pub fn entered(&mut self, class: usize, value: u64) {
        again(&mut self.entry[class], &mut self.same[0][class], value);
    }

    /// A system call is over.
    #[inline]
    pub fn returned(&mut self, class: usize, value: u64) {
        again(&mut self.syscall[class], &mut self.same[1][class], value);
    }

    /// An interruption of user mode is over.
    #[inline]
    pub fn interrupted(&mut self, class: usize, value: u64) {
        again(&mut self.interruption[class], &mut self.same[2][class], value);
    }

    /// Records what has not been yet.
    pub fn settle(&mut self) {
        let kinds = [&mut self.entry, &mut self.syscall, &mut self.interruption];
        for (d, same) in kinds.into_iter().flatten().zip(self.same.iter_mut().flatten()) {
            let value = same.0;
            settle(d, same, value);
        }
    }
}

/// One more, mostly as the one before.
#[inline]
fn again(d: &mut Durations, same: &mut (u64, u64), value: u64) {
    if same.0 != value {
        settle(d, same, value);
    }
    same.1 += 1;
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
        let mut d = Durations::default();
        d.record_n(770_030, 999);
        d.record(1);
        assert_eq!(d.count(), 1000);
        assert!((d.mean() - (770_030.0 * 999.0 + 1.0) / 1000.0).abs() < 1e-6, "{}", d.mean());
        let mut again = Durations::default();
        assert!(again.restore(&d.save()));
        assert_eq!(again, d);
        assert!(!again.restore(&SavedDurations(Vec::new(), "x".into())));
    }

    #[test]
    fn what_two_classes_took_together_is_as_if_one_had_taken_it() {
        let (mut a, mut b, mut both) = (Durations::default(), Durations::default(), Durations::default());
        assert_eq!((a.count(), a.quantile(0.5)), (0, 0));
        for (value, count) in [(5_000, 3), (70_000, 1)] {
            a.record_n(value, count);
            both.record_n(value, count);
        }
        assert_eq!(a.with(&b), both);
        assert_eq!(b.with(&a), both);
        b.record(900_000);
        both.record(900_000);
        assert_eq!(a.with(&b), both);
        assert_eq!(a.with(&b).count(), 5);
    }

    #[test]
    fn quantiles_are_those_of_the_values_in_two_digits() {
        let mut d = Durations::default();
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
