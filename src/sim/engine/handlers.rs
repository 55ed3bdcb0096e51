//! Replay of handlers: interrupts, NMIs and exceptions that come in user mode or out of idle, and whose course is known
//! (`replay` has the argument). What comes is drawn and counted as ever, and so is what their end counts; between those two
//! the course is run and no op is interpreted. A handler that something else could fall into is interpreted: an NMI, kernel
//! work that is due, whoever is waited for; and the next interrupt, if some op opens interrupts. With interrupts closed it is
//! taken when the handler is over (H5), whenever it comes, and so is the next NMI behind an NMI.
//!
//! Remote calls are not among them: who sent them waits for each.
//!
//! Invariant: results are those of the interpreted handler (`ways.rs`, `replaying_changes_nothing`).

use super::super::queue::NEVER;
use super::super::scenario::Kind as ActorKind;
use super::super::stats::STATS;
use super::frames::{Came, Over};
use super::replay::{Course, is_replayable, make_room};
use super::skip::Patience;
use super::{Engine, Why};
use crate::kernel::program::{Code, ProgId};
use crate::kernel::step::Cpu;

/// Handlers kept for a CPU: what comes, times the states it comes in.
const KEPT: usize = 32;

/// The handlers a CPU knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Handlers {
    known: Vec<(Came, Course)>,
    patience: Patience,
}

impl Handlers {
    /// Writes what was replayed into the statistics.
    pub(super) fn settle(&mut self, row: &mut [u64; STATS]) {
        self.known.iter_mut().for_each(|(_, course)| course.settle(row));
    }
}

/// By program: can it be replayed? With the ops that read freely.
pub(super) fn which(code: &Code, free: &[bool]) -> Vec<bool> {
    (0..code.programs.len()).map(|id| is_replayable(code, free, ProgId(id as _))).collect()
}

impl Engine {
    /// Replays what came to a CPU in user mode or idle, or runs it and remembers its course. `false`: neither.
    pub(super) fn replay_handler(&mut self, cpu: Cpu, came: Came, user_left: u64, limit: u64) -> bool {
        let i = usize::from(cpu);
        // The task of a CPU in the kernel makes no exceptions.
        let device = if self.own[i].faults { self.next_device(cpu) } else { self.m.cores[i].device_next };
        let Engine { own, m, .. } = self;
        let (c, debt) = (&mut m.cores[i], &mut m.debts[i]);
        // What may come amid it, with interrupts closed and, for a part of it, open.
        let nmi = if came.why == Why::Nmi { NEVER } else { c.nmi_next };
        let closed = nmi.min(c.init_next).min(limit);
        let until = closed.min(c.irq_at).min(device);
        let program = usize::from(came.run.0);
        let stands = debt.owed || c.sync_owed || c.in_call_irq || own[i].stream.is_some();
        if !self.replayable[program] || stands {
            return false;
        }
        let vars = &m.values[i * m.vars..][..m.vars];
        let shared = || m.free.iter().map(|at| m.shared[*at]);
        let handlers = &mut own[i].handlers;
        let is_this = |known: &&mut (Came, Course)| known.0 == came && known.1.is_from(c, vars, shared());
        let Some((_, course)) = handlers.known.iter_mut().rev().find(is_this) else {
            if c.clock >= until || handlers.patience.waits() {
                return false;
            }
            self.find_out_handler(cpu, came, user_left, until);
            return true;
        };
        let began = c.clock;
        if !course.is_over(began, if course.opens { until } else { closed }) {
            return false;
        }
        let mut tlb = m.tlbs.as_mut().map(|tlbs| &mut tlbs[i]);
        let (took, _) = course.run(began, tlb.as_deref_mut(), &mut m.stats[i], c, debt);
        course.ends(1, tlb, c);
        c.clock = began + took;
        self.runs += 1;
        self.replayed += 1;
        self.work += 1;
        let Came { why, cause, from, .. } = came;
        self.ended(cpu, Over { why, began, cause, from, user_left }, !came.idle);
        true
    }

    /// When the next device interrupts this CPU.
    fn next_device(&self, cpu: Cpu) -> u64 {
        let actors = &self.own[usize::from(cpu)].actors;
        let is = |k: &usize| matches!(self.kind(cpu, *k), ActorKind::Interrupts { .. });
        (0..actors.len()).filter(is).map(|k| actors[k].next).min().unwrap_or(NEVER)
    }

    /// Runs a handler and remembers its course, if nothing comes between.
    fn find_out_handler(&mut self, cpu: Cpu, came: Came, user_left: u64, until: u64) {
        let i = usize::from(cpu);
        let began = self.m.cores[i].clock;
        let course = self.course_of(cpu, began, |engine| {
            let depth = engine.m.cores[i].depth;
            engine.start_handler(cpu, came, user_left);
            engine.alone(cpu, depth, until)
        });
        let Handlers { known, patience } = &mut self.own[i].handlers;
        match course {
            Some(course) => {
                *patience = make_room(known, KEPT, &mut self.m.stats[i], |(_, course)| course);
                known.push((came, course));
            }
            None => patience.failed(),
        }
    }
}
