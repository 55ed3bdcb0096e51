//! Loops that only look at CPUs: a broadcast that decides whom to call. CPUs that are quiet and look like one seen
//! before need no op by op.

use super::Engine;
use crate::kernel::program::{Op, Pc, REGS};
use crate::kernel::step::{Cpu, Machine, Outcome, step};

/// One turn of a loop that only looks at CPUs: what it did for a CPU that looked like this.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pc: Pc,
    sets: u8,
    me: bool,
    vars: u64,
    before: [u64; REGS],
    after: [u64; REGS],
    cost: u64,
    put: bool,
}

/// Different looks that are remembered; more would mean that nothing repeats.
const TURNS: usize = 16;

impl Engine {
    /// At the head of a loop that only looks. CPUs that are quiet and look like one seen before need no op by op.
    pub(super) fn run_scan(&mut self, cpu: Cpu, top: usize, until: u64, driven: bool) {
        let i = usize::from(cpu);
        let head = self.own[i].acts[top].frame.pc;
        let Op::Each { of, .. } = self.code.ops[usize::from(head)] else { unreachable!("the class says so") };
        if !driven || !self.skip {
            return self.run_private(cpu, top, until, driven);
        }
        loop {
            let (now, place) = (self.m.cores[i].clock, self.m.cores[i].loop_next);
            let who = self.m.next_in(cpu, of);
            let quiet = who.is_some_and(|w| w == cpu || self.m.cores[usize::from(w)].is_quiet_until(now));
            let Some(who) = who.filter(|_| quiet) else {
                self.m.cores[i].loop_next = place;
                return self.run_private(cpu, top, until, true);
            };
            let frame = &mut self.own[i].acts[top].frame;
            let (sets, me) = (self.m.sets_of(who), who == cpu);
            let vars = self.m.vars_of(who).iter().fold(0u64, |all, v| all << 16 | u64::from(*v));
            let known = self.turns.iter().find(|t| {
                t.pc == head && t.sets == sets && t.me == me && t.vars == vars && t.before == frame.regs
            });
            if let Some(turn) = known {
                if now + turn.cost >= until {
                    self.m.cores[i].loop_next = place;
                    return self.run_private(cpu, top, until, true);
                }
                frame.regs = turn.after;
                frame.cur = who;
                self.m.cores[i].clock = now + turn.cost;
                if turn.put {
                    self.m.put(cpu, who);
                }
                continue;
            }
            self.m.cores[i].loop_next = place;
            let (before, was) = (frame.regs, self.m.is_target(cpu, who));
            loop {
                if step(&self.code, frame, &mut self.m, cpu) != Outcome::Next {
                    return; // a rule was broken: the op by op way reports it
                }
                if frame.pc == head {
                    break;
                }
                let now = self.m.cores[i].clock;
                let busy = !me && !self.m.cores[usize::from(who)].is_quiet_until(now);
                if now >= until || busy {
                    return;
                }
            }
            let after = self.own[i].acts[top].frame.regs;
            let cost = self.m.cores[i].clock - now;
            let put = self.m.is_target(cpu, who);
            if !was && self.turns.len() < TURNS {
                self.turns.push(Turn { pc: head, sets, me, vars, before, after, cost, put });
            }
            if self.m.cores[i].clock >= until {
                return;
            }
        }
    }
}
