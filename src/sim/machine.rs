//! The timed machine: one CPU's state (here), what an op does to it (`ops`), and its TLB (`tlb`).

use super::cost::Times;
use super::levels::Level;
use super::queue::{NEVER, Queue};
use super::stats::{Cause, FlushKind, N_CAUSES, Row, STATS, Stat, Window};
use super::timeline::{Event, Kind, Timeline};
use crate::kernel::program::{Code, Copies, Feature, Features, Op, PageKind, Pc};
use crate::kernel::smp::{Call, CallQueue};
use crate::kernel::step::{Cpu, Violation};

mod calls;
mod contexts;
mod flush;
#[cfg(test)]
pub mod journal;
mod ops;
mod reach;
mod record;
pub mod scripted;
mod sets;
mod text;
mod tlb;
mod volley;

pub use contexts::Contexts;
pub use reach::Reached;
use record::Log;
pub use record::{Recorded, Step};
pub use sets::Look;
pub(super) use tlb::looks_up;
pub use tlb::{CpuTlb, SavedTlb};
pub use volley::{Asked, Effect, Shape, Shot, Shots, Volleys};

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
    /// Of a user range: of this address space at this generation.
    pub user: bool,
    /// `info->mm`.
    pub mm: u16,
    /// `info->new_tlb_gen`.
    pub generation: u64,
    /// Whose translations a broadcast has taken already.
    pub reached: Reached,
}

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
    /// What reading the acknowledgements takes that it waits for, where that is told apart.
    pub reads: u64,
    /// Remote calls.
    pub calls: CallQueue,
    /// Its request was consumed.
    pub promised: bool,
    /// Its own request.
    pub request: Request,
    /// When it last serialised its instruction stream.
    pub serialised_at: u64,
    /// It was left out of a sync of patched text.
    pub sync_owed: bool,
    /// Kernel translations are loaded and kernel code runs.
    pub view: bool,
    exposed_from: u64,
    exposed_in: Window,
    /// What its innermost frame is.
    pub window: Window,
    /// What flushed it last.
    pub flushed_by: FlushKind,
    /// Pages that must be walked again.
    pub cold: bool,
    /// `user_pcid_flush_mask`, by ASID.
    pub owe_user: u8,
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
    /// In user mode, when something happens to it; else 0. Bringing it to an earlier time would change nothing.
    #[inline]
    pub(super) fn quiet_until(&self) -> u64 {
        if self.depth > 0 {
            return 0;
        }
        self.fg_next.min(self.irq_at).min(self.device_next).min(self.nmi_next).min(self.init_next)
    }
}

/// What a CPU owes, apart from the rest of it: the end of a broadcast reads nothing else of most.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Debt {
    /// When it last flushed everything.
    pub flushed_at: u64,
    /// Flush requests that were over before it flushed, not yet in its statistics.
    pub deferrals: u64,
    /// The last ranged request it served.
    pub served: u32,
    /// It owes a flush.
    pub owed: bool,
}

/// A variable's field, resolved.
#[derive(Clone, Copy, Debug)]
struct FieldAt {
    var: usize,
    shift: u8,
    mask: u64,
    shared: bool,
    /// A copy per address space or ASID: in [`Contexts`].
    context: bool,
    user_mapped: bool,
}

/// All CPUs.
#[derive(Clone, Debug)]
pub struct Timed {
    /// CPUs.
    pub cores: Vec<Core>,
    /// What each CPU's [`Core::quiet_until`] was when it last stood still: a broadcast reads nothing else of most.
    quiet: Vec<u64>,
    /// What each CPU owes.
    pub debts: Vec<Debt>,
    /// The sets each CPU is in.
    sets: Vec<u8>,
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
    /// By CPU and [`Pending`](super::levels::Pending): what was deferred there and is still to be done.
    pub levels: Vec<[Level; 2]>,
    fields: Vec<FieldAt>,
    pub(super) vars: usize,
    /// Some patched instruction decides a branch.
    keeps_text: bool,
    pub(super) values: Vec<u16>,
    /// Behind the variables, what stands at the patched instructions (`text`), where one decides a branch.
    pub(super) shared: Vec<u16>,
    /// Of `shared`: where entry code reads, late, what none but initiators write.
    pub(super) free: Vec<usize>,
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
    /// Address spaces and ASIDs.
    pub contexts: Contexts,
    /// Fields `is_lazy` and `ctx_gen`, where the code has them.
    lag: Option<(usize, usize)>,
    /// Variable `tlb_gen`, where the code has it.
    tlb_gen: Option<usize>,
    /// What volleys have done.
    pub volleys: Volleys,
    /// By declared page: is it in the user table too?
    pub(super) user_mapped: Vec<bool>,
    /// First violation.
    pub violation: Option<(u64, Cpu, Pc, Violation)>,
    /// What a system call does, while that is recorded.
    log: Option<Log>,
    /// What happened, while a test asks for it.
    #[cfg(test)]
    pub journal: Option<Vec<journal::Mark>>,
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
            reads: 0,
            calls: CallQueue::default(),
            promised: false,
            request: Request {
                id: 0,
                at: 0,
                full: true,
                pages: 0,
                cause: Cause::Other,
                user: false,
                mm: 0,
                generation: 0,
                reached: Reached::Nobody,
            },
            serialised_at: 0,
            sync_owed: false,
            view: false,
            exposed_from: NEVER,
            exposed_in: Window::Other,
            window: Window::Other,
            flushed_by: FlushKind::Other,
            cold: false,
            owe_user: 0,
            owe_others: false,
            broadcast: None,
            loop_next: 0,
            sent: 0,
            wait_from: NEVER,
            quiet_from: 0,
            resume: 0,
            entry_code: false,
        };
        // Variables with the same kind of copies stand side by side.
        let index = |var: usize| {
            let kind = |c: Copies| if matches!(c, Copies::One | Copies::Cpu) { Copies::Cpu } else { c };
            let mine = kind(code.vars[var].copies);
            code.vars[..var].iter().filter(|v| kind(v.copies) == mine).count()
        };
        let fields = code
            .fields
            .iter()
            .map(|f| {
                let var = &code.vars[usize::from(f.var)];
                FieldAt {
                    var: index(usize::from(f.var)),
                    shift: f.shift,
                    mask: (1 << f.bits) - 1,
                    shared: var.copies == Copies::One,
                    context: matches!(var.copies, Copies::Mm | Copies::Asid),
                    user_mapped: var.user_mapped,
                }
            })
            .collect();
        let named = |name: &str| code.vars.iter().position(|v| v.name == name).map(index);
        let lag = named("is_lazy").zip(named("ctx_gen"));
        let init: Vec<u16> = code
            .vars
            .iter()
            .filter(|v| matches!(v.copies, Copies::One | Copies::Cpu))
            .map(|v| v.init)
            .collect();
        let words = n.div_ceil(64);
        Timed {
            cores: vec![first; n],
            quiet: vec![0; n],
            debts: vec![Debt::default(); n],
            sets: sets::of(layout),
            stats: vec![[0; STATS]; n],
            by_cause: vec![[0; N_CAUSES]; n],
            queue: Queue::new(n),
            times,
            timelines: vec![Timeline::new(layout.keep); n],
            levels: vec![[Level::new(layout.keep), Level::new(layout.keep)]; n],
            fields,
            vars: init.len(),
            keeps_text: code.has_sites(),
            values: init.iter().copied().cycle().take(init.len() * n).collect(),
            shared: init.into_iter().chain(code.has_sites().then_some(0)).collect(),
            free: Vec::new(),
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
            contexts: Contexts::new(code, n),
            lag,
            tlb_gen: named("tlb_gen"),
            volleys: Volleys::default(),
            user_mapped: code
                .pages
                .iter()
                .map(|p| p.user_mapped || matches!(p.kind, PageKind::User(_)))
                .collect(),
            violation: None,
            log: None,
            #[cfg(test)]
            journal: None,
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

    /// Marks the variables that these ops read, who are late.
    pub fn read_freely(&mut self, code: &Code, free: &[bool]) {
        for (op, _) in code.ops.iter().zip(free).filter(|(_, free)| **free) {
            let Op::Load { from, .. } = *op else { continue };
            let var = self.fields[usize::from(from.field)].var;
            if !self.free.contains(&var) {
                self.free.push(var);
            }
        }
    }

    /// What stands there, in one order.
    pub fn read_late(&self) -> impl Iterator<Item = u16> {
        self.free.iter().map(|at| self.shared[*at])
    }

    /// Somebody may read this field of a shared variable late.
    pub fn is_read_freely(&self, field: u8) -> bool {
        self.free.contains(&self.fields[usize::from(field)].var)
    }

    /// Bringing this CPU, which does not run, to `now` would change nothing.
    #[inline]
    pub fn is_quiet_until(&self, cpu: Cpu, now: u64) -> bool {
        debug_assert_eq!(self.quiet[usize::from(cpu)], self.cores[usize::from(cpu)].quiet_until());
        self.quiet[usize::from(cpu)] > now
    }

    /// The first CPU from `from` on that [`Timed::is_quiet_until`] does not speak of.
    #[inline]
    pub fn next_to_bring(&self, from: Cpu, now: u64) -> Option<Cpu> {
        let place = self.quiet.get(usize::from(from)..)?.iter().position(|quiet| *quiet <= now)?;
        Some(from + place as Cpu)
    }

    /// A CPU stands still, or what is due on it has changed.
    #[inline]
    pub fn note_quiet(&mut self, cpu: Cpu) {
        self.quiet[usize::from(cpu)] = self.cores[usize::from(cpu)].quiet_until();
    }

    /// Appends an event.
    pub fn event(&mut self, cpu: Cpu, time_ps: u64, duration_ps: u64, kind: Kind, cause: Cause, other: u32) {
        self.timelines[usize::from(cpu)].push(Event { time_ps, duration_ps, cpu, kind, cause, other });
    }

    /// At the start of a run an address space is loaded, and has been for long.
    pub fn load_at_start(&mut self, code: &Code, cpu: Cpu, mm: u16) {
        let pcid = self.features.has(Feature::Pcid);
        let choice = self.contexts.choose(cpu, u64::from(mm), 0, false, pcid).expect("it was created");
        let asid = u16::from(choice.asid);
        if let Some((_, ctx_gen)) = self.lag {
            *self.contexts.of_asid(ctx_gen, cpu, asid).expect("just chosen") = 1;
        }
        self.contexts.mask(u64::from(mm), cpu, true).expect("it was created");
        self.contexts.loaded(contexts::INIT_MM, mm).expect("it was created");
        let c = &mut self.cores[usize::from(cpu)];
        c.cr3 = u64::from(mm) << 16 | u64::from(asid) << 8;
        if let Some(tlbs) = &mut self.tlbs {
            tlbs[usize::from(cpu)].switch(asid, false, true);
        }
        if let Some(field) = code.fields.iter().position(|f| f.name == "loaded_mm") {
            let slot = usize::from(cpu) * self.vars + self.fields[field].var;
            self.values[slot] = mm;
        }
    }

    /// Kernel mode with the kernel's translations begins.
    pub fn view_begins(&mut self, cpu: Cpu) {
        let c = &mut self.cores[usize::from(cpu)];
        if !c.view {
            c.view = true;
            if self.debts[usize::from(cpu)].owed {
                c.exposed_from = c.clock;
                c.exposed_in = c.window;
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
            let (count, duration) = c.exposed_in.stats();
            for (stat, by) in [(Stat::exposures, 1), (Stat::exposure_ps, time), (count, 1), (duration, time)]
            {
                self.add(cpu, stat, by);
            }
        }
    }

    /// Whether page-table isolation decides what is visible.
    pub fn has_pti(&self) -> bool {
        self.features.has(Feature::Pti)
    }

    /// Until when this CPU can be left alone by those who only need its answers; [`NEVER`]: nobody waits for it.
    ///
    /// Progress: a CPU that is asked at this moment, before any other, can do an op then. In a body it cannot, before the
    /// body's end (`resume`); two CPUs that asked for each other's time at the same moment would never get there.
    pub fn demand(&self, cpu: Cpu) -> u64 {
        let c = &self.cores[usize::from(cpu)];
        if c.call.is_some() {
            return c.clock.max(c.resume);
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
            return if c.waiting { calls } else { c.clock.max(c.resume) };
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
        let starts = if c.init_next == NEVER { NEVER } else { c.clock.max(c.init_next).max(c.resume) };
        calls.min(starts)
    }
}
