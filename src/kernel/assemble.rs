//! Text to program: sections are inlined, features folded, names resolved, registers assigned.
//!
//! What a policy does not define it takes from the policy it is `based on`, then from the kernel's paths. A
//! section is a program if the kernel enters it ([`ENTRIES`]), an `ipi` names it, or it is a litmus column
//! (`cpu N`); every other section is a macro.
//!
//! Here: which sections count, and programs. Then `names`, `values` and `conditions` (what stands in a line),
//! `statements` and `ops` (lines), `liveness` (after all programs).

use super::program::{
    BREAKPOINT, Code, Copies, Feature, Features, Field, Holds, Op, Page, Pc, Program, Reg, SITES, Span, Val,
    Var,
};
use super::text::{File, Loc, Name, PageDecl, PolicyError, Section, Stmt, StmtKind};
use crate::names::hint;

mod conditions;
pub mod counts;
mod liveness;
mod names;
mod ops;
mod sound;
mod statements;
mod values;

/// Sections that the drivers enter by name, with what each stands for.
pub const ENTRIES: [(&str, &str); 26] = [
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
    (BREAKPOINT, "INT3 in the kernel, where a patched instruction decides a branch"),
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

/// What a policy stands on.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    /// The version of Linux.
    pub version: &'static str,
    /// What differs there, if anything.
    pub newer: Option<&'static File>,
    /// What differs where FRED delivers events.
    pub fred: &'static File,
    /// Memory contexts, of the oldest version.
    pub contexts: &'static File,
    /// Everything else, of the oldest version.
    pub kernel: &'static File,
}

impl Kernels {
    /// The files in which a section is looked for, first to last.
    pub fn files<'a>(&self) -> impl Iterator<Item = &'a File> + use<'a> {
        self.newer
            .into_iter()
            .chain([self.contexts, self.kernel])
            .map(|file: &'static File| -> &'a File { file })
    }
}

/// Assemble `file` for a machine with `features`. `kernels` supply what no policy defines; `find` finds the
/// policy a file is `based on`; the part about memory contexts is included when the text uses it or `wants` one of its
/// programs. `keep` names locals, by section, whose values at its end are asked about.
pub fn assemble(
    file: &File,
    kernels: &Kernels,
    (wants, keep): (&[&str], &[(String, String)]),
    find: Find,
    features: Features,
) -> Result<Code, PolicyError> {
    let bases = bases(file, find)?;
    let mut chain = vec![file];
    chain.extend(&bases);
    let section_of_contexts = |name: &str| kernels.contexts.section(name).is_some();
    let used = chain.iter().flat_map(|f| &f.sections).any(|s| {
        section_of_contexts(&s.name)
            || any(
                &s.body,
                &|k| matches!(k, StmtKind::Use(n) | StmtKind::Ipi(_, n) | StmtKind::CallLater(n) if section_of_contexts(n)),
            )
    });
    chain.extend(features.has(Feature::Fred).then_some(kernels.fred));
    if used || wants.iter().any(|n| section_of_contexts(n)) {
        chain.extend(kernels.files());
    } else {
        chain.extend(kernels.newer);
        chain.push(kernels.kernel);
    }
    Assembler { keep, ..Assembler::new(chain, features) }.run(wants)
}

/// The policy that a file is based on, or why there is none of that name.
pub type Find<'f> = &'f dyn Fn(&File) -> Option<Result<File, String>>;

/// The policies that a file is based on, nearest first.
fn bases(file: &File, find: Find) -> Result<Vec<File>, PolicyError> {
    let mut bases: Vec<File> = Vec::new();
    loop {
        let last = bases.last().unwrap_or(file);
        let Some(found) = find(last) else { return Ok(bases) };
        let fail = |message: String| PolicyError { file: last.file.clone(), at: last.based_at, message };
        let found = found.map_err(fail)?;
        if file.name == found.name || bases.iter().any(|f| f.name == found.name) {
            return Err(fail(format!("`{}` is based on itself", found.name)));
        }
        bases.push(found);
    }
}

/// The sections of `file` that nothing enters, names or replaces, nor a role in `run` runs: misspelt, or left behind. A matter of reading a text
/// and not of assembling it: a policy that is weakened on purpose may leave sections behind.
pub fn unused<'a>(
    file: &'a File,
    kernels: &Kernels,
    run: &[&str],
    find: Find,
) -> Result<Vec<&'a Section>, PolicyError> {
    let bases = bases(file, find)?;
    Ok(unused_of(file, &[], &bases, kernels, run))
}

/// The same of a file that those `above` are based on and that is based on those `below`.
fn unused_of<'a>(
    file: &'a File,
    above: &[&File],
    below: &[File],
    kernels: &Kernels,
    run: &[&str],
) -> Vec<&'a Section> {
    let replaced = |name: &str| below.iter().chain(kernels.files()).any(|f| f.section(name).is_some());
    let entered = |name: &str| name.starts_with("cpu ") || ENTRIES.iter().any(|(n, _)| *n == name);
    let named = |name: &str| {
        let files = above.iter().copied().chain([file]);
        files.flat_map(|f| &f.sections).any(|s| names_section(&s.body, name))
    };
    let known = |s: &&Section| {
        entered(&s.name) || replaced(&s.name) || named(&s.name) || run.contains(&s.name.as_str())
    };
    file.sections.iter().filter(|s| !known(s)).collect()
}

/// Refuses a text with a section that nothing uses, in its own file or in one that it is based on.
pub fn all_used(file: &File, kernels: &Kernels, run: &[&str], find: Find) -> Result<(), PolicyError> {
    let bases = bases(file, find)?;
    let mut above: Vec<&File> = Vec::new();
    let mut at = Some(file);
    while let Some(file) = at {
        let below = &bases[above.len()..];
        if let Some(section) = unused_of(file, &above, below, kernels, run).first() {
            let others = below.iter().chain(kernels.files()).flat_map(|f| &f.sections);
            let all = ENTRIES.iter().map(|e| e.0).chain(others.map(|o| o.name.as_str()));
            let hint = hint(&section.name, all);
            return Err(PolicyError {
                file: file.file.clone(),
                at: section.at,
                message: format!("nothing uses section `{}`{hint}; a role may, by its name", section.name),
            });
        }
        above.push(file);
        at = file.base.as_deref();
    }
    Ok(())
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
    /// Locals, by section, whose values at its end are asked about; and which of the program's have a value.
    keep: &'a [(String, String)],
    given: Vec<String>,
    /// Temporaries in use above the locals.
    temps: usize,
    in_each: bool,
    breaks: Vec<Vec<usize>>,
    /// Somebody waits for a grace period: elsewhere nothing asks whether RCU watches.
    graces: bool,
    /// A patched instruction decides a branch: elsewhere nothing asks what RSP holds, and no INT3 is run.
    sites: bool,
    /// Programs an `ipi` or `call later` names, still to be assembled.
    handlers: Vec<(String, Span)>,
    span: Span,
    line: String,
    /// Where the macros being inlined were used, innermost last.
    callers: Vec<Span>,
    /// Waits for remote calls, each with the place in the policy's own files that leads there.
    waits: Vec<(Pc, Span)>,
}

type Result2<T> = Result<T, PolicyError>;

/// A jump target not known yet: the ops to patch.
#[derive(Default)]
struct Label(Vec<usize>);

impl<'a> Assembler<'a> {
    fn new(chain: Vec<&'a File>, features: Features) -> Self {
        let code = Code {
            name: chain[0].name.clone(),
            linux: String::new(),
            fred: features.has(Feature::Fred),
            ops: Vec::new(),
            at: Vec::new(),
            text: Vec::new(),
            live: Vec::new(),
            programs: Vec::new(),
            vars: Vec::new(),
            fields: Vec::new(),
            pages: Vec::new(),
            sites: Vec::new(),
            files: chain.iter().map(|f| f.file.clone()).collect(),
            places: Vec::new(),
        };
        let waits = |k: &StmtKind| match k {
            StmtKind::CallLater(_) => true,
            StmtKind::Use(word) => word == "synchronize",
            _ => false,
        };
        let graces = chain.iter().flat_map(|f| &f.sections).any(|s| any(&s.body, &waits));
        let sites = chain.iter().flat_map(|f| &f.sections).any(|s| any(&s.body, &conditions::is_patched));
        Assembler {
            graces,
            sites,
            chain,
            features,
            code,
            inlining: Vec::new(),
            locals: Vec::new(),
            over: Vec::new(),
            named: Vec::new(),
            keep: &[],
            given: Vec::new(),
            temps: 0,
            in_each: false,
            breaks: Vec::new(),
            handlers: Vec::new(),
            span: Span::default(),
            line: String::new(),
            callers: Vec::new(),
            waits: Vec::new(),
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

    fn run(mut self, wants: &[&str]) -> Result2<Code> {
        self.declare()?;
        let mut roots: Vec<String> = ENTRIES.iter().map(|(n, _)| (*n).to_string()).collect();
        roots.extend(self.chain[0].sections.iter().map(|s| s.name.clone()).filter(|n| n.starts_with("cpu ")));
        // Sections that a role runs.
        for want in wants {
            if !roots.iter().any(|r| r == want) {
                roots.push((*want).to_string());
            }
        }
        roots.retain(|name| self.sites || name != BREAKPOINT);
        for name in roots {
            if self.find_section(&name).is_some() {
                self.program(&name)?;
            }
        }
        while let Some((name, span)) = self.handlers.pop() {
            if self.code.program(&name).is_none() {
                if self.find_section(&name).is_none() {
                    let hint = hint(
                        &name,
                        self.chain.iter().flat_map(|f| f.sections.iter().map(|s| s.name.as_str())),
                    );
                    return Err(PolicyError {
                        file: self.code.files[usize::from(span.file)].clone(),
                        at: Loc { line: span.line, col: span.col },
                        message: format!(
                            "`ipi` or `call later` names the section `{name}`, which is not defined{hint}"
                        ),
                    });
                }
                self.program(&name)?;
            }
        }
        self.link();
        self.liveness()?;
        sound::every_promise_is_requested(&self.code)?;
        sound::nobody_waits_with_interrupts_off(&self.code, &self.waits)?;
        counts::only_order_matters(&self.code)?;
        Ok(self.code)
    }

    fn declare(&mut self) -> Result2<()> {
        let chain = self.chain.clone();
        let mut counted = Vec::new();
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
                if let (Holds::Count(_), of) = (v.holds, &v.of) {
                    counted.push((var, of.as_ref(), v, i));
                    if counted.iter().filter(|(_, of, ..)| of.is_none()).count() > counts::MOST {
                        return Err(fail(v.at, format!("a text has at most {} counts", counts::MOST)));
                    }
                }
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
            for site in &f.sites {
                if self.code.sites.contains(&site.name) {
                    if chain[..i].iter().any(|c| c.sites.iter().any(|o| o.name == site.name)) {
                        continue; // of the policy that it is based on
                    }
                    return Err(fail(site.at, format!("site `{}` is declared twice", site.name)));
                }
                if self.code.sites.len() + 1 == SITES {
                    return Err(fail(site.at, format!("more than {} sites", SITES - 1)));
                }
                self.code.sites.push(site.name.clone());
            }
            for p in &f.pages {
                if self.code.pages.iter().any(|o| o.name == p.name) {
                    return Err(fail(p.at, format!("page `{}` is declared twice", p.name)));
                }
                let within = p
                    .within
                    .as_ref()
                    .map(|large| self.large(large, p).map_err(|why| fail(p.at, why)))
                    .transpose()?;
                self.code.pages.push(Page {
                    name: p.name.clone(),
                    kind: p.kind,
                    global: p.global,
                    user_mapped: p.user_mapped,
                    present: p.present,
                    within,
                });
            }
        }
        for (var, of, decl, file) in counted {
            let source = of.map_or(Some(var), |of| self.code.vars.iter().position(|v| v.name == *of));
            let counts = |s: &usize| {
                *s == var
                    || matches!(self.code.vars[*s].holds, Holds::Count(_))
                        && matches!(self.code.vars[*s].copies, Copies::One | Copies::Mm)
            };
            let Some(source) = source.filter(counts) else {
                let message =
                    format!("`{}` copies `{}`, which is no count", decl.name, of.map_or("", String::as_str));
                return Err(PolicyError { file: chain[file].file.clone(), at: decl.at, message });
            };
            self.code.vars[var].holds = Holds::Count(source as u8);
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
                if matches!(self.code.vars[var].holds, Holds::Count(_)) {
                    return Err(fail(format!(
                        "field `{}` is of `{}`, which counts: it has no bits",
                        d.name, d.var
                    )));
                }
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

    /// The page of the large entry in which a page lies (SEMANTICS H9).
    fn large(&self, name: &str, of: &PageDecl) -> Result<u8, String> {
        let Some(at) = self.code.pages.iter().position(|o| o.name == name) else {
            return Err(format!("page `{}` lies in `{name}`, which is no page declared before it", of.name));
        };
        let large = &self.code.pages[at];
        if large.within.is_some() {
            return Err(format!("page `{}` lies in `{name}`, which is itself a small one", of.name));
        }
        if (large.kind, large.global, large.user_mapped) != (of.kind, of.global, of.user_mapped) {
            return Err(format!(
                "page `{}` lies in `{name}`, so it is of the same region and tables",
                of.name
            ));
        }
        Ok(at as u8)
    }

    fn program(&mut self, name: &str) -> Result2<()> {
        let start = self.code.ops.len() as Pc;
        self.locals.clear();
        self.over.clear();
        self.named.clear();
        self.temps = 0;
        self.in_each = false;
        self.given.clear();
        let (file, section) = self.find_section(name).expect("the caller looked");
        let keep = self.keep_from_the_start(name, (file, section))?;
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
            kept: keep.into_iter().filter(|(name, _)| self.given.contains(name)).collect(),
        });
        Ok(())
    }

    /// Give each local that is asked about a register of its own for the whole program. It starts as 0, so that it has
    /// a value wherever the program ends.
    fn keep_from_the_start(
        &mut self,
        program: &str,
        (file, section): (usize, &Section),
    ) -> Result2<Vec<(String, Reg)>> {
        let mut out = Vec::new();
        for (_, name) in self.keep.iter().filter(|(of, _)| of == program) {
            self.set_span(file, section.at, section.place.as_deref());
            self.line = format!("let {name} = 0");
            let to = self.define(name, section.at)?;
            self.emit(Op::Move { to, v: Val::Imm(0) });
            out.push((name.clone(), to));
        }
        Ok(out)
    }

    fn inline(&mut self, file: usize, section: &Section) -> Result2<()> {
        if self.inlining.iter().any(|(_, n)| *n == section.name) {
            return self.fail(section.at, format!("section `{}` uses itself", section.name));
        }
        self.inlining.push((file, section.name.clone()));
        let outer = self.span;
        self.callers.push(outer);
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
        self.callers.pop();
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
        if op == Op::AwaitAcks {
            let own = |span: &&Span| !self.chain[usize::from(span.file)].is_kernel();
            let used_at = [self.span].iter().chain(self.callers.iter().rev()).find(own).copied();
            self.waits.push((self.code.ops.len() as Pc, used_at.unwrap_or(self.span)));
        }
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
}

fn is_plain(n: &Name) -> bool {
    !n.cur && n.index.is_none()
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
    any(body, &|k| matches!(k, StmtKind::Use(n) | StmtKind::Ipi(_, n) | StmtKind::CallLater(n) if n == name))
}

fn puts(body: &[Stmt]) -> bool {
    any(body, &|k| matches!(k, StmtKind::Plain(w) if w[0] == "put"))
}

fn leaves(body: &[Stmt]) -> bool {
    any(body, &|k| matches!(k, StmtKind::Break) || matches!(k, StmtKind::Use(w) if w == "return"))
}
