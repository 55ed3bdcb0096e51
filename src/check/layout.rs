//! Where each piece of state sits in the packed words, with widths derived from the code and the scope.
//!
//! A state is `[u64; W]`: the words of CPU 0, of CPU 1, ..., then the shared ones. Nothing is ever unpacked as a
//! whole: the machine reads and writes the few fields an op needs. A value that does not fit its field is
//! recorded, and makes the run inconclusive; it never wraps.

#[cfg(test)]
mod bits;
mod derive;
mod entries;
mod liveness;
mod packing;
mod pages;
mod plan;
mod roots;

use super::scope::{MAX_ASIDS, MAX_TRACKED};
use crate::kernel::program::{Entry, Level, Op, PageKind, Pc, ProgId, REGS, Reg, SITES};
use crate::kernel::step::NO_PC;
pub use entries::{Device, Path};
pub use packing::{Bits, width};
pub use pages::{MAX_MMS, TEXT, narrow, renames, tags, upper_tags, versions_needed};

/// A control location: an op, and where its remote call returns to.
#[derive(Clone, Debug)]
pub struct Location {
    /// Op.
    pub pc: Pc,
    /// Return address inside a remote call.
    pub ret: Pc,
    /// The op itself.
    pub op: Op,
    /// Live registers: which, where in the level's register area, mask. Unused ones have mask 0.
    pub regs: [(u8, u8, u32); REGS],
    /// How many are live.
    pub live: u8,
    /// The loop's CPU is still needed.
    pub cur: bool,
    /// The visited set is still needed.
    pub visited: bool,
    /// The collected set is still needed.
    pub targets: bool,
    /// `handle calls` is still ahead.
    pub calls: bool,
    /// Belongs to `nmi` or `nmi_user`.
    pub nmi: bool,
    /// Executing it ends an interrupt, exception or NMI, by IRET: earlier stores are visible first, and the instruction
    /// stream is serialised.
    pub iret: bool,
}

/// One frame of a CPU: 0 task or entry from user mode, 1 interrupt or NMI, 2 NMI in an interrupt or #MC.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Index of the location plus one; 0 for none.
    pub at: Bits,
    /// Live registers.
    pub area: Bits,
    /// The loop's CPU.
    pub cur: Bits,
    /// CPUs visited.
    pub visited: Bits,
    /// CPUs collected.
    pub targets: Bits,
    /// Of a walk in software under way: the version of the entry it has loaded last, 0 for none. Which page it is of,
    /// and at which level, the next op says.
    pub walked: Bits,
    /// That entry has fewer rights.
    pub walked_less: Bits,
    /// A read-side section of this frame is open.
    pub reads: Bits,
    /// RCU watches because of this frame, an interrupt or NMI.
    pub watch: Bits,
    /// This frame is a machine check.
    pub mce: Bits,
    /// This frame is a device's interrupt, which takes no remote calls (SEMANTICS H5), as long as any are ahead.
    pub device: Bits,
    /// RSP holds no stack (SEMANTICS S13); where a patched instruction decides a branch.
    pub scratch: Bits,
    /// Locations.
    pub locations: Vec<Location>,
    index: Vec<u16>,
    rets: Vec<Pc>,
    /// Where the numbers of locations outside remote calls start.
    plain: usize,
}

impl Frame {
    /// The number of a location plus one.
    #[inline]
    pub fn number(&self, pc: Pc, ret: Pc) -> u64 {
        let base = if ret == NO_PC {
            self.plain
        } else {
            let slot = self.rets.iter().position(|&r| r == ret).expect("reachable returns are listed");
            slot * (self.index.len() / self.rets.len())
        };
        u64::from(self.index[base + usize::from(pc)])
    }
}

/// What a buffered store writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A field of a variable, `owner`'s copy (0 for shared).
    Field {
        /// Field.
        field: u8,
        /// Whose.
        owner: u8,
    },
    /// A page-table entry.
    Entry {
        /// Page.
        page: u8,
        /// Level.
        level: Level,
        /// New value.
        v: Entry,
    },
    /// Lines of a page, which CLFLUSH drops on every CPU.
    Lines {
        /// Page.
        page: u8,
    },
    /// The acknowledgement of a remote call.
    Ack {
        /// Who waits.
        sender: u8,
    },
}

/// A program that waits for a grace period.
#[derive(Clone, Copy, Debug, Default)]
pub struct Later {
    /// Its index in the layout's `laters` plus one; 0 for none.
    pub run: Bits,
    /// The grace period has begun.
    pub begun: Bits,
    /// CPUs that it still waits for, a bit each.
    pub waits: Bits,
}

/// How many of a CPU's programs wait for grace periods at a time.
pub const LATERS: usize = 2;

/// Fields of one CPU.
#[derive(Clone, Debug, Default)]
pub struct CpuFields {
    /// Frames.
    pub frames: [Frame; 3],
    /// CR3: user half, ASID, mm.
    pub cr3: Bits,
    /// IF of the task frame.
    pub irqs: Bits,
    /// GSBASE is the kernel's.
    pub gs: Bits,
    /// Runs of `again` left.
    pub left: Bits,
    /// Device interrupts left, of a CPU that rests in the kernel.
    pub devices: Bits,
    /// The page whose access ended its program in a fault, plus one; then it runs nothing more.
    pub fault: Bits,
    /// Locals of its column that are asked about: their registers, and their values at its end.
    pub kept: Vec<(Reg, Bits)>,
    /// Cached leaves, by page and tag: version, 0 for none.
    pub tlb: [[Bits; 4]; MAX_TRACKED],
    /// The cached leaf has fewer rights than its page can have (SEMANTICS S4).
    pub less: [[Bits; 4]; MAX_TRACKED],
    /// What goes through the cached leaf is not cached (SEMANTICS H11).
    pub uncached: [[Bits; 4]; MAX_TRACKED],
    /// This CPU may hold a line of the page, by page.
    pub lines: [Bits; MAX_TRACKED],
    /// Cached upper entries, by page and PCID: the G bit is none of theirs (SEMANTICS H3).
    pub upper: [[Bits; 4]; MAX_TRACKED],
    /// NMIs are blocked until an IRET, without FRED; where machine checks nest, whose IRET unblocks them.
    pub nmi_blocked: Bits,
    /// Variables, this CPU's copies.
    pub vars: Vec<Bits>,
    /// Buffered stores.
    pub pending: Bits,
    /// Oldest first.
    pub stores: Vec<Bits>,
    /// What a buffered store can be.
    pub targets: Vec<Target>,
    /// Bits of a buffered store's value.
    pub value_bits: u32,
    /// Queued remote calls.
    pub queued: Bits,
    /// Oldest first: program and sender.
    pub queue: Vec<Bits>,
    /// An interrupt is pending for them.
    pub irq: Bits,
    /// Sender of the call being run, plus one.
    pub serving: Bits,
    /// Targets that have not acknowledged.
    pub waits: Bits,
    /// RCU does not watch what this CPU does at level 0.
    pub unwatched: Bits,
    /// CPUs that the grace period it has asked for still waits for.
    pub grace: Bits,
    /// Programs to run after grace periods, oldest first; none where it asks for none.
    pub later: Vec<Later>,
    /// Versions of each page below this are covered by this CPU's request.
    pub covered: [Bits; MAX_TRACKED],
    /// `user_pcid_flush_mask`, a bit per ASID, and `invalidate_other` above.
    pub owes: Bits,
    /// Variables of each ASID, by variable.
    pub asid_vars: Vec<[Bits; MAX_ASIDS]>,
    /// `ctxs[].ctx_id`: which address space each ASID holds.
    pub contexts: [Bits; MAX_ASIDS],
    /// `next_asid`.
    pub next_asid: Bits,
    /// `flush_tlb_info` of this CPU's request: address space and generation.
    pub info: (Bits, Bits),
    /// Pages of its broadcasts that no TLBSYNC has completed, a bit each; and so for each of the layout's `broadcasts`.
    pub broadcast: Bits,
    /// The column whose task runs here, or ran last; where tasks migrate.
    pub task: Bits,
    /// Its words.
    pub words: (usize, usize),
}

/// Fields all CPUs share.
#[derive(Clone, Debug, Default)]
pub struct SharedFields {
    /// NMIs left.
    pub nmis: Bits,
    /// Machine checks left.
    pub mces: Bits,
    /// Shared variables.
    pub vars: Vec<Bits>,
    /// Variables of each address space, by variable.
    pub mm_vars: Vec<[Bits; MAX_MMS]>,
    /// `mm_cpumask` of each address space.
    pub masks: [Bits; MAX_MMS],
    /// Version of each page's leaf.
    pub version: [Bits; MAX_TRACKED],
    /// 0 not present, 1 present, 2 present with less rights, 3 present and as at the start where that is asked, 4 present
    /// and uncached.
    pub kind: [Bits; MAX_TRACKED],
    /// Versions below this are promised to be out of use.
    pub dead: [Bits; MAX_TRACKED],
    /// How many stores to this part of text are buffered: told by the buffers, kept so that it is found in one place.
    pub waiting: [Bits; MAX_TRACKED],
    /// Version of the entry above.
    pub upper: [Bits; MAX_TRACKED],
    /// It is present.
    pub upper_kind: [Bits; MAX_TRACKED],
    /// Tables of versions below this are free.
    pub freed: [Bits; MAX_TRACKED],
    /// Version of the leaf in each table that the upper entry pointed to before, by that entry's version, from 1; 0 if it
    /// is absent.
    pub old_leaf: [Vec<Bits>; MAX_TRACKED],
    /// That leaf has fewer rights.
    pub old_less: [Vec<Bits>; MAX_TRACKED],
    /// The version from which on the page's frame is what it is (SEMANTICS S4); where rights change.
    pub since: [Bits; MAX_TRACKED],
    /// The last version of the page's leaf that had the type cached, 0 for none; where types change.
    pub cached_at: [Bits; MAX_TRACKED],
    /// Address spaces that were freed, a bit each.
    pub freed_mms: Bits,
}

/// A tracked page.
#[derive(Clone, Debug)]
pub struct PageInfo {
    /// Name in reports.
    pub name: String,
    /// Region.
    pub kind: PageKind,
    /// Global entries.
    pub global: bool,
    /// In the user table.
    pub user_mapped: bool,
    /// Mapped at the start.
    pub present: bool,
    /// The page of a large entry in which it lies.
    pub within: Option<usize>,
}

/// The packed state's shape.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Per CPU.
    pub cpus: Vec<CpuFields>,
    /// Shared.
    pub shared: SharedFields,
    /// Pages.
    pub pages: Vec<PageInfo>,
    /// By which paths each CPU's entries come.
    pub paths: Vec<Vec<Path>>,
    /// Upper levels are modelled.
    pub tables: bool,
    /// Some program walks in software.
    pub walks: bool,
    /// CPUs that ask for grace periods, a bit each.
    pub graces: u8,
    /// Programs that run after one.
    pub laters: Vec<ProgId>,
    /// Where the parts of each patched instruction are among the pages, if the question has it.
    pub sites: [Option<[usize; 2]>; SITES],
    /// From which page on they are parts of text.
    pub text: usize,
    /// What an INT3 of the kernel starts; where a patched instruction decides a branch.
    pub breakpoint: Option<ProgId>,
    /// Words.
    pub words: usize,
    /// Bits used per CPU, and shared.
    pub bits: (Vec<usize>, usize),
    /// Programs that remote calls run.
    pub handlers: Vec<ProgId>,
    /// Operands that broadcasts have: leaves alone, and of which ASID.
    pub broadcasts: Vec<(bool, Option<u8>)>,
    /// CPUs that write page-table entries or text, in whatever they can come to run: a bit each.
    pub writers: u8,
    /// Pages that some program accesses by itself, or walks in software, a bit each.
    pub accessed: u8,
    /// Pages whose type some program makes uncached, a bit each: lines of these are followed.
    pub typed: u8,
    /// A task goes on on another CPU.
    pub migrates: bool,
    /// ASIDs.
    pub asids: usize,
    /// Address spaces.
    pub mms: usize,
}

/// The widest state there is a machine for.
pub const MAX_WORDS: usize = 12;

impl Layout {
    /// Does the question have patched text?
    pub fn has_text(&self) -> bool {
        self.text < self.pages.len()
    }
}
