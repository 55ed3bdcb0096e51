//! What kind of step each op is to the engine, known once the policy is assembled.

use crate::kernel::program::{At, Code, Cond, Cr3, Op, Pc, Rcu, Set, Touch, Val};

/// What kind of step an op is to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    /// Nobody else notices.
    Private,
    /// May change which interrupts are due.
    Mask,
    /// Takes a remote call: who has just got his acknowledgement may send one before.
    Calls,
    /// Charges a workload.
    Body,
    /// Others notice, or it reads what others write.
    Cross,
    /// Waits for acknowledgements.
    Acks,
    /// Head of a loop over CPUs that only looks at them.
    Scan,
    /// The same over `mm_cpumask`, which others change.
    ScanMask,
    /// A wait for a grace period.
    Grace,
}

/// What the engine knows of an op before it runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) class: Class,
    /// It reads or writes a variable of the loop's CPU.
    pub(super) reads_cur: bool,
    /// Head of a loop that only looks: the registers it touches, a bit each.
    pub(super) touched: u8,
    /// A call after which the sender waits before it does anything else that concerns others.
    pub(super) then_waits: bool,
    /// The first op from it on that does something.
    pub(super) does: Pc,
    /// From its beginning to that of the next op that others may notice, at least: [`ahead`].
    pub(super) ahead: u64,
}

pub(super) fn class_of(op: Op) -> Class {
    match op {
        Op::Irq(_) => Class::Mask,
        Op::Body(_) => Class::Body,
        Op::AwaitAcks => Class::Acks,
        Op::Load { from: p, .. } | Op::Store { to: p, .. } | Op::Rmw { at: p, .. } => place(p.at),
        Op::Cas { at: p, .. } | Op::Await { at: p, .. } => place(p.at),
        Op::Ipi { .. } | Op::Tlbsync | Op::Rar(_) | Op::Request(_) | Op::Promise(_) => Class::Cross,
        // What stands there others write.
        Op::Unless { c: Cond::Text(_), .. } => Class::Cross,
        Op::Move { .. } | Op::MoveWide { .. } | Op::Alu { .. } | Op::Unless { .. } => Class::Private,
        Op::Jump(_) | Op::Loop(_) => Class::Private,
        // Other CPUs join and leave an address space's mask.
        Op::Each { of: Set::MmCpumask, .. } => Class::Cross,
        Op::Each { .. } => Class::Private,
        Op::Clear | Op::Put | Op::Fence(_) | Op::SwapGs | Op::ReadGs(_) | Op::SetGs(_) => Class::Private,
        Op::Rsp(_) => Class::Private,
        Op::ReadCr3(_) | Op::MovCr3 { .. } | Op::MovCr4Pge(_) | Op::Invlpg(_) | Op::Invpcid { .. } => {
            Class::Private
        }
        // Entries have no memory here.
        Op::LoadPage { .. } | Op::StorePage { .. } | Op::Walk { .. } => Class::Private,
        Op::Invlpgb(_) | Op::InvlpgbOf { .. } | Op::InvlpgbAll | Op::Touch(_) => Class::Private,
        // Refused before a run: here are no caches of lines, and no costs of these.
        Op::Clflush(_) | Op::Wbinvd => Class::Private,
        Op::Pte { .. } | Op::FreeTable(_) => Class::Private,
        Op::FreeMm(_) | Op::Migrate => Class::Private,
        Op::Mask { .. } => Class::Cross,
        // Whether a section is open is told by the program that runs.
        Op::Rcu(Rcu::Lock | Rcu::Unlock | Rcu::Watch | Rcu::Unwatch | Rcu::Start) => Class::Private,
        Op::Rcu(Rcu::Wait) => Class::Grace,
        Op::CallLater(_) => Class::Cross,
        // The request that is served does not change while it is.
        Op::Ask { .. } | Op::FlushInfo { .. } => Class::Private,
        Op::HandleCalls => Class::Calls,
        Op::OweUser | Op::OweOthers | Op::Return => Class::Private,
    }
}

/// Is this the head of a loop whose turns depend on nothing but the CPU they look at, and change nothing but
/// registers and the collected set?
pub(super) fn only_looks(code: &Code, head: usize) -> bool {
    let Op::Each { done, .. } = code.ops[head] else { return false };
    (head + 1..usize::from(done)).all(|pc| match code.ops[pc] {
        Op::Load { from, .. } => from.at == At::Cur,
        Op::Unless { c: Cond::Cmp(..) | Cond::CurIn(_) | Cond::CurIsMe, to } | Op::Jump(to) => {
            (head..usize::from(done)).contains(&usize::from(to))
        }
        Op::Move { .. } | Op::MoveWide { .. } | Op::Alu { .. } | Op::Put => true,
        _ => false,
    }) && !matches!(code.ops[head], Op::Each { of: Set::Targets, .. })
}

/// The registers that a loop which only looks touches, a bit each.
pub(super) fn registers(code: &Code, head: usize) -> u8 {
    let Op::Each { done, .. } = code.ops[head] else { return 0 };
    let of = |v: Val| if let Val::Reg(r) = v { 1 << r.0 } else { 0 };
    (head + 1..usize::from(done)).fold(0, |all, pc| {
        all | match code.ops[pc] {
            Op::Load { to, .. } | Op::MoveWide { to, .. } => 1 << to.0,
            Op::Move { to, v } => 1 << to.0 | of(v),
            Op::Alu { to, a, b, .. } => 1 << to.0 | 1 << a.0 | of(b),
            Op::Unless { c: Cond::Cmp(_, a, b), .. } => 1 << a.0 | of(b),
            _ => 0,
        }
    })
}

/// The first op from each on that does something: in programs, touches that are not looked up take no time and change
/// nothing. A program does not end in a touch.
pub(super) fn next_that_does(code: &Code, times: &[u64], looks_up: impl Fn(Touch) -> bool) -> Vec<Pc> {
    let mut next: Vec<Pc> = (0..code.ops.len() as Pc).collect();
    for pc in (0..code.ops.len()).rev() {
        if let Op::Touch(what) = code.ops[pc]
            && times[pc] == 0
            && !looks_up(what)
            && let Some(after) = next.get(pc + 1)
        {
            next[pc] = *after;
        }
    }
    next
}

/// By op: the time from its beginning to that of the first op, itself included, that is not one of those [`is_own`] names,
/// on the way that takes least.
pub(super) fn ahead(code: &Code, times: &[u64]) -> Vec<u64> {
    let mut ahead: Vec<u64> = code.ops.iter().map(|op| if is_own(*op) { u64::MAX } else { 0 }).collect();
    loop {
        let mut changed = false;
        for pc in (0..code.ops.len()).rev().filter(|pc| is_own(code.ops[*pc])) {
            let next = ahead.get(pc + 1).copied().unwrap_or(0);
            let then = match code.ops[pc] {
                Op::Jump(to) => ahead[usize::from(to)],
                Op::Unless { to, .. } => next.min(ahead[usize::from(to)]),
                _ => next,
            };
            let least = then.saturating_add(times[pc]);
            changed |= least < ahead[pc];
            ahead[pc] = ahead[pc].min(least);
        }
        if !changed {
            // A loop that nobody else ever sees is left to the plain way, which finds that it does not end.
            return ahead.into_iter().map(|least| if least == u64::MAX { 0 } else { least }).collect();
        }
    }
}

/// Does an op read and change nothing but what is its CPU's own, so that it may be executed late? Whoever wants to know what
/// it changes (a variable, whether all is flushed, whether an interrupt can be taken) brings the CPU to its time first.
fn is_own(op: Op) -> bool {
    let mine = |at| matches!(at, At::Me);
    match op {
        Op::Load { from: p, .. } | Op::Store { to: p, .. } => mine(p.at),
        Op::Rmw { at: p, .. } | Op::Cas { at: p, .. } => mine(p.at),
        Op::Unless { c, .. } => matches!(
            c,
            Cond::Cmp(..) | Cond::Cr3User | Cond::RegUser(_) | Cond::Either | Cond::CurIsMe | Cond::RangeFull
        ),
        Op::Move { .. } | Op::MoveWide { .. } | Op::Alu { .. } | Op::Jump(_) => true,
        Op::Clear | Op::Fence(_) | Op::Irq(_) | Op::Touch(_) => true,
        Op::SwapGs | Op::ReadGs(_) | Op::SetGs(_) | Op::Rsp(_) | Op::ReadCr3(_) => true,
        Op::MovCr3 { to, .. } => !matches!(to, Cr3::Mm { .. }),
        Op::MovCr4Pge(_) | Op::Invlpg(_) | Op::Invpcid { .. } | Op::OweUser | Op::OweOthers => true,
        _ => false,
    }
}

/// By op: it reads a shared variable, amid entry code, that none but initiators write. Whoever writes such a one brings everyone to
/// its time first ([`writes`]), as whoever reads what is another CPU's own brings that CPU. So the reader may be late: what it finds
/// is what stood there at its time, and in the order of the queue where both have the same.
pub(super) fn reads_freely(code: &Code, initiates: &[bool], called: &[bool]) -> Vec<bool> {
    let var = |field: u8| usize::from(code.fields[usize::from(field)].var);
    let mut fixed = vec![true; code.vars.len()];
    let mut free = vec![false; code.ops.len()];
    let entered = |n: &usize| !initiates[*n] && !called[*n];
    let ops = |n: usize| usize::from(code.programs[n].start)..usize::from(code.programs[n].end);
    for (n, initiates) in initiates.iter().enumerate() {
        for pc in ops(n).filter(|_| !initiates) {
            if let Some(field) = writes(code.ops[pc]) {
                fixed[var(field)] = false;
            }
        }
    }
    for pc in (0..code.programs.len()).filter(entered).flat_map(ops) {
        let Op::Load { from, .. } = code.ops[pc] else { continue };
        free[pc] = from.at == At::Shared && fixed[var(from.field)];
    }
    free
}

/// The field of a shared variable that an op may write.
pub(super) fn writes(op: Op) -> Option<u8> {
    match op {
        Op::Store { to: p, .. } | Op::Rmw { at: p, .. } | Op::Cas { at: p, .. } if p.at == At::Shared => {
            Some(p.field)
        }
        _ => None,
    }
}

pub(super) fn reads_cur(op: Op) -> bool {
    match op {
        Op::Load { from: p, .. }
        | Op::Store { to: p, .. }
        | Op::Rmw { at: p, .. }
        | Op::Cas { at: p, .. } => p.at == At::Cur,
        _ => false,
    }
}

pub(super) fn place(at: At) -> Class {
    match at {
        At::Me | At::Asid(_) => Class::Private,
        At::Shared | At::Cur | At::Mm(_) => Class::Cross,
    }
}

#[cfg(test)]
mod tests {
    use super::super::volley::then_waits;
    use super::*;
    use crate::kernel::policy::{builtin, load_with};
    use crate::kernel::program::{Ask, Features, Place, ProgId, Reg, Slot, Val};

    fn code(ops: Vec<Op>) -> Code {
        let mut code = load_with(&builtin("ipi").unwrap(), &[], Features::PTI_PCID).unwrap();
        code.ops = ops;
        code
    }

    const MOVE: Op = Op::Move { to: Reg(0), v: Val::Imm(1) };
    const IPI: Op = Op::Ipi { to: Set::Targets, run: ProgId(0) };

    fn store(at: At) -> Op {
        Op::Store { to: Place { field: 0, at }, v: Val::Imm(1) }
    }

    fn unless(to: Pc) -> Op {
        Op::Unless { c: Cond::RangeFull, to }
    }

    #[test]
    fn so_long_at_least_until_an_op_that_others_may_notice() {
        let rows = [
            (vec![MOVE, Op::Return], vec![3, 5], vec![3, 0]),
            (vec![MOVE, MOVE, Op::Return], vec![3, 4, 9], vec![7, 4, 0]),
            (vec![unless(3), MOVE, Op::Return, Op::Return], vec![1, 10, 0, 0], vec![1, 10, 0, 0]),
            (vec![unless(2), Op::Return, MOVE, Op::Return], vec![1, 0, 10, 0], vec![1, 0, 10, 0]),
            (vec![unless(2), MOVE, MOVE, Op::Return], vec![1, 2, 4, 0], vec![5, 6, 4, 0]),
            (vec![Op::Jump(2), Op::Return, MOVE, Op::Return], vec![1, 0, 6, 0], vec![7, 0, 6, 0]),
            (vec![MOVE, store(At::Me), store(At::Shared), Op::Return], vec![3, 2, 8, 0], vec![5, 2, 0, 0]),
            (vec![MOVE], vec![3], vec![3]),
            // Loops that do not end, beside one that does.
            (vec![MOVE, Op::Jump(0), MOVE, Op::Return], vec![3, 1, 4, 0], vec![0, 0, 4, 0]),
            (vec![MOVE, unless(0), Op::Return], vec![3, 1, 0], vec![4, 1, 0]),
        ];
        for (n, (ops, times, least)) in rows.into_iter().enumerate() {
            assert_eq!(ahead(&code(ops), &times), least, "row {n}");
        }
    }

    #[test]
    fn behind_a_call_its_sender_waits_on_every_way_before_it_does_what_others_notice() {
        let (end, wait) = (Op::Return, Op::AwaitAcks);
        let ask = Op::Ask { to: Reg(0), what: Ask::InfoMm };
        let mask = Op::Mask { mm: Val::Imm(2), on: true };
        let rows = [
            (vec![IPI, wait], true),
            (vec![IPI], false),
            (vec![IPI, MOVE], false),
            (vec![IPI, MOVE, wait], true),
            (vec![IPI, MOVE, end, wait], false),
            (vec![IPI, end, wait], false),
            (vec![IPI, unless(3), wait, wait], true),
            (vec![IPI, unless(3), end, wait], false),
            (vec![IPI, unless(3), wait, end], false),
            (vec![IPI, unless(1), wait], true),
            (vec![IPI, Op::Jump(3), end, wait], true),
            (vec![IPI, Op::Jump(3), wait, end], false),
            (vec![IPI, store(At::Me), wait], true),
            (vec![IPI, store(At::Me), end, wait], false),
            (vec![IPI, store(At::Shared), wait], false),
            (vec![IPI, store(At::Cur), wait], false),
            (vec![IPI, mask, wait], true),
            (vec![IPI, mask, end, wait], false),
            (vec![IPI, ask, wait], true),
            (vec![IPI, ask, end, wait], false),
            (vec![IPI, Op::HandleCalls, wait], false),
            (vec![IPI, Op::Body(Slot::Idle), wait], false),
            (vec![IPI, Op::Tlbsync, wait], false),
            (vec![IPI, IPI, wait], false),
        ];
        for (n, (ops, waits)) in rows.into_iter().enumerate() {
            assert_eq!(then_waits(&code(ops), 0), waits, "row {n}");
        }
    }
}
