//! The ops.

use serde::Serialize;

use super::operands::{Alu, Cmp, Pc, Place, Reg, Rmw, Set, Val};

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
    /// Nothing that is modelled decides it: both ways are explored, and the timed machine goes the first.
    Either,
    /// What the CPU fetched of a patched instruction is the new one. An INT3 there is an exception (SEMANTICS H10).
    Text(Site),
}

/// A patched instruction: 0 is the one without a name, and from 1 on they are [`Code::sites`](super::Code::sites).
pub type Site = u8;

/// Patched instructions of one text at most, the one without a name among them.
pub const SITES: usize = 3;

/// Which pages an op is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Pages {
    /// The range of the flush request in whose service this program runs.
    Range,
    /// One declared page, index into [`Code::pages`](super::Code::pages).
    One(u8),
    /// A part of an instruction that text patching rewrites.
    Text(Site, Part),
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
    /// Present, the frame that was mapped last, with the type uncached (SEMANTICS H11).
    Uncached,
    /// The same with the type that entries have otherwise, write-back.
    Cached,
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
    /// Run the instruction without a name that text patching rewrites.
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

/// A step of a walk in software: loads from memory, one after the other, and no TLB (SEMANTICS H8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Walk {
    /// Load the entry above: which table does it point to?
    Table,
    /// Load the leaf in that table.
    Leaf,
    /// The same, as the last thing the walk does.
    Last,
    /// Use the memory that the leaf maps.
    Use,
}

/// What a CPU does about grace periods of RCU (SEMANTICS L10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Rcu {
    /// A read-side section starts.
    Lock,
    /// It ends.
    Unlock,
    /// RCU watches this CPU from here on. Locked; publishes.
    Watch,
    /// It no longer does: user mode or idle. Locked; publishes.
    Unwatch,
    /// A grace period is asked for. Publishes.
    Start,
    /// Wait until it is over.
    Wait,
}

/// Index into [`Code::programs`](super::Code::programs).
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
    /// RSP holds a stack from here on, or something else (SEMANTICS S13).
    Rsp(bool),
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
    /// A step of a walk in software.
    Walk {
        /// Of which page.
        page: u8,
        /// Which step.
        step: Walk,
    },
    /// Read-side sections, and waits for them.
    Rcu(Rcu),
    /// Run a program on this CPU when a grace period is over: `call_rcu`.
    CallLater(ProgId),
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
    /// CLFLUSH of each line of the pages: on every CPU, ordered like a store (SEMANTICS H11).
    Clflush(Pages),
    /// WBINVD: every line that this CPU holds; publishes and serialises.
    Wbinvd,
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
    /// The task is preempted, and goes on on another CPU that rests in the kernel; where none does, here (SEMANTICS L11).
    Migrate,
    /// End of the program; of a remote call: it is acknowledged.
    Return,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_op_is_eight_bytes() {
        assert_eq!(size_of::<Op>(), 8);
    }
}
