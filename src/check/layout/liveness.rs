//! Control locations that a CPU reaches, and what of a frame is still needed at each: dead registers, loops and sets
//! take no bit and make no two states of one.

use std::collections::HashSet;

use super::packing::width;
use super::{Frame, Location};
use crate::kernel::program::{Alu, Ask, At, Code, Cond, GENERATION_BITS, Op, Pc, ProgId, REGS, Set, Val};
use crate::kernel::step::NO_PC;
use crate::order;

/// Names of programs that are NMI-like.
pub const NMI_PROGRAMS: [&str; 2] = ["nmi", "nmi_user"];

pub(super) type Locations = (Vec<(Pc, Pc)>, Vec<Pc>);

/// Every location the programs reach, in a fixed order, and the return addresses.
pub(super) fn reach(code: &Code, starts: &[Pc], handlers: &[ProgId], receives: bool) -> Locations {
    let mut seen: HashSet<(Pc, Pc)> = HashSet::new();
    let mut todo: Vec<(Pc, Pc)> = starts.iter().map(|&start| (start, NO_PC)).collect();
    while let Some(at) = todo.pop() {
        if !seen.insert(at) {
            continue;
        }
        let (pc, ret) = at;
        match code.ops[usize::from(pc)] {
            Op::Jump(to) => todo.push((to, ret)),
            Op::Unless { to, .. } => todo.extend([(to, ret), (pc + 1, ret)]),
            Op::Each { done, .. } => todo.extend([(done, ret), (pc + 1, ret)]),
            Op::Return if ret == NO_PC => {}
            Op::Return => todo.push((ret, NO_PC)),
            Op::HandleCalls => {
                todo.push((pc + 1, ret));
                if receives {
                    todo.extend(handlers.iter().map(|&h| (code.start(h), pc)));
                }
            }
            _ => todo.push((pc + 1, ret)),
        }
    }
    let mut set: Vec<(Pc, Pc)> = seen.into_iter().collect();
    order::by_key(&mut set, |&(pc, ret)| (ret != NO_PC, pc, ret));
    let mut rets: Vec<Pc> = set.iter().map(|x| x.1).collect();
    order::natural(&mut rets);
    rets.dedup();
    (set, rets)
}

pub(super) fn frame(
    code: &Code,
    set: &[(Pc, Pc)],
    rets: &[Pc],
    ambient: &Ambient,
    widths: &[[u8; REGS]],
) -> Frame {
    let n = code.ops.len();
    let mut index = vec![0u16; n * rets.len()];
    let mut locations = Vec::new();
    for (i, &(pc, ret)) in set.iter().enumerate() {
        let slot = rets.iter().position(|&r| r == ret).expect("listed");
        index[slot * n + usize::from(pc)] = i as u16 + 1;
        let at = usize::from(pc);
        let mut regs = [(0, 0, 0); REGS];
        let (mut shift, mut live) = (0u8, 0u8);
        for (r, &width) in widths[at].iter().enumerate() {
            if code.live[at] & 1 << r != 0 && width > 0 {
                regs[usize::from(live)] = (r as u8, shift, u32::MAX >> (32 - width));
                live += 1;
                shift += width;
            }
        }
        let program = code.program_of(pc).map_or("", |p| p.name.as_str());
        locations.push(Location {
            pc,
            ret,
            op: code.ops[at],
            regs,
            live,
            cur: ambient.cur[at],
            visited: ambient.visited[at],
            targets: ambient.targets[at],
            calls: ambient.calls[at],
            nmi: NMI_PROGRAMS.contains(&program),
            iret: code.ops[at] == Op::Return && ret == NO_PC && code.ends_by_iret(program),
        });
    }
    let plain = n * rets.iter().position(|&r| r == NO_PC).unwrap_or(0);
    Frame { locations, index, rets: rets.to_vec(), plain, ..Frame::default() }
}

/// Liveness, before each op, of what a frame keeps beside its registers.
pub(super) struct Ambient {
    cur: Vec<bool>,
    visited: Vec<bool>,
    targets: Vec<bool>,
    calls: Vec<bool>,
}

impl Ambient {
    pub(super) fn new(code: &Code) -> Self {
        let place_is_cur = |op: Op| match op {
            Op::Load { from: p, .. }
            | Op::Store { to: p, .. }
            | Op::Rmw { at: p, .. }
            | Op::Cas { at: p, .. } => p.at == At::Cur,
            Op::Await { at, .. } => at.at == At::Cur,
            Op::Put | Op::Unless { c: Cond::CurIn(_) | Cond::CurIsMe, .. } => true,
            _ => false,
        };
        let uses_targets = |op: Op| {
            matches!(
                op,
                Op::Ipi { to: Set::Targets, .. }
                    | Op::Rar(Set::Targets)
                    | Op::Put
                    | Op::Loop(Set::Targets)
                    | Op::Each { of: Set::Targets, .. }
                    | Op::Unless {
                        c: Cond::Empty(Set::Targets) | Cond::MeIn(Set::Targets) | Cond::CurIn(Set::Targets),
                        ..
                    }
            )
        };
        Ambient {
            cur: live(code, place_is_cur, |op| matches!(op, Op::Each { .. })),
            visited: live(code, |op| matches!(op, Op::Each { .. }), |op| matches!(op, Op::Loop(_))),
            targets: live(code, uses_targets, |op| op == Op::Clear),
            calls: live(code, |op| op == Op::HandleCalls, |_| false),
        }
    }
}

/// Backwards: used before it is set.
fn live(code: &Code, used: impl Fn(Op) -> bool, set: impl Fn(Op) -> bool) -> Vec<bool> {
    let n = code.ops.len();
    let mut out = vec![false; n + 1];
    let mut changed = true;
    while changed {
        changed = false;
        for i in (0..n).rev() {
            let op = code.ops[i];
            let after = match op {
                Op::Unless { to, .. } => out[i + 1] || out[usize::from(to)],
                Op::Each { done, .. } => out[i + 1] || out[usize::from(done)],
                Op::Jump(to) => out[usize::from(to)],
                Op::Return => false,
                _ => out[i + 1],
            };
            let now = used(op) || after && !set(op);
            changed |= now != out[i];
            out[i] = now;
        }
    }
    out
}

/// How many bits each register can hold before each op; forwards until nothing changes.
pub(super) fn register_widths(code: &Code, (asid_bits, mm_bits): (u8, u8)) -> Vec<[u8; REGS]> {
    let cr3_bits = 1 + asid_bits + mm_bits;
    let n = code.ops.len();
    let mut w = vec![[0u8; REGS]; n];
    let field = |f: u8| code.fields[usize::from(f)].bits;
    let mut changed = true;
    while changed {
        changed = false;
        for i in 0..n {
            let op = code.ops[i];
            let before = w[i];
            let of = |v: Val| match v {
                Val::Imm(n) => width(u64::from(n)) as u8,
                Val::Reg(r) => before[usize::from(r.0)],
            };
            let mut after = before;
            match op {
                Op::Move { to, v } => after[usize::from(to.0)] = of(v),
                Op::MoveWide { to, v } => after[usize::from(to.0)] = width(u64::from(v)) as u8,
                Op::Alu { f, to, a, b } => {
                    let (x, y) = (before[usize::from(a.0)], of(b));
                    after[usize::from(to.0)] = match f {
                        Alu::And => x.min(y),
                        Alu::Add => (x.max(y) + 1).min(16),
                        Alu::Sub | Alu::Or | Alu::Xor => x.max(y),
                    };
                }
                Op::LoadPage { to, .. } => {
                    after[usize::from(to.0)] = code.vars.iter().map(|v| v.bits).max().unwrap_or(1);
                }
                Op::Rmw { f, to, .. } if f.is_of_a_bit() => after[usize::from(to.0)] = 1,
                Op::Load { to, from: p } | Op::Rmw { to, at: p, .. } | Op::Cas { to, at: p, .. } => {
                    after[usize::from(to.0)] = field(p.field);
                }
                Op::Ask { to, what } => {
                    after[usize::from(to.0)] = match what {
                        Ask::NextMm | Ask::FlushMm | Ask::InfoMm => mm_bits,
                        Ask::InfoGen => GENERATION_BITS,
                        Ask::LoadedAsid | Ask::AsidFor(_) => asid_bits,
                    }
                }
                Op::ReadGs(to) => after[usize::from(to.0)] = 1,
                Op::ReadCr3(to) => after[usize::from(to.0)] = cr3_bits,
                _ => {}
            }
            let mut join = |to: usize| {
                if to < n {
                    for r in 0..REGS {
                        if after[r] > w[to][r] {
                            w[to][r] = after[r];
                            changed = true;
                        }
                    }
                }
            };
            match op {
                Op::Unless { to, .. } => {
                    join(usize::from(to));
                    join(i + 1);
                }
                Op::Each { done, .. } => {
                    join(usize::from(done));
                    join(i + 1);
                }
                Op::Jump(to) => join(usize::from(to)),
                Op::Return => {}
                _ => join(i + 1),
            }
        }
    }
    w
}
