//! Names to numbers: locals and their registers, variables and whose copy, sets, pages.

use super::{Assembler, Result2};
use crate::kernel::program::{At, Copies, Index, Pages, Part, Place, REGS, Reg, Set, Site};
use crate::kernel::text::{Loc, Name, Value};
use crate::names::hint;

impl Assembler<'_> {
    pub(super) fn local(&self, name: &str) -> Option<Reg> {
        self.locals.iter().position(|l| l == name).map(|i| Reg(i as u8))
    }

    pub(super) fn define(&mut self, name: &str, at: Loc) -> Result2<Reg> {
        if name == "either" {
            return self.fail(at, "`either` is a test that nothing decides; a local needs a name of its own");
        }
        if let Some(r) = self.local(name) {
            self.over[usize::from(r.0)] = false;
            return Ok(r);
        }
        if self.code.fields.iter().any(|f| f.name == name) {
            return self.fail(at, format!("`{name}` is a variable; a local needs a name of its own"));
        }
        let r = if self.locals.len() + self.temps < REGS {
            self.locals.push(String::new());
            self.over.push(false);
            self.locals.len() - 1
        } else {
            match self.over.iter().position(|over| *over) {
                Some(r) => r,
                None => return self.too_many(at),
            }
        };
        self.locals[r] = name.into();
        self.over[r] = false;
        match self.named.get_mut(r) {
            None => self.named.push(name.into()),
            Some(names) if names.split('/').any(|n| n == name) => {}
            Some(names) => *names = format!("{names}/{name}"),
        }
        Ok(Reg(r as u8))
    }

    pub(super) fn temp(&mut self, at: Loc) -> Result2<Reg> {
        let free = REGS - self.locals.len();
        self.temps += 1;
        if self.temps <= free {
            return Ok(Reg((REGS - self.temps) as u8));
        }
        let over = (0..self.locals.len()).filter(|r| self.over[*r]).nth(self.temps - free - 1);
        match over {
            Some(r) => {
                self.locals[r].clear();
                Ok(Reg(r as u8))
            }
            None => self.too_many(at),
        }
    }

    pub(super) fn too_many<T>(&self, at: Loc) -> Result2<T> {
        let names: Vec<&str> = self.locals.iter().map(String::as_str).filter(|n| !n.is_empty()).collect();
        self.fail(at, format!("more than {REGS} locals and temporaries in one program: {}", names.join(", ")))
    }

    pub(super) fn place(&self, n: &Name) -> Result2<Place> {
        let Some(field) = self.code.fields.iter().position(|f| f.name == n.name) else {
            let all = self
                .code
                .fields
                .iter()
                .map(|f| f.name.as_str())
                .chain(self.locals.iter().map(String::as_str));
            return self.fail(n.at, format!("`{}` is no variable or local{}", n.name, hint(&n.name, all)));
        };
        let copies = self.code.vars[usize::from(self.code.fields[field].var)].copies;
        let at = match (copies, n.cur) {
            (Copies::Cpu, true) if !self.in_each => {
                return self.fail(n.at, "`[cpu]` stands outside of `each cpu in`");
            }
            (Copies::Cpu, true) => At::Cur,
            (Copies::Cpu, false) if n.index.is_none() => At::Me,
            (Copies::One, false) if n.index.is_none() => At::Shared,
            (Copies::Mm, false) if n.index.is_some() => At::Mm(self.index(n)?),
            (Copies::Asid, false) if n.index.is_some() => At::Asid(self.index(n)?),
            (Copies::One, _) => {
                return self.fail(n.at, format!("`{}` is shared: it has no copy per CPU", n.name));
            }
            (Copies::Cpu, false) => {
                return self.fail(n.at, format!("`{}` has a copy per CPU: write `{0}[cpu]`", n.name));
            }
            (Copies::Mm | Copies::Asid, _) => {
                let of = if copies == Copies::Mm { "address space" } else { "ASID" };
                return self.fail(n.at, format!("`{}` has a copy per {of}: write `{0}[LOCAL]`", n.name));
            }
        };
        Ok(Place { field: field as u8, at })
    }

    /// The register that chooses a copy.
    pub(super) fn index(&self, n: &Name) -> Result2<Index> {
        let name = n.index.as_deref().expect("the caller looked");
        match self.local(name) {
            Some(r) => Ok(Index::ALL[usize::from(r.0)]),
            None => self.fail(n.at, format!("`{name}` is no local: an index is `cpu` or a local")),
        }
    }

    /// Refuses a constant that the variable cannot hold.
    pub(super) fn fits(&self, place: Place, v: &Value, n: &Name) -> Result2<()> {
        let bits = self.code.fields[usize::from(place.field)].bits;
        match v {
            Value::Int(v) if bits < 16 && *v >> bits != 0 => self.fail(
                n.at,
                format!("`{}` has {bits} bit{}: {v} does not fit", n.name, if bits == 1 { "" } else { "s" }),
            ),
            _ => Ok(()),
        }
    }

    /// Refuses the number of a bit that the variable does not have.
    pub(super) fn has_bit(&self, place: Place, v: &Value, n: &Name) -> Result2<()> {
        let bits = self.code.fields[usize::from(place.field)].bits;
        match v {
            Value::Int(v) if *v >= u16::from(bits) => {
                self.fail(n.at, format!("`{}` has bits 0 to {}: there is no bit {v}", n.name, bits - 1))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn cpu_set(&self, name: &str, at: Loc) -> Result2<Set> {
        const SETS: [(&str, Set); 7] = [
            ("online", Set::Online),
            ("others", Set::Others),
            ("housekeeping", Set::Housekeeping),
            ("nohz_full", Set::NohzFull),
            ("flush_mask", Set::FlushMask),
            ("targets", Set::Targets),
            ("mm_cpumask", Set::MmCpumask),
        ];
        match SETS.iter().find(|(n, _)| *n == name) {
            Some(&(_, set)) => Ok(set),
            None => {
                let hint = hint(name, SETS.iter().map(|s| s.0));
                self.fail(at, format!("`{name}` is no CPU set; these are: online, others, housekeeping, nohz_full, flush_mask, targets, mm_cpumask{hint}"))
            }
        }
    }

    pub(super) fn pages(&self, name: &str, at: Loc) -> Result2<Pages> {
        if name == "range" {
            return Ok(Pages::Range);
        }
        self.page(name, at).map(Pages::One)
    }

    pub(super) fn part(&self, name: &str, at: Loc) -> Result2<Part> {
        match name {
            "head" => Ok(Part::Head),
            "tail" => Ok(Part::Tail),
            _ => self.fail(at, format!("a patched instruction has a `head` and a `tail`, no `{name}`")),
        }
    }

    /// The number of a patched instruction that has a name.
    pub(super) fn site(&self, name: &str, at: Loc) -> Result2<Site> {
        match self.code.sites.iter().position(|s| s == name) {
            Some(i) => Ok(i as Site + 1),
            None => {
                let hint = hint(name, self.code.sites.iter().map(String::as_str));
                self.fail(at, format!("`{name}` is no site; a header line `site {name}` declares one{hint}"))
            }
        }
    }

    pub(super) fn page(&self, name: &str, at: Loc) -> Result2<u8> {
        match self.code.pages.iter().position(|p| p.name == name) {
            Some(i) => Ok(i as u8),
            None => {
                let hint = hint(name, self.code.pages.iter().map(|p| p.name.as_str()));
                self.fail(at, format!("`{name}` is neither `range` nor a declared page{hint}"))
            }
        }
    }
}
