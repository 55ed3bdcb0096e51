//! What a recording can know of a CPU, per kind of interference: recorded, recorded in part, or not recorded.
//!
//! A kind counts as recorded on a CPU that shows an event of it, or that shows any event while another CPU shows one of
//! that kind. A CPU without a single event may have been quiet, or not traced: *in part*. It is *not recorded* where others
//! sent it what would have shown there. What no CPU shows is *not recorded*, too, and its figures are unknown, never zero.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Analysis, cpu::Cpu};
use crate::order;
use crate::trace::event::Vector;

pub(super) const CALLS: u32 = 1;
pub(super) const RESCHEDULES: u32 = 1 << 1;
pub(super) const TIMERS: u32 = 1 << 2;
pub(super) const IRQ_WORK: u32 = 1 << 3;
pub(super) const DEVICES: u32 = 1 << 4;
pub(super) const OTHER_VECTORS: u32 = 1 << 5;
pub(super) const SOFTIRQS: u32 = 1 << 6;
pub(super) const TASKS: u32 = 1 << 7;
pub(super) const NMIS: u32 = 1 << 8;
pub(super) const FIRMWARE: u32 = 1 << 9;
pub(super) const MODES: u32 = 1 << 10;
pub(super) const TICK_STOP: u32 = 1 << 11;
pub(super) const HRTIMERS: u32 = 1 << 12;
/// Every interrupt: osnoise measures them all.
pub(super) const EVERY_INTERRUPT: u32 = CALLS | RESCHEDULES | TIMERS | IRQ_WORK | DEVICES | OTHER_VECTORS;

/// How long before the end of a recording something may have been sent that arrives behind it.
const ON_ITS_WAY_NS: u64 = 100_000_000;

/// Kinds by name, with the events that show them.
const KINDS: &[(&str, u32, &str)] = &[
    ("calls", CALLS, "irq_vectors:call_function*, ipi:ipi_entry"),
    ("reschedules", RESCHEDULES, "irq_vectors:reschedule*, ipi:ipi_entry"),
    ("timers", TIMERS, "irq_vectors:local_timer*, irq:irq_handler_entry of arch_timer"),
    ("irq_work", IRQ_WORK, "irq_vectors:irq_work*, ipi:ipi_entry"),
    ("devices", DEVICES, "irq:irq_handler_entry"),
    ("softirqs", SOFTIRQS, "irq:softirq_entry"),
    ("tasks", TASKS, "sched:sched_switch"),
    ("nmis", NMIS, "osnoise:nmi_noise, nmi:nmi_handler"),
    ("firmware", FIRMWARE, "the hwlat tracer, osnoise:sample_threshold"),
];

/// How much is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing.
    NotRecorded,
    /// Something, but a figure may be too low.
    InPart,
    /// Everything in the CPU's window.
    Recorded,
}

/// What is known of one kind on one CPU.
#[derive(Clone, Debug, Serialize)]
pub struct Known {
    /// How much.
    pub state: State,
    /// The events that show it.
    pub events: &'static str,
    /// Why not all; empty if it is.
    pub why: &'static str,
}

/// What an interrupt of this vector shows to be recorded.
pub(super) fn of_vector(vector: Vector) -> u32 {
    match vector {
        Vector::CallFunction | Vector::CallFunctionSingle => CALLS,
        Vector::Reschedule => RESCHEDULES,
        Vector::IrqWork => IRQ_WORK,
        Vector::LocalTimer => TIMERS,
        Vector::Other | Vector::Platform | Vector::Posted => OTHER_VECTORS,
        Vector::Device => DEVICES,
        // One event for all of them.
        Vector::IpiCall | Vector::IpiReschedule | Vector::IpiTimer | Vector::IpiIrqWork => {
            CALLS | RESCHEDULES | IRQ_WORK
        }
        Vector::IpiOther => DEVICES,
        Vector::ArchTimer | Vector::RiscvTimer => TIMERS | DEVICES,
    }
}

/// The same for an osnoise event.
pub(super) fn of_noise(kind: &[u8]) -> u32 {
    match kind {
        b"irq" => EVERY_INTERRUPT,
        b"softirq" => SOFTIRQS,
        b"thread" => TASKS,
        b"nmi" => NMIS,
        _ => FIRMWARE,
    }
}

/// The same for an event that the recorder had switched on.
pub(super) fn of_event(name: &[u8]) -> u32 {
    match name {
        b"irq_vectors/call_function_entry" | b"irq_vectors/call_function_single_entry" => CALLS,
        b"irq_vectors/reschedule_entry" => RESCHEDULES,
        b"irq_vectors/local_timer_entry" => TIMERS,
        b"irq_vectors/irq_work_entry" => IRQ_WORK,
        b"irq/irq_handler_entry" => DEVICES,
        b"irq/softirq_entry" => SOFTIRQS,
        b"sched/sched_switch" => TASKS,
        b"nmi/nmi_handler" => NMIS,
        b"ipi/ipi_entry" => CALLS | RESCHEDULES | IRQ_WORK,
        _ => 0,
    }
}

impl Analysis {
    /// Every kind on one CPU.
    pub(super) fn knowledge(&self, cpu: &Cpu) -> BTreeMap<&'static str, Known> {
        order::gather(KINDS.iter().map(|&(name, kind, events)| (name, self.known(cpu, kind, events))))
    }

    /// Interrupts as a whole: of the kinds that every kernel has on every CPU.
    pub(super) fn interrupts_known(&self, cpu: &Cpu) -> State {
        let states = [CALLS, RESCHEDULES, TIMERS].map(|kind| self.known(cpu, kind, "").state);
        if states.iter().all(|state| *state == State::Recorded) {
            State::Recorded
        } else if states.iter().any(|state| *state != State::NotRecorded) || cpu.kinds & EVERY_INTERRUPT != 0
        {
            State::InPart
        } else {
            State::NotRecorded
        }
    }

    pub(super) fn tasks_known(&self, cpu: &Cpu) -> State {
        self.known(cpu, TASKS, "").state
    }

    fn known(&self, cpu: &Cpu, kind: u32, events: &'static str) -> Known {
        let (state, why) = if !self.anywhere(kind) {
            (State::NotRecorded, "no such event on any CPU")
        } else if kind == FIRMWARE && self.hwlat {
            // A CPU without a sample above the threshold was perhaps not looked at.
            let state = if cpu.seen { State::InPart } else { State::NotRecorded };
            (state, "the hwlat tracer looks at one CPU at a time, part of the time")
        } else if !cpu.seen && self.was_to_show(cpu) {
            (State::NotRecorded, "no event of any kind on this CPU, though something was sent to it")
        } else if !cpu.seen && !self.noted {
            // More than the isolated CPUs was recorded, so this one most likely was, and was quiet.
            if self.elsewhere(kind) {
                (State::InPart, "no event of any kind on this CPU: quiet, or not traced")
            } else {
                (State::NotRecorded, "no event of any kind on this CPU")
            }
        } else if cpu.figures.holes > 0 {
            (State::InPart, "events were lost")
        } else {
            (State::Recorded, "")
        };
        Known { state, events, why }
    }

    /// Something was sent to the CPU that would show there, and not in the last moments of the recording.
    fn was_to_show(&self, cpu: &Cpu) -> bool {
        cpu.named.iter().any(|&(kind, at_ns)| {
            self.anywhere(kind) && (self.no_clock || self.last_ns.saturating_sub(at_ns) > ON_ITS_WAY_NS)
        })
    }

    fn anywhere(&self, kind: u32) -> bool {
        self.noted_kinds & kind != 0 || self.cpus.iter().any(|cpu| cpu.kinds & kind != 0)
    }

    fn elsewhere(&self, kind: u32) -> bool {
        let isolated = self.isolated_cpus();
        (0u32..).zip(&self.cpus).any(|(number, cpu)| cpu.kinds & kind != 0 && !isolated.contains(&number))
    }
}
