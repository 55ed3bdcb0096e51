//! The abstract machine: `kernel::step::Machine` on a packed state.
//!
//! Invariant: everything a method does depends on the state, the model and the pick of the action; nothing is
//! remembered between transitions, so two equal states have equal futures. Here are frames and sets of CPUs; `memory`,
//! `translations` and `accesses` hold the rest of what an op (in `ops`) is made of.

mod accesses;
pub mod counts;
pub mod faults;
mod grace;
pub mod lines;
mod memory;
mod migration;
mod ops;
mod translations;
mod walks;

use super::layout::{Bits, CpuFields, Device, Frame, Layout, PageInfo, Path};
use super::scope::{Assume, Patched, Role, Scope, Touches};
use super::zone;
use crate::kernel::program::{Code, Entry, Features, Op, PageKind, Pc, ProgId, REGS, Set, Zone};
use crate::kernel::step::{self, Cpu, NO_CPU, Outcome, Violation};

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
    /// Of each CPU the paths that an entry chooses from.
    pub paths: Vec<Vec<Path>>,
    /// Of each CPU what a device interrupt is amid the kernel, and amid the idle loop.
    pub devices: Vec<[Device; 2]>,
    /// Zones whose accesses look at a tracked page, a bit each.
    pub checked_zones: u16,
    /// Tracked pages whose region is never unmapped, a bit each.
    pub lasting: u8,
    /// Ops that commute with everything else happen with the op before them.
    pub fuse: bool,
    /// Versions are renamed, so that their number stays bounded (SEMANTICS S1).
    pub renamed: bool,
    /// Variables that count; and before each op, of which count each register holds a
    /// value ([`held`](crate::kernel::assemble::counts::held); SEMANTICS A8).
    pub counts: Vec<u8>,
    /// See `counts`.
    pub held: Vec<u32>,
    /// CPUs that can set their bit of an `mm_cpumask`, a bit each.
    pub joiners: u8,
    /// Some count is one per address space.
    pub counts_per_mm: bool,
    /// The user table maps no tracked page.
    pub nothing_user: bool,
    /// Where ops are fused, text is fetched only while a store to it is buffered ([`super::model`]).
    pub late: bool,
    /// By op: what must still hold where it is fused ([`super::model`]).
    pub fusing: Vec<u32>,
    /// By op: nothing need happen behind it ([`super::model`]).
    pub behind: Vec<bool>,
    /// Cached leaves are evicted also where ops are fused: what they map has data (SEMANTICS H2).
    pub evicts: bool,
    /// Page-table isolation is on.
    pub pti: bool,
    /// CR4.PCIDE is set.
    pub pcid: bool,
    /// The world, as `if feature` sees it.
    pub features: Features,
    /// The deepest store buffers there are: runs that need deeper ones are left out, and the search goes on.
    pub deepest: bool,
    /// Pages of whose entries it is asked whether they are as at the start, a bit each.
    pub initial_told: u8,
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
    /// `interrupt_idle`.
    pub interrupt_idle: Option<ProgId>,
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
    /// Every CPU came to its end.
    pub const ENDED: u32 = 1 << 20;
    /// A value did not fit.
    pub const OVERFLOW: u32 = 256;
    /// A flush completed and the address was handed on.
    pub const PROMISED: u32 = 512;
    /// A CPU had fetched text that a sync promised to be out of use.
    pub const STALE_TEXT: u32 = 1024;

    /// An address was handed on.
    pub const HANDED_ON: u32 = 2048;
    /// A promise that no request came before.
    pub const UNREQUESTED: u32 = 4096;
    /// A CPU ran an INT3 whose handler it came to.
    pub const BREAKPOINT: u32 = 8192;
    /// Something was promised of what some code may use afterwards: a program accesses it by itself, or it was mapped.
    pub const ASKED: u32 = 1 << 21;

    /// The witness of a dead copy of a page of this kind.
    pub fn stale(kind: PageKind) -> u32 {
        if kind == PageKind::Text { Self::STALE_TEXT } else { Self::STALE }
    }

    /// Sentences for the `sometimes` witnesses.
    pub const WITNESSES: [(u32, &'static str); 9] = [
        (Self::PROMISED, "a flush was completed"),
        (Self::IPI, "a CPU was interrupted for a flush"),
        (Self::DEFERRED, "a flush left a CPU out"),
        (Self::STALE, "a CPU held a dead translation"),
        (Self::STALE_TEXT, "a CPU had fetched text that a sync made dead"),
        (Self::BREAKPOINT, "a CPU ran the INT3 of a patched instruction"),
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
    /// Which way the next op goes if nothing decides it.
    pub takes: bool,
    /// What was seen.
    pub seen: u32,
    /// CPUs whose words were read or written beside those of the one that acts, a bit each.
    pub others: u8,
    /// The page at which the op just carried out faulted.
    fault: Option<usize>,
    /// The CPU on which the task of the op just carried out goes on.
    moved: Option<usize>,
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

    /// The slot of a paging-structure cache that holds the entry above a page under a CR3, if that table maps it.
    #[inline]
    pub fn upper_slot(&self, page: &PageInfo, cr3: u64) -> Option<usize> {
        let user = cr3 & CR3_USER != 0;
        (!user || page.user_mapped).then(|| self.asid(cr3) + if user { self.layout.asids } else { 0 })
    }

    /// May code of this zone use pages of this kind?
    pub fn zone_may(assume: Assume, zone: Zone, kind: PageKind) -> bool {
        let by = |t: Touches| match (t, kind) {
            (Touches::None, _) | (_, PageKind::User(_) | PageKind::Text) => false,
            (Touches::DirectMap, k) => k == PageKind::DirectMap,
            (Touches::Recycled, k) => matches!(k, PageKind::DirectMap | PageKind::Vmalloc),
        };
        let is = |k: PageKind| kind == k;
        if kind == PageKind::Text {
            return match zone {
                Zone::Entry => assume.text == Patched::Noinstr,
                Zone::Danger => assume.text >= Patched::Danger,
                Zone::Nmi | Zone::Kernel => true,
                Zone::PerCpu | Zone::Stack | Zone::User => false,
                Zone::DirectMap | Zone::Image | Zone::Recycled => false,
            };
        }
        match zone {
            Zone::Entry => is(PageKind::EntryArea),
            Zone::PerCpu => is(PageKind::PerCpu),
            Zone::DirectMap => is(PageKind::DirectMap),
            Zone::Image => is(PageKind::Image),
            Zone::Recycled => is(PageKind::Vmalloc),
            Zone::Stack => false, // the task's own: live, never stale
            Zone::Danger => by(assume.danger),
            Zone::Nmi => by(assume.nmi),
            Zone::Kernel => !matches!(kind, PageKind::User(_)),
            Zone::User => matches!(kind, PageKind::User(_)),
        }
    }

    /// The pages that `range` means where an entry becomes `v`, a bit each: what vunmap and table frees take away is
    /// never the direct map, the image or per-CPU data, and what loses rights or changes its type is that, if any is
    /// tracked.
    #[inline]
    pub fn changed(&self, v: Entry) -> u8 {
        let stays = matches!(v, Entry::LessRights | Entry::Uncached | Entry::Cached);
        if stays && self.lasting != 0 { self.lasting } else { !self.lasting }
    }

    /// The zone an op's access is in, if it is one.
    pub fn zone_of(op: Op) -> Option<Zone> {
        zone::of(op)
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
        let others = if m.layout.migrates { m.masks[3] } else { 0 };
        Abs { m, s, level: 0, pick: None, takes: true, seen: 0, others, fault: None, moved: None }
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
        self.enter_at(cpu, level, self.m.code.start(program));
    }

    /// Start a frame at an op.
    pub fn enter_at(&mut self, cpu: usize, level: usize, start: Pc) {
        let f = &self.m.layout.cpus[cpu].frames[level];
        self.set(f.at, f.number(start, step::NO_PC));
    }

    /// Start a frame at an op because a device sends an interrupt.
    pub fn enter_for_device(&mut self, cpu: usize, level: usize, start: Pc) {
        self.enter_at(cpu, level, start);
        let f = &self.m.layout.cpus[cpu].frames[level];
        if f.device.exists() {
            let ahead = f.locations[self.get(f.at) as usize - 1].calls;
            self.set(f.device, u64::from(ahead));
        }
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
            // Where nothing will read it, 0, as at rest.
            let some = u64::from(frame.cur).min(self.m.layout.cpus.len() as u64);
            self.set(f.cur, if at.cur { some } else { 0 });
        }
        if !at.visited {
            self.set(f.visited, 0);
        }
        if !at.targets {
            self.set(f.targets, 0);
        }
        if !at.calls && f.device.exists() {
            self.set(f.device, 0);
        }
    }

    /// Execute the next op of a CPU's topmost frame.
    pub fn run(&mut self, cpu: usize, level: usize) -> Outcome {
        self.level = level;
        let mut frame = self.load(cpu, level);
        let before = frame;
        if self.m.counts_per_mm && self.compares_two_orders(&frame) {
            return Outcome::Violated(Violation::Overflow);
        }
        let outcome = step::step(&self.m.code, &mut frame, self, cpu as Cpu);
        if let Some(page) = self.fault.take() {
            self.end_in_fault(cpu, page, &before);
            self.pass(cpu);
            return Outcome::Done;
        }
        match outcome {
            Outcome::Next => match self.moved.take() {
                Some(to) => self.move_task(cpu, to, &frame),
                None => self.store(cpu, level, &frame),
            },
            Outcome::Breakpoint => {
                self.seen |= Seen::BREAKPOINT;
                self.store(cpu, level, &frame);
                let handler = self.m.layout.breakpoint.expect("a text with such a branch has it");
                self.enter(cpu, level + 1, handler);
            }
            Outcome::Done => {
                self.keep(cpu, level, &frame);
                self.done(cpu, level);
            }
            Outcome::Wait | Outcome::Violated(_) => return outcome,
        }
        self.pass(cpu);
        outcome
    }

    fn done(&mut self, cpu: usize, level: usize) {
        let c = &self.m.layout.cpus[cpu];
        let f = &c.frames[level];
        if f.locations[self.get(f.at) as usize - 1].iret {
            self.drop_text(cpu);
            self.set(c.nmi_blocked, 0); // any IRET unblocks NMIs, and no other return (SEMANTICS H5)
        }
        for b in [f.at, f.area, f.cur, f.visited, f.targets, f.mce, f.device, f.scratch] {
            self.set(b, 0);
        }
        if level == 0 {
            self.set(c.irqs, 1);
        } else {
            for b in [f.reads, f.watch].into_iter().filter(|b| b.exists()) {
                self.set(b, 0);
            }
        }
    }

    /// The op a CPU would execute next.
    #[inline]
    pub fn next_op(&self, cpu: usize, level: usize) -> (u16, Op) {
        let f = &self.m.layout.cpus[cpu].frames[level];
        let at = &f.locations[self.get(f.at) as usize - 1];
        (at.pc, at.op)
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
                let mm = self.get(self.m.layout.cpus[self.task(usize::from(cpu))].info.0) as usize;
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
