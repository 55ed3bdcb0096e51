//! What an op reads, writes and computes with: registers, constants, places in memory, sets of CPUs.

use serde::Serialize;

/// Index into [`Code::ops`](super::Code::ops).
pub type Pc = u16;

/// A frame-local register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Reg(pub u8);

/// Registers per frame.
pub const REGS: usize = 6;

/// An operand: a small constant or a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Val {
    /// A constant.
    Imm(u8),
    /// A register.
    Reg(Reg),
}

/// Whose copy of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum At {
    /// The one copy of a shared variable.
    Shared,
    /// This CPU's copy: a %gs-relative access (SEMANTICS S8).
    Me,
    /// The copy of the CPU the enclosing loop is at.
    Cur,
    /// The copy of the address space whose number the register holds.
    Mm(Index),
    /// This CPU's copy for the ASID that the register holds.
    Asid(Index),
}

/// A register that chooses a copy. An enum, so that [`At`] is one byte and an [`Op`](super::Op) eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[allow(missing_docs)]
pub enum Index {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
}

impl Index {
    /// Every one, in order.
    pub const ALL: [Index; REGS] = [Index::R0, Index::R1, Index::R2, Index::R3, Index::R4, Index::R5];

    /// The register.
    pub const fn reg(self) -> Reg {
        Reg(self as u8)
    }
}

/// A memory operand: a field of a variable, and whose copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Place {
    /// Index into [`Code::fields`](super::Code::fields).
    pub field: u8,
    /// Whose copy.
    pub at: At,
}

/// Sets of CPUs a loop or an IPI ranges over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Set {
    /// Every online CPU, this one included.
    Online,
    /// Every online CPU but this one.
    Others,
    /// `housekeeping_cpu(cpu, HK_TYPE_KERNEL_NOISE)`.
    Housekeeping,
    /// `tick_nohz_full_mask`.
    NohzFull,
    /// The mask v7's flush consults; equals `nohz_full` unless a scenario says otherwise (FACTS 1.6 f).
    FlushMask,
    /// What this frame collected with `put`.
    Targets,
    /// `mm_cpumask` of the address space this CPU's flush is about, this CPU left out.
    MmCpumask,
}

/// Comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Cmp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less (unsigned).
    Lt,
    /// At least (unsigned).
    Ge,
    /// At most (unsigned).
    Le,
    /// More (unsigned).
    Gt,
    /// Have a common bit.
    Test,
}

/// Arithmetic on registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Alu {
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
}

/// Locked read-modify-write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Rmw {
    /// XCHG.
    Xchg,
    /// LOCK XADD.
    Add,
    /// LOCK OR, old value returned.
    Or,
    /// LOCK AND, old value returned.
    And,
    /// LOCK SUB (LOCK XADD of the negative), old value returned.
    Sub,
    /// LOCK XOR, old value returned.
    Xor,
    /// LOCK BTS: sets a bit and returns what it was (CF).
    Bts,
    /// LOCK BTR: clears a bit and returns what it was.
    Btr,
    /// LOCK BTC: turns a bit over and returns what it was.
    Btc,
}

impl Rmw {
    /// What memory holds after it, and what its register gets. A difference below zero and a bit beyond 63 fit no
    /// variable: the machine that stores the value says so.
    #[inline]
    pub fn apply(self, old: u64, v: u64) -> (u64, u64) {
        let bit = 1u64.checked_shl(u32::try_from(v).unwrap_or(u32::MAX));
        let of = |new: fn(u64, u64) -> u64| {
            bit.map_or((u64::MAX, 0), |bit| (new(old, bit), u64::from(old & bit != 0)))
        };
        match self {
            Rmw::Xchg => (v, old),
            Rmw::Add => (old.wrapping_add(v), old),
            Rmw::Or => (old | v, old),
            Rmw::And => (old & v, old),
            Rmw::Sub => (old.wrapping_sub(v), old),
            Rmw::Xor => (old ^ v, old),
            Rmw::Bts => of(|old, bit| old | bit),
            Rmw::Btr => of(|old, bit| old & !bit),
            Rmw::Btc => of(|old, bit| old ^ bit),
        }
    }

    /// Its operand is the number of a bit, and its result one bit.
    pub const fn is_of_a_bit(self) -> bool {
        matches!(self, Rmw::Bts | Rmw::Btr | Rmw::Btc)
    }

    /// Every one, with its word.
    pub const ALL: [(&'static str, Rmw); 9] = [
        ("xchg", Rmw::Xchg),
        ("add", Rmw::Add),
        ("or", Rmw::Or),
        ("and", Rmw::And),
        ("sub", Rmw::Sub),
        ("xor", Rmw::Xor),
        ("bts", Rmw::Bts),
        ("btr", Rmw::Btr),
        ("btc", Rmw::Btc),
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, f)| *f == self).map_or("", |(name, _)| name)
    }
}

impl Cmp {
    /// Does `a` compare so with `b`?
    #[inline]
    pub fn holds(self, a: u64, b: u64) -> bool {
        match self {
            Cmp::Eq => a == b,
            Cmp::Ne => a != b,
            Cmp::Lt => a < b,
            Cmp::Ge => a >= b,
            Cmp::Le => a <= b,
            Cmp::Gt => a > b,
            Cmp::Test => a & b != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_and_what_it_returns() {
        let (all, most) = (u64::MAX, 1 << 63);
        let rows = [
            ("xchg", 6, 3, (3, 6)),
            ("add", 6, 3, (9, 6)),
            ("add", all, 1, (0, all)),
            ("or", 6, 3, (7, 6)),
            ("and", 6, 3, (2, 6)),
            ("sub", 6, 3, (3, 6)),
            ("sub", 0, 1, (all, 0)),
            ("xor", 6, 3, (5, 6)),
            ("bts", 4, 1, (6, 0)),
            ("bts", 6, 1, (6, 1)),
            ("btr", 6, 1, (4, 1)),
            ("btr", 4, 1, (4, 0)),
            ("btc", 6, 1, (4, 1)),
            ("btc", 4, 1, (6, 0)),
            ("bts", 0, 63, (most, 0)),
            ("bts", 0, 64, (all, 0)),
            ("btr", 5, all, (all, 0)),
        ];
        for (name, old, v, then) in rows {
            let f = Rmw::ALL.iter().find(|(word, _)| *word == name).unwrap().1;
            assert_eq!(f.apply(old, v), then, "{name} of {old} by {v}");
            assert_eq!((f.name(), f.is_of_a_bit()), (name, name.starts_with("bt")), "{name}");
        }
    }

    #[test]
    fn each_comparison_of_less_equal_and_more() {
        let rows = [
            (Cmp::Eq, [false, true, false]),
            (Cmp::Ne, [true, false, true]),
            (Cmp::Lt, [true, false, false]),
            (Cmp::Ge, [false, true, true]),
            (Cmp::Le, [true, true, false]),
            (Cmp::Gt, [false, false, true]),
        ];
        for (cmp, holds) in rows {
            assert_eq!([4, 5, 6].map(|a| cmp.holds(a, 5)), holds, "{cmp:?}");
        }
        assert_eq!([0, 2, 3, 7].map(|a| Cmp::Test.holds(a, 5)), [false, false, true, true]);
    }
}
