//! After all programs: handlers get their numbers, and each op the registers that are still needed.

use super::{Assembler, Result2};
use crate::kernel::program::{Ask, At, Cond, Cr3, Op, Pc, Place, Touch, Val};
use crate::kernel::text::{Loc, PolicyError};

impl Assembler<'_> {
    pub(super) fn link(&mut self) {
        for i in 0..self.code.ops.len() {
            if let Op::Ipi { to, .. } = self.code.ops[i] {
                let name = self.code.text[i].rsplit(", ").next().expect("`ipi SET, NAME`").to_string();
                let run = self.code.program(&name).expect("assembled above");
                self.code.ops[i] = Op::Ipi { to, run };
            }
            if let Op::CallLater(_) = self.code.ops[i] {
                let name = self.code.text[i].rsplit(' ').next().expect("`call later NAME`").to_string();
                self.code.ops[i] = Op::CallLater(self.code.program(&name).expect("assembled above"));
            }
        }
    }

    /// Backwards over the ops until nothing changes. Registers do not survive `handle calls`: the handler
    /// runs in the same frame.
    pub(super) fn liveness(&mut self) -> Result2<()> {
        let n = self.code.ops.len();
        self.code.live = vec![0; n + 1];
        // What is kept of a program is read where it ends: at its end, or at an access that faults.
        let mut kept = vec![0; n];
        for p in &self.code.programs {
            let regs = p.kept.iter().fold(0, |all, (_, r)| all | 1 << r.0);
            let of = usize::from(p.start)..usize::from(p.end);
            for (kept, op) in kept[of.clone()].iter_mut().zip(&self.code.ops[of]) {
                *kept = if may_end(*op) { regs } else { 0 };
            }
        }
        let mut changed = true;
        while changed {
            changed = false;
            for i in (0..n).rev() {
                let op = self.code.ops[i];
                let fall = self.code.live[i + 1];
                let after = match op {
                    Op::Unless { to, .. } => fall | self.code.live[usize::from(to)],
                    Op::Each { done, .. } => fall | self.code.live[usize::from(done)],
                    Op::Jump(to) => self.code.live[usize::from(to)],
                    Op::Return => 0,
                    _ => fall,
                };
                let live = after & !defined(op) | used(op) | kept[i];
                changed |= live != self.code.live[i];
                self.code.live[i] = live;
            }
        }
        self.code.live.pop();
        for i in 0..n {
            if self.code.ops[i] == Op::HandleCalls && self.code.live[i] != 0 {
                let span = self.code.at[i];
                let r = self.code.live[i].trailing_zeros() as usize;
                let program = self.code.program_of(i as Pc).expect("every op is in one");
                let name = program.locals.get(r).map_or("a temporary", String::as_str);
                return Err(PolicyError {
                    file: self.code.files[usize::from(span.file)].clone(),
                    at: Loc { line: span.line, col: span.col },
                    message: format!("`{name}` is used after `handle calls`, which no local survives"),
                });
            }
        }
        Ok(())
    }
}

/// Can a program end at this op?
fn may_end(op: Op) -> bool {
    matches!(
        op,
        Op::Return | Op::Touch(Touch::Read(_) | Touch::Write(_)) | Op::LoadPage { .. } | Op::StorePage { .. }
    )
}

fn bit(v: Val) -> u8 {
    match v {
        Val::Imm(_) => 0,
        Val::Reg(r) => 1 << r.0,
    }
}

fn defined(op: Op) -> u8 {
    match op {
        Op::Move { to, .. }
        | Op::MoveWide { to, .. }
        | Op::Alu { to, .. }
        | Op::Load { to, .. }
        | Op::Rmw { to, .. }
        | Op::Cas { to, .. }
        | Op::LoadPage { to, .. }
        | Op::Ask { to, .. } => 1 << to.0,
        Op::ReadGs(to) | Op::ReadCr3(to) => 1 << to.0,
        _ => 0,
    }
}

fn index_of(p: Place) -> u8 {
    match p.at {
        At::Mm(i) | At::Asid(i) => 1 << i.reg().0,
        At::Shared | At::Me | At::Cur => 0,
    }
}

fn used(op: Op) -> u8 {
    match op {
        Op::Move { v, .. } | Op::SetGs(v) | Op::StorePage { v, .. } => bit(v),
        Op::Load { from, .. } => index_of(from),
        Op::Store { to, v } => bit(v) | index_of(to),
        Op::Rmw { v, at, .. } | Op::Await { v, at, .. } => bit(v) | index_of(at),
        Op::Alu { a, b, .. } => 1 << a.0 | bit(b),
        Op::Cas { old, new, at, .. } => bit(old) | bit(new) | index_of(at),
        Op::Ask { what: Ask::AsidFor(v), .. } | Op::Mask { mm: v, .. } => bit(v),
        Op::FlushInfo { mm, generation } => bit(mm) | bit(generation),
        Op::Unless { c: Cond::Cmp(_, a, b), .. } => 1 << a.0 | bit(b),
        Op::Unless { c: Cond::RegUser(r), .. } | Op::MovCr3 { to: Cr3::Reg(r), .. } => 1 << r.0,
        Op::MovCr3 { to: Cr3::Mm { mm, asid }, .. } => bit(mm) | bit(asid),
        _ => 0,
    }
}
