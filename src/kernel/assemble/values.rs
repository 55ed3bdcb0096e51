//! Values and expressions: constants and registers as they are, memory through a register.

use super::{Assembler, Result2, is_plain};
use crate::kernel::program::{Ask, Op, Reg, Rmw, Val};
use crate::kernel::text::{Expr, Loc, Question, Value};

impl Assembler<'_> {
    /// A value in a register or constant; memory is loaded into a temporary, which the caller releases.
    pub(super) fn value(&mut self, v: &Value, at: Loc) -> Result2<Val> {
        match v {
            Value::Int(n) if *n <= 255 => Ok(Val::Imm(*n as u8)),
            Value::Name(n) if is_plain(n) && self.local(&n.name).is_some() => {
                Ok(Val::Reg(self.local(&n.name).expect("just found")))
            }
            Value::Int(_) | Value::Name(_) | Value::Cr3 | Value::GsBase => {
                let to = self.temp(at)?;
                self.value_to(v, to)?;
                Ok(Val::Reg(to))
            }
        }
    }

    pub(super) fn value_to(&mut self, v: &Value, to: Reg) -> Result2<()> {
        let op = match v {
            Value::Int(n) => match u8::try_from(*n) {
                Ok(n) => Op::Move { to, v: Val::Imm(n) },
                Err(_) => Op::MoveWide { to, v: *n },
            },
            Value::Cr3 => Op::ReadCr3(to),
            Value::GsBase => Op::ReadGs(to),
            Value::Name(n) => match self.local(&n.name) {
                Some(from) if is_plain(n) => Op::Move { to, v: Val::Reg(from) },
                _ => Op::Load { to, from: self.place(n)? },
            },
        };
        self.emit(op);
        Ok(())
    }

    pub(super) fn in_reg(&mut self, v: &Value, at: Loc) -> Result2<Reg> {
        match self.value(v, at)? {
            Val::Reg(r) => Ok(r),
            Val::Imm(n) => {
                let to = self.temp(at)?;
                self.emit(Op::Move { to, v: Val::Imm(n) });
                Ok(to)
            }
        }
    }

    pub(super) fn expr_to(&mut self, e: &Expr, to: Reg, at: Loc) -> Result2<()> {
        match e {
            Expr::Value(v) => self.value_to(v, to),
            Expr::Binary(a, f, b) => {
                let a = self.in_reg(a, at)?;
                let b = self.value(b, at)?;
                self.emit(Op::Alu { f: *f, to, a, b });
                Ok(())
            }
            Expr::Rmw(f, n, v) => {
                let place = self.place(n)?;
                if f.is_of_a_bit() {
                    self.has_bit(place, v, n)?;
                } else if *f != Rmw::And {
                    self.fits(place, v, n)?;
                }
                let v = self.value(v, at)?;
                self.emit(Op::Rmw { f: *f, to, at: place, v });
                Ok(())
            }
            Expr::Ask(question) => {
                let what = match question {
                    Question::NextMm => Ask::NextMm,
                    Question::FlushMm => Ask::FlushMm,
                    Question::InfoMm => Ask::InfoMm,
                    Question::InfoGen => Ask::InfoGen,
                    Question::LoadedAsid => Ask::LoadedAsid,
                    Question::AsidFor(mm) => Ask::AsidFor(self.value(mm, at)?),
                };
                self.emit(Op::Ask { to, what });
                Ok(())
            }
            Expr::Page(name) => {
                let page = self.page(name, at)?;
                self.emit(Op::LoadPage { to, page });
                Ok(())
            }
            Expr::Cas(n, old, new) => {
                let place = self.place(n)?;
                self.fits(place, old, n)?;
                self.fits(place, new, n)?;
                let old = self.value(old, at)?;
                let new = self.value(new, at)?;
                self.emit(Op::Cas { to, at: place, old, new });
                Ok(())
            }
        }
    }
}
