//! Processes: which address space each CPU runs, and the programs that their turns start.
//!
//! The scheduler's choice and the identity of address spaces are here; what other CPUs could notice of a switch or a
//! flush is in `contexts.kernel`.

use super::super::machine::Timed;
use super::super::scenario::{Do, Kind as ActorKind, Scenario, TASK_PROGRAMS};
use super::super::stats::{Cause, Stat};
use super::queued::{Run, Task, Work, is_full};
use super::{ActorState, Engine, Own};
use crate::kernel::program::{Code, ProgId};
use crate::kernel::step::Cpu;

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
        let [switch, sleep, flush, flush_tables] = TASK_PROGRAMS.map(|name| code.program(name));
        Some(Programs { switch: switch?, sleep: sleep?, flush: flush?, flush_tables: flush_tables? })
    }
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
            if self.own[i].actors[k].mms.is_empty() {
                break gap; // all have moved away
            }
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
                Do::Migrate => (Task::Migrate { actor }, 0),
                Do::Fork => {
                    self.create(cpu, k);
                    continue;
                }
                Do::Exit { spread } => {
                    if !self.own[i].actors[k].alive.is_empty() {
                        let area = self.own[i].actors[k].alive.remove(0);
                        let on = self.exits_on(cpu, k, spread);
                        self.release(cpu, on, area, at);
                    }
                    continue;
                }
            };
            let full = is_full(&self.kernel, pages);
            self.own[i].works.push(Work::new(at, Run::Task(task), full, pages, Cause::UserFlush));
        };
        self.next_gap(cpu, k, gap);
    }

    /// The other CPUs of actor `k`.
    fn others(&self, cpu: Cpu, k: usize) -> Vec<Cpu> {
        let id = usize::from(self.own[usize::from(cpu)].actors[k].actor);
        let mut on = self.scenario.cpus_of(&self.scenario.actors[id].on);
        on.retain(|c| *c != cpu);
        on
    }

    /// Where a child of actor `k` exits that started here.
    fn exits_on(&mut self, cpu: Cpu, k: usize, spread: u16) -> Cpu {
        if spread == 0 {
            return cpu;
        }
        let others = self.others(cpu, k);
        let draws = &mut self.own[usize::from(cpu)].actors[k].draws;
        let stays = draws.below(1000) >= u64::from(spread) || others.is_empty();
        if stays { cpu } else { others[draws.below(others.len() as u64) as usize] }
    }

    /// The actor's state on a CPU that it is on.
    fn seat_of(&mut self, cpu: Cpu, id: u16) -> &mut ActorState {
        let seat = self.own[usize::from(cpu)].actors.iter_mut().find(|a| a.actor == id);
        seat.expect("the actor is on this CPU")
    }

    /// The current process leaves for the CPU with the fewest, one of them by a draw (the load balancer's aim without its
    /// machinery). Here the next process follows; there a CPU that had none takes it up at once.
    fn migrate(&mut self, cpu: Cpu, k: usize) {
        let id = self.own[usize::from(cpu)].actors[k].actor;
        let mut to = self.others(cpu, k);
        let loads: Vec<usize> = to.iter().map(|c| self.seat_of(*c, id).mms.len()).collect();
        let Some(fewest) = loads.iter().min() else { return };
        let mut load = loads.iter();
        to.retain(|_| load.next() == Some(fewest));
        let now = self.m.cores[usize::from(cpu)].clock;
        let own = &mut self.own[usize::from(cpu)];
        let a = &mut own.actors[k];
        let there = to[a.draws.below(to.len() as u64) as usize];
        let mm = a.mms.remove(usize::from(a.at));
        // The switch that follows goes on to the next in line.
        a.at = if a.at == 0 { a.mms.len().saturating_sub(1) as u16 } else { a.at - 1 };
        let next = |k: usize| {
            let run = Run::Task(Task::Switch { actor: k as u16 });
            Work::new(now, run, false, 0, Cause::UserFlush)
        };
        if !a.mms.is_empty() {
            own.works.insert(0, next(k));
        }
        self.m.add(cpu, Stat::migrations, 1);
        let seat = self.seat_of(there, id);
        seat.mms.push(mm);
        if seat.mms.len() == 1 {
            seat.at = 0;
            let own = &mut self.own[usize::from(there)];
            let k = own.actors.iter().position(|a| a.actor == id).expect("just found");
            own.works.push(next(k));
            self.wake(there);
        }
    }

    /// Has every process of the task's actor left this CPU? Then there is nothing to run.
    pub(super) fn is_gone(&self, cpu: Cpu, task: Task) -> bool {
        match task {
            Task::Switch { actor }
            | Task::Unmap { actor, .. }
            | Task::Exec { actor }
            | Task::Migrate { actor } => self.own[usize::from(cpu)].actors[usize::from(actor)].mms.is_empty(),
            Task::Sleep | Task::TearDown { .. } => false,
        }
    }

    /// A task's program is about to start: which one, and whether it flushes a user range.
    pub(super) fn task(&mut self, cpu: Cpu, task: Task) -> (ProgId, bool) {
        let programs = self.tasks.expect("the code has memory contexts: the scenario asked for them");
        if let Task::Migrate { actor } = task {
            self.migrate(cpu, usize::from(actor));
            return (programs.sleep, false);
        }
        let own = &mut self.own[usize::from(cpu)];
        let contexts = &mut self.m.contexts;
        match task {
            Task::Migrate { .. } => unreachable!("handled above"),
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

#[cfg(test)]
mod tests {
    use super::super::super::input::Input;
    use super::super::super::run::Run as Whole;
    use super::*;
    use crate::hw::Preset;
    use crate::kernel::config::Config;
    use crate::kernel::policy::shared_builtin;
    use crate::sim::cost::Bound;

    fn engine(on: &str, processes: u64) -> Engine {
        let text = format!(
            r#"{{"name": "tasks", "duration_ps": 1000000000, "cpus": 4, "isolated": [], "actors": [
                {{"name": "idle", "on": "all", "kind": "idle"}},
                {{"name": "tasks", "on": {{"cpus": {on}}}, "kind": "tasks", "gap": {{"mean_ps": 900000000}}, "processes": {processes},
                  "steps": [{{"do": "switch"}}, {{"do": "exit", "spread": 500}}]}}]}}"#
        );
        let input = Input {
            scenario: Scenario::parse(&text).unwrap(),
            machine: Preset::builtin("skylake-sp").unwrap(),
            kernel: Config::default(),
            policy: shared_builtin("ipi").unwrap(),
            seed: 1,
            skip: false,
            keep: 0,
            full: false,
            bound: Bound::Best,
        };
        Whole::new(input).unwrap().engine
    }

    #[test]
    fn a_child_exits_where_it_started_or_on_one_of_the_actors_other_cpus() {
        let mut e = engine("[0, 2, 3]", 2);
        assert_eq!(e.others(2, 1), [0, 3]);
        for (spread, here) in [(0, 400..=400), (1000, 0..=0), (500, 150..=250)] {
            let mut on = [0; 4];
            for _ in 0..400 {
                on[usize::from(e.exits_on(2, 1, spread))] += 1;
            }
            assert!(here.contains(&on[2]), "spread {spread}: {on:?}");
            assert_eq!(on[1], 0, "the actor is not there");
            assert!(spread == 0 || on[0] > 60 && on[3] > 60, "spread {spread}: {on:?}");
        }
        let mut alone = engine("[1]", 2);
        assert_eq!(alone.exits_on(1, 1, 1000), 1, "there is no other");
    }

    #[test]
    fn a_process_moves_to_the_cpu_that_has_the_fewest() {
        let mut e = engine("[0, 1, 2]", 2);
        let held = |e: &Engine, cpu: usize| e.own[cpu].actors[1].mms.clone();
        let (first, second) = (held(&e, 0)[0], held(&e, 0)[1]);
        e.own[2].actors[1].mms.clear();
        e.own[0].works.clear();
        e.migrate(0, 1);
        assert_eq!((held(&e, 0), held(&e, 1).len(), held(&e, 2)), (vec![second], 2, vec![first]));
        // Here the next one follows, there it is the first and starts at once.
        assert_eq!((e.own[0].works.len(), e.own[2].works.len(), e.own[1].works.len()), (1, 1, 0));
        assert!(
            e.own[0]
                .works
                .iter()
                .chain(&e.own[2].works)
                .all(|w| w.run == Run::Task(Task::Switch { actor: 1 }))
        );
        assert_eq!((e.own[0].actors[1].at, e.own[2].actors[1].at), (0, 0));
        e.migrate(0, 1);
        assert_eq!((held(&e, 0), held(&e, 1).len(), held(&e, 2)), (vec![], 2, vec![first, second]));
        assert_eq!(
            (e.own[0].works.len(), e.own[2].works.len()),
            (1, 1),
            "nobody is left, and there somebody ran"
        );
        for (actor, gone) in [(0, true), (1, false), (2, false)] {
            let tasks = [Task::Switch { actor: 1 }, Task::Exec { actor: 1 }, Task::Migrate { actor: 1 }];
            assert!(tasks.into_iter().all(|task| e.is_gone(actor, task) == gone), "CPU {actor}");
            assert!(!e.is_gone(actor, Task::Sleep) && !e.is_gone(actor, Task::TearDown { mm: 3 }));
        }
        assert_eq!(e.m.stats[0][Stat::migrations as usize], 2);
    }

    #[test]
    fn whose_turn_it_is_next_behind_one_that_has_moved_away() {
        // Of three processes at this place one moves away; the switch that follows goes to the next in line.
        for (at, then) in [(0, 1), (1, 0), (2, 1)] {
            let mut e = engine("[0, 1]", 3);
            let line = e.own[0].actors[1].mms.clone();
            e.own[0].actors[1].at = at;
            e.migrate(0, 1);
            assert_eq!(e.own[0].actors[1].at, then, "from {at}");
            let (_, flushes) = e.task(0, Task::Switch { actor: 1 });
            assert_eq!(
                (e.own[0].actors[1].current(), flushes),
                (line[(usize::from(at) + 1) % 3], false),
                "from {at}"
            );
        }
    }
}
