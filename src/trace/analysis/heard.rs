//! Senders of calls that no csd event names: what a function, a call chain, a timer armed on another CPU or arm64's
//! `ipi_raise` shows just before the interrupt.

use super::{
    Analysis,
    knowledge::{CALLS, RESCHEDULES},
    row::NONE,
    sender::{Evidence, Op},
    tasks::Sym,
};
use crate::trace::{
    MAX_CPUS,
    cause::{self, Cause, signature},
    event::{Event, Vector, for_each_cpu},
};

const KEPT: usize = 64;
/// An interrupt follows its sending within microseconds; a guest's may be late.
const SOON_NS: u64 = 1_000_000;

/// Somebody asked other CPUs for something.
#[derive(Clone, Debug)]
pub struct Heard {
    at_ns: u64,
    cpu: u32,
    pid: u32,
    /// Whom, if it says.
    target: Option<u32>,
    /// Who was interrupted since.
    done: Vec<u32>,
    /// A timer was armed; it kicks a CPU that has no tick.
    timer: bool,
    /// What for.
    pub cause: Cause,
    /// Who.
    pub comm: Sym,
    /// Through what: the function that had text patched, the timer that was armed.
    pub via: Sym,
    /// Only interrupted.
    pub in_interrupt: bool,
}

impl Analysis {
    fn hear(
        &mut self,
        e: &Event<'_>,
        target: Option<u32>,
        cause: Cause,
        (comm, via): (Sym, Sym),
        timer: bool,
    ) {
        if self.heard.len() >= KEPT {
            self.heard.pop_front();
        }
        self.heard.push_back(Heard {
            at_ns: e.at_ns,
            cpu: e.cpu,
            pid: e.task.pid,
            target,
            done: Vec::new(),
            timer,
            cause,
            comm,
            via,
            in_interrupt: e.in_interrupt.unwrap_or(false),
        });
    }

    /// A function was entered, as the function tracers or a probe on it show: it sends calls, or asks for what will.
    pub(super) fn hear_function(&mut self, e: &Event<'_>, name: &[u8]) {
        if self.kinds.csd_queue > 0 {
            return;
        }
        let pid = e.task.pid;
        if signature::sends_calls(name) {
            let soon =
                |asked: &&(u32, u64, Cause)| asked.0 == pid && e.at_ns.saturating_sub(asked.1) < SOON_NS;
            let asked = self.asked.iter().rev().find(soon).map(|asked| asked.2);
            // function_graph names no task: nobody is known without what was asked for.
            if e.task.comm.is_empty() && asked.is_none() {
                return;
            }
            let comm = self.sender_name(e);
            // on_each_cpu, smp_call_function_many and the like are entered one inside the other: one request.
            let again = |h: &&mut Heard| {
                h.pid == pid && h.cpu == e.cpu && !h.timer && h.target.is_none() && h.done.is_empty()
            };
            if let Some(same) = self.heard.iter_mut().rev().find(again)
                && e.at_ns.saturating_sub(same.at_ns) < SOON_NS
            {
                same.cause = asked.unwrap_or(same.cause);
                return;
            }
            self.hear(e, None, asked.unwrap_or(Cause::CallFrom), (comm, Sym::NONE), false);
            return;
        }
        let symbol = self.symbols.number(name);
        if symbol == Sym::NONE {
            return;
        }
        if let Some(cause) = *self.asking.entry(symbol).or_insert_with(|| cause::of_stack(name)) {
            self.asked.retain(|asked| asked.0 != pid);
            if self.asked.len() >= KEPT {
                self.asked.pop_front();
            }
            self.asked.push_back((pid, e.at_ns, cause));
        }
    }

    /// A call chain that sends calls; it may be the one of a function just heard of.
    pub(super) fn hear_stack(&mut self, e: &Event<'_>, frames: &[u8]) {
        if self.kinds.csd_queue > 0 || !signature::sends_calls(frames) {
            return;
        }
        let cause = self.of_stack(frames).unwrap_or(Cause::CallFrom);
        let comm = self.sender_name(e);
        let user = signature::patched_for(frames).filter(|_| cause == Cause::TextSync);
        let via = user.map_or(Sym::NONE, |user| self.symbols.number(user));
        let same = |h: &&mut Heard| h.pid == e.task.pid && h.cpu == e.cpu && !h.timer && h.target.is_none();
        let soon = |h: &&mut Heard| e.at_ns.saturating_sub(h.at_ns) < SOON_NS;
        match self.heard.iter_mut().rev().find(same).filter(soon) {
            Some(heard) => (heard.cause, heard.comm, heard.via) = (cause, comm, via),
            None => self.hear(e, None, cause, (comm, via), false),
        }
    }

    /// A timer is armed on another CPU, which kicks that one out of its tickless state.
    pub(super) fn hear_timer(&mut self, e: &Event<'_>, target: u32, function: &[u8]) {
        if target == e.cpu || target >= MAX_CPUS || !self.may_be_isolated(target) {
            return;
        }
        let cause = match function {
            b"clocksource_watchdog" => Cause::ClocksourceWatchdog,
            _ => Cause::NohzKick,
        };
        let comm = self.sender_name(e);
        let via = self.symbols.number(function);
        self.hear(e, Some(target), cause, (comm, via), true);
    }

    /// arm64: CPUs are sent an inter-processor interrupt.
    pub(super) fn ipi_raise(&mut self, e: &Event<'_>, mask: &[u8], vector: Vector) {
        let comm = self.sender_name(e);
        let inside = e.in_interrupt.unwrap_or(false);
        let counted = u64::from(self.window.open);
        for_each_cpu(mask, |target| {
            if target >= MAX_CPUS {
                return;
            }
            let kind = match vector {
                Vector::IpiCall => CALLS,
                Vector::IpiReschedule => RESCHEDULES,
                _ => 0,
            };
            self.cpu(target).is_named(kind, e.at_ns);
            match vector {
                Vector::IpiReschedule => {
                    let cpu = self.cpu(target);
                    if cpu.reschedules.len() >= 64 {
                        cpu.reschedules.pop_front();
                    }
                    cpu.reschedules.push_back((Cause::RescheduleOther, comm, inside));
                    *cpu.figures
                        .sent_reschedules
                        .entry((Cause::RescheduleOther, comm, inside))
                        .or_default() += counted;
                }
                Vector::IpiCall if self.kinds.csd_queue == 0 => {
                    self.hear(e, Some(target), Cause::CallFrom, (comm, Sym::NONE), false);
                }
                _ => {}
            }
        });
    }

    /// Who asked this CPU for the call whose interrupt began then.
    pub(super) fn heard(&mut self, cpu: u32, at_ns: u64) -> Option<Heard> {
        let heard = self.heard.iter_mut().rev().find(|h| {
            h.at_ns <= at_ns
                && at_ns - h.at_ns < SOON_NS
                && h.cpu != cpu
                && h.target.is_none_or(|target| target == cpu)
                && !h.done.contains(&cpu)
        })?;
        heard.done.push(cpu);
        Some(heard.clone())
    }

    /// The operation behind a call that no event queued, if somebody was heard to ask this CPU for one.
    pub(super) fn heard_op(&mut self, e: &Event<'_>, func: Sym) -> u32 {
        if self.kinds.csd_queue > 0 {
            return NONE;
        }
        let irq = self.cpu(e.cpu).irqs.last().filter(|irq| irq.vector.runs_call_queue());
        let Some(began_ns) = irq.map(|irq| irq.at_ns) else { return NONE };
        let Some(heard) = self.heard(e.cpu, began_ns).filter(|heard| !heard.timer) else { return NONE };
        let by_name = cause::of_call(self.symbols.bytes(func), self.symbols.bytes(heard.comm));
        let open = matches!(by_name, Cause::KernelFlushUnknown | Cause::CallOther);
        let (cause, evidence) = if open && heard.cause != Cause::CallFrom {
            (heard.cause, Evidence::Before)
        } else {
            (by_name, Evidence::Function)
        };
        if heard.via != Sym::NONE && cause == heard.cause && self.window.open {
            *self.cpu(e.cpu).figures.vias.entry((cause, heard.via)).or_default() += 1;
        }
        let Heard { cpu, pid, comm, at_ns, in_interrupt, .. } = heard;
        self.add_op(Op { func, comm, pid, cpu, in_interrupt, at_ns, line: e.line, cause, evidence })
    }

    /// The timer that this CPU has just armed on `target`, if that is why it kicks it.
    pub(super) fn armed_on(&mut self, e: &Event<'_>, target: u32) -> Option<(Cause, Sym)> {
        let heard = self.heard.iter_mut().rev().find(|h| {
            h.timer && h.cpu == e.cpu && h.target == Some(target) && e.at_ns.saturating_sub(h.at_ns) < SOON_NS
        })?;
        Some((heard.cause, heard.via))
    }
}
