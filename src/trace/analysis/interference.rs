//! What takes a CPU from its task apart from interrupts: soft interrupts, other tasks, NMIs, firmware; and what timers
//! turn out to have been.
//!
//! Time is charged to whatever took the CPU first: an interrupt while a kworker has displaced the task counts, and takes
//! nothing more. So the times of all causes sum to the time that was taken. A task that left the CPU by itself (it sleeps,
//! it ended) is not kept from it, and an idle CPU has no task.

use super::{
    Analysis,
    cpu::{Away, Irq, PendingTimer, TickState},
    tasks::Sym,
};
use crate::trace::{
    cause::{self, Cause},
    event::{Event, Vector},
};

const MAX_NAMES: usize = 256;

impl Analysis {
    /// Something of this name took the CPU.
    pub(super) fn took(&mut self, cpu: u32, key: (Cause, Sym), at_ns: u64, length_ns: u64, outermost: bool) {
        if !self.window.open {
            return;
        }
        self.span(cpu, at_ns, Some(length_ns), key.0);
        let others = &mut self.cpu(cpu).figures.others;
        let key =
            if others.len() < MAX_NAMES || others.contains_key(&key) { key } else { (key.0, Sym::NONE) };
        others.entry(key).or_default().add(at_ns, length_ns, outermost);
    }

    /// `sched_switch`: the slice of an intruder ends, and a task that still wants to run is displaced.
    pub(super) fn switched(
        &mut self,
        e: &Event<'_>,
        (prev_pid, preempted): (Option<u32>, Option<bool>),
        (next_pid, next): (u32, Sym),
        next_comm: &[u8],
    ) {
        self.slice_ends(e.cpu, e.at_ns);
        let prev_pid = prev_pid.unwrap_or(e.task.pid);
        let prev_is_task = prev_pid != 0 && !cause::is_kernel_thread(e.task.comm);
        if self.displaced > 0 && next_pid != 0 {
            self.moved_to(e.cpu, next_pid, e.at_ns);
        }
        let cpu = self.cpu(e.cpu);
        let was_away = cpu.away.is_some();
        cpu.kernel_thread = next_pid != 0 && cause::is_kernel_thread(next_comm);
        cpu.away = match cpu.away {
            // It is back, or it has gone elsewhere: nobody wants to run here.
            Some(away) if away.pid == next_pid || next_pid == 0 => None,
            Some(away) => Some(Away { by: next, work: Sym::NONE, since_ns: e.at_ns, ..away }),
            None if prev_is_task && next_pid != 0 && preempted == Some(true) && next_pid != prev_pid => {
                Some(Away { pid: prev_pid, by: next, work: Sym::NONE, since_ns: e.at_ns })
            }
            None => None,
        };
        let is_away = cpu.away.is_some();
        self.displaced = (self.displaced + usize::from(is_away)).saturating_sub(usize::from(was_away));
    }

    /// A task runs on `here`: where it was displaced, nothing keeps it away any more.
    pub(super) fn moved_to(&mut self, here: u32, pid: u32, at_ns: u64) {
        for cpu in 0..self.cpus.len() as u32 {
            if cpu != here && self.cpus[cpu as usize].away.is_some_and(|away| away.pid == pid) {
                self.slice_ends(cpu, at_ns);
                self.cpu(cpu).away = None;
                self.displaced = self.displaced.saturating_sub(1);
            }
        }
    }

    /// Whoever runs in the place of the displaced task stops.
    pub(super) fn slice_ends(&mut self, cpu: u32, at_ns: u64) {
        let Some(away) = self.cpu(cpu).away else { return };
        let comm = self.symbols.bytes(away.by);
        let cause = cause::of_work(self.symbols.bytes(away.work)).unwrap_or_else(|| cause::of_task(comm));
        // Firmware and interrupts that came meanwhile are part of it.
        self.took(cpu, (cause, away.by), away.since_ns, at_ns.saturating_sub(away.since_ns), true);
    }

    /// A work item begins to run on this CPU.
    pub(super) fn works(&mut self, cpu: u32, function: Sym) {
        if let Some(away) = &mut self.cpu(cpu).away {
            away.work = function;
        }
    }

    /// A soft interrupt ends; its thread, and those of an idle CPU, take nothing from a task by themselves.
    pub(super) fn softirq_ended(&mut self, e: &Event<'_>) {
        let Some((from, action)) = self.cpu(e.cpu).softirq.take() else { return };
        let length = e.at_ns.saturating_sub(from);
        let kind = self.symbols.number(b"softirq");
        self.lasted(e.cpu, (kind, action), length);
        let cpu = self.cpu(e.cpu);
        let of_task = e.task.pid != 0 && !cpu.kernel_thread && !cause::is_kernel_thread(e.task.comm);
        if of_task && cpu.away.is_none() {
            let outermost = cpu.irqs.is_empty();
            self.took(e.cpu, (Cause::Softirq, action), from, length, outermost);
        }
    }

    /// Counts a length by kind and name.
    pub(super) fn lasted(&mut self, cpu: u32, key: (Sym, Sym), duration_ns: u64) {
        let open = self.window.open;
        let noises = &mut self.cpu(cpu).figures.noise;
        if open && (noises.len() < MAX_NAMES || noises.contains_key(&key)) {
            noises.entry(key).or_default().add(duration_ns);
        }
    }

    /// osnoise tells a name and a length at the end of what took the time, without what was nested in it. Where the
    /// events of interrupts, soft interrupts and tasks are recorded too, those are counted instead.
    pub(super) fn noise(&mut self, e: &Event<'_>, kind: &[u8], name: &[u8], duration_ns: u64) {
        let key = (self.symbols.number(kind), self.symbols.number(name));
        self.lasted(e.cpu, key, duration_ns);
        let from = e.at_ns.saturating_sub(duration_ns);
        let what = match kind {
            b"irq" if self.kinds.vectors == 0 => {
                let vector = Vector::of_x86(name).unwrap_or_else(|| Vector::of_device(name));
                let begin = Event { at_ns: from, ..*e };
                self.irq_entry(&begin, vector, name);
                self.irq_exit(e, vector);
                return;
            }
            b"thread" if self.kinds.switches == 0 => cause::of_task(name),
            b"softirq" if self.kinds.softirqs == 0 => Cause::Softirq,
            b"nmi" => Cause::Nmi,
            b"hardware" => Cause::Firmware,
            _ => return,
        };
        let outermost = kind == b"thread" || kind == b"softirq" || self.cpu(e.cpu).away.is_none();
        self.took(e.cpu, (what, key.1), from, duration_ns, outermost);
    }

    /// An hrtimer's function runs in the timer interrupt of this CPU.
    pub(super) fn hrtimer(&mut self, cpu: u32, function: &[u8]) {
        let open = self.window.open;
        let sym = self.symbols.number(function);
        let tick = cause::of_hrtimer(function) == Cause::SchedulerTick;
        let cpu = self.cpu(cpu);
        if let Some(irq) = cpu.irqs.iter_mut().rev().find(|irq| irq.vector.is_timer())
            && (irq.hrtimer == Sym::NONE || !tick)
        {
            irq.hrtimer = sym;
        }
        if open && (cpu.figures.hrtimers.len() < MAX_NAMES || cpu.figures.hrtimers.contains_key(&sym)) {
            *cpu.figures.hrtimers.entry(sym).or_default() += 1;
        }
    }

    /// A timer interrupt has ended. What ran in it may be recorded; whether the tick was kept, tick_stop tells, in front
    /// of it or behind.
    pub(super) fn timer_ended(&mut self, cpu: u32, irq: Irq, length_ns: Option<u64>) {
        let function = self.symbols.bytes(irq.hrtimer);
        let ran = if function.is_empty() { None } else { Some(cause::of_hrtimer(function)) };
        let otherwise = match (ran, self.cpu(cpu).tick) {
            // Another timer than the tick fired, whatever the tick does.
            (Some(other), _) if other != Cause::SchedulerTick => {
                let irq = Irq { comm: irq.hrtimer, by_interrupt: false, ..irq };
                return self.count_irq(cpu, &irq, other, length_ns);
            }
            (_, TickState::Kept) => return self.count_irq(cpu, &irq, Cause::TickKept, length_ns),
            (_, TickState::Stopped) => Cause::Tick,
            (_, TickState::StoppedInIdle) if irq.idle => Cause::Tick,
            (Some(tick), TickState::Unknown | TickState::StoppedInIdle) => tick,
            (None, TickState::Unknown | TickState::StoppedInIdle) => Cause::Timer,
        };
        self.cpu(cpu).pending_timer = Some(PendingTimer { irq, length_ns, otherwise });
    }

    /// The next tick_stop, or the next timer interrupt: what the last one was is decided.
    pub(super) fn timer_decided(&mut self, cpu: u32, kept: Option<bool>) {
        if let Some(timer) = self.cpu(cpu).pending_timer.take() {
            let cause = if kept == Some(true) { Cause::TickKept } else { timer.otherwise };
            self.count_irq(cpu, &timer.irq, cause, timer.length_ns);
        }
    }

    /// `tick_stop` says whether the tick of this CPU stops, and what it depends on.
    pub(super) fn tick_stop(&mut self, e: &Event<'_>, dependency: &[u8]) {
        let kept = dependency != b"NONE" && dependency != b"0";
        if kept {
            let open = self.window.open;
            let dependency = self.symbols.number(dependency);
            *self.cpu(e.cpu).figures.tick_kept.entry(dependency).or_default() += u64::from(open);
        }
        self.timer_decided(e.cpu, Some(kept));
        self.cpu(e.cpu).tick = match (kept, e.task.pid) {
            (true, _) => TickState::Kept,
            (false, 0) => TickState::StoppedInIdle,
            (false, _) => TickState::Stopped,
        };
    }
}
