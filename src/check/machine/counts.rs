//! Counts are renamed to their ranks (SEMANTICS A8), so that what grows for ever has finitely many states.
//!
//! **The argument.** Call two states *alike* if they differ in the values of one count alone, and some map that keeps
//! order and leaves 0 where it is takes the values of one (in memory, store buffers, registers) to those of the other.
//! Alike states have the same moves, and lead to alike states:
//!
//! - A move looks at such values by comparing them with each other or with 0, and nothing else: `assemble::counts`
//!   refuses what is not of this form. Maps that keep order and 0 change no comparison.
//! - A value is copied, or replaced by 0: the same map does.
//! - `inc` and `add n, 1` are the one way to a new value. What counts is changed by nothing else, is shared, and is locked:
//!   in memory, and in no buffer, it is the largest value that there is, since every other one is 0 or was copied from it
//!   when it was no larger. So the new value is above all others in both states, and the map goes on to take it to the new
//!   one. Were any other value increased, its distance to the next one would count, and ranks forget it: hence the refusal.
//!
//! **One per address space** (`var n : count, per mm`) is a count for each, with an order of its own, and a value says whose it is
//! in the bits above its rank; 0 is a value of all. So copies are told apart wherever they are, and the maps above are one for
//! each address space. Values of two of them have no order among each other that ranks know: a comparison of such two ends the
//! run without a verdict, and where a comparison could not be stopped (`await`, `cas`, conditions) it is refused. It may start at
//! 1, the least that is not 0, which every map above leaves where it is in the order.
//!
//! So the graph of states up to such maps has the same runs as the one of the values themselves: every end, wait, rule and
//! loop is the same. The representative is the one whose values are 0 and then 1, 2, 3 without gaps. There are no more of them
//! than places, so with finitely many places the graph is finite, whatever the rounds. Ranks are of the whole state and
//! know no CPU by its number, so they commute with renaming CPUs; that a move reads and writes other CPUs' words is said in `others`.
//! Fusing and striking out CPUs are argued of runs with the values themselves, to which each run here belongs.

use super::Abs;
use crate::check::layout::{Bits, Target};
use crate::kernel::program::{COUNT_BITS, COUNT_OF_BITS, Cond, Holds, Op, Reg, Val};
use crate::kernel::step;

/// A value of an address space's count, by its rank; 0 is everybody's.
pub fn of_mm(rank: u64, mm: usize) -> u64 {
    if rank == 0 { 0 } else { rank | (mm as u64) << COUNT_BITS }
}

/// Whose a value is; 0 of one that all share.
fn whose(v: u64) -> usize {
    (v >> COUNT_BITS) as usize
}

/// The rank of a value among those of its count.
pub fn rank(v: u64) -> u64 {
    v & ((1 << COUNT_BITS) - 1)
}

impl<const W: usize> Abs<'_, W> {
    /// Rename the values of every count to their ranks, 0 being that of 0.
    pub fn rename_counts(&mut self) {
        if self.m.counts.is_empty() {
            return;
        }
        self.others = self.m.masks[3];
        for n in 0..self.m.counts.len() {
            let mut seen = [1u64; 1 << COUNT_OF_BITS]; // 0 is a value of every count
            self.map_count(n, |v| {
                seen[whose(v)] |= 1 << rank(v);
                v
            });
            self.map_count(n, |v| {
                let below = seen[whose(v)] & ((1 << rank(v)) - 1);
                of_mm(u64::from(below.count_ones()), whose(v))
            });
        }
    }

    /// Does the next op compare values of two address spaces' counts?
    pub(super) fn compares_two_orders(&self, frame: &step::Frame) -> bool {
        let Op::Unless { c: Cond::Cmp(_, a, Val::Reg(b)), .. } = self.m.code.ops[usize::from(frame.pc)]
        else {
            return false;
        };
        let held = self.m.held[usize::from(frame.pc)];
        let of = |r: Reg| (held >> (4 * r.0) & 15 != 0).then(|| frame.regs[usize::from(r.0)]);
        let (Some(a), Some(b)) = (of(a), of(b)) else { return false };
        a != 0 && b != 0 && whose(a) != whose(b)
    }

    /// Replace every value of a count.
    fn map_count(&mut self, n: usize, mut f: impl FnMut(u64) -> u64) {
        let m = self.m;
        let of = |var: u8| m.code.vars[usize::from(var)].holds == Holds::Count(m.counts[n]);
        let mut change = |a: &mut Self, b: Bits| {
            if b.exists() {
                let v = a.get(b);
                let new = f(v);
                if new != v {
                    a.set(b, new);
                }
            }
        };
        for var in (0..m.code.vars.len()).filter(|&var| of(var as u8)) {
            change(self, m.layout.shared.vars[var]);
            for b in m.layout.shared.mm_vars[var] {
                change(self, b);
            }
            for c in &m.layout.cpus {
                change(self, c.vars[var]);
                for b in c.asid_vars[var] {
                    change(self, b);
                }
            }
        }
        for (cpu, c) in m.layout.cpus.iter().enumerate() {
            for slot in 0..self.buffered(cpu) {
                let (Target::Field { field, .. }, v) = self.decode(cpu, slot) else { continue };
                if of(m.code.fields[usize::from(field)].var) {
                    let e = self.get(c.stores[slot]);
                    self.set(c.stores[slot], e - v + f(v));
                }
            }
            for frame in &c.frames {
                let at = self.get(frame.at) as usize;
                if at == 0 {
                    continue;
                }
                let location = &frame.locations[at - 1];
                for &(r, shift, mask) in &location.regs[..usize::from(location.live)] {
                    if m.held[usize::from(location.pc)] >> (4 * r) & 15 == n as u32 + 1 {
                        let area = self.get(frame.area);
                        let v = area >> shift & u64::from(mask);
                        self.set(frame.area, area - (v << shift) + (f(v) << shift));
                    }
                }
            }
        }
    }
}
