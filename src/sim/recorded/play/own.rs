//! One isolated CPU in a run: where its program is, which calls wait there, and what it has not made up for.

use super::calls::Pending;
use super::{CpuPlayed, FORCED, NEVER};
use crate::kernel::step::{Cpu, Frame};

/// Changes of what is pending that are kept of a CPU.
const MOST_LEVELS: usize = 1 << 17;

/// One isolated CPU.
#[derive(Clone, Debug)]
pub(in crate::sim::recorded) struct Own {
    pub(in crate::sim::recorded) cpu: Cpu,
    /// Its program, halfway; `None` in user mode.
    pub(in crate::sim::recorded) base: Option<Frame>,
    pub(in crate::sim::recorded) stay: u32,
    /// The stay counts.
    pub(in crate::sim::recorded) counted: bool,
    /// The last stay that happened.
    pub(in crate::sim::recorded) happened: u32,
    pub(in crate::sim::recorded) idle: Option<Frame>,
    pub(in crate::sim::recorded) idle_irq: Option<Frame>,
    /// A stay that begins as soon as a call waits which this interrupt ran.
    pub(in crate::sim::recorded) armed: Option<(u32, u32, bool)>,
    pub(in crate::sim::recorded) pending: Vec<Pending>,
    /// Since when something is pending there.
    pub(in crate::sim::recorded) owes_since: u64,
    /// How many requests are, as it changes; empty unless asked for.
    pub(in crate::sim::recorded) levels: Vec<(u64, u32)>,
    pub(in crate::sim::recorded) out: CpuPlayed,
}

impl Own {
    /// In the kernel, at the beginning of its first program; nothing has happened.
    pub(in crate::sim::recorded) fn new(cpu: Cpu) -> Self {
        Own {
            cpu,
            base: Some(Frame::new(0)),
            stay: FORCED,
            counted: false,
            happened: FORCED,
            idle: None,
            idle_irq: None,
            armed: None,
            pending: Vec::new(),
            owes_since: NEVER,
            levels: Vec::new(),
            out: CpuPlayed::default(),
        }
    }

    /// So many requests wait here from now on. Times do not go back: what began before the last change begins with it.
    pub(in crate::sim::recorded) fn level(&mut self, at_ns: u64, value: u32) {
        if self.levels.len() < MOST_LEVELS {
            let at_ns = self.levels.last().map_or(at_ns, |(last, _)| at_ns.max(*last));
            self.levels.push((at_ns, value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::median;
    use super::*;

    #[test]
    fn what_is_typical_is_the_one_in_the_middle() {
        for (all, found) in
            [(vec![], 8), (vec![3], 3), (vec![9, 1], 9), (vec![9, 1, 5], 5), (vec![7, 2, 9, 1, 5], 5)]
        {
            assert_eq!(median(all, 8), found);
        }
    }

    #[test]
    fn as_many_levels_are_kept_as_may_be_and_none_goes_back_in_time() {
        let mut own = Own::new(0);
        for (at, value) in [(5, 1), (3, 2), (9, 0)] {
            own.level(at, value);
        }
        assert_eq!(own.levels, [(5, 1), (5, 2), (9, 0)]);
        for at in 3..MOST_LEVELS as u64 + 5 {
            own.level(10 + at, 7);
        }
        assert_eq!((own.levels.len(), own.levels.last()), (1 << 17, Some(&(10 + (1 << 17) - 1, 7))));
    }
}
