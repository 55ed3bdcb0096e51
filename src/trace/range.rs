//! Figures that a recording leaves open: an interval instead of a number.

use serde::Serialize;

/// An interval; equal ends are a figure the trace decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Range<T> {
    /// At least.
    pub low: T,
    /// At most.
    pub high: T,
}

impl<T: Copy + std::ops::AddAssign> Range<T> {
    /// Adds end to end.
    pub fn add(&mut self, other: Self) {
        self.low += other.low;
        self.high += other.high;
    }
}

/// The exact 95 % interval of a Poisson mean.
pub fn poisson_95(events: u64) -> Range<f64> {
    let (low, high) = crate::interval::poisson(events, 0.95);
    Range { low, high }
}
