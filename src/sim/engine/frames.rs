//! Programs begin and end: entries, interrupts, returns to user mode.

use super::super::machine::Timed;
#[cfg(test)]
use super::super::machine::journal::Did;
use super::super::queue::{Key, NEVER};
use super::super::scenario::{Gap, Kind as ActorKind, Path};
use super::super::stats::{Cause, Stat, Window};
use super::super::timeline::Kind as EventKind;
use super::{Act, DEPTH, Engine, Why, draw_gap};
use crate::kernel::program::ProgId;
use crate::kernel::step::{Cpu, Frame};

/// An interrupt, an NMI or an exception that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Came {
    pub(super) run: ProgId,
    pub(super) why: Why,
    pub(super) cause: Cause,
    pub(super) from: u32,
    pub(super) body_ps: u64,
    /// Out of idle.
    pub(super) idle: bool,
}

/// What is counted of an activation when it is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Over {
    pub(super) why: Why,
    pub(super) began: u64,
    pub(super) cause: Cause,
    pub(super) from: u32,
    pub(super) user_left: u64,
}

impl Act {
    fn over(&self) -> Over {
        let Act { why, began, cause, from, user_left, .. } = *self;
        Over { why, began, cause, from, user_left }
    }
}

impl Engine {
    /// In user mode, or between two turns of idle. `false`: nothing happens before `limit`.
    pub(super) fn leave_user(&mut self, cpu: Cpu, limit: Key, driven: bool) -> bool {
        let i = usize::from(cpu);
        if self.is_idle_cpu(cpu) {
            let c = &mut self.m.cores[i];
            if (c.clock, cpu) >= limit {
                return false;
            }
            if c.init_next <= c.clock {
                if !driven {
                    return false;
                }
                if self.work_due(cpu) {
                    self.start_work(cpu);
                }
            } else {
                self.push(cpu, self.entries.idle, Why::Idle, Cause::Other, 0);
            }
            return true;
        }
        let c = &mut self.m.cores[i];
        let due = c.nmi_next.min(c.irq_at).min(c.device_next);
        let others = due.min(c.init_next);
        let fg = c.fg_next;
        if fg < others {
            if (fg.max(c.clock), cpu) >= limit {
                return false;
            }
            if self.skip && self.jump(cpu, others.min(limit.0)) {
                return true;
            }
            // In summary all that could be replayed is skipped.
            let replays = self.replays && (!self.skip || self.m.tlbs.is_some());
            if replays && self.replay_calls(cpu, others.min(limit.0)) {
                return true;
            }
            let c = &mut self.m.cores[i];
            c.clock = c.clock.max(fg);
            self.syscall(cpu);
            return true;
        }
        let at = others.max(c.clock);
        if others == NEVER || (at, cpu) >= limit {
            return false;
        }
        c.clock = at;
        if due <= at {
            self.take_interrupt(cpu, due, limit.0);
        } else {
            if !driven {
                return false;
            }
            // Kernel work of this task: a system call whose body does it.
            if self.work_due(cpu) {
                self.syscall(cpu);
            }
        }
        true
    }

    pub(super) fn syscall(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        let body = self.own[i].base_body;
        let left = self.m.cores[i].fg_next.saturating_sub(self.m.cores[i].clock);
        let by = self.own[i].by;
        self.push(cpu, self.entries.paths[by as usize], Why::Syscall, Cause::Other, by as u32);
        let top = usize::from(self.m.cores[i].depth) - 1;
        self.own[i].acts[top].body_ps = body;
        self.own[i].acts[top].user_left = left;
    }

    /// Starts a program on a CPU.
    pub(super) fn push(&mut self, cpu: Cpu, run: ProgId, why: Why, cause: Cause, from: u32) {
        let i = usize::from(cpu);
        if self.own[i].stream.is_some() {
            self.stream_until(cpu, self.m.cores[i].clock);
        }
        #[cfg(test)]
        self.m.mark(cpu, Did::Begins(run, cause));
        let pti = self.m.has_pti();
        let times = &self.m.times;
        self.m.cores[i].resume = 0;
        let enters = match why {
            // Delivery of an INT3 is not recorded.
            Why::Enter | Why::Work | Why::Idle | Why::Breakpoint => 0,
            Why::Syscall | Why::Fault => times.path(Path::ALL[from as usize]).0,
            Why::Interrupt => times.interrupt.0,
            Why::Nmi => times.nmi.0,
        };
        let c = &mut self.m.cores[i];
        let depth = usize::from(c.depth);
        self.own[i].acts[depth] = Act {
            frame: Frame::new(self.code.start(run)),
            why,
            began: c.clock,
            body_left: NEVER,
            body_ps: 0,
            entered: 0,
            cause,
            from,
            if_on: c.if_on,
            entry_code: c.entry_code,
            window: c.window,
            in_call_irq: c.in_call_irq,
            loop_next: c.loop_next,
            user_left: NEVER,
        };
        c.clock += enters;
        c.depth += 1;
        if depth == 0 && self.own[i].faults {
            self.refresh(cpu);
        }
        let c = &mut self.m.cores[i];
        c.entry_code = why != Why::Work;
        c.window = match why {
            Why::Enter | Why::Work | Why::Idle => Window::Other,
            Why::Syscall | Why::Fault => Window::Syscall,
            Why::Interrupt => Window::Interrupt,
            Why::Nmi => Window::Nmi,
            Why::Breakpoint => c.window,
        };
        match why {
            // On its way to user mode, too, a CPU takes none.
            Why::Enter | Why::Syscall | Why::Fault | Why::Interrupt | Why::Breakpoint => c.if_on = false,
            // H5: its gate is an interrupt gate, too.
            Why::Nmi => (c.if_on, c.nmi_blocked) = (false, true),
            Why::Work => c.working += 1,
            Why::Idle => {}
        }
        if !pti || why == Why::Work {
            self.m.view_begins(cpu);
        }
        self.runs += 1;
        self.work += 1;
    }

    /// An INT3 starts its handler. Where no frame is left for it, it goes on without.
    pub(super) fn breaks(&mut self, cpu: Cpu) {
        if let Some(handler) = self.entries.breakpoint
            && usize::from(self.m.cores[usize::from(cpu)].depth) < DEPTH
        {
            self.push(cpu, handler, Why::Breakpoint, Cause::TextPoke, 0);
        }
    }

    /// A program is over.
    pub(super) fn pop(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        let times = &self.m.times;
        let depth = usize::from(self.m.cores[i].depth) - 1;
        let act = self.own[i].acts[depth];
        let leaves = match act.why {
            Why::Enter | Why::Work | Why::Idle | Why::Breakpoint => 0,
            Why::Syscall | Why::Fault => times.path(Path::ALL[act.from as usize]).1,
            Why::Interrupt => times.interrupt.1,
            Why::Nmi => times.nmi.1,
        };
        let c = &mut self.m.cores[i];
        c.clock += leaves;
        c.depth -= 1;
        c.if_on = act.if_on;
        c.entry_code = act.entry_code;
        c.window = act.window;
        c.in_call_irq = act.in_call_irq;
        c.loop_next = act.loop_next;
        if act.why == Why::Nmi {
            c.nmi_blocked = false;
        }
        #[cfg(test)]
        self.m.mark(cpu, Did::Over);
        let c = &mut self.m.cores[i];
        if act.why == Why::Breakpoint {
            return self.m.breakpoint_ends(cpu);
        }
        if act.why == Why::Work {
            c.working -= 1;
            let idle = c.depth == 0;
            self.work_ends(cpu);
            if idle {
                let took = self.m.cores[i].clock - act.began;
                self.m.add(cpu, Stat::kernel_ps, took);
            }
            return;
        }
        let to_user = c.depth == 0 && act.why != Why::Idle;
        if to_user {
            if !self.m.has_pti() {
                self.m.view_ends(cpu);
            }
            if self.m.cores[i].cold {
                self.refill(cpu, false);
            }
            if self.m.tlbs.is_some() {
                let pages = self.refill_pages[i].1;
                self.m.look_up(cpu, false, pages);
            }
            self.stream_begins(cpu);
        }
        self.ended(cpu, act.over(), to_user);
    }

    /// What is counted of a program that is over, and what its CPU does next.
    pub(super) fn ended(&mut self, cpu: Cpu, over: Over, to_user: bool) {
        let i = usize::from(cpu);
        let c = &self.m.cores[i];
        let (clock, took, depth) = (c.clock, c.clock - over.began, c.depth);
        match over.why {
            Why::Fault => {
                self.m.add(cpu, Stat::faults, 1);
                self.m.add(cpu, Stat::kernel_ps, took);
            }
            Why::Syscall => {
                self.m.add(cpu, Stat::syscalls, 1);
                self.m.add(cpu, Stat::kernel_ps, took);
                self.latencies.returned(usize::from(self.class_of_cpu[i]), took);
            }
            Why::Interrupt | Why::Nmi => {
                let in_idle = depth == 1 && self.own[i].acts[0].why == Why::Idle;
                if to_user || in_idle {
                    self.m.add(cpu, Stat::interrupt_ps, took);
                }
                if in_idle {
                    self.own[i].acts[0].began += took; // not idle time
                }
                self.m.event(cpu, over.began, took, EventKind::Interrupt, over.cause, over.from);
            }
            Why::Enter | Why::Work | Why::Idle | Why::Breakpoint => {}
        }
        if to_user {
            self.return_to_user(cpu, over, clock, took);
            if self.own[i].faults {
                self.refresh(cpu);
            }
        }
    }

    fn return_to_user(&mut self, cpu: Cpu, over: Over, clock: u64, took: u64) {
        let i = usize::from(cpu);
        match over.why {
            Why::Interrupt | Why::Nmi => {
                self.m.add(cpu, Stat::interference, 1);
                self.m.add(cpu, Stat::interference_ps, took);
                let c = &mut self.m.cores[i];
                let quiet = over.began - c.quiet_from;
                c.quiet_from = clock;
                let longest = &mut self.m.stats[i][Stat::longest_quiet_ps as usize];
                *longest = (*longest).max(quiet);
                self.latencies.interrupted(usize::from(self.class_of_cpu[i]), took);
                self.user_time_goes_on(cpu, over.user_left, clock);
            }
            Why::Fault => self.user_time_goes_on(cpu, over.user_left, clock),
            Why::Syscall | Why::Enter => {
                let Some(k) = self.own[i].foreground else { return };
                let next = match *self.kind(cpu, k) {
                    ActorKind::Syscalls { gap, .. } if over.user_left == NEVER || over.user_left == 0 => {
                        let draws = &mut self.own[i].actors[k].draws;
                        clock + draw_gap(draws, gap)
                    }
                    ActorKind::Syscalls { .. } => clock + over.user_left,
                    _ => NEVER,
                };
                self.m.cores[i].fg_next = next;
            }
            Why::Work | Why::Idle | Why::Breakpoint => {}
        }
    }

    /// The user time that was interrupted goes on.
    fn user_time_goes_on(&mut self, cpu: Cpu, left: u64, clock: u64) {
        self.m.cores[usize::from(cpu)].fg_next = if left == NEVER { NEVER } else { clock + left };
    }

    /// Takes what is due at `due`. Where its course is known and sure to be over before `limit`, it is over then.
    pub(super) fn take_interrupt(&mut self, cpu: Cpu, due: u64, limit: u64) {
        let i = usize::from(cpu);
        let c = &self.m.cores[i];
        let depth = usize::from(c.depth);
        let idle = depth == 1 && self.own[i].acts[0].why == Why::Idle;
        let user_left =
            if depth == 0 && c.fg_next != NEVER { c.fg_next.saturating_sub(c.clock) } else { NEVER };
        let came = if !c.nmi_blocked && c.nmi_next == due {
            let k = self.actor_due(cpu, due, |kind| matches!(kind, ActorKind::Nmis { .. }));
            let ActorKind::Nmis { gap, body_ps } = *self.kind(cpu, k) else { unreachable!("just matched") };
            self.reschedule(cpu, k, gap);
            self.m.add(cpu, Stat::nmis, 1);
            let run = if depth == 0 { self.entries.nmi_user } else { self.entries.nmi };
            Came { run, why: Why::Nmi, cause: Cause::Nmi, from: 0, body_ps, idle }
        } else if c_irq(&self.m, cpu) == due {
            return self.take_calls(cpu, idle, user_left);
        } else if depth == 0
            && let Some(k) = self.fault_due(cpu, due)
        {
            let ActorKind::Faults { gap, body_ps, by } = *self.kind(cpu, k) else {
                unreachable!("just matched")
            };
            self.reschedule(cpu, k, gap);
            let run = self.entries.paths[by as usize];
            Came { run, why: Why::Fault, cause: Cause::Other, from: by as u32, body_ps, idle }
        } else {
            let k = self.actor_due(cpu, due, |kind| matches!(kind, ActorKind::Interrupts { .. }));
            let ActorKind::Interrupts { gap, body_ps, cause } = *self.kind(cpu, k) else {
                unreachable!("just matched")
            };
            self.reschedule(cpu, k, gap);
            self.m.add(cpu, Stat::interrupts, 1);
            let (run, from) = (self.handler(cpu, depth, idle), u32::from(u16::MAX));
            Came { run, why: Why::Interrupt, cause, from, body_ps, idle }
        };
        if came.why != Why::Fault {
            self.m.by_cause[i][came.cause as usize] += 1;
        }
        let alone = depth == 0 || idle;
        if !(alone && self.replays && self.replay_handler(cpu, came, user_left, limit)) {
            self.start_handler(cpu, came, user_left);
        }
    }

    /// Where an interrupt enters. The idle loop is left by its own way only while it waits (H5).
    fn handler(&self, cpu: Cpu, depth: usize, idle: bool) -> ProgId {
        let waits = || self.code.is_idle_at(self.own[usize::from(cpu)].acts[0].frame.pc);
        match depth {
            0 => self.entries.interrupt,
            _ if idle && waits() => self.entries.interrupt_idle,
            _ => self.entries.interrupt_kernel,
        }
    }

    /// Starts what came.
    pub(super) fn start_handler(&mut self, cpu: Cpu, came: Came, user_left: u64) {
        let i = usize::from(cpu);
        let depth = usize::from(self.m.cores[i].depth);
        self.push(cpu, came.run, came.why, came.cause, came.from);
        if came.why == Why::Interrupt {
            self.m.cores[i].in_call_irq = false;
        }
        let act = &mut self.own[i].acts[depth];
        (act.body_ps, act.user_left) = (came.body_ps, user_left);
        if came.idle && came.why == Why::Interrupt {
            self.m.view_begins(cpu);
        }
    }

    /// The remote-call interrupt.
    fn take_calls(&mut self, cpu: Cpu, idle: bool, user_left: u64) {
        let i = usize::from(cpu);
        let c = &mut self.m.cores[i];
        let depth = usize::from(c.depth);
        c.irq_at = NEVER;
        let (cause, from) = match c.calls.first() {
            Some(call) => {
                let from = call.from;
                (self.m.cores[usize::from(from)].request.cause, u32::from(from))
            }
            None => (Cause::Other, u32::from(u16::MAX)),
        };
        self.m.add(cpu, Stat::interrupts, 1);
        self.m.add(cpu, Stat::ipis_received, 1);
        self.m.by_cause[i][cause as usize] += 1;
        if from == u32::from(u16::MAX) {
            self.m.add(cpu, Stat::ipis_empty, 1);
        }
        self.push(cpu, self.handler(cpu, depth, idle), Why::Interrupt, cause, from);
        self.m.cores[i].in_call_irq = true;
        self.own[i].acts[depth].user_left = user_left;
        if idle {
            self.m.view_begins(cpu);
        }
    }

    fn fault_due(&self, cpu: Cpu, due: u64) -> Option<usize> {
        let own = &self.own[usize::from(cpu)];
        let is = |k: usize| matches!(self.kind(cpu, k), ActorKind::Faults { .. });
        (0..own.actors.len()).find(|&k| own.faults && own.actors[k].next == due && is(k))
    }

    pub(super) fn actor_due(&self, cpu: Cpu, due: u64, is: impl Fn(&ActorKind) -> bool) -> usize {
        let actors = &self.own[usize::from(cpu)].actors;
        (0..actors.len())
            .find(|&k| actors[k].next == due && is(self.kind(cpu, k)))
            .expect("`refresh` took the time from one of them")
    }

    pub(super) fn reschedule(&mut self, cpu: Cpu, k: usize, gap: Gap) {
        let a = &mut self.own[usize::from(cpu)].actors[k];
        a.next = a.next.saturating_add(draw_gap(&mut a.draws, gap));
        self.refresh(cpu);
    }
}

fn c_irq(m: &Timed, cpu: Cpu) -> u64 {
    let c = &m.cores[usize::from(cpu)];
    if c.if_on { c.irq_at } else { NEVER }
}
