//! Conditions of litmus tests: over shared variables, locals of columns at their end, final page-table entries, and
//! which columns ended in a fault. `exists`, `forall` and `never` ask about them.

mod parse;
mod values;

pub use parse::{Term, Tree, condition, terms};

use crate::kernel::program::{Cmp, Code, Copies, Level};

/// Cases of values tried at most, to find whether a condition says anything.
const MOST: usize = 1 << 18;

/// What a condition reads of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Quantity {
    /// A shared variable, or a field of one. Stores still in a buffer are not in memory.
    Field(u8),
    /// A local of a column at its end: CPU, and which of those that its program keeps.
    Register(u8, u8),
    /// A page's entry in memory: an index into [`ENTRIES`].
    Leaf(u8),
    /// The entry above: whether it is present.
    Table(u8),
    /// The column ended in a fault at the page: 0 or 1.
    Fault(u8, u8),
}

/// Words for the value of an entry, by what [`Quantity::Leaf`] reads.
pub const ENTRIES: [&str; 5] = ["none", "fresh", "less-rights", "initial", "uncached"];

/// The right side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A constant.
    Const(u64),
    /// What a state holds.
    Of(Quantity),
}

/// A condition on a state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Holds, or not, whatever the state.
    Always(bool),
    /// A comparison.
    Compare(Quantity, Cmp, Operand),
    /// Not.
    Not(Box<Condition>),
    /// Both.
    And(Box<Condition>, Box<Condition>),
    /// Either.
    Or(Box<Condition>, Box<Condition>),
}

/// Who is who, for names in conditions.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The programs.
    pub code: &'a Code,
    /// CPUs that play a role; the columns come after them.
    pub roles: usize,
    /// CPUs in all.
    pub cpus: usize,
}

impl Names<'_> {
    /// What a term reads.
    pub fn quantity(&self, term: &Term) -> Result<Quantity, String> {
        match term {
            Term::Int(n) => Err(format!("`{n}` is a constant")),
            Term::Name(name) => {
                let i = self.code.fields.iter().position(|f| f.name == *name);
                let shared =
                    |i: usize| self.code.vars[usize::from(self.code.fields[i].var)].copies == Copies::One;
                match i {
                    Some(i) if shared(i) => Ok(Quantity::Field(i as u8)),
                    Some(_) => Err(format!("`{name}` has one copy per CPU; a condition reads shared ones")),
                    None => Err(format!("`{name}` is no variable (a local of column N is `N:{name}`)")),
                }
            }
            Term::Register(cpu, name) => {
                let cpu = self.cpu(*cpu)?;
                if cpu < self.roles {
                    return Err(format!("`{cpu}:{name}`: cpu {cpu} plays a role; only columns keep locals"));
                }
                let program = self.code.program(&format!("cpu {cpu}"));
                let kept = program.map_or(&[][..], |p| &self.code.programs[usize::from(p.0)].kept);
                match kept.iter().position(|(kept, _)| kept == name) {
                    Some(slot) => Ok(Quantity::Register(cpu as u8, slot as u8)),
                    None => {
                        Err(format!("`{cpu}:{name}`: nothing in `cpu {cpu}` gives a local `{name}` a value"))
                    }
                }
            }
            Term::Entry(level, name) => {
                let page = self.page(name)?;
                Ok(if *level == Level::Leaf { Quantity::Leaf(page) } else { Quantity::Table(page) })
            }
            Term::Fault(cpu, name) => Ok(Quantity::Fault(self.cpu(*cpu)? as u8, self.page(name)?)),
        }
    }

    fn cpu(&self, cpu: usize) -> Result<usize, String> {
        if cpu < self.cpus {
            return Ok(cpu);
        }
        Err(format!("there is no cpu {cpu}: the last is {}", self.cpus.saturating_sub(1)))
    }

    fn page(&self, name: &str) -> Result<u8, String> {
        let i = self.code.pages.iter().position(|p| p.name == name);
        i.map(|i| i as u8).ok_or_else(|| format!("`{name}` is no declared page"))
    }

    /// The condition a tree means.
    pub fn resolve(&self, tree: &Tree) -> Result<Condition, String> {
        let two = |a, b| Ok::<_, String>((Box::new(self.resolve(a)?), Box::new(self.resolve(b)?)));
        Ok(match tree {
            Tree::Always(on) => Condition::Always(*on),
            Tree::Not(t) => Condition::Not(Box::new(self.resolve(t)?)),
            Tree::And(a, b) => two(a, b).map(|(a, b)| Condition::And(a, b))?,
            Tree::Or(a, b) => two(a, b).map(|(a, b)| Condition::Or(a, b))?,
            Tree::Compare(Term::Int(a), _, Term::Int(b)) => {
                return Err(format!("it compares the constants {a} and {b}"));
            }
            Tree::Compare(a @ Term::Int(_), cmp, b) => self.compare(b, turned(*cmp), a)?,
            Tree::Compare(a, cmp, b @ Term::Entry(..)) if !matches!(a, Term::Entry(..)) => {
                self.compare(b, turned(*cmp), a)?
            }
            Tree::Compare(a, cmp, b) => self.compare(a, *cmp, b)?,
        })
    }

    fn compare(&self, a: &Term, cmp: Cmp, b: &Term) -> Result<Condition, String> {
        if let Term::Entry(level, page) = a {
            return self.entry(*level, page, cmp, b);
        }
        let left = self.quantity(a)?;
        let right = match b {
            Term::Int(n) => Operand::Const(*n),
            b => Operand::Of(self.quantity(b)?),
        };
        Ok(Condition::Compare(left, cmp, right))
    }

    fn entry(&self, level: Level, page: &str, cmp: Cmp, b: &Term) -> Result<Condition, String> {
        let of = self.quantity(&Term::Entry(level, page.into()))?;
        let words = if level == Level::Leaf {
            "none, fresh, less-rights, initial, uncached or present"
        } else {
            "none or present"
        };
        let bad = || Err(format!("an entry is compared by == or != with {words}"));
        let Term::Name(word) = b else { return bad() };
        let same = match cmp {
            Cmp::Eq => true,
            Cmp::Ne => false,
            Cmp::Lt | Cmp::Ge | Cmp::Le | Cmp::Gt | Cmp::Test => return bad(),
        };
        let equals = |same: bool| if same { Cmp::Eq } else { Cmp::Ne };
        let (cmp, value) = match word.as_str() {
            "present" => (equals(!same), 0),
            "none" => (equals(same), 0),
            word => match ENTRIES.iter().position(|w| *w == word) {
                Some(value) if level == Level::Leaf => (equals(same), value as u64),
                _ => return bad(),
            },
        };
        Ok(Condition::Compare(of, cmp, Operand::Const(value)))
    }
}

/// The comparison seen from the other side.
fn turned(cmp: Cmp) -> Cmp {
    match cmp {
        Cmp::Lt => Cmp::Gt,
        Cmp::Gt => Cmp::Lt,
        Cmp::Le => Cmp::Ge,
        Cmp::Ge => Cmp::Le,
        Cmp::Eq | Cmp::Ne | Cmp::Test => cmp,
    }
}

impl Quantity {
    /// As conditions write it.
    pub fn name(self, code: &Code) -> String {
        let page = |p: u8| &code.pages[usize::from(p)].name;
        match self {
            Quantity::Field(f) => code.fields[usize::from(f)].name.clone(),
            Quantity::Register(cpu, slot) => {
                let program = code.program(&format!("cpu {cpu}")).map(|p| usize::from(p.0));
                let kept = program.and_then(|p| code.programs[p].kept.get(usize::from(slot)));
                format!("{cpu}:{}", kept.map_or("", |k| &k.0))
            }
            Quantity::Leaf(p) => format!("pte({})", page(p)),
            Quantity::Table(p) => format!("table({})", page(p)),
            Quantity::Fault(cpu, p) => format!("fault({cpu}, {})", page(p)),
        }
    }
}

impl Condition {
    /// What it reads, in order of first mention.
    pub fn quantities(&self) -> Vec<Quantity> {
        let mut out = Vec::new();
        self.collect(&mut out);
        out
    }

    fn collect(&self, out: &mut Vec<Quantity>) {
        let mut add = |q: Quantity| {
            if !out.contains(&q) {
                out.push(q);
            }
        };
        match self {
            Condition::Always(_) => {}
            Condition::Compare(a, _, b) => {
                add(*a);
                if let Operand::Of(b) = b {
                    add(*b);
                }
            }
            Condition::Not(x) => x.collect(out),
            Condition::And(a, b) | Condition::Or(a, b) => {
                a.collect(out);
                b.collect(out);
            }
        }
    }

    /// Does it hold? `None` where that depends on a value there is not yet.
    pub fn eval(&self, value: &dyn Fn(Quantity) -> Option<u64>) -> Option<bool> {
        match self {
            Condition::Always(on) => Some(*on),
            Condition::Compare(a, cmp, b) => {
                let b = match b {
                    Operand::Const(n) => Some(*n),
                    Operand::Of(b) => value(*b),
                };
                Some(cmp.holds(value(*a)?, b?))
            }
            Condition::Not(x) => x.eval(value).map(|on| !on),
            Condition::And(a, b) => match (a.eval(value), b.eval(value)) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Condition::Or(a, b) => match (a.eval(value), b.eval(value)) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
        }
    }

    /// Does the condition ask whether this CPU faults at this page?
    pub fn asks_fault(&self, cpu: usize, page: usize) -> bool {
        self.quantities().contains(&Quantity::Fault(cpu as u8, page as u8))
    }

    fn constants(&self, out: &mut Vec<u64>) {
        match self {
            Condition::Compare(_, _, Operand::Const(n)) => out.push(*n),
            Condition::Always(_) | Condition::Compare(..) => {}
            Condition::Not(x) => x.constants(out),
            Condition::And(a, b) | Condition::Or(a, b) => {
                a.constants(out);
                b.constants(out);
            }
        }
    }

    fn any(&self, such: &dyn Fn(&Condition) -> bool) -> bool {
        such(self)
            || match self {
                Condition::Always(_) | Condition::Compare(..) => false,
                Condition::Not(x) => x.any(such),
                Condition::And(a, b) | Condition::Or(a, b) => a.any(such) || b.any(such),
            }
    }
}
