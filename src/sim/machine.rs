//! The timed [`Machine`]: one CPU's state, and what an op does to it.
//!
//! Invariant: an op that other CPUs could notice runs only when every CPU it concerns has been brought to its time
//! (the engine sees to that before it calls `step`), so methods here never advance anyone.

use super::cost::Times;
use super::queue::{NEVER, Queue};
use super::stats::{Cause, N_CAUSES, Row, STATS, Stat};
use super::timeline::{Event, Kind, Timeline};
use crate::hw::invalidate::{Invpcid as HwInvpcid, Scope};
use crate::hw::{Kind as Access, Mmu, PageSize, Pcid, Preset, Vpn};
use crate::kernel::program::{
    At, Code, Cr3, Entry, Feature, Features, Invpcid, Level, NoFlush, Op, Pages, Pc, PcidOf, ProgId, Set,
    Slot, Touch, Zone,
};
use crate::kernel::smp::{Call, CallQueue};
use crate::kernel::step::{Cpu, Invalidate, Machine, Order, Violation};

/// A request for a flush, held by its initiator until it is consumed.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Request {
    /// Number, from 1.
    pub id: u32,
    /// When it was made.
    pub at: u64,
    /// More than the ceiling.
    pub full: bool,
    /// Pages of a ranged one.
    pub pages: u32,
    /// Why.
    pub cause: Cause,
}

/// Bits of [`Core::sets`].
const HOUSEKEEPING: u8 = 1;
const NOHZ_FULL: u8 = 2;
const FLUSH_MASK: u8 = 4;

/// Bit of the CR3 word: the user half.
const USER: u64 = 1;

/// One CPU, without its frames.
#[allow(clippy::struct_excessive_bools)] // registers of one bit
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Core {
    /// Start of its next op.
    pub clock: u64,
    /// Frames in use.
    pub depth: u8,
    /// IF.
    pub if_on: bool,
    /// An NMI handler runs.
    pub nmi_blocked: bool,
    /// GSBASE is the kernel's.
    pub gs_kernel: bool,
    sets: u8,
    /// CR3 word.
    pub cr3: u64,
    /// Arrival of the remote-call interrupt.
    pub irq_at: u64,
    /// Next other interrupt.
    pub device_next: u64,
    /// Next NMI.
    pub nmi_next: u64,
    /// Next system call of the foreground.
    pub fg_next: u64,
    /// Next event that other CPUs could notice.
    pub init_next: u64,
    /// Frames that are initiators.
    pub working: u8,
    /// It waits for acknowledgements.
    pub waiting: bool,
    /// It handles a remote-call interrupt.
    pub in_call_irq: bool,
    /// A call was taken and not yet acknowledged.
    pub call: Option<Call>,
    /// Acknowledgements it still waits for.
    pub acks_left: u32,
    /// When the last acknowledgement reached it.
    pub acked_at: u64,
    /// Remote calls.
    pub calls: CallQueue,
    /// Its request was consumed.
    pub promised: bool,
    /// Its own request.
    pub request: Request,
    /// When it last flushed everything.
    pub flushed_at: u64,
    /// The last ranged request it served.
    pub served: u32,
    /// It owes a flush.
    pub owed: bool,
    /// Kernel translations are loaded and kernel code runs.
    pub view: bool,
    exposed_from: u64,
    /// Pages that must be walked again.
    pub cold: bool,
    owe_user: bool,
    owe_others: bool,
    broadcast: Option<bool>,
    /// Where the loop is.
    pub loop_next: Cpu,
    /// IPIs sent for the current request.
    pub sent: u32,
    /// Since when it waits for acknowledgements.
    pub wait_from: u64,
    /// Start of the current quiet time.
    pub quiet_from: u64,
    /// In a body: nothing happens before this.
    pub resume: u64,
    /// The program running in the topmost frame is entry code.
    pub entry_code: bool,
}

impl Core {
    /// In user mode with nothing due before `now`: bringing it there would change nothing.
    #[inline]
    pub fn is_quiet_until(&self, now: u64) -> bool {
        self.depth == 0
            && self.fg_next > now
            && self.irq_at > now
            && self.device_next > now
            && self.nmi_next > now
            && self.init_next > now
    }
}

/// A variable's field, resolved.
#[derive(Clone, Copy, Debug)]
struct FieldAt {
    var: usize,
    shift: u8,
    mask: u64,
    shared: bool,
    user_mapped: bool,
}

/// All CPUs.
#[derive(Clone, Debug)]
pub struct Timed {
    /// CPUs.
    pub cores: Vec<Core>,
    /// Statistics by CPU.
    pub stats: Vec<Row>,
    /// Remote-call and other interrupts by cause and CPU.
    pub by_cause: Vec<[u64; N_CAUSES]>,
    /// Who must be brought forward, and when.
    pub queue: Queue,
    /// Costs.
    pub times: Times,
    /// Events by CPU.
    pub timelines: Vec<Timeline>,
    fields: Vec<FieldAt>,
    vars: usize,
    pub(super) values: Vec<u16>,
    pub(super) shared: Vec<u16>,
    pub(super) targets: Vec<u64>,
    words: usize,
    scratch: Vec<(Cpu, bool)>,
    features: Features,
    socket: Vec<u16>,
    /// Numbers of requests.
    pub last_request: u32,
    /// Timelines keep anything at all.
    pub keeps_events: bool,
    /// TLBs, if pages are looked up.
    pub tlbs: Option<Vec<CpuTlb>>,
    /// Extra delivery time of an IPI and its draws.
    pub extra_ipi: Option<(u64, super::draw::Draws)>,
    /// Entry code reads what others write: nobody may be left behind.
    pub all_driven: bool,
    /// First violation.
    pub violation: Option<(u64, Cpu, Pc, Violation)>,
}

/// The TLB of one CPU and the pages its work touches (`detail = "full"`).
#[derive(Clone, Debug)]
pub struct CpuTlb {
    mmu: Mmu,
    pcid: bool,
    overlap_tenths: u64,
    ps_per_1000_cycles: u64,
}

/// Page numbers of what is touched; only that they differ matters.
const ENTRY_PAGES: u64 = 0xffff_fe00_0000_0000 >> 12;
const KERNEL_PAGES: u64 = 0xffff_8880_0000_0000 >> 12;
const USER_PAGES: u64 = 0x5555_5555_4000 >> 12;

impl CpuTlb {
    /// Empty, in the kernel's context.
    pub fn new(preset: &Preset, pcid: bool) -> Self {
        let mut mmu = Mmu::new(preset);
        if !pcid && mmu.pcide() {
            mmu.mov_cr4_pcide(false).expect("clearing is always allowed");
        }
        CpuTlb {
            mmu,
            pcid,
            overlap_tenths: u64::from(preset.costs.overlap_tenths),
            ps_per_1000_cycles: preset.picoseconds(1000),
        }
    }

    fn switch(&mut self, user: bool, keep: bool) {
        let pcid = if !self.pcid {
            Pcid(0)
        } else if user {
            Pcid(0x801)
        } else {
            Pcid(1)
        };
        self.mmu.mov_cr3(pcid, keep && self.pcid).expect("the context follows CR4.PCIDE");
    }

    fn flush_all(&mut self) {
        self.mmu.apply(Scope::ALL);
    }

    /// Touches pages one after the other; misses overlap. (time, walks)
    fn touch(&mut self, first: u64, pages: u32, global: bool) -> (u64, u64) {
        let (mut cycles, mut walks) = (0u64, 0);
        for page in first..first + u64::from(pages) {
            let a = self.mmu.access_page(Vpn(page), Access::Load, PageSize::K4, global);
            cycles += u64::from(a.cycles);
            walks += u64::from(a.loads > 0);
        }
        (cycles * 10 / self.overlap_tenths * self.ps_per_1000_cycles / 1000, walks)
    }
}

/// What [`Timed::new`] needs of a scenario.
pub struct Layout<'a> {
    /// Number of CPUs.
    pub cpus: Cpu,
    /// NOHZ_FULL.
    pub isolated: &'a [Cpu],
    /// Mask of the entry flush.
    pub flush_mask: &'a [Cpu],
    /// Sockets.
    pub sockets: u16,
    /// Events to keep by CPU.
    pub keep: usize,
}

impl Timed {
    /// At time 0, every CPU in kernel mode, nothing running.
    pub fn new(code: &Code, features: Features, times: Times, layout: &Layout<'_>) -> Self {
        let n = usize::from(layout.cpus);
        let first = Core {
            clock: 0,
            depth: 0,
            if_on: true,
            nmi_blocked: false,
            gs_kernel: true,
            sets: HOUSEKEEPING,
            cr3: 0,
            irq_at: NEVER,
            device_next: NEVER,
            nmi_next: NEVER,
            fg_next: NEVER,
            init_next: NEVER,
            working: 0,
            waiting: false,
            in_call_irq: false,
            call: None,
            acks_left: 0,
            acked_at: 0,
            calls: CallQueue::default(),
            promised: false,
            request: Request { id: 0, at: 0, full: true, pages: 0, cause: Cause::Other },
            flushed_at: 0,
            served: 0,
            owed: false,
            view: false,
            exposed_from: NEVER,
            cold: false,
            owe_user: false,
            owe_others: false,
            broadcast: None,
            loop_next: 0,
            sent: 0,
            wait_from: NEVER,
            quiet_from: 0,
            resume: 0,
            entry_code: false,
        };
        let mut cores = vec![first; n];
        for cpu in layout.isolated {
            cores[usize::from(*cpu)].sets = NOHZ_FULL;
        }
        for cpu in layout.flush_mask {
            cores[usize::from(*cpu)].sets |= FLUSH_MASK;
        }
        let fields = code
            .fields
            .iter()
            .map(|f| {
                let var = &code.vars[usize::from(f.var)];
                FieldAt {
                    var: usize::from(f.var),
                    shift: f.shift,
                    mask: (1 << f.bits) - 1,
                    shared: !var.per_cpu,
                    user_mapped: var.user_mapped,
                }
            })
            .collect();
        let init: Vec<u16> = code.vars.iter().map(|v| v.init).collect();
        let words = n.div_ceil(64);
        Timed {
            cores,
            stats: vec![[0; STATS]; n],
            by_cause: vec![[0; N_CAUSES]; n],
            queue: Queue::new(n),
            times,
            timelines: vec![Timeline::new(layout.keep); n],
            fields,
            vars: init.len(),
            values: init.iter().copied().cycle().take(init.len() * n).collect(),
            shared: init,
            targets: vec![0; words * n],
            words,
            scratch: Vec::new(),
            features,
            socket: (0..n).map(|c| (c * usize::from(layout.sockets) / n) as u16).collect(),
            last_request: 0,
            keeps_events: layout.keep > 0,
            tlbs: None,
            extra_ipi: None,
            all_driven: false,
            violation: None,
        }
    }

    /// Adds to a statistic.
    pub fn add(&mut self, cpu: Cpu, stat: Stat, by: u64) {
        self.stats[usize::from(cpu)][stat as usize] += by;
    }

    /// A CPU's variables.
    pub fn vars_of(&self, cpu: Cpu) -> &[u16] {
        let at = usize::from(cpu) * self.vars;
        &self.values[at..at + self.vars]
    }

    /// The sets a CPU is in, packed.
    pub fn sets_of(&self, cpu: Cpu) -> u8 {
        self.cores[usize::from(cpu)].sets
    }

    /// Appends an event.
    pub fn event(&mut self, cpu: Cpu, time_ps: u64, duration_ps: u64, kind: Kind, cause: Cause, other: u32) {
        self.timelines[usize::from(cpu)].push(Event { time_ps, duration_ps, cpu, kind, cause, other });
    }

    /// The targets a frame collected.
    pub fn is_target(&self, cpu: Cpu, who: Cpu) -> bool {
        let word = usize::from(cpu) * self.words + usize::from(who) / 64;
        self.targets[word] >> (who % 64) & 1 == 1
    }

    /// Members of a set, as seen from `cpu`.
    pub fn in_set(&self, cpu: Cpu, set: Set, who: Cpu) -> bool {
        let sets = self.cores[usize::from(who)].sets;
        match set {
            Set::Online => true,
            Set::Others => who != cpu,
            Set::Housekeeping => sets & HOUSEKEEPING != 0,
            Set::NohzFull => sets & NOHZ_FULL != 0,
            Set::FlushMask => sets & FLUSH_MASK != 0,
            Set::Targets => self.is_target(cpu, who),
        }
    }

    /// Kernel mode with the kernel's translations begins.
    pub fn view_begins(&mut self, cpu: Cpu) {
        let c = &mut self.cores[usize::from(cpu)];
        if !c.view {
            c.view = true;
            if c.owed {
                c.exposed_from = c.clock;
            }
        }
    }

    /// ... and ends.
    pub fn view_ends(&mut self, cpu: Cpu) {
        let c = &mut self.cores[usize::from(cpu)];
        c.view = false;
        self.close_exposure(cpu);
    }

    fn close_exposure(&mut self, cpu: Cpu) {
        let c = &mut self.cores[usize::from(cpu)];
        if c.exposed_from != NEVER {
            let time = c.clock.saturating_sub(c.exposed_from);
            c.exposed_from = NEVER;
            self.add(cpu, Stat::exposures, 1);
            self.add(cpu, Stat::exposure_ps, time);
        }
    }

    /// Whether page-table isolation decides what is visible.
    pub fn has_pti(&self) -> bool {
        self.features.has(Feature::Pti)
    }

    /// Looks pages up: the kernel's, or the user's. Time is charged, walks are counted.
    pub fn look_up(&mut self, cpu: Cpu, kernel: bool, pages: u32) {
        let pti = self.has_pti();
        let Some(tlbs) = &mut self.tlbs else { return };
        let tlb = &mut tlbs[usize::from(cpu)];
        let (time, walks) =
            if kernel { tlb.touch(KERNEL_PAGES, pages, !pti) } else { tlb.touch(USER_PAGES, pages, false) };
        self.cores[usize::from(cpu)].clock += time;
        self.add(cpu, Stat::refill_misses, walks);
        self.add(cpu, Stat::refill_ps, time);
    }

    /// Everything cached on `cpu` is gone. `took`: time of the instruction, counted if entry code did it.
    fn flushed(&mut self, cpu: Cpu, took: u64, architectural: bool) {
        let c = &mut self.cores[usize::from(cpu)];
        let (owed, entry) = (c.owed, c.entry_code && c.call.is_none());
        c.flushed_at = c.clock;
        c.cold = self.tlbs.is_none();
        c.owed = false;
        let (working, in_call, clock) = (c.working > 0, c.call.is_some(), c.clock);
        if owed {
            self.close_exposure(cpu);
        }
        if architectural {
            return;
        }
        if in_call {
            self.add(cpu, Stat::remote_flushes, 1);
        } else if entry {
            let which = if owed { Stat::entry_flushes_needed } else { Stat::entry_flushes_unneeded };
            self.add(cpu, which, 1);
            self.add(cpu, Stat::entry_flush_ps, took);
            if owed {
                self.event(cpu, clock, took, Kind::EntryFlush, Cause::Other, 0);
            }
        } else if working {
            self.add(cpu, Stat::local_flushes, 1);
        }
    }

    /// A CPU carried out a broadcast it never saw.
    fn broadcast_reached(&mut self, cpu: Cpu, at: u64, full: bool, id: u32) {
        let c = &mut self.cores[usize::from(cpu)];
        if full {
            c.flushed_at = c.flushed_at.max(at);
            c.cold = self.tlbs.is_none();
            c.owed = false;
            if let Some(tlbs) = &mut self.tlbs {
                tlbs[usize::from(cpu)].flush_all();
            }
        } else {
            c.served = id;
        }
    }

    fn check(&self, cpu: Cpu, f: FieldAt, at: At) -> Result<(), Violation> {
        let c = &self.cores[usize::from(cpu)];
        if c.cr3 & USER != 0 && !f.user_mapped && self.has_pti() {
            return Err(Violation::UnmappedAccess);
        }
        if at == At::Me && !c.gs_kernel {
            return Err(Violation::WrongGsAccess);
        }
        Ok(())
    }

    fn slot(&self, f: FieldAt, of: Cpu) -> usize {
        usize::from(of) * self.vars + f.var
    }

    fn current_request(&self, cpu: Cpu) -> Request {
        let c = &self.cores[usize::from(cpu)];
        match c.call {
            Some(call) => self.cores[usize::from(call.from)].request,
            None => c.request,
        }
    }

    /// When an interrupt sent now would be taken.
    fn delivery(&mut self, from: Cpu, to: Cpu, now: u64) -> u64 {
        let near = self.socket[usize::from(from)] == self.socket[usize::from(to)];
        let extra = match &mut self.extra_ipi {
            Some((mean, draws)) => draws.exponential(*mean),
            None => 0,
        };
        now + extra + if near { self.times.ipi.0 } else { self.times.ipi.1 }
    }

    /// Until when this CPU can be left alone by those who only need its answers; [`NEVER`]: nobody waits for it.
    pub fn demand(&self, cpu: Cpu) -> u64 {
        let c = &self.cores[usize::from(cpu)];
        if c.call.is_some() {
            return c.clock;
        }
        let calls = if c.calls.is_empty() {
            NEVER
        } else if c.in_call_irq {
            c.clock.max(c.resume)
        } else {
            c.clock.max(c.irq_at).max(if c.if_on { 0 } else { c.resume })
        };
        if c.working > 0 {
            // Nested in its wait, an interrupt handler is nobody's business until it returns to the wait.
            return if c.waiting { calls } else { c.clock };
        }
        if self.all_driven {
            let next = c.irq_at.min(c.device_next).min(c.nmi_next).min(c.fg_next).min(c.init_next);
            return if c.depth > 0 {
                c.clock.max(c.resume)
            } else if next == NEVER {
                NEVER
            } else {
                c.clock.max(next)
            };
        }
        let starts = if c.init_next == NEVER { NEVER } else { c.clock.max(c.init_next) };
        calls.min(starts)
    }
}

impl Machine for Timed {
    #[inline]
    fn ordered(&self, _cpu: Cpu, _order: Order) -> bool {
        true // sequentially consistent at op granularity; reports say so
    }

    #[inline]
    fn charge(&mut self, cpu: Cpu, pc: Pc, _op: Op) {
        self.cores[usize::from(cpu)].clock += self.times.op[usize::from(pc)];
    }

    #[inline]
    fn read(&mut self, cpu: Cpu, field: u8, at: At, of: Cpu) -> Result<u64, Violation> {
        let f = self.fields[usize::from(field)];
        self.check(cpu, f, at)?;
        let word = if f.shared { self.shared[f.var] } else { self.values[self.slot(f, of)] };
        Ok(u64::from(word) >> f.shift & f.mask)
    }

    #[inline]
    fn write(&mut self, cpu: Cpu, field: u8, at: At, of: Cpu, v: u64) -> Result<(), Violation> {
        self.rmw(cpu, field, at, of, |_| v).map(|_| ())
    }

    #[inline]
    fn rmw(
        &mut self,
        cpu: Cpu,
        field: u8,
        at: At,
        of: Cpu,
        f: impl FnOnce(u64) -> u64,
    ) -> Result<u64, Violation> {
        let field = self.fields[usize::from(field)];
        self.check(cpu, field, at)?;
        let slot = self.slot(field, of);
        let word = if field.shared { &mut self.shared[field.var] } else { &mut self.values[slot] };
        let old = u64::from(*word) >> field.shift & field.mask;
        let new = f(old);
        if new > field.mask {
            return Err(Violation::Overflow);
        }
        *word = (u64::from(*word) & !(field.mask << field.shift) | new << field.shift) as u16;
        Ok(old)
    }

    #[inline]
    fn contains(&self, cpu: Cpu, set: Set, who: Cpu) -> bool {
        self.in_set(cpu, set, who)
    }

    fn is_empty(&self, cpu: Cpu, set: Set) -> bool {
        (0..self.cores.len() as Cpu).all(|who| !self.in_set(cpu, set, who))
    }

    #[inline]
    fn start_loop(&mut self, cpu: Cpu, _set: Set) {
        self.cores[usize::from(cpu)].loop_next = 0;
    }

    #[inline]
    fn next_in(&mut self, cpu: Cpu, set: Set) -> Option<Cpu> {
        let n = self.cores.len() as Cpu;
        let mut who = self.cores[usize::from(cpu)].loop_next;
        while who < n && !self.in_set(cpu, set, who) {
            who += 1;
        }
        self.cores[usize::from(cpu)].loop_next = who + 1;
        (who < n).then_some(who)
    }

    fn clear_targets(&mut self, cpu: Cpu) {
        let at = usize::from(cpu) * self.words;
        self.targets[at..at + self.words].fill(0);
    }

    #[inline]
    fn put(&mut self, cpu: Cpu, who: Cpu) {
        self.targets[usize::from(cpu) * self.words + usize::from(who) / 64] |= 1 << (who % 64);
    }

    #[inline]
    fn irq(&mut self, cpu: Cpu, on: bool) {
        self.cores[usize::from(cpu)].if_on = on;
    }

    #[inline]
    fn gs(&self, cpu: Cpu) -> bool {
        self.cores[usize::from(cpu)].gs_kernel
    }

    #[inline]
    fn set_gs(&mut self, cpu: Cpu, kernel: bool) {
        self.cores[usize::from(cpu)].gs_kernel = kernel;
    }

    #[inline]
    fn cr3(&self, cpu: Cpu) -> u64 {
        self.cores[usize::from(cpu)].cr3
    }

    #[inline]
    fn cr3_is_user(&self, _cpu: Cpu, cr3: u64) -> bool {
        cr3 & USER != 0
    }

    #[inline]
    fn cr3_for(&self, cpu: Cpu, to: Cr3, a: u64, b: u64) -> u64 {
        let now = self.cores[usize::from(cpu)].cr3;
        match to {
            Cr3::Kernel => now & !USER,
            Cr3::User => now | USER,
            Cr3::Reg(_) => a,
            Cr3::Mm { .. } => a << 16 | b << 8,
        }
    }

    #[inline]
    fn mov_cr3(&mut self, cpu: Cpu, cr3: u64, keep: NoFlush) -> Result<(), Violation> {
        let pcid = self.features.has(Feature::Pcid);
        let c = &mut self.cores[usize::from(cpu)];
        c.cr3 = cr3;
        let kernel = cr3 & USER == 0;
        let flushes = match keep {
            NoFlush::Flush => true,
            NoFlush::Keep => !pcid,
            NoFlush::Owed => {
                let owed = std::mem::take(&mut c.owe_user);
                if owed && pcid {
                    c.clock += self.times.cr3_flush_extra;
                }
                owed || !pcid
            }
        };
        if let Some(tlbs) = &mut self.tlbs {
            tlbs[usize::from(cpu)].switch(!kernel, !flushes);
        }
        if kernel && self.has_pti() {
            self.view_begins(cpu);
        } else if self.has_pti() {
            self.view_ends(cpu);
        }
        // Without PCIDs each write drops every non-global translation, vmalloc's among them while PTI is on.
        if flushes && self.has_pti() && (kernel || !pcid) {
            let took = self.times.cr3_flush_extra;
            self.flushed(cpu, took, !(pcid && keep == NoFlush::Flush));
        }
        Ok(())
    }

    fn invalidate(&mut self, cpu: Cpu, what: Invalidate) -> Result<(), Violation> {
        if let Some(tlbs) = &mut self.tlbs {
            let mmu = &mut tlbs[usize::from(cpu)].mmu;
            match what {
                Invalidate::Cr4Pge(on) => {
                    mmu.mov_cr4_pge(on);
                }
                Invalidate::Invpcid(kind @ (Invpcid::AllGlobal | Invpcid::All), ..) => {
                    let kind = if kind == Invpcid::All {
                        HwInvpcid::AllNonGlobal
                    } else {
                        HwInvpcid::AllIncludingGlobal
                    };
                    mmu.apply(Scope::invpcid(kind));
                }
                Invalidate::Invpcid(Invpcid::Context, half, _) => {
                    let pcid = if half == PcidOf::Kernel { Pcid(1) } else { Pcid(0x801) };
                    mmu.apply(Scope::invpcid(HwInvpcid::SingleContext(pcid)));
                }
                // vmalloc pages are in nobody's working set here.
                Invalidate::Invpcid(Invpcid::Address, ..) | Invalidate::Page(_) => {}
                Invalidate::Broadcast(_) | Invalidate::BroadcastAll => {}
            }
        }
        match what {
            Invalidate::Cr4Pge(true) => {} // the change to off has emptied everything
            Invalidate::Cr4Pge(false) => {
                self.flushed(cpu, self.times.cr4_pge, false);
            }
            Invalidate::Invpcid(Invpcid::AllGlobal, ..) => self.flushed(cpu, self.times.invpcid.0, false),
            Invalidate::Invpcid(Invpcid::All, ..) => self.flushed(cpu, self.times.invpcid.1, false),
            Invalidate::Invpcid(Invpcid::Context, PcidOf::Kernel, _) => {
                self.flushed(cpu, self.times.invpcid.2, false);
            }
            Invalidate::Invpcid(Invpcid::Context, PcidOf::User, _) => {}
            Invalidate::Invpcid(Invpcid::Address, ..) | Invalidate::Page(_) => {
                let request = self.current_request(cpu);
                let extra = u64::from(request.pages.saturating_sub(1)) * self.times.invlpg;
                let c = &mut self.cores[usize::from(cpu)];
                c.clock += extra;
                c.served = request.id;
                let stat = if c.call.is_some() { Stat::remote_flushes } else { Stat::local_flushes };
                self.add(cpu, stat, 1);
            }
            Invalidate::Broadcast(_) => {
                let request = self.current_request(cpu);
                // Up to eight pages per instruction (CPUID 8000_0008h.EDX + 1).
                let extra = u64::from(request.pages.saturating_sub(1) / 8) * self.times.invlpgb;
                let c = &mut self.cores[usize::from(cpu)];
                c.clock += extra;
                c.broadcast = Some(c.broadcast == Some(true));
            }
            Invalidate::BroadcastAll => self.cores[usize::from(cpu)].broadcast = Some(true),
        }
        Ok(())
    }

    fn tlbsync(&mut self, cpu: Cpu) -> bool {
        let c = &mut self.cores[usize::from(cpu)];
        let (at, id) = (c.clock, c.request.id);
        if let Some(full) = c.broadcast.take() {
            for who in 0..self.cores.len() as Cpu {
                self.broadcast_reached(who, at, full, id);
            }
        }
        true
    }

    fn rar(&mut self, cpu: Cpu, to: Set) -> Result<(), Violation> {
        let c = &self.cores[usize::from(cpu)];
        let (at, id, full) = (c.clock, c.request.id, c.request.full);
        for who in 0..self.cores.len() as Cpu {
            if self.in_set(cpu, to, who) {
                self.broadcast_reached(who, at, full, id);
            }
        }
        Ok(())
    }

    fn owe(&mut self, cpu: Cpu, others: bool) {
        let c = &mut self.cores[usize::from(cpu)];
        if others {
            c.owe_others = true;
        } else {
            c.owe_user = true;
        }
    }

    #[inline]
    fn touch(&mut self, cpu: Cpu, what: Touch) -> Result<(), Violation> {
        // In summary, misses are charged as one sum after a flush; in full, bodies and user mode look pages up too.
        if let Some(tlbs) = &mut self.tlbs
            && let Touch::Zone(zone @ (Zone::Entry | Zone::Stack)) = what
        {
            let pti = self.features.has(Feature::Pti);
            let tlb = &mut tlbs[usize::from(cpu)];
            let (time, walks) = if zone == Zone::Entry {
                tlb.touch(ENTRY_PAGES, 1, true)
            } else {
                tlb.touch(ENTRY_PAGES + 0x100, 1, !pti)
            };
            self.cores[usize::from(cpu)].clock += time;
            self.add(cpu, Stat::refill_misses, walks);
            self.add(cpu, Stat::refill_ps, time);
        }
        Ok(())
    }

    #[inline]
    fn body(&mut self, cpu: Cpu, _slot: Slot) -> Result<(), Violation> {
        let c = &self.cores[usize::from(cpu)];
        if c.owed && c.view {
            let clock = c.clock;
            self.add(cpu, Stat::hazards, 1);
            self.event(cpu, clock, 0, Kind::Hazard, Cause::Other, 0);
        }
        Ok(())
    }

    fn pte(&mut self, _: Cpu, _: Pages, _: Level, _: Entry, _: bool) -> Result<(), Violation> {
        Ok(())
    }

    fn free_table(&mut self, _: Cpu, _: Pages) -> Result<(), Violation> {
        Ok(())
    }

    #[inline]
    fn range_is_full(&self, cpu: Cpu) -> bool {
        self.current_request(cpu).full
    }

    fn request(&mut self, cpu: Cpu, _pages: Pages) {
        self.last_request += 1;
        let c = &mut self.cores[usize::from(cpu)];
        c.request.id = self.last_request;
        c.request.at = c.clock;
        c.sent = 0;
        let full = c.request.full;
        self.add(cpu, Stat::flush_requests, 1);
        self.add(cpu, Stat::flush_requests_full, u64::from(full));
    }

    fn promise(&mut self, cpu: Cpu, _pages: Pages) -> Result<(), Violation> {
        let Core { request, clock: now, sent, .. } = self.cores[usize::from(cpu)];
        self.cores[usize::from(cpu)].promised = true;
        self.event(cpu, request.at, now - request.at, Kind::Request, request.cause, sent);
        for who in 0..self.cores.len() as Cpu {
            let c = &mut self.cores[usize::from(who)];
            if c.flushed_at >= request.at || c.served == request.id {
                continue;
            }
            if !c.owed {
                c.owed = true;
                if c.view {
                    c.exposed_from = now;
                }
            }
            self.add(who, Stat::deferrals, 1);
            if self.keeps_events {
                self.event(who, now, 0, Kind::Deferral, request.cause, u32::from(cpu));
            }
        }
        Ok(())
    }

    fn ipi(&mut self, cpu: Cpu, to: Set, run: ProgId) {
        let request = self.cores[usize::from(cpu)].request.id;
        let mut called = std::mem::take(&mut self.scratch);
        called.clear();
        let mut sent = 0;
        for who in 0..self.cores.len() as Cpu {
            if who != cpu && self.in_set(cpu, to, who) {
                let empty = self.cores[usize::from(who)].calls.add(Call { from: cpu, run, request });
                sent += u32::from(empty);
                called.push((who, empty));
            }
        }
        let c = &mut self.cores[usize::from(cpu)];
        c.clock += self.times.queue_call * called.len() as u64;
        if sent > 0 {
            c.clock += self.times.send;
        }
        c.acks_left += called.len() as u32;
        c.sent += sent;
        let now = c.clock;
        self.add(cpu, Stat::ipi_rounds, u64::from(sent > 0));
        self.add(cpu, Stat::calls_queued, called.len() as u64);
        self.add(cpu, Stat::ipis_sent, u64::from(sent));
        for &(who, empty) in &called {
            if empty {
                let at = self.delivery(cpu, who, now);
                let c = &mut self.cores[usize::from(who)];
                c.irq_at = c.irq_at.min(at);
                c.resume = 0;
            }
            let demand = self.demand(who);
            self.queue.set(who, demand);
        }
        self.scratch = called;
    }

    #[inline]
    fn acked(&self, cpu: Cpu) -> bool {
        self.cores[usize::from(cpu)].acks_left == 0
    }

    fn take_call(&mut self, cpu: Cpu) -> Option<ProgId> {
        let c = &mut self.cores[usize::from(cpu)];
        if !c.in_call_irq {
            return None;
        }
        let call = c.calls.take()?;
        c.call = Some(call);
        self.add(cpu, Stat::calls_executed, 1);
        Some(call.run)
    }

    fn ack(&mut self, cpu: Cpu) {
        let c = &mut self.cores[usize::from(cpu)];
        let Some(call) = c.call.take() else { return };
        let near = self.socket[usize::from(cpu)] == self.socket[usize::from(call.from)];
        let seen = c.clock + if near { self.times.line.0 } else { self.times.line.1 };
        let s = &mut self.cores[usize::from(call.from)];
        s.acks_left -= 1;
        s.acked_at = s.acked_at.max(seen);
        if s.acks_left == 0 && s.waiting {
            s.waiting = false;
            let demand = self.demand(call.from);
            self.queue.set(call.from, demand);
        }
    }
}
