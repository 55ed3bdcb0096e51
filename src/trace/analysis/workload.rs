//! What a replay needs of a recording beside its calls: when each CPU was in the kernel, and for what.
//!
//! Of a stay in the kernel the first reason of its own is kept, so a system call costs three marks; what goes beyond
//! [`MAX_MARKS`] is forgotten, and modes are unknown from there on.

use rustc_hash::FxHashMap;

use super::{
    Analysis, MARGIN_NS,
    cpu::Irq,
    row::{NEVER, NONE},
};
use crate::sim::recorded::{Ask, Call, Mark, Marked, Request, Target, Workload};
use crate::trace::cause::{self, Cause, Deferral};

/// Bit of the number of an interrupt that was not recorded, where a call ran all the same.
const PASSING: u32 = 1 << 31;

/// Marks kept of all CPUs.
const MAX_MARKS: usize = 1 << 19;

/// One CPU.
#[derive(Clone, Debug, Default)]
struct OneCpu {
    marks: Vec<Marked>,
    /// The stay has a reason of its own already.
    own: bool,
    idle: bool,
    full: bool,
    /// Interrupts of which nothing is known.
    unknown: Vec<(u32, bool)>,
}

/// Every CPU that may be isolated.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    cpus: Vec<OneCpu>,
    marks: usize,
}

impl Log {
    fn push(&mut self, cpu: u32, at_ns: u64, counted: bool, mark: Mark) {
        let cpu = cpu as usize;
        if cpu >= self.cpus.len() {
            self.cpus.resize_with(cpu + 1, OneCpu::default);
        }
        let one = &mut self.cpus[cpu];
        if self.marks >= MAX_MARKS {
            if !std::mem::replace(&mut one.full, true) {
                one.marks.push(Marked { at_ns, counted, mark: Mark::Lost });
            }
            return;
        }
        match mark {
            Mark::Own if one.own => return,
            Mark::Own => one.own = true,
            Mark::Idle(on) if on == one.idle => return,
            Mark::Idle(on) => one.idle = on,
            Mark::Enter | Mark::Exit => one.own = false,
            Mark::Lost => (one.own, one.idle) = (false, false),
            Mark::OwnIrq { .. } | Mark::Calls { .. } => {}
        }
        self.marks += 1;
        one.marks.push(Marked { at_ns, counted, mark });
    }

    /// Counting starts here.
    pub(super) fn restart(&mut self) {
        for one in &mut self.cpus {
            one.marks.iter_mut().for_each(|m| m.counted = false);
            one.unknown.iter_mut().for_each(|u| u.1 = false);
        }
    }
}

impl Analysis {
    /// Something happens on a CPU that a replay must know.
    pub(super) fn mark(&mut self, cpu: u32, at_ns: u64, mark: Mark) {
        if self.may_be_isolated(cpu) {
            let counted = self.window.open;
            self.log.push(cpu, at_ns, counted, mark);
        }
    }

    /// An interrupt is over.
    pub(super) fn mark_irq(&mut self, cpu: u32, irq: &Irq, end_ns: u64) {
        if !self.may_be_isolated(cpu) {
            return;
        }
        let end_ns = end_ns.max(irq.at_ns);
        let nothing_ran = irq.first == NONE && irq.bare.is_none();
        if !irq.vector.runs_call_queue() || nothing_ran && self.kinds.csd_queue > 0 {
            return self.log.push(cpu, irq.at_ns, irq.counted, Mark::OwnIrq { end_ns });
        }
        self.log.push(cpu, irq.at_ns, irq.counted, Mark::Calls { irq: irq.number, end_ns });
        if irq.first == NONE
            && let Some(one) = self.log.cpus.get_mut(cpu as usize)
            && !one.full
        {
            one.unknown.push((irq.number, irq.counted));
        }
    }

    /// The recording as a workload; and of each call what it was for.
    pub fn workload(&self) -> (Workload, Vec<Cause>) {
        Builder::new(self).build()
    }
}

/// Puts a workload together.
struct Builder<'a> {
    a: &'a Analysis,
    out: Workload,
    causes: Vec<Cause>,
    /// By CPU and number of the recording: number among the marks, and when that interrupt began or, if it brought the
    /// CPU into the kernel, when that was.
    irqs: FxHashMap<(u32, u32), (u32, u64)>,
}

/// Asks whose initiators are in the kernel's text.
fn ask_of(cause: Cause, user_flush: bool) -> Ask {
    match cause {
        Cause::VmallocPurge | Cause::VmUnmapAliases | Cause::ExecFree => Ask::Purge,
        Cause::Vunmap => Ask::Unmap,
        Cause::KernelTableFree => Ask::Tables,
        Cause::SetMemory | Cause::ExecProtect | Cause::PercpuReclaim => Ask::Rights,
        Cause::KernelFlushUnknown => Ask::Kernel,
        Cause::UserShootdown => Ask::User,
        Cause::CallUnknown => Ask::Unknown,
        _ if user_flush => Ask::User,
        _ => match cause.entry().deferral {
            Deferral::KernelRange => Ask::Purge,
            Deferral::TextSync => Ask::Sync,
            Deferral::Never | Deferral::Unknown => Ask::Other,
        },
    }
}

impl<'a> Builder<'a> {
    fn new(a: &'a Analysis) -> Self {
        let (begin_ns, end_ns) = a.span_ns();
        let out = Workload { begin_ns, end_ns, margin_ns: MARGIN_NS, ..Workload::default() };
        Builder { a, out, causes: Vec::new(), irqs: FxHashMap::default() }
    }

    fn build(mut self) -> (Workload, Vec<Cause>) {
        let isolated = self.a.isolated_cpus();
        let highest = isolated.iter().copied().max().unwrap_or(0).max(self.a.cpus.len() as u32);
        self.out.cpus = highest.min(super::super::MAX_CPUS) as u16 + 1;
        self.out.idle_known = self.a.kinds.switches > 0 || self.a.cpus.iter().any(|c| c.tracked);
        for &cpu in &isolated {
            self.target(cpu);
        }
        self.requests(&isolated);
        self.unknown(&isolated);
        (self.out, self.causes)
    }

    fn target(&mut self, cpu: u32) {
        let mut marks = self.a.log.cpus.get(cpu as usize).map_or_else(Vec::new, |one| one.marks.clone());
        // Calls that ran outside of a call interrupt, as far as the recording shows: they run in passing.
        let shown = |m: &Marked| match m.mark {
            Mark::Calls { irq, .. } => Some(irq),
            _ => None,
        };
        let known: rustc_hash::FxHashSet<u32> = marks.iter().filter_map(shown).collect();
        for (i, row) in (0_u32..).zip(self.a.rows.first()) {
            if row.cpu == cpu && row.ran_ns != NEVER && !known.contains(&row.irq) {
                let mark = Mark::Calls { irq: PASSING | i, end_ns: row.ran_ns };
                marks.push(Marked { at_ns: row.ran_ns, counted: false, mark });
            }
        }
        marks.sort_by_key(|m| m.at_ns);
        let mut entered = None;
        let mut number = 0;
        for m in &mut marks {
            match &mut m.mark {
                Mark::Exit => entered = Some(m.at_ns),
                Mark::Calls { irq, .. } => {
                    number += 1;
                    // A call of which only this is known was queued at the latest now, and at the earliest before
                    // the CPU last left user mode: had it come earlier, it would have been taken there.
                    self.irqs.insert((cpu, *irq), (number, entered.unwrap_or(m.at_ns)));
                    *irq = number;
                }
                Mark::Enter | Mark::Lost => entered = None,
                Mark::Own | Mark::OwnIrq { .. } | Mark::Idle(_) => {}
            }
        }
        self.out.targets.push(Target { cpu: cpu as u16, housekeeping: false, marks });
    }

    fn number_of(&self, row: usize) -> (u32, u64) {
        let r = &self.a.rows.first()[row];
        if r.ran_ns == NEVER {
            return (0, r.queued_ns);
        }
        let passing = (r.cpu, PASSING | row as u32);
        let found = self.irqs.get(&passing).or_else(|| self.irqs.get(&(r.cpu, r.irq)));
        found.copied().unwrap_or((0, r.ran_ns))
    }

    fn requests(&mut self, isolated: &[u32]) {
        // By operation, then CPU: the order in which they were begun. A call that belongs to none is one of its own.
        let mut order: Vec<(u32, u32, usize)> = Vec::new();
        for (i, row) in self.a.rows.first().iter().enumerate() {
            if isolated.binary_search(&row.cpu).is_ok() {
                order.push((row.op, row.cpu, i));
            }
        }
        order.sort_unstable();
        let symbols = &self.a.symbols;
        let mut before: Option<(u32, u32)> = None;
        for (op, cpu, i) in order {
            let row = self.a.rows.first()[i];
            let joins = op != NONE && before.is_some_and(|(o, c)| o == op && c != cpu);
            before = Some((op, cpu));
            let (irq, began) = self.number_of(i);
            let guessed = row.queued_ns == NEVER;
            let queued_ns = if guessed { began } else { row.queued_ns };
            let name = symbols.bytes(row.func);
            let cause =
                crate::trace::replay::cause_of(&row, self.a.ops.first(), |_| cause::of_function(name));
            let place = self.out.calls.len();
            self.out.calls.push(Call {
                cpu: cpu as u16,
                queued_ns,
                guessed,
                irq,
                counted: row.counted && row.ran_ns != NEVER,
            });
            self.causes.push(cause);
            if joins && let Some(last) = self.out.requests.last_mut() {
                last.calls.end = place + 1;
                continue;
            }
            let known = self.a.ops.get(op);
            let ask = ask_of(cause, name == b"flush_tlb_func");
            let of_kernel = matches!(ask, Ask::Purge | Ask::Unmap | Ask::Tables | Ask::Rights | Ask::Kernel);
            self.out.requests.push(Request {
                sender: known.map(|op| op.cpu as u16).filter(|cpu| *cpu < self.out.cpus),
                ask,
                full: name != b"do_kernel_range_flush" && of_kernel,
                complete: known.is_some() && self.a.kinds.csd_queue > 0 && (of_kernel || ask == Ask::Sync),
                line: known.map_or(row.ran_line, |op| op.line),
                calls: place..place + 1,
            });
        }
    }

    fn unknown(&mut self, isolated: &[u32]) {
        for &cpu in isolated {
            let Some(one) = self.a.log.cpus.get(cpu as usize) else { continue };
            for (number, counted) in one.unknown.iter().copied() {
                let Some((irq, began)) = self.irqs.get(&(cpu, number)).copied() else { continue };
                let at = self.out.calls.len();
                self.out.calls.push(Call { cpu: cpu as u16, queued_ns: began, guessed: true, irq, counted });
                self.causes.push(Cause::CallUnknown);
                self.out.requests.push(Request {
                    sender: None,
                    ask: Ask::Unknown,
                    full: true,
                    complete: false,
                    line: 0,
                    calls: at..at + 1,
                });
            }
        }
    }
}
