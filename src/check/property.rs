//! Named invariants and questions of litmus tests: conditions over shared variables.

use super::machine::Model;
use crate::kernel::program::{Cmp, Code, Copies};
use crate::kernel::text::{StmtKind, Test, Value, statements};

/// A condition on the memory of a state. Stores still in a buffer are not in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// A field compares with a constant.
    Field(u8, Cmp, u64),
    /// Two fields compare.
    Fields(u8, Cmp, u8),
    /// Not.
    Not(Box<Condition>),
    /// Both.
    And(Box<Condition>, Box<Condition>),
    /// Either.
    Or(Box<Condition>, Box<Condition>),
}

impl Condition {
    /// Read a condition such as `x == 1 and not y` over the shared variables of `code`.
    pub fn parse(code: &Code, text: &str) -> Result<Condition, String> {
        let bad = |why: String| format!("the condition `{text}`: {why}");
        let stmts =
            statements("condition", &format!("if {text}\n  fence\n")).map_err(|e| bad(e.message.clone()))?;
        match stmts.first().map(|s| &s.kind) {
            Some(StmtKind::If(test, ..)) => Self::of(code, test).map_err(bad),
            _ => Err(bad("expected a comparison of shared variables".into())),
        }
    }

    fn of(code: &Code, test: &Test) -> Result<Condition, String> {
        let field = |v: &Value| match v {
            Value::Name(n) => {
                let i = code.fields.iter().position(|f| f.name == n.name);
                match i {
                    Some(i) if code.vars[usize::from(code.fields[i].var)].copies == Copies::One => {
                        Ok(i as u8)
                    }
                    Some(_) => {
                        Err(format!("`{}` has one copy per CPU; a condition reads shared ones", n.name))
                    }
                    None => Err(format!("`{}` is no variable", n.name)),
                }
            }
            _ => Err("the left of a comparison is a shared variable".into()),
        };
        Ok(match test {
            Test::Compare(a, c, Value::Int(n)) => Condition::Field(field(a)?, *c, u64::from(*n)),
            Test::Compare(a, c, b) => Condition::Fields(field(a)?, *c, field(b)?),
            Test::Not(t) => Condition::Not(Box::new(Self::of(code, t)?)),
            Test::And(a, b) => Condition::And(Box::new(Self::of(code, a)?), Box::new(Self::of(code, b)?)),
            Test::Or(a, b) => Condition::Or(Box::new(Self::of(code, a)?), Box::new(Self::of(code, b)?)),
            _ => return Err("a condition compares shared variables".into()),
        })
    }

    /// Does it hold in the memory of this state?
    pub fn holds(&self, m: &Model, s: &[u64]) -> bool {
        let value = |field: u8| {
            let f = &m.code.fields[usize::from(field)];
            (m.layout.shared.vars[usize::from(f.var)].get(s) & f.mask()) >> f.shift
        };
        let compare = |c: Cmp, a: u64, b: u64| c.holds(a, b);
        match self {
            Condition::Field(f, c, n) => compare(*c, value(*f), *n),
            Condition::Fields(f, c, g) => compare(*c, value(*f), value(*g)),
            Condition::Not(x) => !x.holds(m, s),
            Condition::And(a, b) => a.holds(m, s) && b.holds(m, s),
            Condition::Or(a, b) => a.holds(m, s) || b.holds(m, s),
        }
    }
}
