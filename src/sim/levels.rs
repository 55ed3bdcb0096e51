//! What stands at some height for a while: deferred flushes and syncs that a CPU has not made up for, pages on the lazy
//! list. Kept like the timeline, a ring of the last changes of each.

use std::collections::VecDeque;

/// What can be pending on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Pending {
    /// Flush requests that were over before it flushed.
    Flushes,
    /// Syncs of patched text that were over before it serialised.
    Syncs,
}

/// Names of what [`Change::what`] counts: the two of [`Pending`], and the lazy list.
pub const LEVELS: [&str; 3] = ["deferred_flushes", "deferred_syncs", "lazy_pages"];

/// One change, of a CPU or (`None`) of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub time_ps: u64,
    /// Where.
    pub cpu: Option<u16>,
    /// Which of [`LEVELS`].
    pub what: usize,
    /// How much there is from here on.
    pub value: u64,
}

/// A level and its last changes.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Level {
    keep: usize,
    value: u64,
    changes: VecDeque<(u64, u64)>,
}

impl Level {
    /// Nothing yet; keeps the last `keep` changes.
    pub fn new(keep: usize) -> Self {
        Level { keep, value: 0, changes: VecDeque::new() }
    }

    /// It is this much from now on.
    pub fn set(&mut self, time_ps: u64, value: u64) {
        if self.keep == 0 || value == self.value {
            return;
        }
        self.value = value;
        if self.changes.len() >= self.keep {
            self.changes.pop_front();
        }
        self.changes.push_back((time_ps, value));
    }

    /// It is one more.
    pub fn rise(&mut self, time_ps: u64) {
        self.set(time_ps, self.value + 1);
    }

    /// The kept changes.
    pub fn changes(&self, cpu: Option<u16>, what: usize) -> impl Iterator<Item = Change> {
        self.changes.iter().map(move |(time_ps, value)| Change {
            time_ps: *time_ps,
            cpu,
            what,
            value: *value,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_changes_are_kept_and_what_is_no_change_is_not() {
        let mut level = Level::new(2);
        for (at, value) in [(1, 1), (2, 1), (3, 2), (4, 0)] {
            level.set(at, value);
        }
        let kept: Vec<_> = level.changes(None, 2).map(|c| (c.time_ps, c.value)).collect();
        assert_eq!(kept, [(3, 2), (4, 0)]);
    }
}
