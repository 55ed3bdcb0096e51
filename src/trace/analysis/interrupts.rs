//! Interrupts and stays in the kernel of one CPU: when they began, why, and how long they took.

use super::{
    Analysis, MARGIN_NS,
    cpu::{Irq, NONE, histogram},
    tasks::Sym,
};
use crate::sim::recorded::Mark;
use crate::trace::{
    cause::{self, Cause},
    event::{Event, Task, Vector, What},
};

const MAX_LINES: usize = 1000;
const MAX_NESTED: usize = 8;
const MAX_NOISES: usize = 1024;

impl Analysis {
    pub(super) fn irq_entry(&mut self, e: &Event<'_>, vector: Vector, name: &[u8]) {
        let open = self.window.open;
        let mut cause = match vector {
            Vector::CallFunction | Vector::CallFunctionSingle => None,
            Vector::Reschedule => Some(Cause::RescheduleOther),
            Vector::IrqWork => Some(Cause::IrqWork),
            Vector::LocalTimer if self.cpu(e.cpu).tick_kept => Some(Cause::TickKept),
            Vector::LocalTimer => Some(Cause::Tick),
            Vector::Other => Some(Cause::OtherVector),
            Vector::Device => Some(Cause::Device),
        };
        let mut comm = if vector == Vector::Device { self.symbols.number(name) } else { Sym::NONE };
        let mut by_interrupt = false;
        while self.cpu(e.cpu).irqs.iter().any(|i| i.vector == vector)
            || self.cpu(e.cpu).irqs.len() >= MAX_NESTED
        {
            self.irq_close(e, None); // its exit was lost
        }
        if vector == Vector::Reschedule
            && let Some((place, by, inside)) = self.cpu(e.cpu).reschedules.pop_front()
        {
            cause = Some(cause::of_reschedule(self.symbols.bytes(place)));
            (comm, by_interrupt) = (by, inside);
        }
        let cpu = self.cpu(e.cpu);
        cpu.irq_number = cpu.irq_number.saturating_add(1);
        let number = cpu.irq_number;
        if vector.runs_call_queue() {
            cpu.running.extend(cpu.queue.drain(..));
        } else {
            self.entered_otherwise(e);
        }
        let cpu = self.cpu(e.cpu);
        cpu.irqs.push(Irq {
            vector,
            at_ns: e.at_ns,
            line: e.line,
            number,
            cause,
            comm,
            by_interrupt,
            first: NONE,
            ran: false,
            bare: None,
            counted: open,
        });
        if open {
            cpu.figures.vectors[vector as usize] += 1;
            cpu.figures.timeline.count(e.at_ns);
            cpu.figures.bursts.count(e.at_ns);
            let quiet = &mut cpu.figures.quiet;
            if let Some(since) = quiet.since_ns {
                let gap = e.at_ns.saturating_sub(since);
                quiet.histogram.get_or_insert_with(histogram).record(gap / 1000).unwrap_or_default();
                if gap > quiet.longest_ns {
                    quiet.longest_ns = gap;
                    quiet.longest_from_ns = since;
                }
            }
            quiet.since_ns = Some(e.at_ns);
        }
    }

    /// The innermost interrupt ends; `None` if its end was not recorded.
    pub(super) fn irq_close(&mut self, e: &Event<'_>, ended: Option<Vector>) {
        let cpu = self.cpu(e.cpu);
        let Some(at) =
            ended.map_or(cpu.irqs.len().checked_sub(1), |v| cpu.irqs.iter().rposition(|i| i.vector == v))
        else {
            return;
        };
        if cpu.irqs[at].vector.runs_call_queue() {
            // What is left of the queue has run without an event of its own (irq_work does).
            let left = std::mem::take(&mut cpu.running);
            for call in left {
                self.ran(e, call.func, Some(call), false);
            }
        }
        let queue_known = self.kinds.csd_queue > 0;
        let cpu = self.cpu(e.cpu);
        let irq = cpu.irqs.remove(at);
        let length = ended.map_or(0, |_| e.at_ns.saturating_sub(irq.at_ns));
        self.mark_irq(e.cpu, &irq, e.at_ns);
        let cpu = self.cpu(e.cpu);
        if irq.first != NONE {
            let row = &mut self.rows[irq.first as usize];
            row.irq_len_ns = u32::try_from(length).unwrap_or(u32::MAX);
            return;
        }
        let cause =
            irq.cause.or(irq.bare).unwrap_or(if queue_known { Cause::CallEmpty } else { Cause::CallUnknown });
        if cause == Cause::CallUnknown {
            cpu.stay_other = true;
        }
        if !irq.counted {
            return;
        }
        let figures = &mut cpu.figures;
        *figures.causes.entry(cause).or_default() += 1;
        let lines = figures.lines.entry(cause).or_default();
        if lines.len() < MAX_LINES {
            lines.push(irq.line);
        }
        if ended.is_some() {
            figures.lengths.entry(cause).or_insert_with(histogram).record(length).unwrap_or_default();
        }
        if irq.comm != Sym::NONE {
            *figures.reschedulers.entry((irq.comm, irq.by_interrupt, cause)).or_default() += 1;
        }
    }

    /// The CPU has a reason to be in the kernel that no remote call gave it.
    pub(super) fn entered_otherwise(&mut self, e: &Event<'_>) {
        let cpu = self.cpu(e.cpu);
        cpu.stay_other = true;
        for row in std::mem::take(&mut cpu.awaiting_other) {
            self.rows[row as usize].other_ns = e.at_ns;
        }
    }

    pub(super) fn mode_change(&mut self, e: &Event<'_>, user: bool) {
        let open = self.window.open;
        self.cpu(e.cpu).tracked = true;
        if user {
            while !self.cpu(e.cpu).irqs.is_empty() {
                self.irq_close(e, None); // its exit was lost
            }
        }
        self.mark(e.cpu, e.at_ns, if user { Mark::Enter } else { Mark::Exit });
        let cpu = self.cpu(e.cpu);
        let waiting = std::mem::take(&mut cpu.awaiting_mode);
        cpu.user = Some(user);
        cpu.changed_ns = e.at_ns;
        if user {
            cpu.figures.returns += u64::from(open);
            let other = cpu.stay_other;
            for row in std::mem::take(&mut cpu.stay_rows) {
                self.rows[row as usize].stay_other = other;
            }
        } else {
            cpu.figures.entries += u64::from(open);
            cpu.stay = cpu.stay.saturating_add(1);
            cpu.stay_other = false;
            cpu.stay_rows.clear();
        }
        for row in waiting {
            let row = &mut self.rows[row as usize];
            if e.at_ns.saturating_sub(row.queued_ns) <= MARGIN_NS {
                row.mode_sure = false;
            }
        }
    }

    /// Counts a length by kind and name.
    pub(super) fn lasted(&mut self, cpu: u32, key: (Sym, Sym), duration_ns: u64) {
        let open = self.window.open;
        let noises = &mut self.cpu(cpu).figures.noise;
        if open && (noises.len() < MAX_NOISES || noises.contains_key(&key)) {
            noises.entry(key).or_insert_with(histogram).record(duration_ns).unwrap_or_default();
        }
    }

    /// osnoise tells a name and a length at the end of what took the time. Without irq_vectors it is all there is.
    pub(super) fn noise(&mut self, e: &Event<'_>, kind: &[u8], name: &[u8], duration_ns: u64) {
        let key = (self.symbols.number(kind), self.symbols.number(name));
        self.lasted(e.cpu, key, duration_ns);
        if kind != b"irq" || self.kinds.vectors > 0 {
            return;
        }
        let vector = match name {
            b"call_function" => Vector::CallFunction,
            b"call_function_single" => Vector::CallFunctionSingle,
            b"reschedule" => Vector::Reschedule,
            b"irq_work" => Vector::IrqWork,
            b"local_timer" => Vector::LocalTimer,
            b"x86_platform_ipi" | b"thermal_apic" | b"threshold_apic" | b"error_apic" | b"spurious_apic" => {
                Vector::Other
            }
            _ => Vector::Device,
        };
        let begin = Event { at_ns: e.at_ns.saturating_sub(duration_ns), ..*e };
        self.irq_entry(&begin, vector, name);
        self.irq_close(e, Some(vector));
    }

    /// What a CPU was in the middle of has no recorded end.
    pub(super) fn cut_short(&mut self, cpu: u32) {
        let task = Task { comm: b"", pid: 0, tgid: None };
        let nothing = What::Other { name: b"" };
        let e = Event { at_ns: self.last_ns, cpu, task, in_interrupt: None, line: 0, what: nothing };
        while !self.cpu(cpu).irqs.is_empty() {
            self.irq_close(&e, None);
        }
    }
}
