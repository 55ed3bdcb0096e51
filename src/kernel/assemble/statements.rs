//! Statements to ops: one function per kind of block, one arm per kind of line.

use super::conditions::not_of_a_loop;
use super::{Assembler, Label, Result2, is_plain, leaves};
use crate::kernel::program::{Cr3, Fence, NoFlush, Op, Pc, ProgId, Rcu, Val};
use crate::kernel::text::{Stmt, StmtKind, statement};
use crate::names::hint;

impl Assembler<'_> {
    pub(super) fn stmts(&mut self, body: &[Stmt], place: Option<&str>) -> Result2<()> {
        body.iter().try_for_each(|s| self.stmt(s, place))
    }

    pub(super) fn stmt(&mut self, s: &Stmt, section_place: Option<&str>) -> Result2<()> {
        let place = s.place.as_deref().or(section_place);
        self.set_span(self.file_now(), s.at, place);
        self.line = statement(&s.kind);
        self.temps = 0;
        match &s.kind {
            StmtKind::If(test, then, or_else) => match self.fold(test)? {
                Some(true) => self.stmts(then, place),
                Some(false) => self.stmts(or_else, place),
                None => {
                    let mut no = Label::default();
                    self.branch(test, false, &mut no, s.at)?;
                    self.block(then, place)?;
                    if or_else.is_empty() {
                        self.bind(no);
                    } else {
                        let mut end = Label::default();
                        self.jump(&mut end);
                        self.bind(no);
                        self.block(or_else, place)?;
                        self.bind(end);
                    }
                    Ok(())
                }
            },
            StmtKind::While(test, body) => {
                if let Some((at, word)) = not_of_a_loop(test) {
                    let message = format!("`{word}` stands in `if` alone: nothing would end this loop");
                    return self.fail(at, message);
                }
                if self.never_changes(test, body) {
                    return self.fail(
                        s.at,
                        "this loop cannot end once it is entered: nothing in it changes its test",
                    );
                }
                let top = self.code.ops.len() as Pc;
                let mut out = Label::default();
                self.branch(test, false, &mut out, s.at)?;
                self.repeat(top, body, place)?;
                self.bind(out);
                self.break_here();
                Ok(())
            }
            StmtKind::Loop(body) => {
                if !leaves(body) {
                    return self.fail(s.at, "this loop cannot end: it has neither `break` nor `return`");
                }
                let top = self.code.ops.len() as Pc;
                self.repeat(top, body, place)?;
                self.break_here();
                Ok(())
            }
            StmtKind::Each(set, body) => {
                if self.in_each {
                    return self.fail(s.at, "`each` inside `each`: a frame walks one CPU set at a time");
                }
                let of = self.cpu_set(set, s.at)?;
                self.emit(Op::Loop(of));
                let top = self.emit(Op::Each { of, done: 0 });
                self.in_each = true;
                self.repeat(top as Pc, body, place)?;
                self.in_each = false;
                self.bind(Label(vec![top]));
                self.break_here();
                Ok(())
            }
            StmtKind::Break => match self.breaks.len() {
                0 => self.fail(s.at, "`break` outside of a loop"),
                n => {
                    let i = self.emit(Op::Jump(0));
                    self.breaks[n - 1].push(i);
                    Ok(())
                }
            },
            StmtKind::Let(name, e) => {
                let to = self.define(name, s.at)?;
                self.given.push(name.clone());
                self.expr_to(e, to, s.at)
            }
            StmtKind::Locked(e) => {
                let to = self.temp(s.at)?;
                self.expr_to(e, to, s.at)
            }
            StmtKind::Store(n, v) => {
                if self.local(&n.name).is_some() && is_plain(n) {
                    return self.fail(n.at, format!("`{}` is a local: assign it with `let`", n.name));
                }
                let to = self.place(n)?;
                self.fits(to, v, n)?;
                let v = self.value(v, s.at)?;
                self.emit(Op::Store { to, v });
                Ok(())
            }
            StmtKind::StorePage(name, v) => {
                let page = self.page(name, s.at)?;
                let v = self.value(v, s.at)?;
                self.emit(Op::StorePage { page, v });
                Ok(())
            }
            StmtKind::Await(n, f, v) => {
                let at = self.place(n)?;
                let v = self.value(v, s.at)?;
                self.emit(Op::Await { at, f: *f, v });
                Ok(())
            }
            StmtKind::SwitchMm(mm, asid, keep) => {
                let mm = self.value(mm, s.at)?;
                let asid = self.value(asid, s.at)?;
                let keep = if *keep { NoFlush::Keep } else { NoFlush::Flush };
                self.emit(Op::MovCr3 { to: Cr3::Mm { mm, asid }, keep });
                Ok(())
            }
            StmtKind::MovCr3Local(n, how) => {
                let Some(r) = self.local(&n.name) else {
                    return self.fail(
                        n.at,
                        format!("cr3 takes `kernel`, `user`, `mm` or a local, not `{}`", n.name),
                    );
                };
                let keep = self.bit63(how, s.at)?;
                self.emit(Op::MovCr3 { to: Cr3::Reg(r), keep });
                Ok(())
            }
            StmtKind::FlushInfo(mm, generation) => {
                let mm = self.value(mm, s.at)?;
                let generation = self.value(generation, s.at)?;
                self.emit(Op::FlushInfo { mm, generation });
                Ok(())
            }
            StmtKind::Mask(mm, on) => {
                let mm = self.value(mm, s.at)?;
                self.emit(Op::Mask { mm, on: *on });
                Ok(())
            }
            StmtKind::MovGs(n) => {
                let v = match n {
                    None => Val::Imm(1),
                    Some(n) => match self.local(&n.name) {
                        Some(r) => Val::Reg(r),
                        None => {
                            return self
                                .fail(n.at, format!("gsbase takes `kernel` or a local, not `{}`", n.name));
                        }
                    },
                };
                self.emit(Op::SetGs(v));
                Ok(())
            }
            StmtKind::Ipi(set, run) => {
                let to = self.cpu_set(set, s.at)?;
                self.handlers.push((run.clone(), self.span));
                let i = self.emit(Op::Ipi { to, run: ProgId(0) });
                self.code.text[i] = format!("ipi {set}, {run}");
                Ok(())
            }
            StmtKind::CallLater(run) => {
                self.handlers.push((run.clone(), self.span));
                let i = self.emit(Op::CallLater(ProgId(0)));
                self.code.text[i] = format!("call later {run}");
                Ok(())
            }
            StmtKind::Plain(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                if let ["walk", of @ ..] = words.as_slice() {
                    return self.walk(of, s.at);
                }
                let op = self.plain(&words, s.at)?;
                let asked = match op {
                    Op::Rcu(_) => self.graces,
                    Op::Rsp(_) => self.sites,
                    _ => true,
                };
                if asked {
                    self.emit(op);
                }
                Ok(())
            }
            StmtKind::Use(word) => {
                let op = match word.as_str() {
                    "synchronize" => {
                        self.emit(Op::Rcu(Rcu::Start));
                        Op::Rcu(Rcu::Wait)
                    }
                    "fence" => Op::Fence(Fence::Full),
                    "lfence" => Op::Fence(Fence::Load),
                    "sfence" => Op::Fence(Fence::Store),
                    "serialize" => Op::Fence(Fence::Serialize),
                    "cli" => Op::Irq(false),
                    "sti" => Op::Irq(true),
                    "swapgs" => Op::SwapGs,
                    "tlbsync" => Op::Tlbsync,
                    "wbinvd" => Op::Wbinvd,
                    "migrate" => Op::Migrate,
                    "return" => Op::Return,
                    _ => {
                        let Some((file, section)) = self.find_section(word) else {
                            let all =
                                self.chain.iter().flat_map(|f| f.sections.iter().map(|s| s.name.as_str()));
                            let hint = hint(
                                word,
                                all.chain([
                                    "fence",
                                    "lfence",
                                    "sfence",
                                    "serialize",
                                    "swapgs",
                                    "tlbsync",
                                    "wbinvd",
                                    "synchronize",
                                    "migrate",
                                    "return",
                                ]),
                            );
                            return self.fail(s.at, format!("`{word}` is neither an op nor a section{hint}"));
                        };
                        return self.inline(file, section);
                    }
                };
                self.emit(op);
                Ok(())
            }
        }
    }

    /// A block that may not run: registers of locals it is first to define can be given away after it.
    pub(super) fn block(&mut self, body: &[Stmt], place: Option<&str>) -> Result2<()> {
        let outer: Vec<String> = self.locals.clone();
        self.stmts(body, place)?;
        for (r, name) in self.locals.iter().enumerate() {
            self.over[r] |= !outer.contains(name);
        }
        Ok(())
    }

    pub(super) fn repeat(&mut self, top: Pc, body: &[Stmt], place: Option<&str>) -> Result2<()> {
        self.breaks.push(Vec::new());
        self.block(body, place)?;
        self.emit(Op::Jump(top));
        Ok(())
    }

    pub(super) fn break_here(&mut self) {
        let breaks = self.breaks.pop().expect("repeat pushed one");
        self.bind(Label(breaks));
    }
}
