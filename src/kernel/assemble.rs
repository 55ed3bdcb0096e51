//! Text to program: sections are inlined, features folded, names resolved, registers assigned.
//!
//! What a policy does not define it takes from the policy it is `based on`, then from the kernel's paths. A
//! section is a program if the kernel enters it ([`ENTRIES`]), an `ipi` names it, or it is a litmus column
//! (`cpu N`); every other section is a macro.

use super::program::{
    Ask, At, Cmp, Code, Cond, Copies, Cr3, Entry, Feature, Features, Fence, Field, Index, Invpcid, Level,
    NoFlush, Op, Page, Pages, Part, Pc, PcidOf, Place, ProgId, Program, REGS, Reg, Rmw, Set, Slot, Span,
    Touch, Val, Var, Zone,
};
use super::text::{
    Expr, File, Loc, Name, PolicyError, Question, Section, Stmt, StmtKind, Test, Value, statement,
};
use crate::names;

/// Sections that the drivers enter by name, with what each stands for.
pub const ENTRIES: [(&str, &str); 25] = [
    ("enter_user", "return to user mode for the first time"),
    ("syscall", "SYSCALL from user mode"),
    ("syscall_compat", "SYSCALL from 32-bit user mode"),
    ("sysenter_compat", "SYSENTER from 32-bit user mode"),
    ("exception", "exception from user mode"),
    ("exception_espfix", "exception from user mode that returns to a stack segment of the LDT"),
    ("exception_bad_iret", "exception from user mode whose IRET faults"),
    ("interrupt", "device interrupt or IPI from user mode"),
    ("interrupt_kernel", "device interrupt or IPI from kernel mode"),
    ("interrupt_idle", "device interrupt or IPI out of idle"),
    ("nmi_user", "NMI from user mode"),
    ("nmi", "NMI, #MC or #DB from kernel mode"),
    ("idle", "the idle loop, once"),
    ("purge", "vmalloc: unmap, flush, hand the addresses back, map again"),
    ("vunmap", "unmap and flush for a caller that relies on it at once"),
    ("table_free", "free a page-table page of the kernel"),
    ("set_memory", "take rights away from a direct-map page"),
    ("text_poke", "patch one instruction"),
    ("text_breakpoint", "put a breakpoint on one instruction, as arming a kprobe does"),
    ("switch_mm", "switch to another mm"),
    ("enter_lazy", "a kernel thread borrows the mm"),
    ("flush_mm", "flush a user range of an mm"),
    ("flush_mm_tables", "the same, and page-table pages are freed"),
    ("flush_all", "flush everything everywhere"),
    ("sync_table_free", "wait until no CPU walks page tables without a lock"),
];

/// Assemble `file` for a machine with `features`. `kernel` supplies what no policy defines; `find` finds the
/// policy a file is `based on`; `contexts` is the part of the kernel about memory contexts, included when the text
/// uses it or `wants` one of its programs.
pub fn assemble(
    file: &File,
    kernel: &File,
    contexts: &File,
    wants: &[&str],
    find: &dyn Fn(&str) -> Result<File, String>,
    features: Features,
) -> Result<Code, PolicyError> {
    let bases = bases(file, find)?;
    let mut chain = vec![file];
    chain.extend(&bases);
    let section_of_contexts = |name: &str| contexts.section(name).is_some();
    let used = chain.iter().flat_map(|f| &f.sections).any(|s| {
        section_of_contexts(&s.name)
            || any(
                &s.body,
                &|k| matches!(k, StmtKind::Use(n) | StmtKind::Ipi(_, n) if section_of_contexts(n)),
            )
    });
    if used || wants.iter().any(|n| section_of_contexts(n)) {
        chain.push(contexts);
    }
    chain.push(kernel);
    Assembler::new(chain, features).run()
}

/// The policies that a file is based on, nearest first.
fn bases(file: &File, find: &dyn Fn(&str) -> Result<File, String>) -> Result<Vec<File>, PolicyError> {
    let mut bases: Vec<File> = Vec::new();
    loop {
        let last = bases.last().unwrap_or(file);
        let Some(base) = &last.based_on else { return Ok(bases) };
        let fail = |message: String| PolicyError { file: last.file.clone(), at: last.based_at, message };
        let found = find(base).map_err(fail)?;
        if file.name == found.name || bases.iter().any(|f| f.name == found.name) {
            return Err(fail(format!("`{}` is based on itself", found.name)));
        }
        bases.push(found);
    }
}

/// The sections of `file` that nothing enters, names or replaces: misspelt, or left behind. A matter of reading a text
/// and not of assembling it: a policy that is weakened on purpose may leave sections behind.
pub fn unused<'a>(
    file: &'a File,
    kernel: &[&File],
    find: &dyn Fn(&str) -> Result<File, String>,
) -> Result<Vec<&'a Section>, PolicyError> {
    let bases = bases(file, find)?;
    let replaced = |name: &str| bases.iter().chain(kernel.iter().copied()).any(|f| f.section(name).is_some());
    let entered = |name: &str| name.starts_with("cpu ") || ENTRIES.iter().any(|(n, _)| *n == name);
    let named = |name: &str| file.sections.iter().any(|s| names_section(&s.body, name));
    let known = |s: &&Section| entered(&s.name) || replaced(&s.name) || named(&s.name);
    Ok(file.sections.iter().filter(|s| !known(s)).collect())
}

/// Refuses a text with a section that nothing uses.
pub fn all_used(
    file: &File,
    kernel: &[&File],
    find: &dyn Fn(&str) -> Result<File, String>,
) -> Result<(), PolicyError> {
    let Some(section) = unused(file, kernel, find)?.first().copied() else { return Ok(()) };
    let bases = bases(file, find)?;
    let others = bases.iter().chain(kernel.iter().copied()).flat_map(|f| &f.sections);
    let all = ENTRIES.iter().map(|e| e.0).chain(others.map(|o| o.name.as_str()));
    let hint = names::hint(&section.name, all);
    Err(PolicyError {
        file: file.file.clone(),
        at: section.at,
        message: format!("nothing uses section `{}`{hint}", section.name),
    })
}

struct Assembler<'a> {
    chain: Vec<&'a File>,
    features: Features,
    code: Code,
    /// Names of macros being inlined, innermost last: recursion is an error, and its last is the file.
    inlining: Vec<(usize, String)>,
    locals: Vec<String>,
    /// Locals of blocks that are over: still known, until their registers are needed.
    over: Vec<bool>,
    /// Every name each register had, for reports.
    named: Vec<String>,
    /// Temporaries in use above the locals.
    temps: usize,
    in_each: bool,
    breaks: Vec<Vec<usize>>,
    /// Programs an `ipi` names, still to be assembled.
    handlers: Vec<(String, Span)>,
    span: Span,
    line: String,
}

type Result2<T> = Result<T, PolicyError>;

/// A jump target not known yet: the ops to patch.
#[derive(Default)]
struct Label(Vec<usize>);

impl<'a> Assembler<'a> {
    fn new(chain: Vec<&'a File>, features: Features) -> Self {
        let code = Code {
            name: chain[0].name.clone(),
            ops: Vec::new(),
            at: Vec::new(),
            text: Vec::new(),
            live: Vec::new(),
            programs: Vec::new(),
            vars: Vec::new(),
            fields: Vec::new(),
            pages: Vec::new(),
            files: chain.iter().map(|f| f.file.clone()).collect(),
            places: Vec::new(),
        };
        Assembler {
            chain,
            features,
            code,
            inlining: Vec::new(),
            locals: Vec::new(),
            over: Vec::new(),
            named: Vec::new(),
            temps: 0,
            in_each: false,
            breaks: Vec::new(),
            handlers: Vec::new(),
            span: Span::default(),
            line: String::new(),
        }
    }

    fn file_now(&self) -> usize {
        self.inlining.last().map_or(0, |x| x.0)
    }

    fn fail<T>(&self, at: Loc, message: impl Into<String>) -> Result2<T> {
        Err(PolicyError { file: self.code.files[self.file_now()].clone(), at, message: message.into() })
    }

    fn find_section(&self, name: &str) -> Option<(usize, &'a Section)> {
        self.chain.iter().enumerate().find_map(|(i, f)| f.section(name).map(|s| (i, s)))
    }

    fn run(mut self) -> Result2<Code> {
        self.declare()?;
        let mut roots: Vec<String> = ENTRIES.iter().map(|(n, _)| (*n).to_string()).collect();
        roots.extend(self.chain[0].sections.iter().map(|s| s.name.clone()).filter(|n| n.starts_with("cpu ")));
        for name in roots {
            if self.find_section(&name).is_some() {
                self.program(&name)?;
            }
        }
        while let Some((name, span)) = self.handlers.pop() {
            if self.code.program(&name).is_none() {
                if self.find_section(&name).is_none() {
                    let hint = names::hint(
                        &name,
                        self.chain.iter().flat_map(|f| f.sections.iter().map(|s| s.name.as_str())),
                    );
                    return Err(PolicyError {
                        file: self.code.files[usize::from(span.file)].clone(),
                        at: Loc { line: span.line, col: span.col },
                        message: format!("`ipi` names the section `{name}`, which is not defined{hint}"),
                    });
                }
                self.program(&name)?;
            }
        }
        self.link();
        self.liveness()?;
        Ok(self.code)
    }

    fn declare(&mut self) -> Result2<()> {
        let chain = self.chain.clone();
        for (i, f) in chain.iter().enumerate() {
            let fail = |at: Loc, message: String| PolicyError { file: chain[i].file.clone(), at, message };
            for v in &f.vars {
                if let Some(old) = self.code.vars.iter().find(|o| o.name == v.name) {
                    // A policy may redeclare what it is based on, as long as its own comes first.
                    if i == 0 || chain[..i].iter().all(|c| c.vars.iter().all(|o| o.name != v.name)) {
                        return Err(fail(v.at, format!("variable `{}` is declared twice", old.name)));
                    }
                    continue;
                }
                let var = self.code.vars.len();
                if var == 64 {
                    return Err(fail(v.at, "more than 64 variables".into()));
                }
                self.code.vars.push(Var {
                    name: v.name.clone(),
                    bits: v.bits,
                    per_cpu: matches!(v.copies, Copies::Cpu | Copies::Asid),
                    copies: v.copies,
                    holds: v.holds,
                    init: v.init,
                    user_mapped: v.user_mapped,
                });
            }
            for p in &f.pages {
                if self.code.pages.iter().any(|o| o.name == p.name) {
                    return Err(fail(p.at, format!("page `{}` is declared twice", p.name)));
                }
                self.code.pages.push(Page {
                    name: p.name.clone(),
                    kind: p.kind,
                    global: p.global,
                    user_mapped: p.user_mapped,
                    present: p.present,
                });
            }
        }
        for (i, v) in self.code.vars.iter().enumerate() {
            self.code.fields.push(Field { name: v.name.clone(), var: i as u8, shift: 0, bits: v.bits });
        }
        for f in &chain {
            for d in &f.fields {
                let fail = |message: String| PolicyError { file: f.file.clone(), at: d.at, message };
                if self.code.fields.iter().any(|o| o.name == d.name) {
                    continue;
                }
                let Some(var) = self.code.vars.iter().position(|v| v.name == d.var) else {
                    return Err(fail(format!("field `{}` is of `{}`, which is no variable", d.name, d.var)));
                };
                if d.high >= self.code.vars[var].bits {
                    return Err(fail(format!(
                        "field `{}` ends at bit {}, but `{}` has {} bits",
                        d.name, d.high, d.var, self.code.vars[var].bits
                    )));
                }
                self.code.fields.push(Field {
                    name: d.name.clone(),
                    var: var as u8,
                    shift: d.low,
                    bits: d.high - d.low + 1,
                });
            }
        }
        Ok(())
    }

    fn program(&mut self, name: &str) -> Result2<()> {
        let start = self.code.ops.len() as Pc;
        self.locals.clear();
        self.over.clear();
        self.named.clear();
        self.temps = 0;
        self.in_each = false;
        let (file, section) = self.find_section(name).expect("the caller looked");
        self.inline(file, section)?;
        self.span = Span { file: file as u8, line: section.at.line, col: section.at.col, place: 0 };
        self.line = format!("return from {name}");
        if !matches!(section.body.last(), Some(Stmt { kind: StmtKind::Use(w), .. }) if w == "return") {
            self.emit(Op::Return);
        }
        if self.code.programs.len() == 255 || self.code.ops.len() > 4096 {
            return self.fail(section.at, "a policy has at most 254 programs and 4,096 ops");
        }
        self.code.programs.push(Program {
            name: name.into(),
            start,
            end: self.code.ops.len() as Pc,
            locals: self.named.clone(),
        });
        Ok(())
    }

    fn inline(&mut self, file: usize, section: &Section) -> Result2<()> {
        if self.inlining.iter().any(|(_, n)| *n == section.name) {
            return self.fail(section.at, format!("section `{}` uses itself", section.name));
        }
        self.inlining.push((file, section.name.clone()));
        let outer = self.span;
        let place = section.place.clone();
        if puts(&section.body) {
            self.set_span(file, section.at, place.as_deref());
            self.line = "targets = none".into();
            self.emit(Op::Clear);
        }
        for stmt in &section.body {
            self.stmt(stmt, place.as_deref())?;
        }
        self.span = outer;
        self.inlining.pop();
        Ok(())
    }

    fn set_span(&mut self, file: usize, at: Loc, place: Option<&str>) {
        let place = place.map_or(0, |p| {
            let i = self.code.places.iter().position(|q| q == p).unwrap_or_else(|| {
                self.code.places.push(p.into());
                self.code.places.len() - 1
            });
            i as u16 + 1
        });
        self.span = Span { file: file as u8, line: at.line, col: at.col, place };
    }

    fn emit(&mut self, op: Op) -> usize {
        self.code.ops.push(op);
        self.code.at.push(self.span);
        self.code.text.push(self.line.clone());
        self.code.ops.len() - 1
    }

    fn bind(&mut self, label: Label) {
        let here = self.code.ops.len() as Pc;
        for i in label.0 {
            match &mut self.code.ops[i] {
                Op::Unless { to, .. } | Op::Jump(to) | Op::Each { done: to, .. } => *to = here,
                other => unreachable!("only jumps are labelled: {other:?}"),
            }
        }
    }

    fn jump(&mut self, label: &mut Label) {
        let i = self.emit(Op::Jump(0));
        label.0.push(i);
    }

    // -- names -------------------------------------------------------------------------------------------

    fn local(&self, name: &str) -> Option<Reg> {
        self.locals.iter().position(|l| l == name).map(|i| Reg(i as u8))
    }

    fn define(&mut self, name: &str, at: Loc) -> Result2<Reg> {
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

    fn temp(&mut self, at: Loc) -> Result2<Reg> {
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

    fn too_many<T>(&self, at: Loc) -> Result2<T> {
        let names: Vec<&str> = self.locals.iter().map(String::as_str).filter(|n| !n.is_empty()).collect();
        self.fail(at, format!("more than {REGS} locals and temporaries in one program: {}", names.join(", ")))
    }

    fn place(&self, n: &Name) -> Result2<Place> {
        let Some(field) = self.code.fields.iter().position(|f| f.name == n.name) else {
            let all = self
                .code
                .fields
                .iter()
                .map(|f| f.name.as_str())
                .chain(self.locals.iter().map(String::as_str));
            return self
                .fail(n.at, format!("`{}` is no variable or local{}", n.name, names::hint(&n.name, all)));
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
    fn index(&self, n: &Name) -> Result2<Index> {
        let name = n.index.as_deref().expect("the caller looked");
        match self.local(name) {
            Some(r) => Ok(Index::ALL[usize::from(r.0)]),
            None => self.fail(n.at, format!("`{name}` is no local: an index is `cpu` or a local")),
        }
    }

    /// Refuses a constant that the variable cannot hold.
    fn fits(&self, place: Place, v: &Value, n: &Name) -> Result2<()> {
        let bits = self.code.fields[usize::from(place.field)].bits;
        match v {
            Value::Int(v) if bits < 8 && *v >> bits != 0 => self.fail(
                n.at,
                format!("`{}` has {bits} bit{}: {v} does not fit", n.name, if bits == 1 { "" } else { "s" }),
            ),
            _ => Ok(()),
        }
    }

    fn cpu_set(&self, name: &str, at: Loc) -> Result2<Set> {
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
                let hint = names::hint(name, SETS.iter().map(|s| s.0));
                self.fail(at, format!("`{name}` is no CPU set; these are: online, others, housekeeping, nohz_full, flush_mask, targets, mm_cpumask{hint}"))
            }
        }
    }

    fn pages(&self, name: &str, at: Loc) -> Result2<Pages> {
        if name == "range" {
            return Ok(Pages::Range);
        }
        self.page(name, at).map(Pages::One)
    }

    /// Is the test over constants and locals that the body leaves alone, with no other way out?
    fn never_changes(&self, test: &Test, body: &[Stmt]) -> bool {
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

    fn part(&self, name: &str, at: Loc) -> Result2<Part> {
        match name {
            "head" => Ok(Part::Head),
            "tail" => Ok(Part::Tail),
            _ => self.fail(at, format!("a patched instruction has a `head` and a `tail`, no `{name}`")),
        }
    }

    fn page(&self, name: &str, at: Loc) -> Result2<u8> {
        match self.code.pages.iter().position(|p| p.name == name) {
            Some(i) => Ok(i as u8),
            None => {
                let hint = names::hint(name, self.code.pages.iter().map(|p| p.name.as_str()));
                self.fail(at, format!("`{name}` is neither `range` nor a declared page{hint}"))
            }
        }
    }

    // -- values ------------------------------------------------------------------------------------------

    /// A value in a register or constant; memory is loaded into a temporary, which the caller releases.
    fn value(&mut self, v: &Value, at: Loc) -> Result2<Val> {
        match v {
            Value::Int(n) => Ok(Val::Imm(*n)),
            Value::Name(n) if is_plain(n) && self.local(&n.name).is_some() => {
                Ok(Val::Reg(self.local(&n.name).expect("just found")))
            }
            Value::Name(_) | Value::Cr3 | Value::GsBase => {
                let to = self.temp(at)?;
                self.value_to(v, to)?;
                Ok(Val::Reg(to))
            }
        }
    }

    fn value_to(&mut self, v: &Value, to: Reg) -> Result2<()> {
        let op = match v {
            Value::Int(n) => Op::Move { to, v: Val::Imm(*n) },
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

    fn in_reg(&mut self, v: &Value, at: Loc) -> Result2<Reg> {
        match self.value(v, at)? {
            Val::Reg(r) => Ok(r),
            Val::Imm(n) => {
                let to = self.temp(at)?;
                self.emit(Op::Move { to, v: Val::Imm(n) });
                Ok(to)
            }
        }
    }

    fn expr_to(&mut self, e: &Expr, to: Reg, at: Loc) -> Result2<()> {
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
                if *f != Rmw::And {
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

    // -- conditions --------------------------------------------------------------------------------------

    /// What the features decide.
    fn fold(&self, t: &Test) -> Result2<Option<bool>> {
        Ok(match t {
            Test::Feature(name, at) => match Feature::named(name) {
                Some(f) => Some(self.features.has(f)),
                None => {
                    let hint = names::hint(name, Feature::ALL.iter().map(|f| f.0));
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
    fn branch(&mut self, t: &Test, sense: bool, label: &mut Label, at: Loc) -> Result2<()> {
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
                    other => unreachable!("folded or handled above: {other:?}"),
                };
                self.unless(c, sense, label);
                Ok(())
            }
        }
    }

    fn unless(&mut self, c: Cond, sense: bool, label: &mut Label) {
        let i = self.emit(Op::Unless { c, to: 0 });
        if sense {
            let mut skip = Label(vec![i]);
            self.jump(label);
            self.bind(std::mem::take(&mut skip));
        } else {
            label.0.push(i);
        }
    }

    // -- statements --------------------------------------------------------------------------------------

    fn stmts(&mut self, body: &[Stmt], place: Option<&str>) -> Result2<()> {
        body.iter().try_for_each(|s| self.stmt(s, place))
    }

    fn stmt(&mut self, s: &Stmt, section_place: Option<&str>) -> Result2<()> {
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
            StmtKind::Plain(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                let op = self.plain(&words, s.at)?;
                self.emit(op);
                Ok(())
            }
            StmtKind::Use(word) => {
                let op = match word.as_str() {
                    "fence" => Op::Fence(Fence::Full),
                    "lfence" => Op::Fence(Fence::Load),
                    "serialize" => Op::Fence(Fence::Serialize),
                    "cli" => Op::Irq(false),
                    "sti" => Op::Irq(true),
                    "swapgs" => Op::SwapGs,
                    "tlbsync" => Op::Tlbsync,
                    "return" => Op::Return,
                    _ => {
                        let Some((file, section)) = self.find_section(word) else {
                            let all =
                                self.chain.iter().flat_map(|f| f.sections.iter().map(|s| s.name.as_str()));
                            let hint = names::hint(
                                word,
                                all.chain(["fence", "lfence", "serialize", "swapgs", "tlbsync", "return"]),
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
    fn block(&mut self, body: &[Stmt], place: Option<&str>) -> Result2<()> {
        let outer: Vec<String> = self.locals.clone();
        self.stmts(body, place)?;
        for (r, name) in self.locals.iter().enumerate() {
            self.over[r] |= !outer.contains(name);
        }
        Ok(())
    }

    fn repeat(&mut self, top: Pc, body: &[Stmt], place: Option<&str>) -> Result2<()> {
        self.breaks.push(Vec::new());
        self.block(body, place)?;
        self.emit(Op::Jump(top));
        Ok(())
    }

    fn break_here(&mut self) {
        let breaks = self.breaks.pop().expect("repeat pushed one");
        self.bind(Label(breaks));
    }

    fn bit63(&self, how: &str, at: Loc) -> Result2<NoFlush> {
        match how {
            "flush" => Ok(NoFlush::Flush),
            "noflush" => Ok(NoFlush::Keep),
            "owed" => Ok(NoFlush::Owed),
            _ => self.fail(at, format!("a write of cr3 ends in `noflush`, `owed` or nothing, not `{how}`")),
        }
    }

    fn plain(&self, words: &[&str], at: Loc) -> Result2<Op> {
        let half = |word: &str| match word {
            "kernel" => Ok(PcidOf::Kernel),
            "user" => Ok(PcidOf::User),
            _ => self.fail(at, format!("a PCID is `kernel` or `user`, not `{word}`")),
        };
        Ok(match words {
            ["put", "cpu", "into", "targets"] => {
                if !self.in_each {
                    return self.fail(at, "`put cpu` stands outside of `each cpu in`");
                }
                Op::Put
            }
            ["clear", "targets"] => Op::Clear,
            ["await", "acks"] => Op::AwaitAcks,
            ["mov", "cr3", "kernel", how] => Op::MovCr3 { to: Cr3::Kernel, keep: self.bit63(how, at)? },
            ["mov", "cr3", "user", how] => Op::MovCr3 { to: Cr3::User, keep: self.bit63(how, at)? },
            ["mov", "cr4", "on"] => Op::MovCr4Pge(true),
            ["mov", "cr4", "off"] => Op::MovCr4Pge(false),
            ["invlpg", page] => Op::Invlpg(self.pages(page, at)?),
            ["invpcid", "address", of, page] => {
                Op::Invpcid { kind: Invpcid::Address, pcid: half(of)?, pages: self.pages(page, at)? }
            }
            ["invpcid", "context", of] => {
                Op::Invpcid { kind: Invpcid::Context, pcid: half(of)?, pages: Pages::Range }
            }
            ["invpcid", "all-including-global"] => {
                Op::Invpcid { kind: Invpcid::AllGlobal, pcid: PcidOf::Kernel, pages: Pages::Range }
            }
            ["invpcid", "all"] => {
                Op::Invpcid { kind: Invpcid::All, pcid: PcidOf::Kernel, pages: Pages::Range }
            }
            ["invlpgb", "all"] => Op::InvlpgbAll,
            ["invlpgb", page] => Op::Invlpgb(self.pages(page, at)?),
            ["rar", set] => Op::Rar(self.cpu_set(set, at)?),
            ["read", page] => Op::Touch(Touch::Read(self.page(page, at)?)),
            ["write", page] => Op::Touch(Touch::Write(self.page(page, at)?)),
            ["touch", zone] => {
                Op::Touch(Touch::Zone(match *zone {
                    "entry" => Zone::Entry,
                    "percpu" => Zone::PerCpu,
                    "stack" => Zone::Stack,
                    "danger" => Zone::Danger,
                    "nmi" => Zone::Nmi,
                    "kernel" => Zone::Kernel,
                    "user" => Zone::User,
                    _ => {
                        return self.fail(at, format!("`touch` takes entry, percpu, stack, danger, nmi, kernel or user, not `{zone}`"));
                    }
                }))
            }
            ["body", slot] => Op::Body(match *slot {
                "syscall" => Slot::Syscall,
                "interrupt" => Slot::Interrupt,
                "nmi" => Slot::Nmi,
                "idle" => Slot::Idle,
                _ => {
                    return self
                        .fail(at, format!("`body` takes syscall, interrupt, nmi or idle, not `{slot}`"));
                }
            }),
            [level @ ("pte" | "table"), page, "=", v] => self.entry(level, page, v, false, at)?,
            [level @ ("pte" | "table"), page, "=", v, "locked"] => self.entry(level, page, v, true, at)?,
            ["free", "mm", n] => match n.parse::<u8>() {
                Ok(mm @ 1..=3) => Op::FreeMm(mm),
                _ => {
                    return self
                        .fail(at, format!("`free mm` takes 1 to 3 (0 is init_mm, which stays), not `{n}`"));
                }
            },
            ["free", "table", page] => Op::FreeTable(self.pages(page, at)?),
            ["text", part, "=", v] => {
                let v = match *v {
                    "int3" => Entry::Int3,
                    "new" => Entry::Fresh,
                    _ => return self.fail(at, format!("text becomes int3 or new, not `{v}`")),
                };
                let part = self.part(part, at)?;
                if (part, v) == (Part::Tail, Entry::Int3) {
                    return self.fail(at, "only the head of an instruction becomes int3");
                }
                Op::Pte { pages: Pages::Text(part), level: Level::Leaf, v, locked: false }
            }
            ["run", "text"] => Op::Touch(Touch::Text),
            ["request", "text", part] => Op::Request(Pages::Text(self.part(part, at)?)),
            ["promise", "text", part] => Op::Promise(Pages::Text(self.part(part, at)?)),
            ["request", page] => Op::Request(self.pages(page, at)?),
            ["promise", page] => Op::Promise(self.pages(page, at)?),
            ["handle", "calls"] => Op::HandleCalls,
            ["owe", "user"] => Op::OweUser,
            ["owe", "others"] => Op::OweOthers,
            _ => {
                const STARTS: [&str; 21] = [
                    "put", "clear", "await", "mov", "invlpg", "invpcid", "invlpgb", "rar", "read", "write",
                    "touch", "body", "pte", "table", "free", "request", "promise", "handle", "owe", "text",
                    "run",
                ];
                let hint =
                    if STARTS.contains(&words[0]) { String::new() } else { names::hint(words[0], STARTS) };
                return self.fail(at, format!("`{}` is no op{hint}", words.join(" ")));
            }
        })
    }

    fn entry(&self, level: &str, page: &str, v: &str, locked: bool, at: Loc) -> Result2<Op> {
        let v = match v {
            "none" => Entry::None,
            "fresh" => Entry::Fresh,
            "less-rights" => Entry::LessRights,
            "initial" => Entry::Initial,
            _ => {
                return self
                    .fail(at, format!("an entry becomes none, fresh, less-rights or initial, not `{v}`"));
            }
        };
        let level = if level == "pte" { Level::Leaf } else { Level::Table };
        Ok(Op::Pte { pages: self.pages(page, at)?, level, v, locked })
    }

    // -- after all programs ------------------------------------------------------------------------------

    fn link(&mut self) {
        for i in 0..self.code.ops.len() {
            if let Op::Ipi { to, .. } = self.code.ops[i] {
                let name = self.code.text[i].rsplit(", ").next().expect("`ipi SET, NAME`").to_string();
                let run = self.code.program(&name).expect("assembled above");
                self.code.ops[i] = Op::Ipi { to, run };
            }
        }
    }

    /// Backwards over the ops until nothing changes. Registers do not survive `handle calls`: the handler
    /// runs in the same frame.
    fn liveness(&mut self) -> Result2<()> {
        let n = self.code.ops.len();
        self.code.live = vec![0; n + 1];
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
                let live = after & !defined(op) | used(op);
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

fn bit(v: Val) -> u8 {
    match v {
        Val::Imm(_) => 0,
        Val::Reg(r) => 1 << r.0,
    }
}

fn defined(op: Op) -> u8 {
    match op {
        Op::Move { to, .. }
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

fn is_plain(n: &Name) -> bool {
    !n.cur && n.index.is_none()
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

fn any(body: &[Stmt], f: &dyn Fn(&StmtKind) -> bool) -> bool {
    body.iter().any(|s| {
        f(&s.kind)
            || match &s.kind {
                StmtKind::If(_, a, b) => any(a, f) || any(b, f),
                StmtKind::While(_, b) | StmtKind::Loop(b) | StmtKind::Each(_, b) => any(b, f),
                _ => false,
            }
    })
}

fn names_section(body: &[Stmt], name: &str) -> bool {
    any(body, &|k| matches!(k, StmtKind::Use(n) | StmtKind::Ipi(_, n) if n == name))
}

fn puts(body: &[Stmt]) -> bool {
    any(body, &|k| matches!(k, StmtKind::Plain(w) if w[0] == "put"))
}

fn leaves(body: &[Stmt]) -> bool {
    any(body, &|k| matches!(k, StmtKind::Break) || matches!(k, StmtKind::Use(w) if w == "return"))
}
