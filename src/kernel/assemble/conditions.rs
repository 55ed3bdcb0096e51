//! Tests to branches; what the features decide is folded away.

use super::{Assembler, Label, Result2, any, leaves};
use crate::kernel::program::{Cmp, Cond, Feature, Op};
use crate::kernel::text::{Loc, Stmt, StmtKind, Test, Value};
use crate::names::hint;

impl Assembler<'_> {
    /// What the features decide.
    pub(super) fn fold(&self, t: &Test) -> Result2<Option<bool>> {
        Ok(match t {
            Test::Feature(name, at) => match Feature::named(name) {
                Some(f) => Some(self.features.has(f)),
                None => {
                    let hint = hint(name, Feature::ALL.iter().map(|f| f.0));
                    return self.fail(*at, format!("`{name}` is no feature{hint}"));
                }
            },
            Test::Not(t) => self.fold(t)?.map(|b| !b),
            Test::And(a, b) => match (self.fold(a)?, self.fold(b)?) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Test::Or(a, b) => match (self.fold(a)?, self.fold(b)?) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            _ => None,
        })
    }

    /// Go to `label` if the test is `sense`; fall through otherwise.
    pub(super) fn branch(&mut self, t: &Test, sense: bool, label: &mut Label, at: Loc) -> Result2<()> {
        if let Some(known) = self.fold(t)? {
            if known == sense {
                self.jump(label);
            }
            return Ok(());
        }
        match (t, sense) {
            (Test::Not(t), _) => self.branch(t, !sense, label, at),
            (Test::And(a, b), false) | (Test::Or(a, b), true) => {
                self.branch(a, sense, label, at)?;
                self.branch(b, sense, label, at)
            }
            (Test::And(a, b), true) | (Test::Or(a, b), false) => {
                let mut skip = Label::default();
                self.branch(a, !sense, &mut skip, at)?;
                self.branch(b, sense, label, at)?;
                self.bind(skip);
                Ok(())
            }
            (Test::Compare(a, cmp, b), _) => {
                let temps = self.temps;
                let a = self.in_reg(a, at)?;
                let b = self.value(b, at)?;
                self.temps = temps;
                let negated = match cmp {
                    Cmp::Eq => Some(Cmp::Ne),
                    Cmp::Ne => Some(Cmp::Eq),
                    Cmp::Lt => Some(Cmp::Ge),
                    Cmp::Ge => Some(Cmp::Lt),
                    Cmp::Le => Some(Cmp::Gt),
                    Cmp::Gt => Some(Cmp::Le),
                    Cmp::Test => None,
                };
                match (sense, negated) {
                    (true, Some(n)) => self.unless(Cond::Cmp(n, a, b), false, label),
                    _ => self.unless(Cond::Cmp(*cmp, a, b), sense, label),
                }
                Ok(())
            }
            (t, _) => {
                let c = match t {
                    Test::MeIn(set, at) => Cond::MeIn(self.cpu_set(set, *at)?),
                    Test::CurIn(set, at) => {
                        if !self.in_each {
                            return self.fail(*at, "`cpu in` stands outside of `each cpu in`");
                        }
                        Cond::CurIn(self.cpu_set(set, *at)?)
                    }
                    Test::CurIsMe => Cond::CurIsMe,
                    Test::Empty(set, at) => Cond::Empty(self.cpu_set(set, *at)?),
                    Test::IsUser(Value::Cr3) => Cond::Cr3User,
                    Test::IsUser(Value::Name(n)) => match self.local(&n.name) {
                        Some(r) => Cond::RegUser(r),
                        None => {
                            return self
                                .fail(n.at, format!("`{}` is no local that holds a CR3 value", n.name));
                        }
                    },
                    Test::RangeFull => Cond::RangeFull,
                    Test::Either(_) => Cond::Either,
                    Test::Text(None, _) => Cond::Text(0),
                    Test::Text(Some(site), at) => Cond::Text(self.site(site, *at)?),
                    other => unreachable!("folded or handled above: {other:?}"),
                };
                self.unless(c, sense, label);
                Ok(())
            }
        }
    }

    pub(super) fn unless(&mut self, c: Cond, sense: bool, label: &mut Label) {
        let i = self.emit(Op::Unless { c, to: 0 });
        if sense {
            let mut skip = Label(vec![i]);
            self.jump(label);
            self.bind(std::mem::take(&mut skip));
        } else {
            label.0.push(i);
        }
    }

    /// Is the test over constants and locals that the body leaves alone, with no other way out?
    pub(super) fn never_changes(&self, test: &Test, body: &[Stmt]) -> bool {
        fn reads<'a>(test: &'a Test, out: &mut Vec<&'a Value>) -> bool {
            match test {
                Test::Compare(a, _, b) => {
                    out.extend([a, b]);
                    true
                }
                Test::Not(t) => reads(t, out),
                Test::And(a, b) | Test::Or(a, b) => reads(a, out) && reads(b, out),
                _ => false, // CR3, sets and the like change under the loop
            }
        }
        let mut values = Vec::new();
        let fixed = reads(test, &mut values)
            && values.iter().all(|v| match v {
                Value::Int(_) => true,
                Value::Name(n) => !n.cur && self.local(&n.name).is_some(),
                Value::Cr3 | Value::GsBase => false,
            });
        let assigns = |k: &StmtKind| match k {
            StmtKind::Let(to, _) => values.iter().any(|v| matches!(v, Value::Name(n) if n.name == *to)),
            StmtKind::Use(section) => self.find_section(section).is_some(),
            _ => false,
        };
        fixed && !leaves(body) && !any(body, &assigns)
    }
}

/// Where a test holds something for which `such` has an answer.
fn find<T>(test: &Test, such: &dyn Fn(&Test) -> Option<T>) -> Option<T> {
    such(test).or_else(|| match test {
        Test::Not(t) => find(t, such),
        Test::And(a, b) | Test::Or(a, b) => find(a, such).or_else(|| find(b, such)),
        _ => None,
    })
}

/// Where a test stands that no loop may have, and its word.
pub(super) fn not_of_a_loop(test: &Test) -> Option<(Loc, &'static str)> {
    find(test, &|t| match t {
        Test::Either(at) => Some((*at, "either")),
        Test::Text(_, at) => Some((*at, "text is new")),
        _ => None,
    })
}

/// Is it a branch that a patched instruction decides?
pub(super) fn is_patched(kind: &StmtKind) -> bool {
    let patched = |t: &Test| matches!(t, Test::Text(..)).then_some(());
    matches!(kind, StmtKind::If(test, ..) if find(test, &patched).is_some())
}
