//! Interrupts and stays in the kernel of one CPU: when they began, why, and how long they took.

use super::{Analysis, MARGIN_NS, cpu::Irq, lengths::histogram, row::NONE, tasks::Sym};
use crate::sim::recorded::Mark;
use crate::trace::{
    cause::Cause,
    event::{Event, Task, Vector, What},
};

const MAX_LINES: usize = 1000;
const MAX_NESTED: usize = 8;

impl Analysis {
    pub(super) fn irq_entry(&mut self, e: &Event<'_>, vector: Vector, name: &[u8]) {
        // On arm64 an inter-processor interrupt has two events: irq_handler_entry without a reason, ipi_entry with it.
        if vector == Vector::IpiOther && name == b"IPI" {
            self.unwrap_ipi(e);
            self.cpu(e.cpu).wrapper = Some((e.at_ns, e.line));
            return;
        }
        let mut begin = *e;
        let of_arm64 = matches!(
            vector,
            Vector::IpiCall
                | Vector::IpiReschedule
                | Vector::IpiTimer
                | Vector::IpiIrqWork
                | Vector::IpiOther
        );
        if of_arm64 && let Some((at_ns, line)) = self.cpu(e.cpu).wrapper.take() {
            (begin.at_ns, begin.line) = (at_ns, line);
            self.cpu(e.cpu).wrapped = true;
        }
        self.begin(&begin, vector, name);
    }

    /// An inter-processor interrupt of which only the wrapper was recorded.
    fn unwrap_ipi(&mut self, e: &Event<'_>) {
        if let Some((at_ns, line)) = self.cpu(e.cpu).wrapper.take() {
            let begin = Event { at_ns, line, ..*e };
            self.begin(&begin, Vector::IpiOther, b"");
            self.irq_close(e, Some(Vector::IpiOther));
        }
    }

    /// The end of an interrupt, whose event may not say which one: `irq_handler_exit` has a number only.
    pub(super) fn irq_exit(&mut self, e: &Event<'_>, vector: Vector) {
        if vector != Vector::Device {
            return self.irq_close(e, Some(vector));
        }
        if self.cpu(e.cpu).wrapper.is_some() {
            return self.unwrap_ipi(e);
        }
        if std::mem::take(&mut self.cpu(e.cpu).wrapped) {
            return;
        }
        let of_device = |v: Vector| matches!(v, Vector::Device | Vector::ArchTimer | Vector::RiscvTimer);
        let innermost = self.cpu(e.cpu).irqs.iter().rev().find(|i| of_device(i.vector)).map(|i| i.vector);
        self.irq_close(e, Some(innermost.unwrap_or(vector)));
    }

    /// What an interrupt is for, if nothing but its vector is known.
    pub(super) fn cause_of_vector(vector: Vector) -> Cause {
        match vector {
            Vector::CallFunction | Vector::CallFunctionSingle | Vector::IpiCall => Cause::CallUnknown,
            Vector::Reschedule | Vector::IpiReschedule => Cause::RescheduleOther,
            Vector::IrqWork | Vector::IpiIrqWork => Cause::IrqWork,
            Vector::LocalTimer | Vector::ArchTimer | Vector::RiscvTimer => Cause::Timer,
            Vector::Other => Cause::OtherVector,
            Vector::Device => Cause::Device,
            Vector::Platform => Cause::PlatformIpi,
            Vector::Posted => Cause::PostedInterrupt,
            Vector::IpiTimer => Cause::TimerBroadcast,
            Vector::IpiOther => Cause::IpiOther,
        }
    }

    fn begin(&mut self, e: &Event<'_>, vector: Vector, name: &[u8]) {
        let open = self.window.open;
        let mut cause = (!vector.runs_call_queue()).then(|| Self::cause_of_vector(vector));
        let mut comm = if vector == Vector::Device { self.symbols.number(name) } else { Sym::NONE };
        let mut by_interrupt = false;
        while self.cpu(e.cpu).irqs.iter().any(|i| i.vector == vector)
            || self.cpu(e.cpu).irqs.len() >= MAX_NESTED
        {
            self.irq_close(e, None); // its exit was lost
        }
        if vector.is_timer() {
            self.timer_decided(e.cpu, None);
        }
        if matches!(vector, Vector::Reschedule | Vector::IpiReschedule)
            && let Some((why, by, inside)) = self.cpu(e.cpu).reschedules.pop_front()
        {
            cause = Some(why);
            (comm, by_interrupt) = (by, inside);
        }
        let idle = e.task.pid == 0;
        let cpu = self.cpu(e.cpu);
        cpu.irq_number = cpu.irq_number.saturating_add(1);
        let number = cpu.irq_number;
        if vector.runs_call_queue() {
            cpu.running.extend(cpu.queue.drain(..));
        } else {
            self.entered_otherwise(e);
        }
        let cpu = self.cpu(e.cpu);
        let outermost =
            !idle && cpu.irqs.is_empty() && cpu.away.is_none() && cpu.softirq.is_none() && !cpu.kernel_thread;
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
            hrtimer: Sym::NONE,
            outermost,
            idle,
            bare: None,
            counted: open,
        });
        if open {
            cpu.figures.vectors[vector as usize] += 1;
            cpu.figures.idle_interrupts += u64::from(idle);
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
        let mut irq = cpu.irqs.remove(at);
        let length = ended.map(|_| e.at_ns.saturating_sub(irq.at_ns));
        self.mark_irq(e.cpu, &irq, e.at_ns);
        if irq.first != NONE {
            if let Some(row) = self.rows.get_mut(irq.first) {
                row.irq_len_ns = u32::try_from(length.unwrap_or(0)).unwrap_or(u32::MAX);
                row.outermost = irq.outermost;
            }
            return;
        }
        let mut cause =
            irq.cause.or(irq.bare).unwrap_or(if queue_known { Cause::CallEmpty } else { Cause::CallUnknown });
        if cause == Cause::CallUnknown {
            self.cpu(e.cpu).stay_other = true;
        }
        if matches!(cause, Cause::CallUnknown | Cause::CallEmpty)
            && let Some(sender) = self.heard(e.cpu, irq.at_ns)
        {
            cause = sender.cause;
            (irq.comm, irq.by_interrupt) = (sender.comm, sender.in_interrupt);
            if sender.via != Sym::NONE && irq.counted {
                *self.cpu(e.cpu).figures.vias.entry((cause, sender.via)).or_default() += 1;
            }
        }
        if irq.vector.is_timer() && irq.cause == Some(Cause::Timer) {
            return self.timer_ended(e.cpu, irq, length);
        }
        self.count_irq(e.cpu, &irq, cause, length);
    }

    /// Counts an interrupt without a row under its cause.
    pub(super) fn count_irq(&mut self, cpu: u32, irq: &Irq, cause: Cause, length_ns: Option<u64>) {
        if !irq.counted {
            return;
        }
        self.span(cpu, irq.at_ns, length_ns, cause);
        let figures = &mut self.cpu(cpu).figures;
        *figures.causes.entry(cause).or_default() += 1;
        let lines = figures.lines.entry(cause).or_default();
        if lines.len() < MAX_LINES {
            lines.push(irq.line);
        }
        if let Some(length) = length_ns {
            figures.lengths.entry(cause).or_default().add(irq.at_ns, length, irq.outermost);
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
            if let Some(row) = self.rows.get_mut(row) {
                row.other_ns = e.at_ns;
            }
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
                if let Some(row) = self.rows.get_mut(row) {
                    row.stay_other = other;
                }
            }
        } else {
            cpu.figures.entries += u64::from(open);
            cpu.stay = cpu.stay.saturating_add(1);
            cpu.stay_other = false;
            cpu.stay_rows.clear();
        }
        for row in waiting {
            let Some(row) = self.rows.get_mut(row) else { continue };
            if e.at_ns.saturating_sub(row.queued_ns) <= MARGIN_NS {
                row.mode_sure = false;
            }
        }
    }

    /// What a CPU was in the middle of has no recorded end.
    pub(super) fn cut_short(&mut self, cpu: u32) {
        let task = Task { comm: b"", pid: 0, tgid: None };
        let nothing = What::Other { name: b"" };
        let e = Event { at_ns: self.last_ns, cpu, task, in_interrupt: None, line: 0, what: nothing };
        while !self.cpu(cpu).irqs.is_empty() {
            self.irq_close(&e, None);
        }
        self.timer_decided(cpu, None);
        self.slice_ends(cpu, self.last_ns);
        let cpu = self.cpu(cpu);
        (cpu.wrapper, cpu.wrapped) = (None, false);
        let displaced = cpu.away.take().is_some();
        self.displaced = self.displaced.saturating_sub(usize::from(displaced));
    }
}
