//! How long things took: histograms of two digits, with an exact longest and an exact sum.

use hdrhistogram::Histogram;

/// How long something took.
#[derive(Clone, Debug)]
pub struct Lengths {
    /// Every length, in nanoseconds, with two digits.
    pub histogram: Histogram<u64>,
    /// What was taken from the CPU's task: nothing for what came while something else had the CPU already.
    pub taken_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// When that began.
    pub max_at_ns: u64,
}

impl Default for Lengths {
    fn default() -> Self {
        Self { histogram: histogram(), taken_ns: 0, max_ns: 0, max_at_ns: 0 }
    }
}

impl Lengths {
    /// One of this length.
    pub fn add(&mut self, at_ns: u64, length_ns: u64, outermost: bool) {
        self.histogram.record(length_ns).unwrap_or_default();
        self.taken_ns = self.taken_ns.saturating_add(if outermost { length_ns } else { 0 });
        if length_ns >= self.max_ns {
            (self.max_ns, self.max_at_ns) = (length_ns, at_ns);
        }
    }

    /// Those of another.
    pub fn extend(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("same precision");
        self.taken_ns = self.taken_ns.saturating_add(other.taken_ns);
        if other.max_ns >= self.max_ns {
            (self.max_ns, self.max_at_ns) = (other.max_ns, other.max_at_ns);
        }
    }
}

/// Lengths of which the longest and the sum are exact.
#[derive(Clone, Debug)]
pub struct Times {
    /// All of them, in nanoseconds, with two digits.
    pub histogram: Histogram<u64>,
    /// The longest.
    pub max_ns: u64,
    /// All together.
    pub sum_ns: u64,
}

impl Default for Times {
    fn default() -> Self {
        Self { histogram: histogram(), max_ns: 0, sum_ns: 0 }
    }
}

impl Times {
    /// One more.
    pub fn add(&mut self, ns: u64) {
        self.histogram.record(ns).unwrap_or_default();
        self.max_ns = self.max_ns.max(ns);
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// What this share of them does not exceed.
    pub fn quantile(&self, share: f64) -> u64 {
        self.histogram.value_at_quantile(share).min(self.max_ns)
    }
}

/// A histogram of two significant digits that grows as needed.
pub fn histogram() -> Histogram<u64> {
    Histogram::new(2).expect("two digits are allowed")
}
