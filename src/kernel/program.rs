//! The alphabet: micro-ops, and the assembled code of a policy.
//!
//! Every instruction that reads or writes CR3, a TLB, a PTE or a variable another CPU reads is an op. An [`Op`]
//! is `Copy`, 8 bytes, and names no CPU: loops range over CPU sets, so renaming CPUs maps runs to runs (the
//! checker's symmetry needs that).

use std::fmt;

use serde::Serialize;

/// Index into [`Code::ops`].
pub type Pc = u16;

/// A frame-local register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Reg(pub u8);

/// Registers per frame.
pub const REGS: usize = 6;

/// An operand: a small constant or a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Val {
    /// A constant.
    Imm(u8),
    /// A register.
    Reg(Reg),
}

/// Whose copy of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum At {
    /// The one copy of a shared variable.
    Shared,
    /// This CPU's copy: a %gs-relative access (SEMANTICS S8).
    Me,
    /// The copy of the CPU the enclosing loop is at.
    Cur,
    /// The copy of the address space whose number the register holds.
    Mm(Index),
    /// This CPU's copy for the ASID that the register holds.
    Asid(Index),
}

/// A register that chooses a copy. An enum, so that [`At`] is one byte and an [`Op`] eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[allow(missing_docs)]
pub enum Index {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
}

impl Index {
    /// Every one, in order.
    pub const ALL: [Index; REGS] = [Index::R0, Index::R1, Index::R2, Index::R3, Index::R4, Index::R5];

    /// The register.
    pub const fn reg(self) -> Reg {
        Reg(self as u8)
    }
}

/// A memory operand: a field of a variable, and whose copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Place {
    /// Index into [`Code::fields`].
    pub field: u8,
    /// Whose copy.
    pub at: At,
}

/// Sets of CPUs a loop or an IPI ranges over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Set {
    /// Every online CPU, this one included.
    Online,
    /// Every online CPU but this one.
    Others,
    /// `housekeeping_cpu(cpu, HK_TYPE_KERNEL_NOISE)`.
    Housekeeping,
    /// `tick_nohz_full_mask`.
    NohzFull,
    /// The mask v7's flush consults; equals `nohz_full` unless a scenario says otherwise (FACTS 1.6 f).
    FlushMask,
    /// What this frame collected with `put`.
    Targets,
    /// `mm_cpumask` of the address space this CPU's flush is about, this CPU left out.
    MmCpumask,
}

/// Comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Cmp {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less (unsigned).
    Lt,
    /// At least (unsigned).
    Ge,
    /// At most (unsigned).
    Le,
    /// More (unsigned).
    Gt,
    /// Have a common bit.
    Test,
}

/// Arithmetic on registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Alu {
    /// Sum.
    Add,
    /// Difference.
    Sub,
    /// Bitwise and.
    And,
    /// Bitwise or.
    Or,
    /// Bitwise exclusive or.
    Xor,
}

/// Locked read-modify-write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Rmw {
    /// XCHG.
    Xchg,
    /// LOCK XADD.
    Add,
    /// LOCK OR, old value returned.
    Or,
    /// LOCK AND, old value returned.
    And,
    /// LOCK SUB (LOCK XADD of the negative), old value returned.
    Sub,
    /// LOCK XOR, old value returned.
    Xor,
    /// LOCK BTS: sets a bit and returns what it was (CF).
    Bts,
    /// LOCK BTR: clears a bit and returns what it was.
    Btr,
    /// LOCK BTC: turns a bit over and returns what it was.
    Btc,
}

impl Rmw {
    /// What memory holds after it, and what its register gets. A difference below zero and a bit beyond 63 fit no
    /// variable: the machine that stores the value says so.
    #[inline]
    pub fn apply(self, old: u64, v: u64) -> (u64, u64) {
        let bit = 1u64.checked_shl(u32::try_from(v).unwrap_or(u32::MAX));
        let of = |new: fn(u64, u64) -> u64| {
            bit.map_or((u64::MAX, 0), |bit| (new(old, bit), u64::from(old & bit != 0)))
        };
        match self {
            Rmw::Xchg => (v, old),
            Rmw::Add => (old.wrapping_add(v), old),
            Rmw::Or => (old | v, old),
            Rmw::And => (old & v, old),
            Rmw::Sub => (old.wrapping_sub(v), old),
            Rmw::Xor => (old ^ v, old),
            Rmw::Bts => of(|old, bit| old | bit),
            Rmw::Btr => of(|old, bit| old & !bit),
            Rmw::Btc => of(|old, bit| old ^ bit),
        }
    }

    /// Its operand is the number of a bit, and its result one bit.
    pub const fn is_of_a_bit(self) -> bool {
        matches!(self, Rmw::Bts | Rmw::Btr | Rmw::Btc)
    }

    /// Every one, with its word.
    pub const ALL: [(&'static str, Rmw); 9] = [
        ("xchg", Rmw::Xchg),
        ("add", Rmw::Add),
        ("or", Rmw::Or),
        ("and", Rmw::And),
        ("sub", Rmw::Sub),
        ("xor", Rmw::Xor),
        ("bts", Rmw::Bts),
        ("btr", Rmw::Btr),
        ("btc", Rmw::Btc),
    ];

    /// Its word.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, f)| *f == self).map_or("", |(name, _)| name)
    }
}

impl Cmp {
    /// Does `a` compare so with `b`?
    #[inline]
    pub fn holds(self, a: u64, b: u64) -> bool {
        match self {
            Cmp::Eq => a == b,
            Cmp::Ne => a != b,
            Cmp::Lt => a < b,
            Cmp::Ge => a >= b,
            Cmp::Le => a <= b,
            Cmp::Gt => a > b,
            Cmp::Test => a & b != 0,
        }
    }
}

/// What a branch or a wait tests without touching memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Cond {
    /// Compare a register.
    Cmp(Cmp, Reg, Val),
    /// This CPU is in the set.
    MeIn(Set),
    /// The loop's CPU is in the set.
    CurIn(Set),
    /// The loop's CPU is this one.
    CurIsMe,
    /// The set has no member.
    Empty(Set),
    /// The loaded CR3 is a user one (bit 12, FACTS 2.1).
    Cr3User,
    /// The CR3 value held in a register is a user one.
    RegUser(Reg),
    /// The requested range is flushed as a whole (more than `tlb_single_page_flush_ceiling`, FACTS 2.5).
    RangeFull,
}

/// Which pages an op is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Pages {
    /// The range of the flush request in whose service this program runs.
    Range,
    /// One declared page, index into [`Code::pages`].
    One(u8),
    /// A part of the instruction that text patching rewrites.
    Text(Part),
}

/// The parts of a patched instruction that `text_poke_bp_batch` writes one after the other (SEMANTICS S7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Part {
    /// Its first byte: an INT3 while the rest changes.
    Head,
    /// The bytes behind it.
    Tail,
}

/// A new value for a page-table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Entry {
    /// Not present.
    None,
    /// Present, another frame (or a new table) than ever before.
    Fresh,
    /// Present, the same frame with fewer rights (SEMANTICS S4: stale *more* rights is the hazard).
    LessRights,
    /// Present, as at the start.
    Initial,
    /// The breakpoint instruction, in the first byte of a patched one.
    Int3,
}

/// Level of a page-table entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Level {
    /// The PTE that maps the page.
    Leaf,
    /// The entry above it, which points to the table the PTE is in.
    Table,
}

/// What is written to CR3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Cr3 {
    /// The kernel half of the current pair.
    Kernel,
    /// The user half of the current pair.
    User,
    /// A value read before.
    Reg(Reg),
    /// The kernel half of another mm's pair.
    Mm {
        /// Which mm.
        mm: Val,
        /// Under which ASID.
        asid: Val,
    },
}

/// Bit 63 of the value written to CR3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum NoFlush {
    /// Clear: the new PCID's non-global translations go.
    Flush,
    /// Set: nothing is invalidated.
    Keep,
    /// As `user_pcid_flush_mask` says for the PCID being loaded.
    Owed,
}

/// INVPCID types, SDM Vol. 2 "INVPCID".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Invpcid {
    /// Type 0: one address of one PCID.
    Address,
    /// Type 1: one PCID.
    Context,
    /// Type 2: everything, globals included.
    AllGlobal,
    /// Type 3: everything but globals.
    All,
}

/// Which PCID an INVPCID names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum PcidOf {
    /// The kernel half of the loaded pair.
    Kernel,
    /// The user half of the loaded pair.
    User,
}

/// Order supplied without touching a TLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Fence {
    /// MFENCE or a LOCKed no-op: publishes (SEMANTICS H4 a).
    Full,
    /// LFENCE: publishes nothing.
    Load,
    /// SFENCE: orders stores among themselves, which the store buffer does anyway; publishes nothing.
    Store,
    /// CPUID, IRET, `sync_core()`: publishes and serialises.
    Serialize,
}

/// Code or data whose access is an explicit assumption or an own class (SEMANTICS A1, A2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Zone {
    /// Entry text and `cpu_entry_area`: mapped in both tables.
    Entry,
    /// Static per-CPU data, %gs-relative.
    PerCpu,
    /// The current task's own stack: live, never stale.
    Stack,
    /// No access of today's kernel: where a future one is asked about, between the CR3 switch and the flush
    /// (assumption D).
    Danger,
    /// Bodies of NMI, #MC and #DB: assumption N.
    Nmi,
    /// Ordinary kernel code: may use anything that is mapped.
    Kernel,
    /// Ordinary user code.
    User,
    /// The direct map: `task_struct`, `mm_struct` and other slab objects.
    DirectMap,
    /// The kernel image beyond entry text: its data and read-only data.
    Image,
    /// vmalloc memory that was purged and mapped again.
    Recycled,
}

impl Zone {
    /// Every zone with its word, in the order of the declaration.
    pub const ALL: [(&'static str, Zone); 10] = [
        ("entry", Zone::Entry),
        ("percpu", Zone::PerCpu),
        ("stack", Zone::Stack),
        ("danger", Zone::Danger),
        ("nmi", Zone::Nmi),
        ("kernel", Zone::Kernel),
        ("user", Zone::User),
        ("directmap", Zone::DirectMap),
        ("image", Zone::Image),
        ("recycled", Zone::Recycled),
    ];
}

/// What a touch is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Touch {
    /// Whatever a zone may touch.
    Zone(Zone),
    /// Read one page.
    Read(u8),
    /// Write one page.
    Write(u8),
    /// Run the instruction that text patching rewrites.
    Text,
}

/// Where the timed machine charges a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Slot {
    /// The system call's own work.
    Syscall,
    /// The interrupt's own work beyond remote calls.
    Interrupt,
    /// The NMI's or #MC's own work.
    Nmi,
    /// Waiting in idle.
    Idle,
}

/// What a program asks of its machine about address spaces: bookkeeping that no other CPU reads, or the flush
/// request it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Ask {
    /// The address space to be loaded next: the scheduler's decision.
    NextMm,
    /// The address space a flush is wanted of: the caller's decision.
    FlushMm,
    /// `info->mm` of the flush in whose service this program runs.
    InfoMm,
    /// `info->new_tlb_gen` of that flush.
    InfoGen,
    /// `loaded_mm_asid`.
    LoadedAsid,
    /// `choose_new_asid`: the slot that holds this address space, or one taken over for it.
    AsidFor(Val),
}

/// Index into [`Code::programs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, serde::Deserialize)]
pub struct ProgId(pub u8);

/// One micro-op.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Op {
    /// Register move.
    Move {
        /// Destination.
        to: Reg,
        /// Source.
        v: Val,
    },
    /// A constant of more than 8 bits to a register.
    MoveWide {
        /// Destination.
        to: Reg,
        /// Constant.
        v: u16,
    },
    /// Register arithmetic.
    Alu {
        /// Function.
        f: Alu,
        /// Destination.
        to: Reg,
        /// Left operand.
        a: Reg,
        /// Right operand.
        b: Val,
    },
    /// Plain load.
    Load {
        /// Destination.
        to: Reg,
        /// Source.
        from: Place,
    },
    /// Plain store: enters the store buffer.
    Store {
        /// Destination.
        to: Place,
        /// Value.
        v: Val,
    },
    /// Locked read-modify-write; publishes.
    Rmw {
        /// Function.
        f: Rmw,
        /// Receives the old value.
        to: Reg,
        /// Operand in memory.
        at: Place,
        /// Operand.
        v: Val,
    },
    /// Locked compare-and-exchange; publishes whether it succeeds or not.
    Cas {
        /// Receives the value seen: equal to `old` iff it succeeded.
        to: Reg,
        /// Operand in memory.
        at: Place,
        /// Expected.
        old: Val,
        /// Replacement.
        new: Val,
    },
    /// Go to `to` unless the condition holds.
    Unless {
        /// Condition.
        c: Cond,
        /// Where to go when it fails.
        to: Pc,
    },
    /// Go to.
    Jump(Pc),
    /// Start a loop: nothing visited yet.
    Loop(Set),
    /// Next CPU of the set not visited yet, or leave the loop.
    Each {
        /// Set.
        of: Set,
        /// Where to go when all are visited.
        done: Pc,
    },
    /// Empty the collected set.
    Clear,
    /// Collect the loop's CPU.
    Put,
    /// Wait until a variable compares.
    Await {
        /// Operand in memory.
        at: Place,
        /// Comparison.
        f: Cmp,
        /// Value.
        v: Val,
    },
    /// Wait until every remote call this frame sent has completed.
    AwaitAcks,
    /// Order memory.
    Fence(Fence),
    /// Set or clear IF.
    Irq(bool),
    /// Exchange GSBASE with its kernel twin.
    SwapGs,
    /// Read whose GSBASE is loaded: 1 kernel, 0 user.
    ReadGs(Reg),
    /// Load the kernel's GSBASE, or what a register says.
    SetGs(Val),
    /// Read CR3.
    ReadCr3(Reg),
    /// Write CR3.
    MovCr3 {
        /// What.
        to: Cr3,
        /// Bit 63.
        keep: NoFlush,
    },
    /// Write CR4.PGE.
    MovCr4Pge(bool),
    /// INVLPG of each page.
    Invlpg(Pages),
    /// INVPCID.
    Invpcid {
        /// Type.
        kind: Invpcid,
        /// Of which PCID.
        pcid: PcidOf,
        /// Of which pages (type 0).
        pages: Pages,
    },
    /// INVLPGB, broadcast; complete at this CPU's next TLBSYNC.
    Invlpgb(Pages),
    /// INVLPGB with operands.
    InvlpgbOf {
        /// Which pages.
        pages: Pages,
        /// "Final translation only": leaves, no upper entries.
        leaves: bool,
        /// Of one PCID, the kernel half of this ASID's, and no global entries.
        asid: Option<u8>,
    },
    /// INVLPGB of everything, globals included.
    InvlpgbAll,
    /// TLBSYNC.
    Tlbsync,
    /// Remote action request: invalidate on each CPU of the set without interrupting it; waits.
    Rar(Set),
    /// An access whose translation matters.
    Touch(Touch),
    /// Load the data a page maps, through the TLB.
    LoadPage {
        /// Destination.
        to: Reg,
        /// Page.
        page: u8,
    },
    /// Store to the data a page maps, through the TLB: enters the store buffer.
    StorePage {
        /// Page.
        page: u8,
        /// Value.
        v: Val,
    },
    /// The timed machine charges a workload here; ordinary kernel code.
    Body(Slot),
    /// Write page-table entries.
    Pte {
        /// Which pages.
        pages: Pages,
        /// At which level.
        level: Level,
        /// New value.
        v: Entry,
        /// XCHG (publishes) or plain store.
        locked: bool,
    },
    /// Free the page-table page below the upper entry.
    FreeTable(Pages),
    /// Free an mm and its top-level table: `__mmdrop`.
    FreeMm(u8),
    /// A flush of these pages is called for: it covers what is overwritten and visible now (SEMANTICS S2).
    Request(Pages),
    /// The caller relies on that flush from here on (SEMANTICS S3).
    Promise(Pages),
    /// Queue a remote call on each CPU of the set; interrupt those whose queue was empty.
    Ipi {
        /// Targets.
        to: Set,
        /// Handler.
        run: ProgId,
    },
    /// Run queued remote calls, oldest first, until none is left.
    HandleCalls,
    /// The owed-flush mark of the user PCID (`user_pcid_flush_mask`).
    OweUser,
    /// `invalidate_other`: the other ASIDs owe a flush at their next use (FACTS 2.5).
    OweOthers,
    /// Ask about address spaces.
    Ask {
        /// Receives the answer.
        to: Reg,
        /// Question.
        what: Ask,
    },
    /// Fill `flush_tlb_info`: what the remote handler of this CPU's request will read.
    FlushInfo {
        /// Address space.
        mm: Val,
        /// Its generation.
        generation: Val,
    },
    /// LOCKed set or clear of this CPU's bit in an address space's `mm_cpumask`; publishes.
    Mask {
        /// Address space.
        mm: Val,
        /// Set or clear.
        on: bool,
    },
    /// End of the program; of a remote call: it is acknowledged.
    Return,
}

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
}

/// Bits of a generation in the checker.
pub const GENERATION_BITS: u8 = 3;

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

/// Names of programs that an interrupt or exception starts: they end in IRET, which publishes and serialises. SYSRET and
/// the return of a function do neither (SEMANTICS H4).
pub const DELIVERED: [&str; 8] = [
    "exception",
    "exception_espfix",
    "exception_bad_iret",
    "interrupt",
    "interrupt_kernel",
    "interrupt_idle",
    "nmi",
    "nmi_user",
];

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

/// What a machine offers, and what boot configuration has switched on; `if feature NAME` folds at assembly as
/// ALTERNATIVEs and static keys do at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Features(u16);

/// One feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Feature {
    /// Page-table isolation is on.
    Pti = 1,
    /// CR4.PCIDE is set.
    Pcid = 2,
    /// INVPCID exists.
    Invpcid = 4,
    /// INVLPGB exists and is used.
    Invlpgb = 8,
    /// Remote action requests exist.
    Rar = 16,
    /// Static key `housekeeping_overridden`.
    HousekeepingOverridden = 32,
    /// Context tracking is active on `nohz_full` CPUs.
    ContextTracking = 64,
}

impl Feature {
    /// Every feature with the name the policy language gives it.
    pub const ALL: [(&'static str, Feature); 7] = [
        ("pti", Feature::Pti),
        ("pcid", Feature::Pcid),
        ("invpcid", Feature::Invpcid),
        ("invlpgb", Feature::Invlpgb),
        ("rar", Feature::Rar),
        ("housekeeping_overridden", Feature::HousekeepingOverridden),
        ("context_tracking", Feature::ContextTracking),
    ];

    /// By name.
    pub fn named(name: &str) -> Option<Feature> {
        Self::ALL.iter().find(|(n, _)| *n == name).map(|&(_, f)| f)
    }
}

impl Features {
    /// None.
    pub const NONE: Features = Features(0);

    /// An Intel server with PTI on, isolated CPUs configured: the machine of the series' measurements.
    pub const PTI_PCID: Features = Features(1 | 2 | 4 | 32 | 64);

    /// With one more.
    #[must_use]
    pub const fn with(self, f: Feature) -> Self {
        Features(self.0 | f as u16)
    }

    /// Without one.
    #[must_use]
    pub const fn without(self, f: Feature) -> Self {
        Features(self.0 & !(f as u16))
    }

    /// Whether it is on.
    pub const fn has(self, f: Feature) -> bool {
        self.0 & f as u16 != 0
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Feature::ALL.iter().filter(|(_, x)| self.has(*x)).map(|(n, _)| *n).collect();
        f.write_str(&names.join("+"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_op_is_eight_bytes() {
        assert_eq!(size_of::<Op>(), 8);
    }
}
