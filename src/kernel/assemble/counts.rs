//! Counts: variables of which nothing but the order of their values matters (SEMANTICS A8).
//!
//! A count is a shared variable that `inc` increases by one and nothing else changes; its copies, and locals, take
//! values from it, from each other, or 0. Here: where registers hold such a value, and the refusal of every use that
//! could tell two runs apart whose values are in the same order. The argument stands at
//! [`rename_counts`](crate::check::machine::Abs::rename_counts).

use super::Result2;
use super::sound::{error, flow};
use crate::kernel::program::{
    Alu, Ask, At, Cmp, Code, Cond, Cr3, Holds, Op, Place, Program, REGS, Reg, Rmw, Val,
};

/// What a register may hold where several ways meet: one bit for a number, one for 0, which is a value of every count,
/// and one for each count. None: nothing was written to it yet.
const NUMBER: u64 = 1;
const ZERO: u64 = 2;
const FIRST: u32 = 2;
const KINDS: u32 = 10;
const COUNTS: u64 = (1 << KINDS) - (1 << FIRST);

/// How many counts a text may have.
pub const MOST: usize = (KINDS - FIRST) as usize;

/// The variables that count, by index.
pub fn sources(code: &Code) -> Vec<u8> {
    let source =
        |(i, v): (usize, &crate::kernel::program::Var)| (v.holds == Holds::Count(i as u8)).then_some(i as u8);
    code.vars.iter().enumerate().filter_map(source).collect()
}

/// Before each op: for each register, from the lowest four bits on, the number of the count of which it holds a value,
/// plus one; 0 for none.
pub fn held(code: &Code) -> Vec<u32> {
    let counts = Counts { code, sources: sources(code) };
    let mut out = vec![0; code.ops.len()];
    if counts.sources.is_empty() {
        return out;
    }
    for program in &code.programs {
        for (pc, kinds) in (program.start..program.end).zip(counts.flow(program)) {
            for r in 0..REGS as u8 {
                let kind = kind_of(kinds.unwrap_or(0), Reg(r));
                if kind & COUNTS != 0 && kind & NUMBER == 0 {
                    out[usize::from(pc)] |= ((kind >> FIRST).trailing_zeros() + 1) << (4 * r);
                }
            }
        }
    }
    out
}

/// Refuses what could tell apart two runs in which the values of a count are in the same order.
pub(super) fn only_order_matters(code: &Code) -> Result2<()> {
    let counts = Counts { code, sources: sources(code) };
    if counts.sources.is_empty() {
        return Ok(());
    }
    for program in &code.programs {
        for (pc, kinds) in (program.start..program.end).zip(counts.flow(program)) {
            let Some(kinds) = kinds else { continue };
            let kept = || program.kept.iter().find(|(_, r)| kind_of(kinds, *r) & COUNTS != 0);
            let why = match code.ops[usize::from(pc)] {
                Op::Return => kept().map(|(name, _)| {
                    format!("a condition reads `{name}`, which holds a count: nothing but its order is kept")
                }),
                op => counts.wrong(op, kinds),
            };
            if let Some(why) = why {
                let line = &code.text[usize::from(pc)];
                return Err(error(code, code.at[usize::from(pc)], format!("`{line}`: {why}")));
            }
        }
    }
    Ok(())
}

fn kind_of(kinds: u64, r: Reg) -> u64 {
    kinds >> (KINDS * u32::from(r.0)) & ((1 << KINDS) - 1)
}

fn with(kinds: u64, r: Reg, kind: u64) -> u64 {
    let at = KINDS * u32::from(r.0);
    kinds & !(((1 << KINDS) - 1) << at) | kind << at
}

struct Counts<'a> {
    code: &'a Code,
    sources: Vec<u8>,
}

impl Counts<'_> {
    fn flow(&self, program: &Program) -> Vec<Option<u64>> {
        flow(self.code, program, 0, |op, kinds| match self.result(op, kinds) {
            Some((to, kind)) => with(kinds, to, kind),
            None => kinds,
        })
    }

    fn val(kinds: u64, v: Val) -> u64 {
        match v {
            Val::Imm(0) => ZERO,
            Val::Imm(_) => NUMBER,
            Val::Reg(r) => kind_of(kinds, r),
        }
    }

    /// The kind of what is in a place, and whether it is the count itself.
    fn place(&self, p: Place) -> (u64, bool) {
        let var = self.code.fields[usize::from(p.field)].var;
        match self.code.vars[usize::from(var)].holds {
            Holds::Count(source) => {
                let n = self.sources.iter().position(|&s| s == source).expect("every count is a source");
                (1 << (FIRST + n as u32), source == var)
            }
            _ => (NUMBER, false),
        }
    }

    fn name(&self, p: Place) -> &str {
        &self.code.fields[usize::from(p.field)].name
    }

    /// Which register an op writes, and what it then holds.
    fn result(&self, op: Op, kinds: u64) -> Option<(Reg, u64)> {
        Some(match op {
            Op::Move { to, v } => (to, Self::val(kinds, v)),
            Op::Load { to, from } => (to, self.place(from).0),
            Op::Rmw { f, to, at, .. } if !f.is_of_a_bit() => (to, self.place(at).0),
            Op::Cas { to, at, .. } => (to, self.place(at).0),
            Op::Rmw { to, .. }
            | Op::MoveWide { to, .. }
            | Op::Alu { to, .. }
            | Op::LoadPage { to, .. }
            | Op::Ask { to, .. }
            | Op::ReadGs(to)
            | Op::ReadCr3(to) => (to, NUMBER),
            _ => return None,
        })
    }

    /// Why an op may not be.
    fn wrong(&self, op: Op, kinds: u64) -> Option<String> {
        let val = |v: Val| Self::val(kinds, v);
        let number = |kind: u64| kind & COUNTS == 0;
        let like = |kind: u64, count: u64| kind & !(count | ZERO) == 0;
        let plain =
            |v: Val| (!number(val(v))).then(|| "a count is no number here: it is copied and compared".into());
        let reg = |r: Reg| plain(Val::Reg(r));
        // What an assigned value must be.
        let into = |p: Place, v: Val| match self.place(p) {
            (NUMBER, _) => (!number(val(v)))
                .then(|| format!("`{}` is no count: declare it as a copy, `count of` it", self.name(p))),
            (_, true) => Some(format!("`{}` counts: nothing but `inc {0}` changes it", self.name(p))),
            (count, false) => (!like(val(v), count))
                .then(|| format!("`{}` takes copies of what it is declared to count, and 0", self.name(p))),
        };
        let index = |p: Place| match p.at {
            At::Mm(i) | At::Asid(i) => reg(i.reg()),
            At::Shared | At::Me | At::Cur => None,
        };
        let compared = |f: Cmp, a: u64, b: u64| {
            let counts = (a | b) & COUNTS;
            let wrong = counts != 0
                && (f == Cmp::Test || counts.count_ones() != 1 || !like(a, counts) || !like(b, counts));
            wrong.then(|| {
                "a count is compared with 0 and with copies of the same count, by their order".into()
            })
        };
        match op {
            Op::Alu { f: Alu::Add | Alu::Sub | Alu::And | Alu::Or | Alu::Xor, a, b, .. } => {
                reg(a).or_else(|| plain(b))
            }
            Op::Load { from, .. } => index(from),
            Op::Store { to, v } => index(to).or_else(|| into(to, v)),
            Op::Rmw { f, at, v, .. } => index(at).or_else(|| match (self.place(at), f) {
                ((_, true), Rmw::Add) if v == Val::Imm(1) => None,
                ((NUMBER, _) | (_, true), _) | (_, Rmw::Xchg) => into(at, v),
                _ => Some(format!(
                    "`{}` is a copy of a count: it is stored to, exchanged and compared",
                    self.name(at)
                )),
            }),
            Op::Cas { at, .. } if self.code.counts_per_mm(at.field) => Some(two_orders()),
            Op::Await { at, v: Val::Reg(_), .. } if self.code.counts_per_mm(at.field) => Some(two_orders()),
            Op::Cas { at, old, new, .. } => index(at).or_else(|| into(at, old)).or_else(|| into(at, new)),
            Op::Await { at, f, v } => index(at).or_else(|| compared(f, self.place(at).0, val(v))),
            Op::Unless { c: Cond::Cmp(f, a, b), .. } => compared(f, kind_of(kinds, a), val(b)),
            Op::Unless { c: Cond::RegUser(r), .. } | Op::MovCr3 { to: Cr3::Reg(r), .. } => reg(r),
            Op::MovCr3 { to: Cr3::Mm { mm, asid }, .. } => plain(mm).or_else(|| plain(asid)),
            Op::FlushInfo { mm, generation } => plain(mm).or_else(|| plain(generation)),
            Op::StorePage { v, .. } | Op::SetGs(v) => plain(v),
            Op::Mask { mm: v, .. } | Op::Ask { what: Ask::AsidFor(v), .. } => plain(v),
            _ => None,
        }
    }
}

/// Why a value of a count per address space is compared in a branch alone.
fn two_orders() -> String {
    "of a count per mm a value is compared with another one in `if` or `while` alone, where it is seen whether they are of one mm"
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::policy::load;
    use crate::kernel::program::Features;
    use crate::kernel::program::Pc;
    use crate::kernel::text::parse;

    fn code(body: &str) -> Result<Code, String> {
        let head =
            "litmus l\n  var n : count, shared\n  var c : count of n, per cpu\n  var x : 4 bits, shared\n";
        let text = format!("{head}  var other : count, shared\n\ncpu 0\n{body}");
        let file = parse("l", &text).map_err(|e| e.to_string())?;
        load(&file, Features::PTI_PCID).map_err(|e| e.to_string())
    }

    #[test]
    fn where_a_register_holds_a_count_is_found_on_every_way() {
        let code = code("  let r = x\n  if r == 1\n    let a = n\n  else\n    let a = 0\n  c = a\n").unwrap();
        let held = held(&code);
        let store = code.ops.iter().position(|op| matches!(op, Op::Store { .. })).unwrap() as Pc;
        let Op::Store { v: Val::Reg(a), .. } = code.ops[usize::from(store)] else { panic!() };
        assert_eq!(held[usize::from(store)], 1 << (4 * a.0), "and x is a number");
    }
}
