//! The abstract machine: `kernel::step::Machine` on a packed state.
//!
//! Invariant: everything a method does depends on the state, the model and the pick of the action; nothing is
//! remembered between transitions, so two equal states have equal futures.

use super::layout::{Bits, CpuFields, Frame, Layout, PageInfo, TEXT, Target, tags};
use super::scope::{Assume, Patched, Rest, Role, Scope, Touches};
use crate::kernel::program::{
    Ask, At, Code, Copies, Cr3, Entry, Invpcid, Level, NoFlush, Op, PageKind, Pages, PcidOf, ProgId, REGS,
    Set, Slot, Touch, Zone,
};
use crate::kernel::step::{self, Cpu, Invalidate, Machine, NO_CPU, Order, Outcome, Violation};

/// Everything that stays the same during a search.
#[derive(Clone, Debug)]
pub struct Model {
    /// What the CPUs run.
    pub code: Code,
    /// Bounds.
    pub scope: Scope,
    /// Assumptions.
    pub assume: Assume,
    /// Where things are.
    pub layout: Layout,
    /// Entry points by name, looked up once.
    pub entry: Entries,
    /// Zones whose accesses look at a tracked page, a bit each.
    pub checked_zones: u8,
    /// Ops that commute with everything else happen with the op before them.
    pub fuse: bool,
    /// Versions are renamed, so that their number stays bounded (SEMANTICS S1).
    pub renamed: bool,
    /// The user table maps no tracked page.
    pub nothing_user: bool,
    /// Fields of variables whose copies only their own CPU writes.
    pub private: Vec<bool>,
    /// CPUs whose programs write page-table entries.
    pub writers: usize,
    /// Page-table isolation is on.
    pub pti: bool,
    /// CR4.PCIDE is set.
    pub pcid: bool,
    /// CPUs in `nohz_full`, in the flush mask, in `housekeeping`, and all: a bit each.
    pub masks: [u8; 4],
}

/// Programs the model starts by name.
#[derive(Clone, Copy, Debug, Default)]
pub struct Entries {
    /// `interrupt`, from user mode.
    pub interrupt: Option<ProgId>,
    /// `interrupt_kernel`.
    pub interrupt_kernel: Option<ProgId>,
    /// `nmi_user`.
    pub nmi_user: Option<ProgId>,
    /// `nmi`.
    pub nmi: Option<ProgId>,
}

/// Things worth having seen, so that a pass is not vacuous; and findings that do not end a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(pub u32);

impl Seen {
    /// A flush left some CPU out.
    pub const DEFERRED: u32 = 1;
    /// A remote call was queued.
    pub const IPI: u32 = 2;
    /// A CPU held a translation of a version promised to be out of use.
    pub const STALE: u32 = 4;
    /// An NMI from user mode.
    pub const NMI_USER: u32 = 8;
    /// An NMI at CPL 0 under the user CR3.
    pub const NMI_USER_CR3: u32 = 16;
    /// An NMI at CPL 0 under the kernel CR3.
    pub const NMI_KERNEL: u32 = 32;
    /// A %gs-relative access under the user's GSBASE.
    pub const WRONG_GS: u32 = 64;
    /// A store found the buffer full: the search must be repeated with a deeper one.
    pub const FULL: u32 = 128;
    /// A value did not fit.
    pub const OVERFLOW: u32 = 256;
    /// A flush completed and the address was handed on.
    pub const PROMISED: u32 = 512;
    /// A CPU had fetched text that a sync promised to be out of use.
    pub const STALE_TEXT: u32 = 1024;

    /// The witness of a dead copy of a page of this kind.
    pub fn stale(kind: PageKind) -> u32 {
        if kind == PageKind::Text { Self::STALE_TEXT } else { Self::STALE }
    }

    /// Sentences for the `sometimes` witnesses.
    pub const WITNESSES: [(u32, &'static str); 8] = [
        (Self::PROMISED, "a flush was completed"),
        (Self::IPI, "a CPU was interrupted for a flush"),
        (Self::DEFERRED, "a flush left a CPU out"),
        (Self::STALE, "a CPU held a dead translation"),
        (Self::STALE_TEXT, "a CPU had fetched text that a sync made dead"),
        (Self::NMI_USER, "an NMI came from user mode"),
        (Self::NMI_USER_CR3, "an NMI hit the kernel under the user CR3"),
        (Self::NMI_KERNEL, "an NMI hit the kernel under the kernel CR3"),
    ];
}

/// One transition in progress.
pub struct Abs<'a, const W: usize> {
    /// The model.
    pub m: &'a Model,
    /// The state being changed.
    pub s: [u64; W],
    /// Frame level that runs.
    pub level: usize,
    /// Which CPU a loop goes to next.
    pub pick: Option<Cpu>,
    /// What was seen.
    pub seen: u32,
    /// CPUs whose words were read or written beside those of the one that acts, a bit each.
    pub others: u8,
}

/// The kernel's own address space.
pub const INIT_MM: u64 = 0;

/// No address space: the number that `loaded_mm` has while one is switched.
pub const NO_MM: u64 = 1;

/// Bit of a CR3 word: the user half.
pub const CR3_USER: u64 = 1;

impl Model {
    /// ASID of a CR3 word.
    #[inline]
    pub fn asid(&self, cr3: u64) -> usize {
        (cr3 >> 1) as usize & (self.layout.asids - 1)
    }

    /// Address space of a CR3 word.
    #[inline]
    pub fn mm(&self, cr3: u64) -> usize {
        (cr3 >> (1 + u32::from(self.layout.asids > 1))) as usize
    }

    /// The slot that holds a page's translation under a CR3, if that table maps it.
    #[inline]
    pub fn slot(&self, page: &PageInfo, cr3: u64) -> Option<usize> {
        let user = cr3 & CR3_USER != 0;
        if user && !page.user_mapped {
            None
        } else if page.global {
            Some(0)
        } else {
            Some(self.asid(cr3) + if user { self.layout.asids } else { 0 })
        }
    }

    /// Does the table of this CR3 map the page (if it is present at all)?
    #[inline]
    pub fn maps(&self, page: &PageInfo, cr3: u64) -> bool {
        match page.kind {
            PageKind::User(mm) => self.mm(cr3) == usize::from(mm),
            _ => true,
        }
    }

    /// May code of this zone use pages of this kind?
    pub fn zone_may(&self, zone: Zone, kind: PageKind) -> bool {
        let by = |t: Touches| match (t, kind) {
            (Touches::None, _) | (_, PageKind::User(_) | PageKind::Text) => false,
            (Touches::DirectMap, k) => k == PageKind::DirectMap,
            (Touches::Recycled, k) => matches!(k, PageKind::DirectMap | PageKind::Vmalloc),
        };
        if kind == PageKind::Text {
            return match zone {
                Zone::Entry => self.assume.text == Patched::Noinstr,
                Zone::Danger => self.assume.text >= Patched::Danger,
                Zone::Nmi | Zone::Kernel => true,
                Zone::PerCpu | Zone::Stack | Zone::User => false,
            };
        }
        match zone {
            Zone::Entry | Zone::PerCpu | Zone::Stack => kind == PageKind::EntryArea && zone == Zone::Entry,
            Zone::Danger => by(self.assume.danger),
            Zone::Nmi => by(self.assume.nmi),
            Zone::Kernel => !matches!(kind, PageKind::User(_)),
            Zone::User => matches!(kind, PageKind::User(_)),
        }
    }

    /// The zone an op's access is in, if it is one.
    pub fn zone_of(op: Op) -> Option<Zone> {
        match op {
            Op::Touch(Touch::Zone(z)) => Some(z),
            Op::Body(Slot::Syscall | Slot::Interrupt) => Some(Zone::Kernel),
            Op::Body(Slot::Nmi) => Some(Zone::Nmi),
            Op::Body(Slot::Idle) => Some(Zone::Danger),
            _ => None,
        }
    }

    /// The role of a CPU.
    pub fn role(&self, cpu: usize) -> &Role {
        &self.scope.roles[cpu]
    }
}

impl<'a, const W: usize> Abs<'a, W> {
    /// Start a transition.
    #[inline]
    pub fn new(m: &'a Model, s: [u64; W]) -> Self {
        Abs { m, s, level: 0, pick: None, seen: 0, others: 0 }
    }

    #[inline]
    fn c(&self, cpu: Cpu) -> &'a CpuFields {
        &self.m.layout.cpus[usize::from(cpu)]
    }

    #[inline]
    fn f(&self, cpu: Cpu) -> &'a Frame {
        &self.c(cpu).frames[self.level]
    }

    /// Read a field.
    #[inline]
    pub fn get(&self, b: Bits) -> u64 {
        b.get(&self.s)
    }

    /// Write a field.
    #[inline]
    pub fn set(&mut self, b: Bits, v: u64) {
        if !b.put(&mut self.s, v) {
            self.seen |= Seen::OVERFLOW;
        }
    }

    /// The level of the topmost frame; `None` at rest.
    #[inline]
    pub fn top(&self, cpu: usize) -> Option<usize> {
        let c = &self.m.layout.cpus[cpu];
        if c.frames[2].at.get(&self.s) != 0 {
            Some(2)
        } else if c.frames[1].at.get(&self.s) != 0 {
            Some(1)
        } else {
            (c.frames[0].at.get(&self.s) != 0).then_some(0)
        }
    }

    /// Start a program in a frame.
    pub fn enter(&mut self, cpu: usize, level: usize, program: ProgId) {
        let f = &self.m.layout.cpus[cpu].frames[level];
        self.set(f.at, f.number(self.m.code.start(program), step::NO_PC));
    }

    /// Decode the frame at a level.
    #[inline]
    fn load(&self, cpu: usize, level: usize) -> step::Frame {
        let f = &self.m.layout.cpus[cpu].frames[level];
        let at = &f.locations[self.get(f.at) as usize - 1];
        let mut regs = [0; REGS];
        let area = self.get(f.area);
        for &(r, shift, mask) in &at.regs[..usize::from(at.live)] {
            regs[usize::from(r)] = area >> shift & u64::from(mask);
        }
        let cur = if f.cur.exists() && at.cur { self.get(f.cur) as Cpu } else { NO_CPU };
        let cur = if usize::from(cur) >= self.m.layout.cpus.len() { NO_CPU } else { cur };
        step::Frame { pc: at.pc, ret: at.ret, cur, regs }
    }

    fn store(&mut self, cpu: usize, level: usize, frame: &step::Frame) {
        let f = &self.m.layout.cpus[cpu].frames[level];
        let number = f.number(frame.pc, frame.ret);
        debug_assert!(number != 0, "every location a program reaches has a number");
        let at = &f.locations[number as usize - 1];
        let mut area = 0;
        for &(r, shift, mask) in &at.regs[..usize::from(at.live)] {
            let v = frame.regs[usize::from(r)];
            let mask = u64::from(mask);
            if v > mask {
                self.seen |= Seen::OVERFLOW;
            }
            area |= (v & mask) << shift;
        }
        self.set(f.at, number);
        self.set(f.area, area);
        if f.cur.exists() {
            let cur = if at.cur && frame.cur != NO_CPU {
                u64::from(frame.cur)
            } else {
                self.m.layout.cpus.len() as u64
            };
            self.set(f.cur, cur);
        }
        if !at.visited {
            self.set(f.visited, 0);
        }
        if !at.targets {
            self.set(f.targets, 0);
        }
    }

    /// Execute the next op of a CPU's topmost frame.
    pub fn run(&mut self, cpu: usize, level: usize) -> Outcome {
        self.level = level;
        let mut frame = self.load(cpu, level);
        let outcome = step::step(&self.m.code, &mut frame, self, cpu as Cpu);
        match outcome {
            Outcome::Next => self.store(cpu, level, &frame),
            Outcome::Done => self.done(cpu, level),
            Outcome::Wait | Outcome::Violated(_) => {}
        }
        outcome
    }

    fn done(&mut self, cpu: usize, level: usize) {
        let c = &self.m.layout.cpus[cpu];
        let f = &c.frames[level];
        if f.locations[self.get(f.at) as usize - 1].serialises {
            self.drop_text(cpu);
        }
        for b in [f.at, f.area, f.cur, f.visited, f.targets, f.mce] {
            self.set(b, 0);
        }
        if level == 0 {
            self.set(c.irqs, 1);
        }
    }

    /// The op a CPU would execute next.
    #[inline]
    pub fn next_op(&self, cpu: usize, level: usize) -> (u16, Op) {
        let f = &self.m.layout.cpus[cpu].frames[level];
        let at = &f.locations[self.get(f.at) as usize - 1];
        (at.pc, at.op)
    }

    // -- memory ------------------------------------------------------------------------------------------

    fn place(&mut self, cpu: usize, field: u8, owner: usize) -> (Bits, u8, u64) {
        let f = &self.m.code.fields[usize::from(field)];
        let var = usize::from(f.var);
        let l = &self.m.layout;
        let b = match self.m.code.vars[var].copies {
            Copies::One => Some(&l.shared.vars[var]),
            Copies::Cpu => {
                if owner != cpu {
                    self.others |= 1 << owner;
                }
                Some(&l.cpus[owner].vars[var])
            }
            Copies::Mm => l.shared.mm_vars[var].get(owner),
            Copies::Asid => l.cpus[cpu].asid_vars[var].get(owner),
        };
        let b = b.copied().unwrap_or_default();
        if !b.exists() {
            self.seen |= Seen::OVERFLOW; // no such address space or ASID in this scope
        }
        (b, f.shift, f.mask())
    }

    fn decode(&self, cpu: usize, slot: usize) -> (Target, u64) {
        let c = &self.m.layout.cpus[cpu];
        let e = self.get(c.stores[slot]);
        (c.targets[(e >> c.value_bits) as usize], e & ((1 << c.value_bits) - 1))
    }

    fn buffered(&self, cpu: usize) -> usize {
        self.get(self.m.layout.cpus[cpu].pending) as usize
    }

    fn push_store(&mut self, cpu: usize, target: Target, v: u64) {
        let c = &self.m.layout.cpus[cpu];
        if c.stores.is_empty() || !self.m.assume.store_buffers {
            self.commit(cpu, target, v);
            return;
        }
        let n = self.buffered(cpu);
        if n == c.stores.len() {
            self.seen |= Seen::FULL;
            return;
        }
        let kind =
            c.targets.iter().position(|t| *t == target).expect("every store of a program is listed") as u64;
        self.set(c.stores[n], kind << c.value_bits | v);
        self.set(c.pending, n as u64 + 1);
    }

    /// Make the oldest store visible.
    pub fn drain(&mut self, cpu: usize) {
        let (target, v) = self.decode(cpu, 0);
        let c = &self.m.layout.cpus[cpu];
        let n = self.buffered(cpu);
        for i in 1..n {
            let e = self.get(c.stores[i]);
            self.set(c.stores[i - 1], e);
        }
        self.set(c.stores[n - 1], 0);
        self.set(c.pending, n as u64 - 1);
        self.commit(cpu, target, v);
    }

    /// What the oldest buffered store writes.
    pub fn oldest(&self, cpu: usize) -> (Target, u64) {
        self.decode(cpu, 0)
    }

    fn commit(&mut self, cpu: usize, target: Target, v: u64) {
        match target {
            Target::Field { field, owner } => {
                let (b, shift, mask) = self.place(cpu, field, usize::from(owner));
                let old = self.get(b);
                if v << shift & !mask != 0 {
                    self.seen |= Seen::OVERFLOW;
                }
                self.set(b, old & !mask | v << shift & mask);
            }
            Target::Entry { page, level, v } => self.commit_entry(usize::from(page), level, v),
            Target::Ack { sender } => {
                self.others |= 1 << sender;
                let b = self.m.layout.cpus[usize::from(sender)].waits;
                let old = self.get(b);
                self.set(b, old & !(1 << cpu));
            }
        }
    }

    fn commit_entry(&mut self, p: usize, level: Level, v: Entry) {
        let s = &self.m.layout.shared;
        let version = self.get(s.version[p]);
        if self.m.layout.pages[p].kind == PageKind::Text {
            self.set(s.version[p], patched(version, v));
            return;
        }
        let kind = match v {
            Entry::None | Entry::Int3 => 0,
            Entry::Fresh | Entry::Initial => 1,
            Entry::LessRights => 2,
        };
        if level == Level::Table {
            let old = self.get(s.upper[p]);
            self.set(s.upper[p], old + 1);
            self.set(s.upper_kind[p], u64::from(kind != 0));
            self.set(s.old_leaf[p], version);
        }
        self.set(s.version[p], version + 1);
        self.set(s.kind[p], kind);
        self.rename(p);
    }

    /// Rename a page's versions to the least that compare alike (SEMANTICS S1): what is asked of a version is whether
    /// it is below what is dead, below what a flush under way covers, and below what is current. A number above the
    /// current version, which a flush covers by stores still in a buffer, stays as far above it.
    fn rename(&mut self, p: usize) {
        if !self.m.renamed {
            return;
        }
        self.others = self.m.masks[3];
        let layout = &self.m.layout;
        let shared = &layout.shared;
        let covered = layout.cpus.iter().map(|c| c.covered[p]).filter(|b| b.exists());
        let marks = [shared.dead[p]].into_iter().chain(covered.clone());
        let held = layout.cpus.iter().flat_map(|c| c.tlb[p]).chain([shared.old_leaf[p]]);
        self.renumber(shared.version[p], marks, held.filter(|b| b.exists()));
        // `free table` tells the first table of all by its number.
        if self.get(shared.upper[p]) > 1 {
            let held = layout.cpus.iter().flat_map(|c| c.upper[p]).filter(|b| b.exists());
            self.renumber(shared.upper[p], [shared.freed[p]].into_iter(), held);
        }
    }

    /// Number what is at most `current` by how many of the marks and of `current` itself it reaches. 0 is none.
    fn renumber(
        &mut self,
        current: Bits,
        marks: impl Iterator<Item = Bits> + Clone,
        held: impl Iterator<Item = Bits>,
    ) {
        let now = self.get(current);
        let mut steps: u64 = 1 << now;
        for b in marks.clone() {
            match self.get(b) {
                0 => {}
                v if v <= now => steps |= 1 << v,
                _ => {}
            }
        }
        let new = |v: u64| match v {
            0 => 0,
            v if v <= now => u64::from((steps & ((2 << v) - 1)).count_ones()) + 1,
            v => u64::from(steps.count_ones()) + 1 + (v - now),
        };
        for b in held.chain(marks).chain([current]) {
            let v = self.get(b);
            self.set(b, new(v));
        }
    }

    /// The version of a part of text once this CPU's own stores are visible.
    fn own_text(&self, cpu: usize, page: usize) -> u64 {
        (0..self.buffered(cpu)).fold(self.get(self.m.layout.shared.version[page]), |version, i| {
            match self.decode(cpu, i).0 {
                Target::Entry { page: p, v, .. } if usize::from(p) == page => patched(version, v),
                _ => version,
            }
        })
    }

    fn own_entries(&self, cpu: usize, page: usize, of: Option<Level>) -> u64 {
        (0..self.buffered(cpu))
            .filter(|&i| match self.decode(cpu, i).0 {
                Target::Entry { page: p, level, .. } => {
                    usize::from(p) == page && of.is_none_or(|l| l == level)
                }
                _ => false,
            })
            .count() as u64
    }

    // -- translations ------------------------------------------------------------------------------------

    /// Is the page mapped in memory, both levels?
    #[inline]
    pub fn present(&self, p: usize) -> bool {
        let s = &self.m.layout.shared;
        self.get(s.kind[p]) != 0 && (!self.m.layout.tables || self.get(s.upper_kind[p]) != 0)
    }

    /// What an access through the current CR3 would use: the cached version, or the one a walk finds.
    fn used(&self, cpu: usize, p: usize, cr3: u64) -> Result<Option<u64>, Violation> {
        let page = &self.m.layout.pages[p];
        let Some(slot) = self.m.slot(page, cr3) else { return Err(Violation::UnmappedAccess) };
        let cached = self.get(self.m.layout.cpus[cpu].tlb[p][slot]);
        if cached != 0 {
            return Ok(Some(cached));
        }
        if !self.m.maps(page, cr3) {
            return Ok(None);
        }
        self.walk(cpu, p, slot)
    }

    /// Is the address space of a CR3 word free (SEMANTICS S9)?
    fn is_freed(&self, cr3: u64) -> bool {
        self.get(self.m.layout.shared.freed_mms) >> self.m.mm(cr3) & 1 != 0
    }

    /// What a walk finds now (SEMANTICS S6: through a freed table is a violation, speculative or not).
    pub fn walk(&self, cpu: usize, p: usize, slot: usize) -> Result<Option<u64>, Violation> {
        let s = &self.m.layout.shared;
        if s.freed_mms.exists() && self.is_freed(self.get(self.m.layout.cpus[cpu].cr3)) {
            return Err(Violation::FreedMm);
        }
        if self.m.layout.tables && self.m.layout.pages[p].kind != PageKind::Text {
            let cached = self.get(self.m.layout.cpus[cpu].upper[p][slot]);
            let memory = self.get(s.upper[p]);
            let through = if cached != 0 {
                cached
            } else if self.get(s.upper_kind[p]) != 0 {
                memory
            } else {
                return Ok(None);
            };
            if through < self.get(s.freed[p]) {
                return Err(Violation::FreedTableWalk);
            }
            if through != memory {
                let old = self.get(s.old_leaf[p]);
                return Ok((old != 0).then_some(old));
            }
        }
        Ok((self.get(s.kind[p]) != 0).then(|| self.get(s.version[p])))
    }

    /// The field a page's data is in, by the translation an access uses now; none if it faults.
    fn frame_of(&self, cpu: usize, page: u8) -> Result<Option<u8>, Violation> {
        let p = usize::from(page);
        let cr3 = self.get(self.m.layout.cpus[cpu].cr3);
        let Some(version) = self.used(cpu, p, cr3)? else { return Ok(None) };
        let frames = self.m.scope.frames.get(p).map_or(&[][..], Vec::as_slice);
        Ok(frames.get(version as usize - 1).or(frames.last()).copied())
    }

    /// An access whose address some code holds.
    fn access(&mut self, cpu: usize, p: usize, explicit: bool) -> Result<(), Violation> {
        let cr3 = self.get(self.m.layout.cpus[cpu].cr3);
        let s = &self.m.layout.shared;
        let (dead, version) = (self.get(s.dead[p]), self.get(s.version[p]));
        let live = self.present(p) && version >= dead;
        // S4: code uses what is allocated; an address that is not is nobody's to use.
        if !explicit && !live {
            return Ok(());
        }
        let page = &self.m.layout.pages[p];
        // S9: user code and uaccess hold addresses of one mm; under another's table the same address is not theirs.
        if matches!(page.kind, PageKind::User(mm) if self.m.mm(cr3) != usize::from(mm)) {
            return Err(Violation::WrongAddressSpace);
        }
        let used = self.used(cpu, p, cr3)?;
        match used {
            Some(v) if v < dead && live => Err(Violation::StaleAccessReused),
            Some(v) if v < dead => Err(Violation::StaleAccessNotReused),
            _ => Ok(()),
        }
    }

    /// Run the patched instruction (SEMANTICS S7): each part as it was fetched, or as memory has it now. An INT3 is
    /// a whole instruction; otherwise head and tail must belong together.
    fn run_text(&self, cpu: usize) -> Result<(), Violation> {
        let Some(parts) = self.m.layout.text else { return Ok(()) };
        let s = &self.m.layout.shared;
        let [head, tail] = parts.map(|p| {
            let fetched = self.get(self.m.layout.cpus[cpu].tlb[p][0]);
            if fetched == 0 { self.get(s.version[p]) } else { fetched }
        });
        let [head_dead, tail_dead] = parts.map(|p| self.get(s.dead[p]));
        let whole = TEXT.is_whole(head);
        if head < head_dead || whole && (tail < tail_dead || tail != head) {
            return Err(Violation::StaleText);
        }
        Ok(())
    }

    /// A serialising instruction: what was fetched before is fetched again (SEMANTICS H4 c).
    #[inline]
    fn drop_text(&mut self, cpu: usize) {
        if let Some(parts) = self.m.layout.text {
            for p in parts {
                let b = self.m.layout.cpus[cpu].tlb[p][0];
                self.set(b, 0);
            }
        }
    }

    fn zone(&mut self, cpu: usize, zone: Zone) -> Result<(), Violation> {
        let c = &self.m.layout.cpus[cpu];
        let user = self.get(c.cr3) & CR3_USER != 0;
        if user && !matches!(zone, Zone::Entry | Zone::User) {
            return Err(Violation::UnmappedAccess);
        }
        if zone == Zone::PerCpu {
            self.gs_access(cpu)?;
        }
        for p in 0..self.m.layout.pages.len() {
            let kind = self.m.layout.pages[p].kind;
            if kind != PageKind::Text && self.m.zone_may(zone, kind) {
                self.access(cpu, p, false)?;
            }
        }
        if self.m.zone_may(zone, PageKind::Text) { self.run_text(cpu) } else { Ok(()) }
    }

    /// `switch_mm_irqs_off` to the other ASID: NOFLUSH unless `invalidate_other` owes it a flush (FACTS 2.5).
    pub fn switch_asid(&mut self, cpu: usize) {
        let c = &self.m.layout.cpus[cpu];
        let cr3 = self.get(c.cr3) ^ 2;
        self.set(c.cr3, cr3);
        self.drop_text(cpu);
        let owes = self.get(c.owes);
        let asids = self.m.layout.asids;
        if owes >> asids & 1 != 0 || !self.m.pcid {
            let asid = self.m.asid(cr3);
            self.set(c.owes, owes & !(1 << asids));
            self.forget_where(cpu, false, |slot| slot % asids == asid);
        }
    }

    /// `choose_new_asid` (FACTS 2.3): the slot that holds `mm`, or the next one in turn, taken over for it.
    fn choose_asid(&mut self, cpu: usize, mm: u64) -> u64 {
        let c = &self.m.layout.cpus[cpu];
        let asids = self.m.layout.asids;
        let loaded = self.m.asid(self.get(c.cr3));
        let owes = self.get(c.owes);
        if owes >> asids & 1 != 0 {
            self.set(c.owes, owes & !(1 << asids));
            for asid in (0..asids).filter(|a| *a != loaded) {
                self.set(c.contexts[asid], NO_MM);
            }
        }
        if self.m.pcid
            && let Some(asid) = (0..asids).find(|a| self.get(c.contexts[*a]) == mm)
        {
            return asid as u64;
        }
        let next = if self.m.pcid { self.get(c.next_asid) as usize } else { 0 };
        let asid = if next < asids { next } else { 0 };
        self.set(c.next_asid, asid as u64 + 1);
        self.set(c.contexts[asid], mm);
        for (v, copies) in self.m.code.vars.iter().zip(&c.asid_vars).filter(|(_, b)| b[asid].exists()) {
            self.set(copies[asid], u64::from(v.init));
        }
        asid as u64
    }

    /// Ordinary kernel code on a CPU that rests in the kernel.
    pub fn use_kernel(&mut self, cpu: usize) -> Result<(), Violation> {
        self.zone(cpu, Zone::Kernel)
    }

    fn gs_access(&mut self, cpu: usize) -> Result<(), Violation> {
        if self.get(self.m.layout.cpus[cpu].gs) == 0 {
            self.seen |= Seen::WRONG_GS;
            if self.m.assume.gs_faults {
                return Err(Violation::WrongGsAccess);
            }
        }
        Ok(())
    }

    fn reach_var(&mut self, cpu: usize, field: u8, at: At) -> Result<(), Violation> {
        let var = &self.m.code.vars[usize::from(self.m.code.fields[usize::from(field)].var)];
        if at == At::Me {
            self.gs_access(cpu)?;
        }
        let user = self.get(self.m.layout.cpus[cpu].cr3) & CR3_USER != 0;
        if user && !var.user_mapped { Err(Violation::UnmappedAccess) } else { Ok(()) }
    }

    fn which(&self, pages: Pages) -> impl Iterator<Item = usize> + use<'a, W> {
        let n = self.m.layout.pages.len();
        let m = self.m;
        (0..n).filter(move |&p| match pages {
            Pages::One(q) => usize::from(q) == p,
            Pages::Text(part) => m.layout.text.is_some_and(|t| t[part as usize] == p),
            Pages::Range => match m.layout.pages[p].kind {
                PageKind::User(_) => m.code.pages.len() == 1,
                PageKind::Text => false,
                PageKind::Vmalloc | PageKind::DirectMap | PageKind::EntryArea => true,
            },
        })
    }

    fn forget(&mut self, cpu: usize, p: usize, slot: usize, upper: bool) {
        let c = &self.m.layout.cpus[cpu];
        self.set(c.tlb[p][slot], 0);
        if upper {
            self.set(c.upper[p][slot], 0);
        }
    }

    /// Invalidate by tag: `globals` too, or only `slot`s chosen.
    fn forget_where(&mut self, cpu: usize, globals: bool, chosen: impl Fn(usize) -> bool) {
        for p in 0..self.m.layout.pages.len() {
            let page = &self.m.layout.pages[p];
            if page.kind == PageKind::Text {
                continue; // no translation
            }
            for slot in 0..tags(page, self.m.layout.asids) {
                if page.global && globals || !page.global && chosen(slot) {
                    self.forget(cpu, p, slot, true);
                }
            }
        }
    }

    fn send_broadcast(&mut self, cpu: usize, pages: u64) {
        let b = self.m.layout.cpus[cpu].broadcast;
        let sent = self.get(b);
        self.set(b, sent | pages);
    }

    fn slot_of(&self, of: PcidOf, cr3: u64) -> usize {
        self.m.asid(cr3) + if of == PcidOf::User { self.m.layout.asids } else { 0 }
    }

    /// The CPUs of a set, a bit each.
    #[inline]
    pub fn members(&self, set: Set, cpu: Cpu) -> u8 {
        let m = &self.m.masks;
        match set {
            Set::Online => m[3],
            Set::Others => m[3] & !(1 << cpu),
            Set::Housekeeping => m[2],
            Set::NohzFull => m[0],
            Set::FlushMask => m[1],
            Set::Targets => self.get(self.f(cpu).targets) as u8,
            Set::MmCpumask => {
                let mm = self.get(self.c(cpu).info.0) as usize;
                self.get(self.m.layout.shared.masks[mm]) as u8 & !(1 << cpu)
            }
        }
    }

    /// [`Seen`] bits for what this CPU holds though it was promised to be out of use.
    pub fn holds_dead(&self, cpu: usize) -> u32 {
        let (c, s) = (&self.m.layout.cpus[cpu], &self.m.layout.shared);
        let mut seen = 0;
        for (p, page) in self.m.layout.pages.iter().enumerate() {
            let dead = self.get(s.dead[p]);
            if c.tlb[p].iter().any(|&b| (1..dead).contains(&self.get(b))) {
                seen |= Seen::stale(page.kind);
            }
        }
        seen
    }
}

impl<const W: usize> Machine for Abs<'_, W> {
    fn ordered(&self, cpu: Cpu, order: Order) -> bool {
        let cpu = usize::from(cpu);
        let n = self.buffered(cpu);
        match order {
            Order::Publishes => n == 0,
            Order::Invpcid if self.m.assume.invpcid_publishes => n == 0,
            // H4 (b): an invalidation is ordered after this CPU's own entry stores.
            Order::Invpcid => (0..n).all(|i| !matches!(self.decode(cpu, i).0, Target::Entry { .. })),
        }
    }

    fn charge(&mut self, _: Cpu, _: u16, _: Op) {}

    fn read(&mut self, cpu: Cpu, field: u8, at: At, of: Cpu) -> Result<u64, Violation> {
        self.reach_var(usize::from(cpu), field, at)?;
        let owner = if at == At::Shared { 0 } else { usize::from(of) };
        let (b, shift, mask) = self.place(usize::from(cpu), field, owner);
        let var = self.m.code.fields[usize::from(field)].var;
        let mut word = self.get(b);
        for i in 0..self.buffered(usize::from(cpu)) {
            if let (Target::Field { field: g, owner: o }, v) = self.decode(usize::from(cpu), i) {
                let g = &self.m.code.fields[usize::from(g)];
                if g.var == var && usize::from(o) == owner {
                    word = word & !g.mask() | v << g.shift & g.mask();
                }
            }
        }
        Ok((word & mask) >> shift)
    }

    fn write(&mut self, cpu: Cpu, field: u8, at: At, of: Cpu, v: u64) -> Result<(), Violation> {
        self.reach_var(usize::from(cpu), field, at)?;
        if v >> self.m.code.fields[usize::from(field)].bits != 0 {
            return Err(Violation::Overflow);
        }
        let owner = if at == At::Shared { 0 } else { of as u8 };
        let target = Target::Field { field, owner };
        if matches!(at, At::Asid(_)) {
            self.commit(usize::from(cpu), target, v);
        } else {
            self.push_store(usize::from(cpu), target, v);
        }
        Ok(())
    }

    fn rmw(
        &mut self,
        cpu: Cpu,
        field: u8,
        at: At,
        of: Cpu,
        f: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Violation> {
        self.reach_var(usize::from(cpu), field, at)?;
        let owner = if at == At::Shared { 0 } else { usize::from(of) };
        let (b, shift, mask) = self.place(usize::from(cpu), field, owner);
        let word = self.get(b);
        let old = (word & mask) >> shift;
        let new = f(old);
        if new > mask >> shift {
            return Err(Violation::Overflow);
        }
        self.set(b, word & !mask | new << shift);
        Ok(old)
    }

    fn contains(&self, cpu: Cpu, set: Set, who: Cpu) -> bool {
        self.members(set, cpu) >> who & 1 != 0
    }

    fn is_empty(&self, cpu: Cpu, set: Set) -> bool {
        self.members(set, cpu) == 0
    }

    fn start_loop(&mut self, cpu: Cpu, _: Set) {
        let b = self.f(cpu).visited;
        self.set(b, 0);
    }

    fn next_in(&mut self, cpu: Cpu, set: Set) -> Option<Cpu> {
        let b = self.f(cpu).visited;
        let visited = self.get(b);
        let left = u64::from(self.members(set, cpu)) & !visited;
        if left == 0 {
            self.set(b, 0);
            return None;
        }
        let who = self.pick.unwrap_or(left.trailing_zeros() as Cpu);
        self.set(b, visited | 1 << who);
        Some(who)
    }

    fn clear_targets(&mut self, cpu: Cpu) {
        let b = self.f(cpu).targets;
        self.set(b, 0);
    }

    fn put(&mut self, cpu: Cpu, who: Cpu) {
        let b = self.f(cpu).targets;
        let old = self.get(b);
        self.set(b, old | 1 << who);
    }

    fn irq(&mut self, cpu: Cpu, on: bool) {
        if self.level == 0 {
            let b = self.c(cpu).irqs;
            self.set(b, u64::from(on));
        }
    }

    fn gs(&self, cpu: Cpu) -> bool {
        self.get(self.c(cpu).gs) != 0
    }

    fn set_gs(&mut self, cpu: Cpu, kernel: bool) {
        let b = self.c(cpu).gs;
        self.set(b, u64::from(kernel));
    }

    fn cr3(&self, cpu: Cpu) -> u64 {
        self.get(self.c(cpu).cr3)
    }

    fn cr3_is_user(&self, _: Cpu, cr3: u64) -> bool {
        cr3 & CR3_USER != 0
    }

    fn cr3_for(&self, cpu: Cpu, to: Cr3, a: u64, b: u64) -> u64 {
        let now = self.cr3(cpu);
        match to {
            Cr3::Kernel => now & !CR3_USER,
            Cr3::User if self.m.pti => now | CR3_USER,
            Cr3::User => now,
            Cr3::Reg(_) => a,
            Cr3::Mm { .. } => (b << 1) | a << (1 + u32::from(self.m.layout.asids > 1)),
        }
    }

    fn mov_cr3(&mut self, cpu: Cpu, cr3: u64, keep: NoFlush) -> Result<(), Violation> {
        let c = self.c(cpu);
        if self.m.layout.shared.freed_mms.exists() && self.is_freed(cr3) {
            return Err(Violation::FreedMm);
        }
        self.set(c.cr3, cr3);
        self.drop_text(usize::from(cpu));
        let owes = self.get(c.owes);
        let flush = match keep {
            NoFlush::Flush => true,
            NoFlush::Keep => false,
            NoFlush::Owed => owes >> self.m.asid(cr3) & 1 != 0,
        };
        if keep == NoFlush::Owed && cr3 & CR3_USER != 0 {
            self.set(c.owes, owes & !(1 << self.m.asid(cr3)));
        }
        if !self.m.pcid {
            self.forget_where(usize::from(cpu), false, |_| true);
        } else if flush {
            let half = if cr3 & CR3_USER != 0 { PcidOf::User } else { PcidOf::Kernel };
            let gone = self.slot_of(half, cr3);
            self.forget_where(usize::from(cpu), false, |slot| slot == gone);
        }
        Ok(())
    }

    fn invalidate(&mut self, cpu: Cpu, what: Invalidate) -> Result<(), Violation> {
        let me = usize::from(cpu);
        let cr3 = self.cr3(cpu);
        let here = self.slot_of(if cr3 & CR3_USER != 0 { PcidOf::User } else { PcidOf::Kernel }, cr3);
        // MOV CR4 and INVLPG are on the SDM's list of serialising instructions, INVPCID and INVLPGB are not (H4).
        if matches!(what, Invalidate::Cr4Pge(_) | Invalidate::Page(_)) {
            self.drop_text(me);
        }
        match what {
            Invalidate::Cr4Pge(_) => self.forget_where(me, true, |_| true),
            Invalidate::Page(pages) => {
                for p in self.which(pages) {
                    let slot = if self.m.layout.pages[p].global { 0 } else { here };
                    if slot < tags(&self.m.layout.pages[p], self.m.layout.asids) {
                        self.forget(me, p, slot, true);
                    }
                }
                // Paging-structure entries of the current PCID go for every address (SDM 4.10.4.1).
                if self.m.layout.tables {
                    for p in 0..self.m.layout.pages.len() {
                        let slot = if self.m.layout.pages[p].global { 0 } else { here };
                        let b = self.c(cpu).upper[p][slot];
                        self.set(b, 0);
                    }
                }
            }
            Invalidate::Invpcid(Invpcid::Address, of, pages) => {
                let slot = self.slot_of(of, cr3);
                for p in self.which(pages) {
                    let page = &self.m.layout.pages[p];
                    if !page.global && slot < tags(page, self.m.layout.asids) {
                        self.forget(me, p, slot, true);
                    }
                }
            }
            Invalidate::Invpcid(Invpcid::Context, of, _) => {
                let gone = self.slot_of(of, cr3);
                self.forget_where(me, false, |slot| slot == gone);
            }
            Invalidate::Invpcid(Invpcid::AllGlobal, ..) => self.forget_where(me, true, |_| true),
            Invalidate::Invpcid(Invpcid::All, ..) => self.forget_where(me, false, |_| true),
            // Complete at the next TLBSYNC and no earlier that one could rely on (APM Vol. 3, INVLPGB).
            Invalidate::Broadcast(pages) => {
                let of = self.which(pages).fold(0, |of, p| of | 1 << p);
                self.send_broadcast(me, of);
            }
            Invalidate::BroadcastAll => self.send_broadcast(me, (1 << self.m.layout.pages.len()) - 1),
        }
        Ok(())
    }

    fn tlbsync(&mut self, cpu: Cpu) -> bool {
        let b = self.c(cpu).broadcast;
        let of = self.get(b);
        if of != 0 {
            self.set(b, 0);
            self.others = self.m.masks[3];
            for c in 0..self.m.layout.cpus.len() {
                for p in (0..self.m.layout.pages.len()).filter(|p| of >> p & 1 != 0) {
                    if self.m.layout.pages[p].kind == PageKind::Text {
                        continue; // no translation
                    }
                    for slot in 0..tags(&self.m.layout.pages[p], self.m.layout.asids) {
                        self.forget(c, p, slot, true);
                    }
                }
            }
        }
        true
    }

    fn rar(&mut self, cpu: Cpu, to: Set) -> Result<(), Violation> {
        let set = self.members(to, cpu);
        self.others |= set;
        for c in 0..self.m.layout.cpus.len() {
            if set >> c & 1 != 0 {
                self.forget_where(c, true, |_| true);
            }
        }
        Ok(())
    }

    fn serialise(&mut self, cpu: Cpu) {
        self.drop_text(usize::from(cpu));
    }

    fn owe(&mut self, cpu: Cpu, others: bool) {
        let b = self.c(cpu).owes;
        let old = self.get(b);
        let bit = if others { self.m.layout.asids } else { self.m.asid(self.cr3(cpu)) };
        self.set(b, old | 1 << bit);
    }

    fn ask(&mut self, cpu: Cpu, what: Ask, v: u64) -> Result<u64, Violation> {
        let c = self.c(cpu);
        let cr3 = self.get(c.cr3);
        let mms = self.m.layout.mms as u64;
        Ok(match what {
            // In turn: init_mm (a kernel thread), then each process.
            Ask::NextMm => match self.m.mm(cr3) as u64 {
                INIT_MM => NO_MM + 1,
                mm if mm + 1 < mms => mm + 1,
                _ => INIT_MM,
            },
            // That of the tracked user page.
            Ask::FlushMm => {
                let page = self.m.layout.pages.iter().find_map(|p| match p.kind {
                    PageKind::User(mm) => Some(u64::from(mm)),
                    _ => None,
                });
                page.unwrap_or(NO_MM + 1)
            }
            Ask::InfoMm | Ask::InfoGen => {
                let serving = self.get(c.serving) as usize;
                let from = serving.checked_sub(1).unwrap_or(usize::from(cpu));
                if from != usize::from(cpu) {
                    self.others |= 1 << from;
                }
                let (mm, generation) = self.m.layout.cpus[from].info;
                self.get(if what == Ask::InfoMm { mm } else { generation })
            }
            Ask::LoadedAsid => self.m.asid(cr3) as u64,
            Ask::AsidFor(_) => self.choose_asid(usize::from(cpu), v),
        })
    }

    fn flush_info(&mut self, cpu: Cpu, mm: u64, generation: u64) {
        let (a, b) = self.c(cpu).info;
        self.set(a, mm);
        self.set(b, generation);
    }

    fn mask(&mut self, cpu: Cpu, mm: u64, on: bool) -> Result<(), Violation> {
        let b = self.m.layout.shared.masks.get(mm as usize).copied().unwrap_or_default();
        if !b.exists() {
            return Err(Violation::Overflow);
        }
        let old = self.get(b);
        self.set(b, if on { old | 1 << cpu } else { old & !(1 << cpu) });
        Ok(())
    }

    fn touch(&mut self, cpu: Cpu, what: Touch) -> Result<(), Violation> {
        match what {
            Touch::Zone(z) => self.zone(usize::from(cpu), z),
            Touch::Text => self.run_text(usize::from(cpu)),
            Touch::Read(p) | Touch::Write(p) => self.access(usize::from(cpu), usize::from(p), true),
        }
    }

    fn load_page(&mut self, cpu: Cpu, page: u8) -> Result<u64, Violation> {
        self.touch(cpu, Touch::Read(page))?;
        match self.frame_of(usize::from(cpu), page)? {
            Some(field) => self.read(cpu, field, At::Shared, cpu),
            None => Ok(0),
        }
    }

    fn store_page(&mut self, cpu: Cpu, page: u8, v: u64) -> Result<(), Violation> {
        self.touch(cpu, Touch::Write(page))?;
        match self.frame_of(usize::from(cpu), page)? {
            Some(field) => self.write(cpu, field, At::Shared, cpu, v),
            None => Ok(()),
        }
    }

    fn body(&mut self, cpu: Cpu, slot: Slot) -> Result<(), Violation> {
        let zone = Model::zone_of(Op::Body(slot)).expect("every body is in a zone");
        self.zone(usize::from(cpu), zone)
    }

    fn pte(&mut self, cpu: Cpu, pages: Pages, level: Level, v: Entry, locked: bool) -> Result<(), Violation> {
        let own = self.m.role(usize::from(cpu)).own;
        for p in self.which(pages) {
            if pages == Pages::Range && own >> p & 1 == 0 {
                continue;
            }
            if locked {
                self.commit_entry(p, level, v);
            } else {
                self.push_store(usize::from(cpu), Target::Entry { page: p as u8, level, v }, 0);
            }
        }
        Ok(())
    }

    fn free_table(&mut self, cpu: Cpu, pages: Pages) -> Result<(), Violation> {
        let own = self.m.role(usize::from(cpu)).own;
        for p in self.which(pages) {
            if pages == Pages::Range && own >> p & 1 == 0 {
                continue;
            }
            let s = &self.m.layout.shared;
            let now = self.get(s.upper[p]) + self.own_entries(usize::from(cpu), p, Some(Level::Table));
            // Tables the entry pointed to before; its first table if it was never changed.
            self.set(s.freed[p], now.max(2));
        }
        Ok(())
    }

    fn free_mm(&mut self, _: Cpu, mm: u8) {
        let b = self.m.layout.shared.freed_mms;
        let freed = self.get(b);
        self.set(b, freed | 1 << mm);
    }

    fn range_is_full(&self, _: Cpu) -> bool {
        !self.m.assume.ranged
    }

    fn request(&mut self, cpu: Cpu, pages: Pages) {
        let me = usize::from(cpu);
        for p in self.which(pages) {
            // S2: what is overwritten and visible, and what this CPU itself has overwritten.
            let covered = if self.m.layout.pages[p].kind == PageKind::Text {
                self.own_text(me, p)
            } else {
                self.get(self.m.layout.shared.version[p]) + self.own_entries(me, p, None)
            };
            self.set(self.c(cpu).covered[p], covered);
        }
    }

    fn promise(&mut self, cpu: Cpu, pages: Pages) -> Result<(), Violation> {
        self.seen |= Seen::PROMISED;
        for p in self.which(pages) {
            let b = self.c(cpu).covered[p];
            let covered = self.get(b);
            self.set(b, 0);
            let dead = self.m.layout.shared.dead[p];
            if covered > self.get(dead) {
                self.set(dead, covered);
            }
            if self.m.layout.pages[p].kind != PageKind::Text {
                self.rename(p);
            }
        }
        Ok(())
    }

    fn ipi(&mut self, cpu: Cpu, to: Set, run: ProgId) {
        let set = self.members(to, cpu);
        self.others |= set;
        let me = usize::from(cpu);
        if self.m.masks[3] & !set & !(1 << cpu) != 0 {
            self.seen |= Seen::DEFERRED;
        }
        let handler = self.m.layout.handlers.iter().position(|&h| h == run).expect("listed") as u64;
        let mut waits = self.get(self.c(cpu).waits);
        for t in 0..self.m.layout.cpus.len() {
            let c = &self.m.layout.cpus[t];
            // A CPU without a queue takes no remote calls at all (SEMANTICS: a walker such as an IOMMU).
            if set >> t & 1 == 0 || c.queue.is_empty() {
                continue;
            }
            self.seen |= Seen::IPI;
            let n = self.get(c.queued) as usize;
            if n == c.queue.len() {
                self.seen |= Seen::OVERFLOW;
                continue;
            }
            self.set(c.queue[n], handler * self.m.layout.cpus.len() as u64 + me as u64);
            self.set(c.queued, n as u64 + 1);
            if n == 0 {
                self.set(c.irq, 1);
            }
            waits |= 1 << t;
        }
        self.set(self.c(cpu).waits, waits);
    }

    fn acked(&self, cpu: Cpu) -> bool {
        self.get(self.c(cpu).waits) == 0
    }

    fn take_call(&mut self, cpu: Cpu) -> Option<ProgId> {
        let c = self.c(cpu);
        let n = self.get(c.queued) as usize;
        if n == 0 {
            return None;
        }
        let e = self.get(c.queue[0]);
        for i in 1..n {
            let next = self.get(c.queue[i]);
            self.set(c.queue[i - 1], next);
        }
        self.set(c.queue[n - 1], 0);
        self.set(c.queued, n as u64 - 1);
        let cpus = self.m.layout.cpus.len() as u64;
        self.set(c.serving, e % cpus + 1);
        Some(self.m.layout.handlers[(e / cpus) as usize])
    }

    fn ack(&mut self, cpu: Cpu) {
        let c = self.c(cpu);
        let sender = self.get(c.serving) - 1;
        self.set(c.serving, 0);
        let target = Target::Ack { sender: sender as u8 };
        // A plain store (csd_unlock is a store-release): behind earlier stores if there are any.
        if self.buffered(usize::from(cpu)) == 0 {
            self.commit(usize::from(cpu), target, 0);
        } else {
            self.push_store(usize::from(cpu), target, 0);
        }
    }
}

/// The version of a part of text after a store to it.
fn patched(version: u64, v: Entry) -> u64 {
    let whole = version - version % TEXT.step;
    if v == Entry::Int3 { whole + 1 } else { whole + TEXT.step }
}

/// Is the CPU at rest in user mode?
pub fn rests_in_user(role: &Role) -> bool {
    role.rest == Rest::User
}
