//! What would be left of a thread's flushes if several in a row shared one: counted as they end, for some sizes.
//!
//! The flush that is left comes when the last of them came, and calls whoever runs the process then: at least the CPUs
//! that the last one called, at most all that any of them did.

use crate::order;
use rustc_hash::FxHashMap;
use serde::Serialize;

use super::{MOST, tasks::Id};

/// Calls that can be put together: `process_madvise`, an allocator's decay, one call for neighbours.
const TOGETHER: &[&str] = &["munmap", "madvise", "process_madvise", "mprotect"];

/// Can flushes of this call share one?
pub(super) fn can_share(call: &str) -> bool {
    TOGETHER.iter().any(|name| {
        call.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '(']))
    })
}

/// Flushes in a row.
#[derive(Clone, Debug, Default)]
struct Group {
    flushes: u32,
    /// CPUs of the last flush.
    last: u64,
    /// CPUs of any, sorted.
    any: Vec<u32>,
}

/// One thread's flushes by one call.
#[derive(Clone, Debug, Default)]
struct Sums {
    flushes: u64,
    calls: u64,
    /// By size: flushes and calls of the groups that are full, and the group that is not.
    of_size: Vec<(u64, u64, u64, Group)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Batches {
    sizes: Vec<u32>,
    sums: FxHashMap<(Id, &'static str), Sums>,
}

/// What is left of one thread's flushes by one call, if as many in a row share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BatchRow {
    thread: u32,
    call: &'static str,
    /// Flushes that share one.
    batch: u32,
    /// Flushes as recorded: those that asked another CPU.
    flushes: u64,
    /// Calls as recorded.
    calls: u64,
    /// Flushes left.
    left: u64,
    /// Calls left, the fewest.
    low: u64,
    /// The most.
    high: u64,
}

impl Batches {
    pub(super) fn new(sizes: &[u32]) -> Self {
        Self { sizes: sizes.to_vec(), sums: FxHashMap::default() }
    }

    /// A flush that called these CPUs is over.
    pub(super) fn flushed(&mut self, task: Id, call: &'static str, cpus: &[u32]) {
        if cpus.is_empty() || self.sizes.is_empty() || !can_share(call) {
            return;
        }
        if self.sums.len() >= MOST && !self.sums.contains_key(&(task, call)) {
            return; // its row is left out of the other tables too
        }
        let sums = self.sums.entry((task, call)).or_default();
        sums.flushes += 1;
        sums.calls += cpus.len() as u64;
        sums.of_size.resize_with(self.sizes.len(), Default::default);
        for ((left, low, high, group), &size) in sums.of_size.iter_mut().zip(&self.sizes) {
            group.flushes += 1;
            group.last = cpus.len() as u64;
            for &cpu in cpus {
                if let Err(at) = group.any.binary_search(&cpu) {
                    group.any.insert(at, cpu);
                }
            }
            if group.flushes == size {
                *left += 1;
                *low += group.last;
                *high += group.any.len() as u64;
                *group = Group::default();
            }
        }
    }

    /// All rows, in a fixed order.
    pub(super) fn rows(&self) -> Vec<BatchRow> {
        let mut keys: Vec<_> = self.sums.keys().copied().collect();
        order::natural(&mut keys);
        let of = |(thread, call)| {
            let sums = &self.sums[&(thread, call)];
            sums.of_size.iter().zip(&self.sizes).map(move |((left, low, high, open), &batch)| BatchRow {
                thread,
                call,
                batch,
                flushes: sums.flushes,
                calls: sums.calls,
                left: left + u64::from(open.flushes > 0),
                low: low + open.last,
                high: high + open.any.len() as u64,
            })
        };
        keys.into_iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_calls_whom_its_last_flush_called_or_all_that_any_did() {
        let mut batches = Batches::new(&[2, 3, 1]);
        for cpus in [&[1, 2][..], &[3], &[2, 3], &[1, 2, 3], &[2]] {
            batches.flushed(7, "munmap", cpus);
        }
        batches.flushed(7, "munmap", &[]); // called nobody
        batches.flushed(7, "mremap", &[1]);
        batches.flushed(8, "munmap", &[4]);
        let row = |thread, batch, flushes, calls, left, low, high| BatchRow {
            thread,
            call: "munmap",
            batch,
            flushes,
            calls,
            left,
            low,
            high,
        }; // by hand: {1,2}+{3}, {2,3}+{1,2,3}, {2}; {1,2}+{3}+{2,3}, {1,2,3}+{2}
        let expected = [
            row(7, 2, 5, 9, 3, 1 + 3 + 1, 3 + 3 + 1),
            row(7, 3, 5, 9, 2, 2 + 1, 3 + 3),
            row(7, 1, 5, 9, 5, 9, 9),
            row(8, 2, 1, 1, 1, 1, 1),
            row(8, 3, 1, 1, 1, 1, 1),
            row(8, 1, 1, 1, 1, 1, 1),
        ];
        assert_eq!(batches.rows(), expected);
    }

    #[test]
    fn what_can_be_put_together_is_told_by_the_whole_name() {
        assert!(can_share("madvise(MADV_DONTNEED)"));
        assert!(can_share("process_madvise (advice not recorded)"));
        assert!(can_share("mprotect"));
        assert!(!can_share("munmapall"));
        assert!(!can_share("pkey_mprotect"));
        assert!(!can_share("exit_group"));
    }
}
