//! Simulated time goes on, or the run says where it does not.
//!
//! Each turn of the global loop takes the CPU with the least [`Timed::demand`] and runs it until the next one's time.
//! Either its clock moves, or its demand does, or it carries out ops; ops that take no time are finitely many between
//! two that do. So the least demand grows after a bounded number of turns, unless a program waits for what cannot come:
//! then every turn leaves the CPU as it was.

use std::sync::atomic::AtomicBool;

use super::Engine;
use crate::kernel::program::{Op, Pc};
use crate::kernel::step::{Cpu, Violation};

/// Turns at one moment, per CPU and beside that, that no program of ours comes near.
const TURNS_PER_CPU: u64 = 4096;
const TURNS: u64 = 1 << 20;

/// So long after the end of a run, whoever still waits at the same place waits for ever; acknowledgements take
/// microseconds.
const PATIENCE_PS: u64 = 20_000_000_000;

/// Counts turns at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    last: u64,
    turns: u64,
}

impl Watch {
    pub(super) fn stands_still(&mut self, time: u64, cpus: Cpu) -> bool {
        if time != self.last {
            *self = Watch { last: time, turns: 0 };
        }
        self.turns += 1;
        self.turns > TURNS + TURNS_PER_CPU * u64::from(cpus)
    }
}

impl Engine {
    /// Ends the run at `time`: a deadlock of the CPUs that wait, or else a livelock of the one whose turn it is.
    pub(in crate::sim) fn halt(&mut self, time: u64) {
        self.halted = true;
        self.now = time;
        let waiting = self.waiting();
        let (_, next) = self.m.queue.top();
        let livelock = || {
            let depth = usize::from(self.m.cores[usize::from(next)].depth);
            let pc = if depth == 0 { 0 } else { self.own[usize::from(next)].acts[depth - 1].frame.pc };
            (next, pc, Violation::Livelock)
        };
        let (cpu, pc, what) = waiting.first().map_or_else(livelock, |w| (w.cpu, w.pc, Violation::Deadlock));
        self.violated(cpu, pc, what);
    }

    /// At the end of a run: a CPU that waits for what never comes is a deadlock, however short the run was.
    pub fn look_for_deadlock(&mut self) {
        let waiting = self.waiting();
        if waiting.is_empty() || self.halted {
            return;
        }
        let mut later = self.clone();
        later.run_until(self.now + PATIENCE_PS, &AtomicBool::new(false));
        let still = later.waiting();
        if let Some(one) = waiting.iter().find(|one| still.contains(one)) {
            self.violated(one.cpu, one.pc, Violation::Deadlock);
        }
    }

    /// The CPUs whose innermost program waits for others; not those that wait for interrupts alone, of which more come than
    /// they can take.
    fn waiting(&self) -> Vec<Waiting> {
        let mut found = Vec::new();
        for cpu in 0..self.scenario.cpus {
            let c = &self.m.cores[usize::from(cpu)];
            let depth = usize::from(c.depth);
            if self.due(cpu) <= c.clock {
                continue;
            }
            if let Some(act) = self.own[usize::from(cpu)].acts[..depth].last() {
                let pc = act.frame.pc;
                if matches!(self.code.ops[usize::from(pc)], Op::AwaitAcks | Op::Await { .. }) {
                    found.push(Waiting { cpu, pc, began: act.began, depth });
                }
            }
        }
        found
    }
}

/// A program that waits: the same wait later has the same fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    cpu: Cpu,
    pc: Pc,
    began: u64,
    depth: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_after_more_turns_at_one_moment_than_any_program_needs() {
        let mut watch = Watch::default();
        let most = TURNS + TURNS_PER_CPU * 8;
        assert!((0..most).all(|_| !watch.stands_still(5, 8)));
        assert!(watch.stands_still(5, 8));
        assert!(!watch.stands_still(6, 8), "another moment");
        assert!((1..most).all(|_| !watch.stands_still(6, 8)));
    }
}
