//! Arithmetic, bit tests and string instructions: values as far as branches and addresses depend on them.

use iced_x86::{Instruction, Mnemonic};

use super::exec::{Operand, RCX, RDI, RSI, RSP};
use super::{Flow, State, Walker, Why};
use crate::binary::step::Way;
use crate::binary::value::{ANY, Base, Flags, Val, mask};

impl Walker<'_, '_> {
    pub(super) fn arithmetic(
        &mut self,
        state: &mut State,
        i: &Instruction,
        m: Mnemonic,
        size: usize,
        at: u64,
    ) -> Flow {
        use Mnemonic as M;
        let target = self.operand(state, i, 0);
        let source = self.operand(state, i, 1);
        let mut memory = None;
        if let Operand::Memory(loc, _) = &source {
            self.touch(state, at, loc, Way::Load);
            memory = Some(loc.clone());
        }
        let mut atomic = false;
        if let Operand::Memory(loc, _) = &target {
            let way = match m {
                M::Cmp | M::Test => Way::Load,
                _ if i.has_lock_prefix() => Way::Locked,
                _ => Way::Rmw,
            };
            atomic = way == Way::Locked && self.is_tracking(loc);
            self.touch(state, at, loc, way);
            memory = Some(loc.clone());
        }
        let (a, b) = (self.plain(state, &target).cut(size), self.plain(state, &source).cut(size));
        let same = matches!((&target, &source), (Operand::Reg(x), Operand::Reg(y)) if x == y);
        let result = match m {
            M::Add => a.add(b).cut(size),
            M::Xor | M::Sub if same => Val::of(0),
            M::Sub if self.is_random_offset(&target, a, b) => a.sub(least(b)),
            M::Sub | M::Cmp => a.sub(b).cut(size),
            M::And | M::Test => a.and(b),
            M::Or => a.or(b),
            M::Xor => a.xor(b),
            _ => ANY.cut(size),
        };
        state.flags = match m {
            M::Add => Flags::sum(a, b, result, size),
            M::Sub | M::Cmp => Flags::compare(a, b, size),
            M::Adc | M::Sbb => Flags::default(),
            _ => Flags::logic(result, size),
        };
        state.why = Why(Some(*i), memory);
        if !matches!(m, M::Cmp | M::Test) {
            self.put(state, &target, result);
        }
        if atomic { Flow::Atomic } else { Flow::On }
    }

    /// `add_random_kstack_offset`: RSP goes down by what no path tells.
    fn is_random_offset(&self, target: &Operand, a: Val, b: Val) -> bool {
        let rsp = matches!(target, Operand::Reg(r) if r.is_gpr64() && r.number() == RSP);
        rsp && matches!(a, Val::Ptr(Base::TaskStack, _)) && b.constant(8).is_none() && b.bits().1 < 0x1000
    }

    pub(super) fn unary(&mut self, state: &mut State, i: &Instruction, m: Mnemonic, size: usize, at: u64) {
        use Mnemonic as M;
        let a = self.changed(state, i, at).cut(size);
        let result = match m {
            M::Inc => a.add(Val::of(1)),
            M::Dec => a.sub(Val::of(1)),
            M::Neg => Val::of(0).sub(a),
            _ => a.xor(Val::of(u64::MAX)),
        }
        .cut(size);
        self.stored(state, i, result);
        if m != M::Not {
            let cf = state.flags.cf;
            let of = a.constant(size).map(|v| match m {
                M::Inc => v == mask(size) >> 1,
                _ => v == (mask(size) >> 1) + 1,
            });
            state.flags = Flags { cf, of, ..Flags::logic(result, size) };
            if m == M::Neg {
                state.flags.cf = state.flags.zf.map(|z| !z);
            }
            state.why = Why(Some(*i), None);
        }
    }

    pub(super) fn bit_test(&mut self, state: &mut State, i: &Instruction, m: Mnemonic, size: usize, at: u64) {
        use Mnemonic as M;
        let bit = self.value(state, i, 1, at);
        let target = self.operand(state, i, 0);
        let mut memory = None;
        if let Operand::Memory(loc, _) = &target {
            let way = match m {
                M::Bt => Way::Load,
                _ if i.has_lock_prefix() => Way::Locked,
                _ => Way::Rmw,
            };
            self.touch(state, at, loc, way);
            memory = Some(loc.clone());
        }
        let old = self.plain(state, &target);
        let index = bit.constant(1).map(|b| b as u32 & (8 * size as u32 - 1));
        state.flags = Flags {
            cf: match index {
                Some(index) => old.bit(index),
                None if old.bits() == (u64::MAX, u64::MAX) => Some(true), // every CPU of a mask
                None => None,
            },
            ..Flags::default()
        };
        state.why = Why(Some(*i), memory);
        let new = match (m, index) {
            (M::Bt, _) => return,
            (M::Bts, Some(index)) => old.with_bit(index, true),
            (M::Btr, Some(index)) => old.with_bit(index, false),
            _ => ANY.cut(size),
        };
        self.put(state, &target, new);
    }

    pub(super) fn string(&mut self, state: &mut State, i: &Instruction, m: Mnemonic, at: u64) {
        use Mnemonic as M;
        let (size, moves) = match m {
            M::Movsb => (1, true),
            M::Movsw => (2, true),
            M::Movsd => (4, true),
            M::Movsq => (8, true),
            M::Stosb => (1, false),
            M::Stosd => (4, false),
            _ => (8, false),
        };
        let repeats =
            if i.has_rep_prefix() { state.regs[RCX].constant(8).filter(|n| *n <= 4096) } else { Some(1) };
        for _ in 0..repeats.unwrap_or(1) {
            let mut value = state.regs[0].cut(size);
            if moves {
                let from = self.locate_value(state.regs[RSI]);
                self.touch(state, at, &from, Way::Load);
                value = self.load(state, &from, size);
                state.regs[RSI] = state.regs[RSI].add(Val::of(size as u64));
            }
            let to = self.locate_value(state.regs[RDI]);
            self.touch(state, at, &to, Way::Store);
            self.store(state, &to, size, value);
            state.regs[RDI] = state.regs[RDI].add(Val::of(size as u64));
        }
        if i.has_rep_prefix() {
            state.regs[RCX] = Val::of(0);
            if repeats.is_none() {
                state.regs[RSI] = if moves { ANY } else { state.regs[RSI] };
                state.regs[RDI] = ANY;
            }
        }
    }
}

/// The least that a value may be.
fn least(value: Val) -> Val {
    Val::of(value.bits().1)
}
