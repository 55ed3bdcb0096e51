//! Where each piece of state sits in the packed words, with widths derived from the code and the scope.
//!
//! A state is `[u64; W]`: the words of CPU 0, of CPU 1, ..., then the shared ones. Nothing is ever unpacked as a
//! whole: the machine reads and writes the few fields an op needs. A value that does not fit its field is
//! recorded, and makes the run inconclusive; it never wraps.

use std::collections::HashSet;

use super::scope::{
    Assume, CheckError, MAX_ASIDS, MAX_CPUS, MAX_PAGES, Patched, Rest, Role, Scope, UNBOUNDED,
};
use crate::kernel::program::{
    Alu, Ask, At, Code, Cond, Copies, Cr3, Entry, GENERATION_BITS, Holds, Level, Op, PageKind, Pages, Pc,
    ProgId, REGS, Set, Touch, Val,
};
use crate::kernel::step::NO_PC;

/// A bit field of a state. The zero width field reads 0 and holds nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bits {
    word: u8,
    shift: u8,
    width: u8,
}

impl Bits {
    /// Its value.
    #[inline]
    pub fn get(self, s: &[u64]) -> u64 {
        (s[usize::from(self.word)] >> self.shift) & self.max()
    }

    /// Write; `false` if the value does not fit.
    #[inline]
    #[must_use]
    pub fn put(self, s: &mut [u64], v: u64) -> bool {
        let mask = self.max();
        let w = &mut s[usize::from(self.word)];
        *w = *w & !(mask << self.shift) | (v & mask) << self.shift;
        v <= mask
    }

    /// Is it there at all?
    #[inline]
    pub fn exists(self) -> bool {
        self.width != 0
    }

    /// Largest value. No field is 64 bits wide.
    #[inline]
    pub fn max(self) -> u64 {
        (1u64 << self.width) - 1
    }
}

/// Bits needed for values up to `max`.
pub fn width(max: u64) -> u32 {
    64 - max.leading_zeros()
}

/// Hands out fields of one CPU's words, or of the shared ones.
struct Allocator {
    first: usize,
    used: Vec<u32>,
    total: usize,
}

impl Allocator {
    fn new(first: usize) -> Self {
        Allocator { first, used: vec![0], total: 0 }
    }

    fn take(&mut self, bits: u32) -> Bits {
        if bits == 0 {
            return Bits::default();
        }
        self.total += bits as usize;
        let at = self.used.iter().position(|u| u + bits <= 64).unwrap_or_else(|| {
            self.used.push(0);
            self.used.len() - 1
        });
        let shift = self.used[at];
        self.used[at] += bits;
        Bits { word: (self.first + at) as u8, shift: shift as u8, width: bits as u8 }
    }
}

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
    /// Belongs to `nmi` or `nmi_user`.
    pub nmi: bool,
    /// Executing it ends an interrupt or NMI, by IRET: the instruction stream is serialised.
    pub serialises: bool,
    /// Executing it ends the program by IRET.
    pub iret: bool,
}

impl Location {
    /// Bits its registers need.
    fn area(&self) -> u32 {
        self.regs[..usize::from(self.live)].iter().map(|r| width(u64::from(r.2))).sum()
    }
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
    /// This frame is a machine check.
    pub mce: Bits,
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
    /// The acknowledgement of a remote call.
    Ack {
        /// Who waits.
        sender: u8,
    },
}

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
    /// Cached leaves, by page and tag: version, 0 for none.
    pub tlb: [[Bits; 4]; MAX_PAGES],
    /// Cached upper entries.
    pub upper: [[Bits; 4]; MAX_PAGES],
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
    /// Versions of each page below this are covered by this CPU's request.
    pub covered: [Bits; MAX_PAGES],
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
    /// Pages of its broadcasts that no TLBSYNC has completed, a bit each.
    pub broadcast: Bits,
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
    pub version: [Bits; MAX_PAGES],
    /// 0 not present, 1 present, 2 present with less rights.
    pub kind: [Bits; MAX_PAGES],
    /// Versions below this are promised to be out of use.
    pub dead: [Bits; MAX_PAGES],
    /// Version of the entry above.
    pub upper: [Bits; MAX_PAGES],
    /// It is present.
    pub upper_kind: [Bits; MAX_PAGES],
    /// Tables of versions below this are free.
    pub freed: [Bits; MAX_PAGES],
    /// Version of the leaf in the table before the current one.
    pub old_leaf: [Bits; MAX_PAGES],
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
    /// Upper levels are modelled.
    pub tables: bool,
    /// Where the parts of the patched instruction are among the pages, if the question has text.
    pub text: Option<[usize; 2]>,
    /// Words.
    pub words: usize,
    /// Bits used per CPU, and shared.
    pub bits: (Vec<usize>, usize),
    /// Programs that remote calls run.
    pub handlers: Vec<ProgId>,
    /// ASIDs.
    pub asids: usize,
    /// Address spaces.
    pub mms: usize,
}

/// Names of programs that are NMI-like.
pub const NMI_PROGRAMS: [&str; 2] = ["nmi", "nmi_user"];
/// Names of programs that an interrupt or exception starts: they end in IRET.
const IRETS: [&str; 8] = [
    "exception",
    "exception_espfix",
    "exception_bad_iret",
    "interrupt",
    "interrupt_kernel",
    "interrupt_idle",
    "nmi",
    "nmi_user",
];
/// Names of programs that end in SYSRET, or never return: they publish nothing at their end.
const NO_IRET: [&str; 4] = ["syscall", "syscall_compat", "sysenter_compat", "enter_user"];

impl Layout {
    /// Derive the layout. `buffer` is the depth of the store buffers, `versions` the highest version.
    pub fn new(
        code: &Code,
        scope: &Scope,
        assume: Assume,
        buffer: usize,
        versions: u64,
    ) -> Result<Layout, CheckError> {
        scope.validate()?;
        let cpus = scope.roles.len();
        let (pages, text) = pages(code, scope, assume)?;
        let mms = address_spaces(code, &pages);
        let (asid_bits, mm_bits) = (width(scope.asids as u64 - 1), width(mms as u64 - 1));
        let cr3_bits = 1 + asid_bits + mm_bits;
        let nmis = scope.nmis > 0 || scope.mces > 0;
        let ambient = Ambient::new(code);
        let reg_widths = register_widths(code, (asid_bits as u8, mm_bits as u8));

        // Who sends remote calls, and with which handlers.
        let mut roots: Vec<[Vec<ProgId>; 3]> = Vec::new();
        for role in &scope.roles {
            roots.push(roots_of(code, role, nmis)?);
        }
        let mut handlers: Vec<ProgId> = code
            .ops
            .iter()
            .filter_map(|op| if let Op::Ipi { run, .. } = op { Some(*run) } else { None })
            .collect();
        handlers.sort_unstable();
        handlers.dedup();
        // Only what the scope's own programs can reach counts.
        let sends = |starts: &[Vec<ProgId>; 3]| {
            starts.iter().flatten().any(|p| {
                let p = &code.programs[usize::from(p.0)];
                code.ops[usize::from(p.start)..usize::from(p.end)]
                    .iter()
                    .any(|op| matches!(op, Op::Ipi { .. }))
            })
        };
        let senders: Vec<usize> = (0..cpus).filter(|&i| sends(&roots[i])).collect();

        let mut layout = Layout {
            cpus: Vec::new(),
            shared: SharedFields::default(),
            pages,
            tables: false,
            text,
            words: 0,
            bits: (Vec::new(), 0),
            handlers,
            asids: scope.asids,
            mms,
        };
        let version_bits = width(versions);
        let mut next_word = 0;
        let mut reached: Vec<Op> = Vec::new();
        let mut all_frames = Vec::new();
        for (i, role) in scope.roles.iter().enumerate() {
            let receives = !role.deaf && senders.iter().any(|&s| s != i || sends_to_self(code));
            let mut levels: Vec<Vec<ProgId>> = roots[i].to_vec();
            if !receives {
                let irq: Vec<_> =
                    ["interrupt", "interrupt_kernel"].iter().filter_map(|n| code.program(n)).collect();
                for l in &mut levels {
                    l.retain(|p| !irq.contains(p));
                }
                if levels[1].is_empty() || scope.mces == 0 {
                    levels[2].clear();
                }
            }
            let frames: Vec<_> =
                levels.iter().map(|starts| reach(code, starts, &layout.handlers, receives)).collect();
            for (set, _) in &frames {
                reached.extend(set.iter().map(|&(pc, _)| code.ops[usize::from(pc)]));
            }
            all_frames.push((receives, frames));
        }
        layout.tables =
            reached.iter().any(|op| matches!(op, Op::Pte { level: Level::Table, .. } | Op::FreeTable(_)));
        for (i, role) in scope.roles.iter().enumerate() {
            let mut a = Allocator::new(next_word);
            let (receives, frames) = &all_frames[i];
            let ops_of = |level: usize| frames[level].0.iter().map(|&(pc, _)| code.ops[usize::from(pc)]);
            let ops: Vec<Op> = (0..3).flat_map(ops_of).collect();
            let mut c = CpuFields::default();
            for (level, (set, rets)) in frames.iter().enumerate() {
                if set.is_empty() {
                    continue;
                }
                c.frames[level] = frame(code, set, rets, &ambient, &reg_widths);
                let f = &mut c.frames[level];
                f.at = a.take(width(f.locations.len() as u64));
                let area = f.locations.iter().map(Location::area).max().unwrap_or(0);
                f.area = a.take(area);
                if f.locations.iter().any(|l| l.cur) {
                    f.cur = a.take(width(cpus as u64));
                }
                if f.locations.iter().any(|l| l.visited) {
                    f.visited = a.take(cpus as u32);
                }
                if f.locations.iter().any(|l| l.targets) {
                    f.targets = a.take(cpus as u32);
                }
                if scope.mces > 0 {
                    f.mce = a.take(1);
                }
            }
            c.cr3 = a.take(cr3_bits);
            c.irqs = a.take(1);
            c.gs = a.take(1);
            c.left = a.take(if role.left == UNBOUNDED { 0 } else { width(u64::from(role.left)) });
            for (p, page) in layout.pages.iter().enumerate() {
                for t in 0..tags(page, scope.asids) {
                    c.tlb[p][t] = a.take(version_bits);
                    if layout.tables {
                        c.upper[p][t] = a.take(version_bits);
                    }
                }
            }
            for v in &code.vars {
                let here = v.copies == Copies::Cpu;
                c.vars.push(if here { a.take(u32::from(v.bits)) } else { Bits::default() });
            }
            // Remote calls.
            let from: Vec<usize> =
                senders.iter().copied().filter(|&s| s != i || sends_to_self(code)).collect();
            if *receives && !from.is_empty() {
                c.queued = a.take(width(from.len() as u64));
                let entry = width(layout.handlers.len() as u64 * cpus as u64 - 1);
                c.queue = from.iter().map(|_| a.take(entry)).collect();
                c.irq = a.take(1);
                c.serving = a.take(width(cpus as u64));
            }
            if ops.iter().any(|op| matches!(op, Op::Ipi { .. } | Op::Rar(_))) {
                c.waits = a.take(cpus as u32);
            }
            if ops.iter().any(|op| matches!(op, Op::Request(_))) {
                for p in 0..layout.pages.len() {
                    c.covered[p] = a.take(version_bits);
                }
            }
            let owes = ops.iter().any(|op| matches!(op, Op::OweUser | Op::OweOthers));
            if owes {
                c.owes = a.take(scope.asids as u32 + 1);
            }
            let chooses = ops.iter().any(|op| matches!(op, Op::Ask { what: Ask::AsidFor(_), .. }));
            if chooses {
                for asid in 0..scope.asids {
                    c.contexts[asid] = a.take(width(mms as u64 - 1));
                }
                c.next_asid = a.take(width(scope.asids as u64));
            }
            for v in &code.vars {
                let mut copies = [Bits::default(); MAX_ASIDS];
                if v.copies == Copies::Asid {
                    copies[..scope.asids].fill_with(|| a.take(u32::from(v.bits)));
                }
                c.asid_vars.push(copies);
            }
            if ops.iter().any(|op| matches!(op, Op::FlushInfo { .. })) {
                c.info = (a.take(width(mms as u64 - 1)), a.take(u32::from(GENERATION_BITS)));
            }
            if ops.iter().any(|op| matches!(op, Op::Invlpgb(_) | Op::InvlpgbAll)) {
                c.broadcast = a.take(layout.pages.len() as u32);
            }
            // Store buffer.
            let pages = layout.pages.len() - text.map_or(0, |t| t.len());
            c.targets = store_targets(&ops, i, role, (cpus, mms, pages), text, &scope.frames);
            if *receives && !c.queue.is_empty() {
                c.targets.extend(from.iter().map(|&s| Target::Ack { sender: s as u8 }));
            }
            let stores = c.targets.iter().any(|t| !matches!(t, Target::Ack { .. }));
            if stores && buffer > 0 {
                c.value_bits = c
                    .targets
                    .iter()
                    .map(|t| {
                        if let Target::Field { field, .. } = t {
                            u32::from(code.fields[usize::from(*field)].bits)
                        } else {
                            0
                        }
                    })
                    .max()
                    .unwrap_or(0);
                let entry = width(c.targets.len() as u64 - 1) + c.value_bits;
                c.pending = a.take(width(buffer as u64));
                c.stores = (0..buffer).map(|_| a.take(entry.max(1))).collect();
            } else {
                c.targets.clear();
            }
            c.words = (next_word, a.used.len());
            next_word += a.used.len();
            layout.bits.0.push(a.total);
            layout.cpus.push(c);
        }
        let mut a = Allocator::new(next_word);
        let s = &mut layout.shared;
        s.nmis = a.take(width(u64::from(scope.nmis)));
        s.mces = a.take(width(u64::from(scope.mces)));
        for v in &code.vars {
            let here = v.copies == Copies::One;
            s.vars.push(if here { a.take(u32::from(v.bits)) } else { Bits::default() });
            let mut copies = [Bits::default(); MAX_MMS];
            if v.copies == Copies::Mm {
                copies[..mms].fill_with(|| a.take(u32::from(v.bits)));
            }
            s.mm_vars.push(copies);
        }
        if reached.iter().any(|op| matches!(op, Op::Mask { .. })) {
            // init_mm is in nobody's mask, and 1 is no address space.
            for mask in &mut s.masks[2.min(mms)..mms] {
                *mask = a.take(cpus as u32);
            }
        }
        if reached.iter().any(|op| matches!(op, Op::FreeMm(_))) {
            s.freed_mms = a.take(layout.mms as u32);
        }
        for p in 0..layout.pages.len() {
            s.version[p] = a.take(version_bits);
            s.kind[p] = a.take(2);
            s.dead[p] = a.take(version_bits);
            if layout.tables {
                s.upper[p] = a.take(version_bits);
                s.upper_kind[p] = a.take(1);
                s.freed[p] = a.take(version_bits);
                s.old_leaf[p] = a.take(version_bits);
            }
        }
        layout.bits.1 = a.total;
        layout.words = next_word + a.used.len();
        Ok(layout)
    }
}

/// Tags a page's translations can carry: kernel half of each ASID, then user half; one for global pages.
pub fn tags(page: &PageInfo, asids: usize) -> usize {
    if page.global { 1 } else { asids * (1 + usize::from(page.user_mapped)) }
}

/// The tracked pages, and where the patched instruction is among them. A question about text alone tracks no
/// other page: no bit of state for what nothing changes.
fn pages(
    code: &Code,
    scope: &Scope,
    assume: Assume,
) -> Result<(Vec<PageInfo>, Option<[usize; 2]>), CheckError> {
    let ops = || scope.roles.iter().flat_map(|r| [&r.first, &r.again]).flat_map(|name| code.ops_of(name));
    let is_range = |op: &Op| match op {
        Op::Pte { pages, .. } | Op::Request(pages) | Op::Promise(pages) => !matches!(pages, Pages::Text(_)),
        _ => false,
    };
    if !has_text(code, scope) {
        return Ok((mapped_pages(code, scope)?, None));
    }
    let mut pages =
        if ops().any(is_range) || !code.pages.is_empty() { mapped_pages(code, scope)? } else { Vec::new() };
    let text = [pages.len(), pages.len() + 1];
    for name in ["head", "tail"] {
        pages.push(PageInfo {
            name: name.into(),
            kind: PageKind::Text,
            global: true,
            user_mapped: assume.text == Patched::Noinstr,
            present: true,
        });
    }
    if pages.len() > MAX_PAGES {
        return Err(CheckError::Bound {
            what: "the number of pages, head and tail of the patched instruction among them",
            least: 2,
            most: MAX_PAGES,
            got: pages.len(),
        });
    }
    Ok((pages, Some(text)))
}

/// Do the scope's programs write or run patched text?
fn has_text(code: &Code, scope: &Scope) -> bool {
    scope
        .roles
        .iter()
        .flat_map(|r| [&r.first, &r.again])
        .flat_map(|name| code.ops_of(name))
        .any(|op| matches!(op, Op::Pte { pages: Pages::Text(_), .. } | Op::Touch(Touch::Text)))
}

fn mapped_pages(code: &Code, scope: &Scope) -> Result<Vec<PageInfo>, CheckError> {
    if code.pages.len() > MAX_PAGES {
        return Err(CheckError::Bound {
            what: "the number of pages",
            least: 1,
            most: MAX_PAGES,
            got: code.pages.len(),
        });
    }
    if !code.pages.is_empty() {
        return Ok(code
            .pages
            .iter()
            .map(|p| PageInfo {
                name: p.name.clone(),
                kind: p.kind,
                global: p.global,
                user_mapped: p.user_mapped,
                present: p.present,
            })
            .collect());
    }
    Ok((0..scope.pages)
        .map(|i| PageInfo {
            name: if scope.pages == 1 { "va".into() } else { format!("va{i}") },
            kind: PageKind::Vmalloc,
            global: false,
            user_mapped: false,
            present: true,
        })
        .collect())
}

/// Programs each level of a CPU can start.
fn roots_of(code: &Code, role: &Role, nmis: bool) -> Result<[Vec<ProgId>; 3], CheckError> {
    let need = |name: &str| {
        code.program(name)
            .ok_or_else(|| CheckError::NoProgram { policy: code.name.clone(), program: name.into() })
    };
    let mut levels: [Vec<ProgId>; 3] = [vec![need(&role.first)?], Vec::new(), Vec::new()];
    if role.left > 0 {
        levels[0].push(need(&role.again)?);
    }
    if role.deaf {
        return Ok(levels);
    }
    if role.rest == Rest::User {
        levels[0].push(need("interrupt")?);
        if nmis {
            levels[0].push(need("nmi_user")?);
        }
    }
    levels[1].push(need("interrupt_kernel")?);
    if nmis {
        levels[1].push(need("nmi")?);
        levels[2].push(need("nmi")?);
    }
    Ok(levels)
}

fn sends_to_self(code: &Code) -> bool {
    // A set that can hold the sender: `online` itself, or `targets` collected over it.
    code.ops.iter().any(|op| {
        matches!(
            op,
            Op::Ipi { to: Set::Online, .. } | Op::Loop(Set::Online | Set::Housekeeping | Set::NohzFull)
        )
    })
}

type Locations = (Vec<(Pc, Pc)>, Vec<Pc>);

/// Every location the programs reach, in a fixed order, and the return addresses.
fn reach(code: &Code, starts: &[ProgId], handlers: &[ProgId], receives: bool) -> Locations {
    let mut seen: HashSet<(Pc, Pc)> = HashSet::new();
    let mut todo: Vec<(Pc, Pc)> = starts.iter().map(|&p| (code.start(p), NO_PC)).collect();
    while let Some(at) = todo.pop() {
        if !seen.insert(at) {
            continue;
        }
        let (pc, ret) = at;
        match code.ops[usize::from(pc)] {
            Op::Jump(to) => todo.push((to, ret)),
            Op::Unless { to, .. } => todo.extend([(to, ret), (pc + 1, ret)]),
            Op::Each { done, .. } => todo.extend([(done, ret), (pc + 1, ret)]),
            Op::Return if ret == NO_PC => {}
            Op::Return => todo.push((ret, NO_PC)),
            Op::HandleCalls => {
                todo.push((pc + 1, ret));
                if receives {
                    todo.extend(handlers.iter().map(|&h| (code.start(h), pc)));
                }
            }
            _ => todo.push((pc + 1, ret)),
        }
    }
    let mut set: Vec<(Pc, Pc)> = seen.into_iter().collect();
    set.sort_unstable_by_key(|&(pc, ret)| (ret != NO_PC, pc, ret));
    let mut rets: Vec<Pc> = set.iter().map(|x| x.1).collect();
    rets.sort_unstable();
    rets.dedup();
    (set, rets)
}

fn frame(code: &Code, set: &[(Pc, Pc)], rets: &[Pc], ambient: &Ambient, widths: &[[u8; REGS]]) -> Frame {
    let n = code.ops.len();
    let mut index = vec![0u16; n * rets.len()];
    let mut locations = Vec::new();
    for (i, &(pc, ret)) in set.iter().enumerate() {
        let slot = rets.iter().position(|&r| r == ret).expect("listed");
        index[slot * n + usize::from(pc)] = i as u16 + 1;
        let at = usize::from(pc);
        let mut regs = [(0, 0, 0); REGS];
        let (mut shift, mut live) = (0u8, 0u8);
        for (r, &width) in widths[at].iter().enumerate() {
            if code.live[at] & 1 << r != 0 && width > 0 {
                regs[usize::from(live)] = (r as u8, shift, u32::MAX >> (32 - width));
                live += 1;
                shift += width;
            }
        }
        let program = code.program_of(pc).map_or("", |p| p.name.as_str());
        locations.push(Location {
            pc,
            ret,
            op: code.ops[at],
            regs,
            live,
            cur: ambient.cur[at],
            visited: ambient.visited[at],
            targets: ambient.targets[at],
            nmi: NMI_PROGRAMS.contains(&program),
            serialises: code.ops[at] == Op::Return && ret == NO_PC && IRETS.contains(&program),
            iret: code.ops[at] == Op::Return && ret == NO_PC && !NO_IRET.contains(&program),
        });
    }
    let plain = n * rets.iter().position(|&r| r == NO_PC).unwrap_or(0);
    Frame { locations, index, rets: rets.to_vec(), plain, ..Frame::default() }
}

/// Liveness, before each op, of what a frame keeps beside its registers.
struct Ambient {
    cur: Vec<bool>,
    visited: Vec<bool>,
    targets: Vec<bool>,
}

impl Ambient {
    fn new(code: &Code) -> Self {
        let place_is_cur = |op: Op| match op {
            Op::Load { from: p, .. }
            | Op::Store { to: p, .. }
            | Op::Rmw { at: p, .. }
            | Op::Cas { at: p, .. } => p.at == At::Cur,
            Op::Await { at, .. } => at.at == At::Cur,
            Op::Put | Op::Unless { c: Cond::CurIn(_) | Cond::CurIsMe, .. } => true,
            _ => false,
        };
        let uses_targets = |op: Op| {
            matches!(
                op,
                Op::Ipi { to: Set::Targets, .. }
                    | Op::Rar(Set::Targets)
                    | Op::Put
                    | Op::Loop(Set::Targets)
                    | Op::Each { of: Set::Targets, .. }
                    | Op::Unless {
                        c: Cond::Empty(Set::Targets) | Cond::MeIn(Set::Targets) | Cond::CurIn(Set::Targets),
                        ..
                    }
            )
        };
        Ambient {
            cur: live(code, place_is_cur, |op| matches!(op, Op::Each { .. })),
            visited: live(code, |op| matches!(op, Op::Each { .. }), |op| matches!(op, Op::Loop(_))),
            targets: live(code, uses_targets, |op| op == Op::Clear),
        }
    }
}

/// Backwards: used before it is set.
fn live(code: &Code, used: impl Fn(Op) -> bool, set: impl Fn(Op) -> bool) -> Vec<bool> {
    let n = code.ops.len();
    let mut out = vec![false; n + 1];
    let mut changed = true;
    while changed {
        changed = false;
        for i in (0..n).rev() {
            let op = code.ops[i];
            let after = match op {
                Op::Unless { to, .. } => out[i + 1] || out[usize::from(to)],
                Op::Each { done, .. } => out[i + 1] || out[usize::from(done)],
                Op::Jump(to) => out[usize::from(to)],
                Op::Return => false,
                _ => out[i + 1],
            };
            let now = used(op) || after && !set(op);
            changed |= now != out[i];
            out[i] = now;
        }
    }
    out
}

/// How many bits each register can hold before each op; forwards until nothing changes.
fn register_widths(code: &Code, (asid_bits, mm_bits): (u8, u8)) -> Vec<[u8; REGS]> {
    let cr3_bits = 1 + asid_bits + mm_bits;
    let n = code.ops.len();
    let mut w = vec![[0u8; REGS]; n];
    let field = |f: u8| code.fields[usize::from(f)].bits;
    let mut changed = true;
    while changed {
        changed = false;
        for i in 0..n {
            let op = code.ops[i];
            let before = w[i];
            let of = |v: Val| match v {
                Val::Imm(n) => width(u64::from(n)) as u8,
                Val::Reg(r) => before[usize::from(r.0)],
            };
            let mut after = before;
            match op {
                Op::Move { to, v } => after[usize::from(to.0)] = of(v),
                Op::Alu { f, to, a, b } => {
                    let (x, y) = (before[usize::from(a.0)], of(b));
                    after[usize::from(to.0)] = match f {
                        Alu::And => x.min(y),
                        Alu::Add => (x.max(y) + 1).min(16),
                        Alu::Sub | Alu::Or | Alu::Xor => x.max(y),
                    };
                }
                Op::LoadPage { to, .. } => {
                    after[usize::from(to.0)] = code.vars.iter().map(|v| v.bits).max().unwrap_or(1);
                }
                Op::Load { to, from: p } | Op::Rmw { to, at: p, .. } | Op::Cas { to, at: p, .. } => {
                    after[usize::from(to.0)] = field(p.field);
                }
                Op::Ask { to, what } => {
                    after[usize::from(to.0)] = match what {
                        Ask::NextMm | Ask::FlushMm | Ask::InfoMm => mm_bits,
                        Ask::InfoGen => GENERATION_BITS,
                        Ask::LoadedAsid | Ask::AsidFor(_) => asid_bits,
                    }
                }
                Op::ReadGs(to) => after[usize::from(to.0)] = 1,
                Op::ReadCr3(to) => after[usize::from(to.0)] = cr3_bits,
                _ => {}
            }
            let mut join = |to: usize| {
                if to < n {
                    for r in 0..REGS {
                        if after[r] > w[to][r] {
                            w[to][r] = after[r];
                            changed = true;
                        }
                    }
                }
            };
            match op {
                Op::Unless { to, .. } => {
                    join(usize::from(to));
                    join(i + 1);
                }
                Op::Each { done, .. } => {
                    join(usize::from(done));
                    join(i + 1);
                }
                Op::Jump(to) => join(usize::from(to)),
                Op::Return => {}
                _ => join(i + 1),
            }
        }
    }
    w
}

fn store_targets(
    ops: &[Op],
    me: usize,
    role: &Role,
    (cpus, mms, pages): (usize, usize, usize),
    text: Option<[usize; 2]>,
    frames: &[Vec<u8>],
) -> Vec<Target> {
    let mut out = Vec::new();
    let mut add = |t: Target| {
        if !out.contains(&t) {
            out.push(t);
        }
    };
    for op in ops {
        match *op {
            Op::Store { to, .. } => match to.at {
                At::Shared => add(Target::Field { field: to.field, owner: 0 }),
                At::Me => add(Target::Field { field: to.field, owner: me as u8 }),
                At::Cur => (0..cpus).for_each(|c| add(Target::Field { field: to.field, owner: c as u8 })),
                At::Mm(_) => (0..mms).for_each(|m| add(Target::Field { field: to.field, owner: m as u8 })),
                // Nobody else reads it: it is written at once.
                At::Asid(_) => {}
            },
            Op::StorePage { page, .. } => {
                for &field in frames.get(usize::from(page)).map_or(&[][..], Vec::as_slice) {
                    add(Target::Field { field, owner: 0 });
                }
            }
            Op::Pte { pages: which, level, v, locked: false } => match which {
                Pages::One(p) => add(Target::Entry { page: p, level, v }),
                Pages::Range => (0..pages)
                    .filter(|p| role.own & 1 << p != 0)
                    .for_each(|p| add(Target::Entry { page: p as u8, level, v })),
                Pages::Text(part) => {
                    if let Some(at) = text {
                        add(Target::Entry { page: at[part as usize] as u8, level, v });
                    }
                }
            },
            _ => {}
        }
    }
    out
}

/// Most address spaces: `user of N` goes to 3.
pub const MAX_MMS: usize = 4;

/// How many address spaces a scope has, `init_mm` and the number that says "switching" included.
fn address_spaces(code: &Code, pages: &[PageInfo]) -> usize {
    let user = |kind| if let PageKind::User(n) = kind { usize::from(n) + 1 } else { 1 };
    let of_pages = pages.iter().map(|p| user(p.kind)).max().unwrap_or(1);
    let used = code.ops.iter().map(|op| match *op {
        Op::Ask { what: Ask::NextMm | Ask::FlushMm, .. } => 3,
        Op::MovCr3 { to: Cr3::Mm { mm: Val::Imm(mm), .. }, .. } | Op::FreeMm(mm) => usize::from(mm) + 1,
        Op::MovCr3 { to: Cr3::Mm { mm: Val::Reg(_), .. }, .. } => 2,
        _ => 1,
    });
    of_pages.max(used.max().unwrap_or(1))
}

/// The code with variables that hold numbers of address spaces as wide as the scope needs.
pub fn narrow(code: &Code, scope: &Scope, assume: Assume) -> Result<Code, CheckError> {
    let mut code = code.clone();
    let mms = address_spaces(&code, &pages(&code, scope, assume)?.0);
    for (i, v) in code.vars.iter_mut().enumerate().filter(|(_, v)| v.holds == Holds::Mm) {
        v.bits = width(mms as u64 - 1).max(1) as u8;
        for f in code.fields.iter_mut().filter(|f| usize::from(f.var) == i) {
            f.bits = v.bits;
        }
    }
    Ok(code)
}

/// Are versions renamed (SEMANTICS S1)? They must be where page-table entries are written without bound.
pub fn renames(code: &Code, scope: &Scope) -> Result<bool, CheckError> {
    let writes = |r: &Role| code.ops_of(&r.again).iter().any(|op| matches!(op, Op::Pte { .. }));
    let renamed = scope.rename || scope.roles.iter().any(|r| r.left == UNBOUNDED && writes(r));
    let counts = |r: &Role| code.ops_of(&r.again).iter().any(|op| matches!(op, Op::FlushInfo { .. }));
    match renamed {
        true if has_text(code, scope) => Err(CheckError::Unbounded("patched text")),
        // `tlb_gen` and what flushes carry of it only grow: without bound they fit no width.
        true if scope.roles.iter().any(|r| r.left == UNBOUNDED && counts(r)) => {
            Err(CheckError::Unbounded("the generation of an address space"))
        }
        true if !scope.frames.is_empty() => Err(CheckError::Unbounded("the data of `frames`")),
        renamed => Ok(renamed),
    }
}

/// The highest version the scope's programs can give one page: the initial one is 1, text counts as in [`TEXT`].
/// Renamed ones are at most one for what is dead, for each flush under way, and for what is current; and one more
/// for each store in a buffer that a flush counts on.
pub fn versions_needed(code: &Code, scope: &Scope) -> u64 {
    if renames(code, scope) == Ok(true) {
        return scope.roles.len() as u64 + 6;
    }
    let mut pages = 1;
    let mut text = [TEXT.initial + 1; 2];
    for role in &scope.roles {
        for (name, times) in [(&role.first, 1), (&role.again, u64::from(role.left))] {
            for op in code.ops_of(name) {
                match op {
                    Op::Pte { pages: Pages::Text(_), v: Entry::Int3, .. } => {}
                    Op::Pte { pages: Pages::Text(part), .. } => text[*part as usize] += TEXT.step * times,
                    Op::Pte { .. } => pages += times,
                    _ => {}
                }
            }
        }
    }
    if has_text(code, scope) { pages.max(text[0]).max(text[1]) } else { pages }
}

/// How versions of text count: whole instructions have even ones, equal in head and tail; an INT3 makes the
/// head's odd.
pub struct TextVersions {
    /// At the start.
    pub initial: u64,
    /// From one instruction to the next.
    pub step: u64,
}

impl TextVersions {
    /// Is it a version of a whole instruction, not of an INT3?
    pub fn is_whole(&self, version: u64) -> bool {
        version.is_multiple_of(self.step)
    }
}

/// How versions of text count.
pub const TEXT: TextVersions = TextVersions { initial: 2, step: 2 };

/// The widest state there is a machine for.
pub const MAX_WORDS: usize = 12;

/// Most CPUs, for arrays elsewhere.
pub const CPUS: usize = MAX_CPUS;
