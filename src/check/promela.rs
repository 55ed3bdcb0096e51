//! A policy as Promela, so that Spin gives a second opinion on a verdict.
//!
//! Scope: CPU 0 is a housekeeping CPU that runs `purge` once; the others are isolated, start in user mode and
//! make a bounded number of system calls; PTI on, one ASID, one vmalloc page, no NMI. Memory is sequentially
//! consistent, so a fence that only TSO needs is not seen to be needed. Translations are filled at any time while
//! the kernel CR3 is loaded. The property is SEMANTICS S5.

use std::fmt::Write;

use crate::kernel::program::{
    Alu, At, Cmp, Code, Cond, Cr3, Entry, Invpcid, Level, NoFlush, Op, Pages, Pc, Place, ProgId, Reg, Rmw,
    Set, Slot, Touch, Val, Walk, Zone,
};
use crate::order;

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Isolated CPUs, 1 to 4.
    pub targets: u8,
    /// System calls each makes, 1 to 4.
    pub entries: u8,
    /// Code between the CR3 switch and the flush may touch recycled memory (SEMANTICS A2).
    pub danger_recycled: bool,
}

/// What Promela text cannot be made of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    /// Out of scope.
    #[error("a Promela export has 1 to 4 isolated CPUs and 1 to 4 entries: got {0} and {1}")]
    Scope(u8, u8),
    /// An op this export does not express: its place, its line, and why, where there is more to say.
    #[error("{0}: no Promela for `{1}`{2}")]
    Op(String, String, &'static str),
    /// A page lies in a large one.
    #[error(
        "page `{0}` lies in `{1}`: no Promela for translations of two sizes (SEMANTICS H9), the export has one page"
    )]
    Large(String, String),
    /// More pages than one.
    #[error("page `{0}`: no Promela for more than one page")]
    Pages(String),
}

/// The Promela text.
pub fn export(code: &Code, scope: Scope) -> Result<String, ExportError> {
    if !(1..=4).contains(&scope.targets) || !(1..=4).contains(&scope.entries) {
        return Err(ExportError::Scope(scope.targets, scope.entries));
    }
    if let Some((page, large)) = code.pages.iter().find_map(|p| Some((p, p.within?))) {
        return Err(ExportError::Large(page.name.clone(), code.pages[usize::from(large)].name.clone()));
    }
    if let Some(page) = code.pages.get(1) {
        return Err(ExportError::Pages(page.name.clone()));
    }
    let wide =
        code.vars.iter().any(|v| v.bits > 8) || code.ops.iter().any(|op| matches!(op, Op::MoveWide { .. }));
    let word = if wide { "int" } else { "byte" };
    let mut w = Writer { code, scope, word, out: String::new(), copies: 0 };
    w.head();
    w.isolated()?;
    w.initiator()?;
    w.tail();
    Ok(w.out)
}

/// Why ops of RCU have no Promela.
const SECTIONS: &str = ": who is in a read-side section depends on interrupts and context tracking (SEMANTICS L10), \
                        which the export does not have";
/// Why a task that is preempted has none.
const MOVES: &str = ": in the export a CPU and its task are one process (SEMANTICS L11)";
/// Why types of memory have none.
const LINES: &str = ": lines of caches are not in the export (SEMANTICS H11)";

/// Why a patched instruction that decides a branch has none.
const FETCHED: &str = ": what a CPU fetched of it decides the branch, and its INT3 is an exception (SEMANTICS H10), which the \
                       export does not have";

struct Writer<'a> {
    code: &'a Code,
    scope: Scope,
    /// The type of registers and of variables of more than 8 bits.
    word: &'static str,
    out: String,
    /// Makes the labels of each inlined copy of a program its own.
    copies: u32,
}

impl Writer<'_> {
    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }

    fn head(&mut self) {
        let n = self.scope.targets + 1;
        let danger = if self.scope.danger_recycled { "recycled" } else { "none" };
        let _ = write!(
            self.out,
            "/* Policy {} as exported by tlbcore: {} isolated CPUs, {} entries each, D={danger}, no NMI.\n   \
             Run: spin -a FILE && cc -O2 -DSAFETY -o pan pan.c && ./pan -m1000000 */\n\
             #define N {n}\n#define ALL {}\n\
             byte pte = 1;        /* 0 not present, else the version that is mapped */\n\
             bool asked, dead;    /* a flush that covers version 1 was called for; is relied on */\n\
             byte tlb[N];         /* cached version of the page under the kernel PCID, 0 for none */\n\
             bool cr3k[N];        /* the kernel CR3 is loaded */\n\
             byte pend[N];        /* queued remote call plus one */\n\
             byte out;            /* CPUs whose remote call has not completed */\n",
            self.code.name,
            self.scope.targets,
            self.scope.entries,
            (1u32 << n) - 1
        );
        for v in &self.code.vars {
            let copies = if v.per_cpu { "[N]" } else { "" };
            let word = if v.bits > 8 { self.word } else { "byte" };
            let _ = writeln!(self.out, "{word} v_{}{copies} = {};", v.name, v.init);
        }
        self.line(
            "#define ACC(i) if :: tlb[i] != 0 -> assert(!(tlb[i] == 1 && dead)) \\\n  \
             :: tlb[i] == 0 && pte != 0 -> tlb[i] = pte :: tlb[i] == 0 -> skip fi\n\
             proctype Fill(byte i) { end_F: do :: atomic { cr3k[i] && tlb[i] == 0 && pte != 0 -> tlb[i] = pte } od }",
        );
    }

    fn locals(&mut self) {
        let _ = writeln!(self.out, "  {} r0, r1, r2, r3, r4, r5; byte cur, rem, targets;", self.word);
        if self.code.ops.iter().any(|op| matches!(op, Op::Walk { .. })) {
            self.line("  byte walked; /* the version a walk in software has loaded */");
        }
    }

    fn isolated(&mut self) -> Result<(), ExportError> {
        self.line("proctype Isolated(byte me) {");
        self.locals();
        let _ = writeln!(self.out, "  byte left = {};", self.scope.entries);
        self.program("enter_user", "user")?;
        self.line("user: end_U:\n  if\n  :: left > 0 -> left--; goto syscall\n  :: pend[me] != 0 -> goto interrupt\n  fi;\nsyscall: skip;");
        self.program("syscall", "user")?;
        self.line("interrupt: skip;");
        self.program("interrupt", "user")?;
        self.line("}");
        Ok(())
    }

    fn initiator(&mut self) -> Result<(), ExportError> {
        self.line("proctype Housekeeping(byte me) {");
        self.locals();
        self.program("purge", "over")?;
        self.line("over: skip\n}");
        Ok(())
    }

    fn tail(&mut self) {
        self.line(
            "init { byte k = 0; atomic { do :: k < N -> cr3k[k] = 1; run Fill(k); k++ :: else -> break od;\n  \
             k = 1; do :: k < N -> run Isolated(k); k++ :: else -> break od; run Housekeeping(0) } }",
        );
    }

    fn program(&mut self, name: &str, done: &str) -> Result<(), ExportError> {
        let id = self.code.program(name).expect("the kernel's paths define it");
        self.inline(id, done)
    }

    fn inline(&mut self, id: ProgId, done: &str) -> Result<(), ExportError> {
        self.copies += 1;
        let copy = self.copies;
        let program = &self.code.programs[usize::from(id.0)];
        let (start, end, name) = (program.start, program.end, program.name.clone());
        let mut interruptible = false;
        for pc in start..end {
            let op = self.code.ops[usize::from(pc)];
            let _ = write!(self.out, "L{copy}_{pc}: ");
            self.op(op, pc, copy, done)?;
            if let Op::Irq(on) = op {
                interruptible = on;
            }
            if interruptible && name == "syscall" {
                let after = format!("I{copy}_{pc}");
                let _ = writeln!(self.out, "  if :: pend[me] != 0 -> skip :: goto {after} fi;");
                self.program("interrupt_kernel", &after)?;
                let _ = writeln!(self.out, "{after}: skip;");
            }
        }
        Ok(())
    }

    fn op(&mut self, op: Op, pc: Pc, copy: u32, done: &str) -> Result<(), ExportError> {
        let label = |to: Pc| format!("L{copy}_{to}");
        let text = match op {
            Op::Move { to, v } => format!("{} = {}", reg(to), val(v)),
            Op::MoveWide { to, v } => format!("{} = {v}", reg(to)),
            Op::Alu { f, to, a, b } => format!("{} = {} {} {}", reg(to), reg(a), alu(f), val(b)),
            Op::Load { to, from } => format!("{} = {}", reg(to), self.read(from)),
            Op::Store { to, v } => self.write(to, &val(v)),
            Op::Rmw { f, to, at, v } => {
                let old = self.read(at);
                let new = match f {
                    Rmw::Xchg => val(v),
                    Rmw::Add => format!("({old} + {})", val(v)),
                    Rmw::Or => format!("({old} | {})", val(v)),
                    Rmw::And => format!("({old} & {})", val(v)),
                    Rmw::Sub => format!("({old} - {})", val(v)),
                    Rmw::Xor => format!("({old} ^ {})", val(v)),
                    Rmw::Bts => format!("({old} | (1 << {}))", val(v)),
                    Rmw::Btr => format!("({old} & ~(1 << {}))", val(v)),
                    Rmw::Btc => format!("({old} ^ (1 << {}))", val(v)),
                };
                let result = if f.is_of_a_bit() { format!("(({old} >> {}) & 1)", val(v)) } else { old };
                // `rem` may be a loop's: the old value goes through the register, which may be the operand too.
                let store = self.write(at, "hold_new");
                format!(
                    "atomic {{ {} hold_new_{copy}_{pc} = {new}; {} = {result}; {} }}",
                    self.word,
                    reg(to),
                    store.replace("hold_new", &format!("hold_new_{copy}_{pc}"))
                )
            }
            Op::Cas { to, at, old, new } => {
                let seen = self.read(at);
                let hold = format!("hold_old_{copy}_{pc}");
                let store = self.write(at, &val(new));
                format!(
                    "atomic {{ {} {hold} = {}; if :: {seen} == {hold} -> {store}; {} = {hold} :: else -> {} = {seen} fi }}",
                    self.word,
                    val(old),
                    reg(to),
                    reg(to)
                )
            }
            Op::Unless { c: Cond::Either, to } => {
                format!("if :: true -> skip :: true -> goto {} fi", label(to))
            }
            Op::Unless { c: Cond::Text(_), .. } => return Err(self.because(pc, FETCHED)),
            Op::Unless { c, to } => format!("if :: {} -> skip :: else -> goto {} fi", cond(c), label(to)),
            Op::Jump(to) => format!("goto {}", label(to)),
            Op::Loop(set) => format!("rem = {}", mask(set)),
            Op::Each { done, .. } => {
                let mut picks = String::new();
                for cpu in 0..=self.scope.targets {
                    let _ = write!(picks, " :: (rem & {0}) != 0 -> cur = {cpu}; rem = rem - {0}", 1 << cpu);
                }
                format!("atomic {{ if :: rem == 0 -> goto {}{picks} fi }}", label(done))
            }
            Op::Clear => "targets = 0".into(),
            Op::Put => "targets = targets | (1 << cur)".into(),
            Op::Await { at, f, v } => format!("({})", compare(f, &self.read(at), &val(v))),
            Op::AwaitAcks => "(out == 0)".into(),
            Op::Fence(_)
            | Op::Irq(_)
            | Op::Rsp(_)
            | Op::SwapGs
            | Op::SetGs(_)
            | Op::OweUser
            | Op::OweOthers
            | Op::InvlpgbOf { .. }
            | Op::Invlpgb(_) => "skip".into(),
            Op::InvlpgbAll | Op::FreeTable(_) => "skip".into(),
            Op::ReadGs(to) => format!("{} = 1", reg(to)),
            Op::ReadCr3(to) => format!("{} = cr3k[me]", reg(to)),
            Op::MovCr3 { to: Cr3::Kernel, keep: NoFlush::Flush } => {
                "atomic { cr3k[me] = 1; tlb[me] = 0 }".into()
            }
            Op::MovCr3 { to: Cr3::Kernel, .. } => "cr3k[me] = 1".into(),
            Op::MovCr3 { to: Cr3::User, .. } => "cr3k[me] = 0".into(),
            Op::MovCr3 { to: Cr3::Reg(r), .. } => format!("cr3k[me] = {}", reg(r)),
            Op::MovCr4Pge(_) | Op::Invlpg(_) => "tlb[me] = 0".into(),
            Op::Invpcid {
                kind: Invpcid::AllGlobal | Invpcid::All | Invpcid::Context | Invpcid::Address,
                ..
            } => "tlb[me] = 0".into(),
            // The latest moment a broadcast may complete.
            Op::Tlbsync | Op::Rar(_) => {
                let all: Vec<_> = (0..=self.scope.targets).map(|c| format!("tlb[{c}] = 0")).collect();
                format!("atomic {{ {} }}", all.join("; "))
            }
            Op::Touch(Touch::Zone(Zone::Kernel | Zone::Recycled))
            | Op::Body(Slot::Syscall | Slot::Interrupt | Slot::Idle) => "atomic { ACC(me) }".into(),
            Op::Touch(Touch::Zone(Zone::Danger)) if self.scope.danger_recycled => "atomic { ACC(me) }".into(),
            Op::Touch(Touch::Zone(_)) | Op::Body(Slot::Nmi) => "skip".into(),
            Op::Pte { pages: Pages::Text(..), .. }
            | Op::Request(Pages::Text(..))
            | Op::Promise(Pages::Text(..)) => return Err(self.cannot(pc)),
            Op::Pte { level: Level::Leaf, v, .. } => match v {
                Entry::None => "pte = 0".into(),
                Entry::Fresh => "pte = 2".into(),
                Entry::Initial => "pte = 1".into(),
                Entry::LessRights | Entry::Int3 => return Err(self.cannot(pc)),
                Entry::Uncached | Entry::Cached => return Err(self.because(pc, LINES)),
            },
            Op::Request(_) => "asked = (pte != 1)".into(),
            Op::Promise(_) => "dead = asked".into(),
            Op::Ipi { to, run } => {
                let set = mask(to);
                let mut sends = String::new();
                for cpu in 0..=self.scope.targets {
                    let _ = write!(
                        sends,
                        " if :: ({set} & {0}) != 0 -> pend[{cpu}] = {1}; out = out | {0} :: else fi;",
                        1 << cpu,
                        run.0 + 1
                    );
                }
                format!("atomic {{{sends} skip }}")
            }
            Op::HandleCalls => return self.handle(pc, copy),
            Op::Return => format!("goto {done}"),
            // There is one table, and it stays.
            Op::Walk { step: Walk::Table | Walk::Last, .. } => "skip".into(),
            Op::Walk { step: Walk::Leaf, .. } => "walked = pte".into(),
            Op::Walk { step: Walk::Use, .. } => {
                "atomic { assert(!(walked == 1 && dead)); walked = 0 }".into()
            }
            Op::LoadPage { .. } | Op::StorePage { .. } | Op::FreeMm(_) => return Err(self.cannot(pc)),
            Op::Migrate => return Err(self.because(pc, MOVES)),
            Op::Clflush(_) | Op::Wbinvd => return Err(self.because(pc, LINES)),
            Op::Ask { .. } | Op::FlushInfo { .. } | Op::Mask { .. } => return Err(self.cannot(pc)),
            Op::Rcu(_) | Op::CallLater(_) => return Err(self.because(pc, SECTIONS)),
            Op::MovCr3 { to: Cr3::Mm { .. }, .. } | Op::Pte { .. } | Op::Touch(_) => {
                return Err(self.cannot(pc));
            }
        };
        let source = self.code.source(pc);
        let _ = writeln!(self.out, "{text}; /* {source} */");
        Ok(())
    }

    /// Take the queued call, run its handler, acknowledge, look again.
    fn handle(&mut self, pc: Pc, copy: u32) -> Result<(), ExportError> {
        let mut handlers: Vec<ProgId> = self
            .code
            .ops
            .iter()
            .filter_map(|op| if let Op::Ipi { run, .. } = op { Some(*run) } else { None })
            .collect();
        order::natural(&mut handlers);
        handlers.dedup();
        let mut choices = String::new();
        for h in &handlers {
            let _ = write!(choices, " :: pend[me] == {} -> pend[me] = 0; goto H{copy}_{pc}_{}", h.0 + 1, h.0);
        }
        let _ = writeln!(self.out, "atomic {{ if{choices} :: pend[me] == 0 -> goto A{copy}_{pc} fi }};");
        for h in handlers {
            let ack = format!("K{copy}_{pc}_{}", h.0);
            let _ = writeln!(self.out, "H{copy}_{pc}_{}: skip;", h.0);
            self.inline(h, &ack)?;
            let _ = writeln!(self.out, "{ack}: out = out & (ALL - (1 << me)); goto L{copy}_{pc};");
        }
        let _ = writeln!(self.out, "A{copy}_{pc}: skip;");
        Ok(())
    }

    fn cannot(&self, pc: Pc) -> ExportError {
        self.because(pc, "")
    }

    fn because(&self, pc: Pc, why: &'static str) -> ExportError {
        ExportError::Op(self.code.source(pc), self.code.text[usize::from(pc)].clone(), why)
    }

    fn variable(&self, p: Place) -> String {
        let name = &self.code.vars[usize::from(self.code.fields[usize::from(p.field)].var)].name;
        match p.at {
            At::Shared => format!("v_{name}"),
            At::Me => format!("v_{name}[me]"),
            At::Cur => format!("v_{name}[cur]"),
            // Only programs about memory contexts, whose other ops are refused.
            At::Mm(i) | At::Asid(i) => format!("v_{name}[{}]", reg(i.reg())),
        }
    }

    fn read(&self, p: Place) -> String {
        let f = &self.code.fields[usize::from(p.field)];
        let whole = self.code.vars[usize::from(f.var)].bits == f.bits;
        let v = self.variable(p);
        if whole { v } else { format!("(({v} >> {}) & {})", f.shift, (1u32 << f.bits) - 1) }
    }

    fn write(&self, p: Place, value: &str) -> String {
        let f = &self.code.fields[usize::from(p.field)];
        let bits = self.code.vars[usize::from(f.var)].bits;
        let v = self.variable(p);
        if bits == f.bits {
            return format!("{v} = {value}");
        }
        let rest = ((1u64 << bits) - 1) & !f.mask();
        format!("{v} = ({v} & {rest}) | ({value} << {})", f.shift)
    }
}

fn reg(r: Reg) -> String {
    format!("r{}", r.0)
}

fn val(v: Val) -> String {
    match v {
        Val::Imm(n) => n.to_string(),
        Val::Reg(r) => reg(r),
    }
}

fn alu(f: Alu) -> &'static str {
    match f {
        Alu::Add => "+",
        Alu::Sub => "-",
        Alu::And => "&",
        Alu::Or => "|",
        Alu::Xor => "^",
    }
}

fn compare(f: Cmp, a: &str, b: &str) -> String {
    match f {
        Cmp::Eq => format!("{a} == {b}"),
        Cmp::Ne => format!("{a} != {b}"),
        Cmp::Lt => format!("{a} < {b}"),
        Cmp::Ge => format!("{a} >= {b}"),
        Cmp::Le => format!("{a} <= {b}"),
        Cmp::Gt => format!("{a} > {b}"),
        Cmp::Test => format!("({a} & {b}) != 0"),
    }
}

fn mask(set: Set) -> &'static str {
    match set {
        Set::Online => "ALL",
        Set::Others => "(ALL - (1 << me))",
        Set::Housekeeping => "1",
        Set::NohzFull | Set::FlushMask => "(ALL - 1)",
        Set::Targets => "targets",
        // Without the ops that set the mask nobody is in it.
        Set::MmCpumask => "0",
    }
}

fn cond(c: Cond) -> String {
    match c {
        Cond::Cmp(f, a, b) => compare(f, &reg(a), &val(b)),
        Cond::MeIn(set) => format!("(({} >> me) & 1) != 0", mask(set)),
        Cond::CurIn(set) => format!("(({} >> cur) & 1) != 0", mask(set)),
        Cond::CurIsMe => "cur == me".into(),
        Cond::Empty(set) => format!("{} == 0", mask(set)),
        Cond::Cr3User => "cr3k[me] == 0".into(),
        Cond::RegUser(r) => format!("{} == 0", reg(r)),
        Cond::RangeFull => "true".into(),
        Cond::Either => unreachable!("written as two guards"),
        Cond::Text(_) => unreachable!("refused"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{
        policy::{self, POLICIES},
        program::Features,
    };

    const SCOPE: Scope = Scope { targets: 2, entries: 2, danger_recycled: false };

    fn code(name: &str) -> Code {
        policy::load(&policy::builtin(name).unwrap(), Features::PTI_PCID).unwrap()
    }

    /// Policies of user ranges, whose flushes carry an address space and a generation: these have no form in Promela.
    const OF_USER_RANGES: [&str; 7] = [
        "invlpgb-from-4-cpus",
        "latr",
        "latr-two-ticks",
        "luf",
        "early-ack",
        "early-ack-tables",
        "switch-deferred",
    ];

    #[test]
    fn every_policy_of_kernel_ranges_has_a_promela_form() {
        for row in POLICIES {
            let exported = export(&code(row.id), SCOPE);
            if row.id == "quarantine-by-grace" {
                let error = exported.unwrap_err().to_string();
                assert!(
                    error.contains("no Promela for `rcu unwatch`") || error.contains("`rcu unlock`"),
                    "{error}"
                );
                continue;
            }
            if OF_USER_RANGES.contains(&row.id) {
                let error = exported.unwrap_err().to_string();
                assert!(error.contains("flush_tlb_func") && error.contains("no Promela for"), "{error}");
                continue;
            }
            let text = exported.unwrap_or_else(|e| panic!("{}: {e}", row.id));
            assert!(text.contains("proctype Isolated") && text.contains("assert("), "{}", row.id);
            // Every jump has its label.
            for word in text.split(|c: char| !c.is_alphanumeric() && c != '_') {
                if word.starts_with('L') && word.contains('_') && word[1..2].parse::<u8>().is_ok() {
                    assert!(text.contains(&format!("{word}: ")), "{}: {word}", row.id);
                }
            }
        }
    }

    #[test]
    fn an_impossible_scope_is_refused() {
        let error = export(&code("ipi"), Scope { targets: 9, ..SCOPE }).unwrap_err();
        assert!(error.to_string().contains("1 to 4 isolated CPUs"));
    }
}
