//! What conditions say of a state of the abstract machine, and of all states.

use std::collections::BTreeMap;

use super::{Condition, ENTRIES, MOST, Operand, Quantity};
use crate::check::machine::Model;
use crate::kernel::program::Cmp;

impl Quantity {
    /// Its value in a state; none of a local whose column is not over.
    pub fn value(self, m: &Model, s: &[u64]) -> Option<u64> {
        let shared = &m.layout.shared;
        Some(match self {
            Quantity::Field(field) => {
                let f = &m.code.fields[usize::from(field)];
                (shared.vars[usize::from(f.var)].get(s) & f.mask()) >> f.shift
            }
            Quantity::Register(cpu, slot) => {
                let c = &m.layout.cpus[usize::from(cpu)];
                if m.layout.cpus[m.cpu_of(s, usize::from(cpu))].frames[0].at.get(s) != 0 {
                    return None;
                }
                c.kept[usize::from(slot)].1.get(s)
            }
            Quantity::Leaf(p) => shared.kind[usize::from(p)].get(s),
            Quantity::Table(p) => {
                let present = shared.upper_kind[usize::from(p)];
                if present.exists() { present.get(s) } else { 1 }
            }
            Quantity::Fault(cpu, p) => {
                u64::from(m.layout.cpus[usize::from(cpu)].fault.get(s) == u64::from(p) + 1)
            }
        })
    }

    /// Which variable it counts, or copies (SEMANTICS A8).
    pub fn count(self, m: &Model) -> Option<u8> {
        match self {
            Quantity::Field(field) => m.code.counts(field),
            _ => None,
        }
    }

    /// Is it of a count per address space? Two such values may have no order.
    fn counts_per_mm(self, m: &Model) -> bool {
        matches!(self, Quantity::Field(field) if m.code.counts_per_mm(field))
    }

    /// The largest value it can have.
    pub fn most(self, m: &Model) -> u64 {
        match self {
            Quantity::Field(field) => (1 << m.code.fields[usize::from(field)].bits) - 1,
            Quantity::Register(cpu, slot) => m.layout.cpus[usize::from(cpu)].kept[usize::from(slot)].1.max(),
            Quantity::Leaf(_) => ENTRIES.len() as u64 - 1,
            Quantity::Table(_) | Quantity::Fault(..) => 1,
        }
    }
}

impl Condition {
    /// Does it surely hold in this state?
    pub fn holds(&self, m: &Model, s: &[u64]) -> bool {
        self.eval(&|q| q.value(m, s)) == Some(true)
    }

    /// Refuse constants that what they are compared with never reaches.
    pub fn fits(&self, m: &Model) -> Result<(), String> {
        match self {
            Condition::Always(_) => Ok(()),
            Condition::Compare(a, f, b) if self.quantities().iter().any(|q| q.count(m).is_some()) => {
                let count = match b {
                    Operand::Const(0) => a.count(m),
                    Operand::Of(b) if a.count(m) == b.count(m) && !a.counts_per_mm(m) => a.count(m),
                    Operand::Const(_) | Operand::Of(_) => None,
                };
                let name =
                    || self.quantities().iter().find(|q| q.count(m).is_some()).map(|q| q.name(&m.code));
                match count {
                    Some(_) if *f != Cmp::Test => Ok(()),
                    _ => Err(format!(
                        "`{}` counts: it is compared with 0 and with copies of the same count, by their order",
                        name().unwrap_or_default()
                    )),
                }
            }
            Condition::Compare(a, _, Operand::Const(n)) if *n > a.most(m) => {
                let (name, max) = (a.name(&m.code), a.most(m));
                Err(match a {
                    Quantity::Field(_) => {
                        let bits = 64 - max.leading_zeros();
                        let s = if bits == 1 { "" } else { "s" };
                        format!("`{name}` has {bits} bit{s}: {n} does not fit")
                    }
                    _ => format!("`{name}` is at most {max}: {n} does not fit"),
                })
            }
            Condition::Compare(..) => Ok(()),
            Condition::Not(x) => x.fits(m),
            Condition::And(a, b) | Condition::Or(a, b) => a.fits(m).and_then(|()| b.fits(m)),
        }
    }

    /// What holds of it whatever the values: `Some(false)` for a contradiction. `None` if it depends on them, or if
    /// there are too many to try. What is never compared but with constants has as many cases as these make.
    pub fn constant(&self, m: &Model) -> Option<bool> {
        let of = self.quantities();
        let mut constants = vec![0];
        self.constants(&mut constants);
        let tests = self.any(&|c| matches!(c, Condition::Compare(_, Cmp::Test, _)));
        let cases: Vec<Vec<u64>> = of
            .iter()
            .map(|q| {
                let max = q.most(m);
                if max < 64 || tests && max < 4096 {
                    return (0..=max).collect();
                }
                // Each constant and its neighbours; and as many more as there are others to differ from.
                let near = |c: u64| [c.saturating_sub(1), c, c.saturating_add(1)];
                let mut all: Vec<u64> = constants.iter().flat_map(|&c| near(c)).chain(near(max)).collect();
                all.extend((0..of.len() as u64).map(|i| max / 2 + i));
                all.retain(|v| *v <= max);
                all.sort_unstable();
                all.dedup();
                all
            })
            .collect();
        let all = cases.iter().try_fold(1usize, |n, c| n.checked_mul(c.len()).filter(|n| *n <= MOST))?;
        let (mut holds, mut fails) = (false, false);
        for i in 0..all {
            let mut left = i;
            let mut values = BTreeMap::new();
            for (q, c) in of.iter().zip(&cases) {
                values.insert(*q, c[left % c.len()]);
                left /= c.len();
            }
            match self.eval(&|q| values.get(&q).copied()) {
                Some(true) => holds = true,
                _ => fails = true,
            }
            if holds && fails {
                return None;
            }
        }
        Some(holds)
    }
}
