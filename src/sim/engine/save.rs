//! The state of a run as plain data, so that another process can go on. What follows from the inputs (code, costs,
//! scenario) is not saved; what was jumped over is written into the statistics first.

use serde::{Deserialize, Serialize};

use super::super::latencies::{Durations, SavedDurations};
use super::super::levels::Level;
use super::super::machine::{Contexts, Core, CpuTlb, Debt, SavedTlb, Shot};
use super::super::stats::{N_CAUSES, STATS};
use super::super::timeline::Timeline;
use super::handlers::Handlers;
use super::replay::Courses;
use super::roam::Pulled;
use super::stream::{SavedStream, Streaming};
use super::{Act, DEPTH, Engine, PurgeRecord, Work};
use crate::kernel::program::Pc;
use crate::kernel::step::{Cpu, Violation};
use crate::kernel::vmalloc::{Area, Vmalloc};

/// What is kept of an [`ActorState`](super::ActorState).
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedActor {
    next: u64,
    position: u128,
    alive: Vec<Area>,
    exiting: bool,
    mms: Vec<u16>,
    at: u16,
    pulled: Option<Pulled>,
    arrives: u64,
}

/// One CPU's part that the machine does not know.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedOwn {
    acts: [Act; DEPTH],
    actors: Vec<SavedActor>,
    works: Vec<Work>,
    rcu_at: u64,
    rcu: Vec<Area>,
    rcu_next: Vec<Area>,
    stream: Option<SavedStream>,
}

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Saved {
    cores: Vec<Core>,
    /// Where pages are looked up.
    tlbs: Option<Vec<SavedTlb>>,
    debts: Vec<Debt>,
    stats: Vec<Vec<u64>>,
    by_cause: Vec<[u64; N_CAUSES]>,
    queue: Vec<u64>,
    timelines: Vec<Timeline>,
    levels: Vec<[Level; 2]>,
    lazy: Level,
    values: Vec<u16>,
    shared: Vec<u16>,
    targets: Vec<u64>,
    contexts: Contexts,
    last_request: u32,
    extra_ipi: Option<u128>,
    violation: Option<(u64, Cpu, Pc, Violation)>,
    own: Vec<SavedOwn>,
    vmalloc: Vmalloc,
    tail: bool,
    draining: Option<Cpu>,
    last_purge_end: u64,
    purges: Vec<PurgeRecord>,
    forks: u64,
    durations: Vec<SavedDurations>,
    runs: u64,
    now: u64,
}

impl Engine {
    /// The state now.
    pub fn save(&self) -> Saved {
        let mut e = self.clone();
        for cpu in 0..e.scenario.cpus {
            e.settle(cpu);
        }
        let durations = e.latencies.each().map(Durations::save).collect();
        Saved {
            tlbs: e.m.tlbs.as_ref().map(|tlbs| tlbs.iter().map(CpuTlb::save).collect()),
            stats: e.m.stats.iter().map(|row| row.to_vec()).collect(),
            queue: (0..e.scenario.cpus).map(|cpu| e.m.queue.time_of(cpu)).collect(),
            extra_ipi: e.m.extra_ipi.as_ref().map(|(_, draws)| draws.position()),
            own: e
                .own
                .iter()
                .map(|o| SavedOwn {
                    acts: o.acts,
                    actors: o
                        .actors
                        .iter()
                        .map(|a| SavedActor {
                            next: a.next,
                            position: a.draws.position(),
                            alive: a.alive.clone(),
                            exiting: a.exiting,
                            mms: a.mms.clone(),
                            at: a.at,
                            pulled: a.pulled,
                            arrives: a.arrives,
                        })
                        .collect(),
                    works: o.works.clone(),
                    rcu_at: o.rcu_at,
                    rcu: o.rcu.clone(),
                    rcu_next: o.rcu_next.clone(),
                    stream: o.stream.as_ref().map(Streaming::save),
                })
                .collect(),
            cores: e.m.cores,
            debts: e.m.debts,
            by_cause: e.m.by_cause,
            timelines: e.m.timelines,
            levels: e.m.levels,
            lazy: e.lazy,
            values: e.m.values,
            shared: e.m.shared,
            targets: e.m.targets,
            contexts: e.m.contexts,
            last_request: e.m.last_request,
            violation: e.m.violation,
            vmalloc: e.vmalloc,
            tail: e.tail,
            draining: e.draining,
            last_purge_end: e.last_purge_end,
            purges: e.purges,
            forks: e.forks,
            durations,
            runs: e.runs,
            now: e.now,
        }
    }

    /// Goes on from a saved state; this engine must have been made from the same inputs. `false`: it was not.
    pub fn restore(&mut self, saved: Saved) -> bool {
        let fits = saved.cores.len() == self.m.cores.len()
            && saved.values.len() == self.m.values.len()
            && saved.shared.len() == self.m.shared.len()
            && saved.targets.len() == self.m.targets.len()
            && self.m.contexts.fits(&saved.contexts)
            && saved.debts.len() == self.m.debts.len()
            && saved.own.len() == self.own.len()
            && saved.queue.len() == self.own.len()
            && saved.timelines.len() == self.own.len()
            && saved.levels.len() == self.own.len()
            && saved.by_cause.len() == self.own.len()
            && saved.durations.len() == self.latencies.each().count()
            && saved.stats.len() == self.own.len()
            && saved.stats.iter().all(|row| row.len() == STATS)
            && saved.own.iter().zip(&self.own).all(|(s, o)| s.actors.len() == o.actors.len())
            && saved.own.iter().flat_map(|o| &o.actors).map(|a| a.mms.len()).sum::<usize>()
                == self.own.iter().flat_map(|o| &o.actors).map(|a| a.mms.len()).sum::<usize>()
            && saved.own.iter().flat_map(|o| &o.actors).all(|a| a.at == 0 || usize::from(a.at) < a.mms.len())
            && saved.own.iter().flat_map(|o| &o.acts).all(|a| usize::from(a.frame.pc) < self.code.ops.len())
            && saved.cores.iter().all(|c| usize::from(c.depth) <= DEPTH)
            && saved.tlbs.as_ref().map(Vec::len) == self.m.tlbs.as_ref().map(Vec::len)
            && saved.own.iter().zip(&self.own).all(|(s, o)| s.stream.is_some() == o.stream.is_some());
        if !fits {
            return false;
        }
        let mut tlbs = self.m.tlbs.iter_mut().flatten().zip(saved.tlbs.iter().flatten());
        if !tlbs.all(|(tlb, saved)| tlb.restore(saved)) {
            return false;
        }
        for (row, saved) in self.m.stats.iter_mut().zip(&saved.stats) {
            row.copy_from_slice(saved);
        }
        for (cpu, time) in saved.queue.iter().enumerate() {
            self.m.queue.set(cpu as Cpu, *time);
        }
        if let (Some((_, draws)), Some(position)) = (&mut self.m.extra_ipi, saved.extra_ipi) {
            draws.seek(position);
        }
        for (own, saved) in self.own.iter_mut().zip(saved.own) {
            own.acts = saved.acts;
            for (actor, saved) in own.actors.iter_mut().zip(saved.actors) {
                (actor.mms, actor.at) = (saved.mms, saved.at);
                actor.next = saved.next;
                actor.draws.seek(saved.position);
                actor.alive = saved.alive;
                actor.exiting = saved.exiting;
                (actor.pulled, actor.arrives) = (saved.pulled, saved.arrives);
            }
            own.works = saved.works;
            own.rcu_at = saved.rcu_at;
            own.rcu = saved.rcu;
            own.rcu_next = saved.rcu_next;
            if let (Some(stream), Some(saved)) = (&mut own.stream, saved.stream)
                && !stream.restore(saved)
            {
                return false;
            }
            own.memo = None;
            own.courses = Courses::default();
            own.handlers = Handlers::default();
        }
        self.latencies.settle();
        for (durations, saved) in self.latencies.each_mut().zip(&saved.durations) {
            if !durations.restore(saved) {
                return false;
            }
        }
        self.blocked = true; // or not: then nobody is woken
        self.halted = false; // this run may have come to its standstill; the saved one was on its way
        self.m.volleys.shots.fill(Shot::default());
        self.m.cores = saved.cores;
        self.m.debts = saved.debts;
        for cpu in 0..self.scenario.cpus {
            self.m.note_quiet(cpu);
        }
        self.m.by_cause = saved.by_cause;
        self.m.timelines = saved.timelines;
        self.m.levels = saved.levels;
        self.lazy = saved.lazy;
        self.m.values = saved.values;
        self.m.shared = saved.shared;
        self.m.targets = saved.targets;
        self.m.contexts = saved.contexts;
        self.m.last_request = saved.last_request;
        self.m.violation = saved.violation;
        self.vmalloc = saved.vmalloc;
        self.tail = saved.tail;
        self.draining = saved.draining;
        self.last_purge_end = saved.last_purge_end;
        self.purges = saved.purges;
        self.forks = saved.forks;
        self.runs = saved.runs;
        self.now = saved.now;
        true
    }
}
