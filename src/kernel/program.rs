//! The alphabet: micro-ops, and the assembled code of a policy.
//!
//! Every instruction that reads or writes CR3, a TLB, a PTE or a variable another CPU reads is an op. An [`Op`]
//! is `Copy`, 8 bytes, and names no CPU: loops range over CPU sets, so renaming CPUs maps runs to runs (the
//! checker's symmetry needs that).

use serde::Serialize;

mod features;
mod op;
mod operands;

pub use features::*;
pub use op::*;
pub use operands::*;

/// Of what a variable has copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Copies {
    /// One in all.
    One,
    /// One per CPU.
    Cpu,
    /// One per address space.
    Mm,
    /// One per CPU and ASID: read and written by that CPU only.
    Asid,
}

/// What a variable holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Holds {
    /// Bits.
    Bits,
    /// The number of an address space: 0 is `init_mm`, 1 `LOADED_MM_SWITCHING`. The checker keeps as many bits as
    /// its scope needs.
    Mm,
    /// A generation, which only grows. The checker keeps [`GENERATION_BITS`], and more is inconclusive.
    Generation,
    /// A count, or a copy of one: the variable of this index is what counts. The checker keeps their order alone
    /// (SEMANTICS A8).
    Count(u8),
}

/// Bits of a generation in the checker.
pub const GENERATION_BITS: u8 = 3;

/// Bits of a count in the checker: more than there are places that hold one.
pub const COUNT_BITS: u8 = 6;

/// Bits above them, of a count per address space: whose it is (SEMANTICS A8).
pub const COUNT_OF_BITS: u8 = 2;

/// A variable in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Var {
    /// Name.
    pub name: String,
    /// Width in bits, at most 16.
    pub bits: u8,
    /// One copy per CPU (and ASID, perhaps), or one in all (or per address space).
    pub per_cpu: bool,
    /// Of what it has copies.
    pub copies: Copies,
    /// What it holds.
    pub holds: Holds,
    /// Initial value.
    pub init: u16,
    /// Its page is in the PTI user table.
    pub user_mapped: bool,
}

/// A named bit range of a variable; field `i` for `i < vars.len()` is variable `i` whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Name.
    pub name: String,
    /// Index into [`Code::vars`].
    pub var: u8,
    /// Lowest bit.
    pub shift: u8,
    /// Width.
    pub bits: u8,
}

impl Field {
    /// The field's bits within its variable.
    pub fn mask(&self) -> u64 {
        ((1u64 << self.bits) - 1) << self.shift
    }
}

/// What a tracked page is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page {
    /// Name.
    pub name: String,
    /// Region.
    pub kind: PageKind,
    /// Mapped by global entries.
    pub global: bool,
    /// Mapped in the PTI user table.
    pub user_mapped: bool,
    /// Present at the start.
    pub present: bool,
    /// Index of the page of a large entry in which it lies (SEMANTICS H9).
    pub within: Option<u8>,
}

/// Region of a tracked page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum PageKind {
    /// vmalloc space: `recycled` memory of SEMANTICS A1.
    Vmalloc,
    /// The direct map.
    DirectMap,
    /// The kernel image: its data and read-only data.
    Image,
    /// Static per-CPU data.
    PerCpu,
    /// `cpu_entry_area`, entry text, LDT: user tables map it.
    EntryArea,
    /// User memory of the mm with this number.
    User(u8),
    /// Kernel text: a CPU's copy of it is what it has fetched and decoded, which no TLB invalidation touches.
    Text,
}

impl PageKind {
    /// Is memory of this region never unmapped while the kernel runs? Its rights change.
    pub fn is_lasting(self) -> bool {
        match self {
            PageKind::DirectMap | PageKind::Image | PageKind::PerCpu => true,
            PageKind::Vmalloc | PageKind::EntryArea | PageKind::User(_) | PageKind::Text => false,
        }
    }
}

/// Where an op comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize)]
pub struct Span {
    /// Index into [`Code::files`].
    pub file: u8,
    /// Line, from 1.
    pub line: u16,
    /// Column, from 1.
    pub col: u16,
    /// Index into [`Code::places`] plus one; 0 for none: the patch or kernel function the op stands for.
    pub place: u16,
}

/// Names of programs that an interrupt or exception starts. Without FRED they end in IRET, which publishes and serialises;
/// ERETS, ERETU, SYSRET and the return of a function do neither (SEMANTICS H4).
pub const DELIVERED: [&str; 9] = [
    "exception",
    "exception_espfix",
    "exception_bad_iret",
    "interrupt",
    "interrupt_kernel",
    "interrupt_idle",
    "nmi",
    "nmi_user",
    BREAKPOINT,
];

/// The program that an INT3 of the kernel starts; a text has it where a patched instruction decides a branch.
pub const BREAKPOINT: &str = "breakpoint";

/// Is it a branch that a patched instruction decides?
pub fn is_site(op: Op) -> bool {
    matches!(op, Op::Unless { c: Cond::Text(_), .. })
}

/// A named entry point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Name.
    pub name: String,
    /// First op.
    pub start: Pc,
    /// One past the last op.
    pub end: Pc,
    /// Names of its locals, by register.
    pub locals: Vec<String>,
    /// Locals whose values at its end are asked about, and their registers.
    pub kept: Vec<(String, Reg)>,
}

/// A policy assembled for one feature set: what both drivers run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Code {
    /// Policy name.
    pub name: String,
    /// The version of Linux that what the policy does not replace is written from.
    pub linux: String,
    /// Whether FRED delivers events, and ERETS and ERETU end what it delivers: they neither publish nor serialise.
    pub fred: bool,
    /// All ops of all programs.
    pub ops: Vec<Op>,
    /// Where each op comes from.
    pub at: Vec<Span>,
    /// One canonical source line per op, for counterexamples.
    pub text: Vec<String>,
    /// Registers live before each op, a bit each: dead ones need not be stored.
    pub live: Vec<u8>,
    /// Programs.
    pub programs: Vec<Program>,
    /// Variables.
    pub vars: Vec<Var>,
    /// Fields.
    pub fields: Vec<Field>,
    /// Declared pages.
    pub pages: Vec<Page>,
    /// Names of patched instructions, from number 1 on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<String>,
    /// File names.
    pub files: Vec<String>,
    /// Source places.
    pub places: Vec<String>,
}

impl Code {
    /// The program of that name.
    pub fn program(&self, name: &str) -> Option<ProgId> {
        self.programs.iter().position(|p| p.name == name).map(|i| ProgId(i as u8))
    }

    /// The variable that counts what a field holds, if it is a count or a copy of one (SEMANTICS A8).
    pub fn counts(&self, field: u8) -> Option<u8> {
        match self.vars[usize::from(self.fields[usize::from(field)].var)].holds {
            Holds::Count(source) => Some(source),
            Holds::Bits | Holds::Mm | Holds::Generation => None,
        }
    }

    /// Is what a field holds of a count per address space?
    pub fn counts_per_mm(&self, field: u8) -> bool {
        self.counts(field).is_some_and(|source| self.vars[usize::from(source)].copies == Copies::Mm)
    }

    /// Does a program end in IRET?
    pub fn ends_by_iret(&self, program: &str) -> bool {
        !self.fred && DELIVERED.contains(&program)
    }

    /// Does a patched instruction decide a branch somewhere?
    pub fn has_sites(&self) -> bool {
        self.ops.iter().any(|&op| is_site(op))
    }

    /// The ops of the program of that name; none if there is none.
    pub fn ops_of(&self, name: &str) -> &[Op] {
        let program = self.programs.iter().find(|p| p.name == name);
        program.map_or(&[], |p| &self.ops[usize::from(p.start)..usize::from(p.end)])
    }

    /// The lines of the program of that name, one per op; none if there is none.
    pub fn lines_of(&self, name: &str) -> &[String] {
        let program = self.programs.iter().find(|p| p.name == name);
        program.map_or(&[], |p| &self.text[usize::from(p.start)..usize::from(p.end)])
    }

    /// Where a program starts.
    pub fn start(&self, id: ProgId) -> Pc {
        self.programs[usize::from(id.0)].start
    }

    /// Would an interrupt come out of the idle loop there: at its wait, and until it has closed interrupts again?
    pub fn is_idle_at(&self, pc: Pc) -> bool {
        let waits = |pc: usize| self.ops.get(pc) == Some(&Op::Body(Slot::Idle));
        let pc = usize::from(pc);
        waits(pc) || self.ops[pc] == Op::Irq(false) && pc.checked_sub(1).is_some_and(waits)
    }

    /// The program an op belongs to.
    pub fn program_of(&self, pc: Pc) -> Option<&Program> {
        self.programs.iter().find(|p| (p.start..p.end).contains(&pc))
    }

    /// `file:line` and, where the text names one, the kernel or patch place.
    pub fn source(&self, pc: Pc) -> String {
        let span = self.at[usize::from(pc)];
        let file = &self.files[usize::from(span.file)];
        match span.place {
            0 => format!("{file}:{}", span.line),
            n => format!("{file}:{} ({})", span.line, self.places[usize::from(n) - 1]),
        }
    }
}
