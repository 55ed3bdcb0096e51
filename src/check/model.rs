//! What can happen next: initial state, enabled actions, successors.
//!
//! [`Action`] enumerates *all* nondeterminism: a schedule, a list of CPUs and actions, determines a run.
//! `moves` says what can happen on one CPU, `fusing` which ops happen with the one before them.

mod fusing;
mod moves;

use super::layout::{CpuFields, Device, Frame, Layout, MAX_WORDS, TEXT, narrow, renames, versions_needed};
use super::machine::counts::of_mm;
use super::machine::{Abs, Entries, INIT_MM, Model, NO_MM};
use super::property::Quantity;
use super::scope::{Assume, CheckError, Scope, UNBOUNDED};
use crate::kernel::assemble::counts;
use crate::kernel::program::{Code, Feature, Features, Holds, Op, PageKind, Rcu, Zone};
use crate::kernel::step::Violation;
pub use fusing::{BEHIND, CELLS, Need, ROWS, Row, Why};

/// One thing that can happen on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Execute the next op.
    Step,
    /// Go on with this CPU in a loop over a set.
    Pick(u8),
    /// A walk over `mm_cpumask` passes this CPU by, whose bit is not set (SEMANTICS L4).
    Pass(u8),
    /// Take the first way (or the other) of a branch that nothing decides.
    Take(bool),
    /// The oldest buffered store becomes visible.
    Drain,
    /// Start the next round or entry from where the CPU rests, an entry by the first of its paths.
    Enter,
    /// The same by another of its paths (`Model::paths`).
    EnterBy(u8),
    /// A device interrupt by itself, amid the kernel.
    Device,
    /// Ordinary kernel code on a CPU that rests in the kernel.
    Use,
    /// Deliver the pending interrupt.
    Irq,
    /// A program starts whose grace period is over.
    Later,
    /// Deliver an NMI.
    Nmi,
    /// Deliver a machine check.
    Mce,
    /// `switch_mm` to the other ASID, amid a system call's own work.
    Switch,
    /// A walk caches a page's leaf.
    Fill(u8),
    /// A walk caches the entry above a page's leaf.
    FillUpper(u8),
    /// A cached leaf is evicted.
    Drop(u8),
    /// A line of a page is brought into the cache, by an access or by itself.
    Line(u8),
    /// A line of a page is written back, or read.
    WriteBack(u8),
}

/// An action and where it happens.
pub type Move = (u8, Action);

/// CPUs that set a bit of some `mm_cpumask` in what they run, a bit each.
fn joiners(layout: &Layout) -> u8 {
    let joins = |f: &Frame| f.locations.iter().any(|l| matches!(l.op, Op::Mask { on: true, .. }));
    let on = |(cpu, c): (usize, &CpuFields)| u8::from(c.frames.iter().any(joins)) << cpu;
    layout.cpus.iter().enumerate().map(on).fold(0, |all, bit| all | bit)
}

impl Model {
    /// A model of `code` in `scope`. `buffer` is the depth of store buffers.
    pub fn new(
        code: &Code,
        features: Features,
        scope: &Scope,
        assume: Assume,
        buffer: usize,
    ) -> Result<Model, CheckError> {
        let code = narrow(code, scope, assume)?;
        let renamed = renames(&code, scope)?;
        let layout = Model::layout(&code, scope, assume, buffer)?;
        if layout.words > MAX_WORDS {
            return Err(CheckError::TooWide { bits: layout.words * 64, most: MAX_WORDS });
        }
        let all = (1u16 << scope.roles.len()) as u8 - 1;
        let isolated = scope.roles.iter().enumerate().fold(0, |m, (i, r)| m | u8::from(r.isolated) << i);
        let flushes = scope.roles.iter().enumerate().fold(0, |m, (i, r)| m | u8::from(r.flushes) << i);
        let nothing_user =
            layout.pages.iter().all(|p| !p.user_mapped && !matches!(p.kind, PageKind::User(_)));
        let entry = Entries {
            interrupt: code.program("interrupt"),
            interrupt_kernel: code.program("interrupt_kernel"),
            interrupt_idle: code.program("interrupt_idle"),
            nmi_user: code.program("nmi_user"),
            nmi: code.program("nmi"),
        };
        let device = |role| ["interrupt_kernel", "interrupt_idle"].map(|name| Device::new(&code, role, name));
        // Where it is asked what an access reads, and where one that faults is an outcome, not the end of the run.
        let asks_data = !scope.frames.is_empty() || scope.quantities().next().is_some();
        let faults = layout.cpus.iter().any(|c| c.fault.exists());
        // Of two translations of one address an access uses either (SEMANTICS H9): the large one until it is evicted.
        let large = layout.pages.iter().any(|p| p.within.is_some());
        let mut model = Model {
            paths: layout.paths.clone(),
            devices: scope.roles.iter().map(device).collect(),
            checked_zones: 0,
            lasting: 0,
            fuse: false,
            renamed,
            counts: counts::sources(&code),
            joiners: joiners(&layout),
            counts_per_mm: (0..code.fields.len()).any(|f| code.counts_per_mm(f as u8)),
            held: counts::held(&code),
            nothing_user,
            late: false,
            fusing: Vec::new(),
            behind: Vec::new(),
            evicts: asks_data || faults || !scope.tops.is_empty() || large || layout.typed != 0,
            code,
            scope: scope.clone(),
            assume,
            layout,
            entry,
            deepest: false,
            initial_told: scope.quantities().fold(0, |all, q| match q {
                Quantity::Leaf(p) => all | 1 << p,
                _ => all,
            }),
            pti: features.has(Feature::Pti),
            pcid: features.has(Feature::Pcid),
            features,
            masks: [isolated, isolated & flushes, all & !isolated, all],
        };
        for (p, page) in model.layout.pages.iter().enumerate() {
            model.lasting |= u8::from(page.kind.is_lasting()) << p;
        }
        for (_, zone) in Zone::ALL {
            let checks = model.layout.pages.iter().any(|p| Model::zone_may(model.assume, zone, p.kind));
            model.checked_zones |= u16::from(checks) << zone as u8;
        }
        model.late = model.fetches_late();
        model.fusing = model.code.ops.iter().map(|&op| model.fusing_of(op)).collect();
        model.behind = model.code.ops.iter().map(|&op| model.nothing_behind(op)).collect();
        if model.layout.migrates {
            model.never_fuse(); // what is a CPU's own is not its task's (SEMANTICS L11)
        }
        Ok(model)
    }

    /// Where a state of `code`, as [`narrow`] makes it, keeps things.
    pub fn layout(code: &Code, scope: &Scope, assume: Assume, buffer: usize) -> Result<Layout, CheckError> {
        let buffer = if assume.store_buffers { buffer } else { 0 };
        Layout::new(code, scope, assume, buffer, versions_needed(code, scope))
    }

    /// The one initial state.
    pub fn initial<const W: usize>(&self) -> [u64; W] {
        let mut a: Abs<'_, W> = Abs::new(self, [0; W]);
        for (i, role) in self.scope.roles.iter().enumerate() {
            let c = &self.layout.cpus[i];
            let first = self.code.program(&role.first).expect("the layout looked");
            a.enter(i, 0, first);
            if self.layout.migrates {
                a.set(c.task, i as u64);
            }
            a.set(c.irqs, u64::from(!role.irqs_off));
            a.set(c.gs, 1);
            if role.left != UNBOUNDED {
                a.set(c.left, u64::from(role.left));
            }
            // Who closes a section first began in it.
            let sections = |op: &Op| match op {
                Op::Rcu(Rcu::Lock) => Some(0),
                Op::Rcu(Rcu::Unlock) => Some(1),
                _ => None,
            };
            if c.frames[0].reads.exists() {
                let open = self.code.ops_of(&role.first).iter().find_map(sections);
                a.set(c.frames[0].reads, open.unwrap_or(0));
            }
            if c.devices.exists() {
                a.set(c.devices, u64::from(role.devices));
            }
            for (v, b) in self.code.vars.iter().zip(&c.vars) {
                if v.per_cpu {
                    a.set(*b, u64::from(v.init));
                }
            }
            // Slot 0 holds init_mm, which is loaded and up to date; the others hold nothing.
            for (v, copies) in self.code.vars.iter().zip(&c.asid_vars) {
                for (asid, b) in copies.iter().enumerate() {
                    let current = match v.holds {
                        Holds::Generation => 1,
                        Holds::Count(source) => u64::from(self.code.vars[usize::from(source)].init),
                        Holds::Bits | Holds::Mm => u64::from(v.init),
                    };
                    a.set(*b, if asid == 0 { current } else { u64::from(v.init) });
                }
            }
            for (asid, b) in c.contexts.iter().enumerate() {
                a.set(*b, if asid == 0 { INIT_MM } else { NO_MM });
            }
            a.set(c.next_asid, 1);
        }
        let s = &self.layout.shared;
        a.set(s.nmis, u64::from(self.scope.nmis));
        a.set(s.mces, u64::from(self.scope.mces));
        for (v, b) in self.code.vars.iter().zip(&s.vars) {
            if !v.per_cpu {
                a.set(*b, u64::from(v.init));
            }
        }
        for (v, copies) in self.code.vars.iter().zip(&s.mm_vars) {
            for (mm, b) in copies.iter().enumerate() {
                let counts = matches!(v.holds, Holds::Count(_));
                let first = if counts { of_mm(u64::from(v.init), mm) } else { u64::from(v.init) };
                a.set(*b, first);
            }
        }
        for (p, page) in self.layout.pages.iter().enumerate() {
            a.set(s.version[p], if page.kind == PageKind::Text { TEXT.initial } else { 1 });
            let present = if self.initial_told >> p & 1 != 0 { 3 } else { 1 };
            a.set(s.kind[p], if page.present { present } else { 0 });
            a.set(s.upper[p], 1);
            a.set(s.upper_kind[p], 1);
            a.set(s.since[p], 1);
            a.set(s.cached_at[p], u64::from(page.present)); // or nothing, where the scope has no use for it
        }
        a.s
    }

    /// The state after one move, if it is possible and breaks no rule.
    pub fn after<const W: usize>(&self, s: &[u64; W], mv: Move) -> Option<[u64; W]> {
        let mut found = None;
        self.each_successor(s, &mut |m, next| {
            if m == mv {
                found = next.ok();
            }
            m != mv
        });
        found
    }

    /// Does a state show what no state may?
    pub fn shows_never(&self, s: &[u64]) -> bool {
        self.scope.never.as_ref().is_some_and(|c| c.holds(self, s))
    }

    /// Does a state show what the scope asks about?
    pub fn asked(&self, s: &[u64], e: &Expansion) -> Option<Violation> {
        let never = self.shows_never(s);
        let end = !e.progress && !e.deadlock;
        let exists = end && self.scope.exists.as_ref().is_some_and(|c| c.holds(self, s));
        let forall = end && self.scope.forall.as_ref().is_some_and(|c| !c.holds(self, s));
        (never || exists || forall).then_some(Violation::Invariant)
    }

    /// [`Model::successors`] where speed does not matter.
    pub fn each_successor<const W: usize>(
        &self,
        s: &[u64; W],
        mut out: &mut dyn FnMut(Move, Result<[u64; W], Violation>) -> bool,
    ) -> Expansion {
        self.successors(s, &mut out)
    }

    /// Every enabled action of a state with its outcome, in a fixed order. `out` may end the enumeration by
    /// returning `false`. Returns what was seen on the way, and whether anything but hardware speculation and
    /// NMIs can happen, or every CPU rests.
    pub fn successors<const W: usize>(
        &self,
        s: &[u64; W],
        out: &mut impl FnMut(Move, Result<[u64; W], Violation>) -> bool,
    ) -> Expansion {
        let mut e = Expansion::default();
        for cpu in 0..self.layout.cpus.len() {
            if !self.of_cpu(s, cpu, &mut e, out) {
                return e;
            }
        }
        e.deadlock = e.busy && !e.progress;
        e
    }
}

/// What an expansion found beside successors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expansion {
    /// [`Seen`](super::machine::Seen) bits.
    pub seen: u32,
    /// Something other than speculation and NMIs can happen.
    pub progress: bool,
    /// Some CPU waits and nothing can happen.
    pub deadlock: bool,
    /// Some CPU is amid a program.
    pub busy: bool,
    /// CPUs on whose words, beside the acting CPU's and the shared ones, it depends what can happen: a bit each.
    pub others: u8,
}
