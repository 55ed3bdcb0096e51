//! Processes: which address space each CPU runs, and the programs that their turns start.
//!
//! The scheduler's choice and the identity of address spaces are here; what other CPUs could notice of a switch or a
//! flush is in `contexts.kernel`.

use super::super::machine::Timed;
use super::super::scenario::{Do, Kind as ActorKind, Scenario};
use super::super::stats::{Cause, Stat};
use super::work::{Run, Work, is_full};
use super::{ActorState, Engine, Own};
use crate::kernel::program::{Code, ProgId};
use crate::kernel::step::Cpu;

/// Programs of `contexts.kernel` that turns start.
pub const PROGRAMS: [&str; 4] = ["switch_mm", "enter_lazy", "flush_mm", "flush_mm_tables"];

/// Where they start.
#[derive(Clone, Copy, Debug)]
pub(super) struct Programs {
    switch: ProgId,
    sleep: ProgId,
    flush: ProgId,
    flush_tables: ProgId,
}

impl Programs {
    /// `None`: the code has no memory contexts.
    pub(super) fn of(code: &Code) -> Option<Self> {
        let [switch, sleep, flush, flush_tables] = PROGRAMS.map(|name| code.program(name));
        Some(Programs { switch: switch?, sleep: sleep?, flush: flush?, flush_tables: flush_tables? })
    }
}

/// What a turn queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Task {
    Switch {
        actor: u16,
    },
    Sleep,
    Unmap {
        actor: u16,
        tables: bool,
    },
    Exec {
        actor: u16,
    },
    /// `exit_mmap` of an address space that nobody uses any more.
    TearDown {
        mm: u16,
    },
}

/// Creates each actor's address spaces and loads the first one on every CPU, as if it had run there for long.
pub(super) fn start(code: &Code, m: &mut Timed, own: &mut [Own], scenario: &Scenario) {
    let mut busy = vec![false; own.len()];
    for (i, actor) in scenario.actors.iter().enumerate() {
        let ActorKind::Tasks { processes, shared, also_on, .. } = &actor.kind else { continue };
        let mut create = || m.contexts.create().expect("the scenario's check bounds their number");
        let one = shared.then(&mut create);
        for cpu in scenario.cpus_of(&actor.on) {
            let mms = match one {
                Some(mm) => vec![mm],
                None => (0..*processes).map(|_| create()).collect(),
            };
            let state = own[usize::from(cpu)].actors.iter_mut().find(|a| usize::from(a.actor) == i);
            state.expect("it is on this CPU").mms = mms;
        }
        let threads = also_on.iter().flat_map(|on| scenario.cpus_of(on));
        for cpu in scenario.cpus_of(&actor.on).into_iter().chain(threads) {
            let o = &own[usize::from(cpu)];
            let first = o.actors.iter().find(|a| usize::from(a.actor) == i).and_then(|a| a.mms.first());
            if !std::mem::replace(&mut busy[usize::from(cpu)], true)
                && let Some(mm) = first.copied().or(one)
            {
                m.load_at_start(code, cpu, mm);
            }
        }
    }
}

impl ActorState {
    fn current(&self) -> u16 {
        self.mms[usize::from(self.at)]
    }
}

impl Engine {
    /// A turn of actor `k`: what is the CPU's own happens at once, programs are queued.
    pub(super) fn turn(&mut self, cpu: Cpu, k: usize) {
        let i = usize::from(cpu);
        let mut j = 0;
        let gap = loop {
            let ActorKind::Tasks { gap, steps, .. } = self.kind(cpu, k) else {
                unreachable!("a turn is of tasks")
            };
            let gap = *gap;
            let Some(step) = steps.get(j).copied() else { break gap };
            j += 1;
            let draws = &mut self.own[i].actors[k].draws;
            if step.per_mille < 1000 && draws.below(1000) >= u64::from(step.per_mille) {
                continue;
            }
            let (at, actor) = (self.own[i].actors[k].next, k as u16);
            let (task, pages) = match step.what {
                Do::Switch => (Task::Switch { actor }, 0),
                Do::Sleep => (Task::Sleep, 0),
                Do::Unmap { pages, tables } => (Task::Unmap { actor, tables }, pages),
                Do::Exec => (Task::Exec { actor }, 0),
                Do::Fork => {
                    self.create(cpu, k);
                    continue;
                }
                Do::Exit => {
                    if !self.own[i].actors[k].alive.is_empty() {
                        let area = self.own[i].actors[k].alive.remove(0);
                        self.release(cpu, cpu, area, at);
                    }
                    continue;
                }
            };
            let full = is_full(&self.kernel, pages);
            self.own[i].works.push(Work::new(at, Run::Task(task), full, pages, Cause::UserFlush));
        };
        self.next_gap(cpu, k, gap);
    }

    /// A task's program is about to start: which one, and whether it flushes a user range.
    pub(super) fn task(&mut self, cpu: Cpu, task: Task) -> (ProgId, bool) {
        let programs = self.tasks.expect("the code has memory contexts: the scenario asked for them");
        let own = &mut self.own[usize::from(cpu)];
        let contexts = &mut self.m.contexts;
        match task {
            Task::Switch { actor } => {
                let a = &mut own.actors[usize::from(actor)];
                a.at = (a.at + 1) % a.mms.len() as u16;
                contexts.set_next(cpu, a.current());
                (programs.switch, false)
            }
            Task::Sleep => (programs.sleep, false),
            Task::Unmap { actor, tables } => {
                contexts.set_flush(cpu, own.actors[usize::from(actor)].current());
                (if tables { programs.flush_tables } else { programs.flush }, true)
            }
            Task::Exec { actor } => {
                let a = &mut own.actors[usize::from(actor)];
                let fresh = contexts.create().expect("as many are gone as were created");
                let mm = std::mem::replace(&mut a.mms[usize::from(a.at)], fresh);
                contexts.set_next(cpu, fresh);
                let now = self.m.cores[usize::from(cpu)].clock;
                let down = Work::new(now, Run::Task(Task::TearDown { mm }), true, 0, Cause::UserFlush);
                own.works.insert(0, down);
                self.m.add(cpu, Stat::execs, 1);
                (programs.switch, false)
            }
            Task::TearDown { mm } => {
                contexts.set_flush(cpu, mm);
                (programs.flush_tables, true)
            }
        }
    }
}
