//! Loops that only look at CPUs: a broadcast that decides whom to call. CPUs that are quiet and look like one seen
//! before need no op by op.

use super::super::machine::Look;
use super::Engine;
use super::ops::one;
use crate::kernel::program::{Op, Pc, REGS};
use crate::kernel::step::{Cpu, Machine, Outcome};

/// One turn of a loop that only looks at CPUs: what it did for a CPU that looked like this.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pc: Pc,
    me: bool,
    /// Of the registers that the loop touches.
    before: [u64; REGS],
    after: [u64; REGS],
    look: Look,
}

/// Different looks that are remembered; more would mean that nothing repeats.
const TURNS: usize = 16;

impl Engine {
    /// At the head of a loop that only looks. CPUs that are quiet and look like one seen before need no op by op.
    pub(super) fn run_scan(&mut self, cpu: Cpu, top: usize, until: u64, driven: bool) {
        let i = usize::from(cpu);
        let head = self.own[i].acts[top].frame.pc;
        let touched = self.known[usize::from(head)].touched;
        let of_loop = |regs: &[u64; REGS]| {
            let mut of = *regs;
            (0..REGS).filter(|r| touched >> r & 1 == 0).for_each(|r| of[r] = 0);
            of
        };
        let Op::Each { of, .. } = self.code.ops[usize::from(head)] else { unreachable!("the class says so") };
        if !driven || !(self.skip || self.replays) || self.m.looks_differ() {
            return self.run_private(cpu, top, until, driven);
        }
        loop {
            let (now, place) = (self.m.cores[i].clock, self.m.cores[i].loop_next);
            let who = self.m.next_in(cpu, of);
            let quiet = who.is_some_and(|w| w == cpu || self.m.is_quiet_until(w, now));
            let Some(who) = who.filter(|_| quiet) else {
                self.m.cores[i].loop_next = place;
                return self.run_private(cpu, top, until, true);
            };
            let frame = &mut self.own[i].acts[top].frame;
            let (sets, me) = (self.m.sets_of(who), who == cpu);
            let vars = self.m.packed_vars(who);
            let found = of_loop(&frame.regs);
            let known = self.turns.iter().find(|t| {
                (t.pc, t.me, t.look.sets, t.look.vars) == (head, me, sets, vars) && t.before == found
            });
            if let Some(turn) = known {
                if now + turn.look.cost >= until {
                    self.m.cores[i].loop_next = place;
                    return self.run_private(cpu, top, until, true);
                }
                (0..REGS).filter(|r| touched >> r & 1 == 1).for_each(|r| frame.regs[r] = turn.after[r]);
                frame.cur = who;
                self.m.cores[i].clock = now + turn.look.cost;
                if turn.look.put {
                    self.m.put(cpu, who);
                }
                // Those behind it that look the same, as long as there are any.
                if !me && turn.before == turn.after {
                    frame.cur = self.m.repeat(cpu, of, turn.look, until).unwrap_or(who);
                }
                continue;
            }
            self.m.cores[i].loop_next = place;
            let (before, was) = (found, self.m.is_target(cpu, who));
            loop {
                if one(&self.code, frame, &mut self.m, cpu) != Outcome::Next {
                    return; // a rule was broken: the op by op way reports it
                }
                if frame.pc == head {
                    break;
                }
                let now = self.m.cores[i].clock;
                let busy = !me && !self.m.is_quiet_until(who, now);
                if now >= until || busy {
                    return;
                }
            }
            let after = of_loop(&self.own[i].acts[top].frame.regs);
            let cost = self.m.cores[i].clock - now;
            let put = self.m.is_target(cpu, who);
            if !was && self.turns.len() < TURNS {
                let look = Look { sets, vars, cost, put };
                self.turns.push(Turn { pc: head, me, before, after, look });
            }
            if self.m.cores[i].clock >= until {
                return;
            }
        }
    }
}
