//! What initiators do: private kernel events (forks, grace periods, `vfree`) and the flush work that follows.

use super::super::queue::NEVER;
use super::super::scenario::{Gap, Kind as ActorKind};
use super::super::stats::{Cause, Stat};
use super::queued::{Run, Task, Work, is_full};
use super::{Engine, PurgeRecord, Why, draw_gap};
use crate::kernel::step::Cpu;
use crate::kernel::vmalloc::Area;

/// A purge that had to give up tries again after this; own choice.
const RETRY_PS: u64 = 1_000_000_000_000;

/// `ready` of work that waits for the purge mutex.
const BLOCKED: u64 = NEVER - 1;

impl Engine {
    /// Handles what is due among private kernel events, and says whether a program is to run.
    pub(super) fn work_due(&mut self, cpu: Cpu) -> bool {
        let i = usize::from(cpu);
        let now = self.m.cores[i].clock;
        if self.m.cores[i].init_next > now {
            return false;
        }
        while self.own[i].rcu_at <= now {
            self.grace_period(cpu);
        }
        for k in 0..self.own[i].actors.len() {
            while self.own[i].actors[k].next <= now {
                match *self.kind(cpu, k) {
                    ActorKind::Tasks { .. } => self.turn(cpu, k),
                    ActorKind::Vfree { .. } => self.free_next(cpu, k),
                    ActorKind::Forks { gap, batch, spread } => self.fork(cpu, k, gap, batch, spread),
                    ActorKind::Chain { gap, .. } => self.chain(cpu, k, gap),
                    ActorKind::Idle
                    | ActorKind::Spin { .. }
                    | ActorKind::Syscalls { .. }
                    | ActorKind::Faults { .. }
                    | ActorKind::Interrupts { .. }
                    | ActorKind::Nmis { .. }
                    | ActorKind::Stream { .. } => break,
                }
            }
        }
        if self.vmalloc.in_purge() {
            // The purge mutex: another purge waits for this one.
            for work in self.own[i].works.iter_mut().filter(|w| w.run.purges() && w.ready <= now) {
                work.ready = BLOCKED;
                self.blocked = true;
            }
        }
        self.refresh(cpu);
        self.own[i].works.iter().any(|w| w.ready <= now)
    }

    /// Queues the steps of a chain that happen this time.
    fn chain(&mut self, cpu: Cpu, k: usize, gap: Gap) {
        let own = &mut self.own[usize::from(cpu)];
        let actor = &mut own.actors[k];
        let id = usize::from(actor.actor);
        let ActorKind::Chain { steps, .. } = &self.scenario.actors[id].kind else {
            unreachable!("the caller looked")
        };
        for (step, program) in steps.iter().zip(&self.programs[id]) {
            if step.per_mille < 1000 && actor.draws.below(1000) >= u64::from(step.per_mille) {
                continue;
            }
            let full = is_full(&self.kernel, step.pages);
            let run = Run::Program(*program, step.cause == Cause::Aliases);
            own.works.push(Work::new(actor.next, run, full, step.pages, step.cause));
        }
        self.next_gap(cpu, k, gap);
    }

    pub(super) fn next_gap(&mut self, cpu: Cpu, k: usize, gap: Gap) {
        let a = &mut self.own[usize::from(cpu)].actors[k];
        a.next = a.next.saturating_add(draw_gap(&mut a.draws, gap).max(1));
    }

    pub(super) fn fork(&mut self, cpu: Cpu, k: usize, gap: Gap, batch: u32, spread: bool) {
        let i = usize::from(cpu);
        let at = self.own[i].actors[k].next;
        if self.own[i].actors[k].exiting {
            // One after the other, each on the CPU it ran on.
            while let Some(area) = self.own[i].actors[k].alive.pop() {
                let on = if spread {
                    let n = self.housekeeping.len() as u64;
                    self.housekeeping[self.own[i].actors[k].draws.below(n) as usize]
                } else {
                    cpu
                };
                self.release(cpu, on, area, at);
            }
            self.own[i].actors[k].exiting = false;
        }
        self.create(cpu, k);
        let a = &mut self.own[i].actors[k];
        a.exiting = a.alive.len() as u32 >= batch;
        self.next_gap(cpu, k, gap);
    }

    /// A child of actor `k` is created: its kernel stack (FACTS 3.2). Without VMAP_STACK stacks are pages of the direct
    /// map, which no purge flushes: an area of no pages stands for one.
    pub(super) fn create(&mut self, cpu: Cpu, k: usize) {
        self.forks += 1;
        self.m.add(cpu, Stat::forks, 1);
        let area = if self.kernel.vmap_stack {
            let (area, reused) = self.vmalloc.alloc_stack(cpu);
            self.m.add(cpu, if reused { Stat::stacks_reused } else { Stat::stacks_allocated }, 1);
            area
        } else {
            Area { at: 0, pages: 0 }
        };
        self.own[usize::from(cpu)].actors[k].alive.push(area);
    }

    /// A child exits on CPU `on`: its stack goes to that CPU's cache, or waits for a grace period.
    pub(super) fn release(&mut self, cpu: Cpu, on: Cpu, area: Area, at: u64) {
        if self.kernel.vmap_stack && !self.vmalloc.cache_stack(on, area) {
            self.call_rcu(cpu, area, at);
        }
    }

    /// Callbacks queued while a grace period runs wait for the one after it.
    pub(super) fn call_rcu(&mut self, cpu: Cpu, area: Area, at: u64) {
        let o = &mut self.own[usize::from(cpu)];
        if o.rcu_at == NEVER {
            o.rcu_at = at + self.scenario.rcu_ps;
            o.rcu.push(area);
        } else {
            o.rcu_next.push(area);
        }
    }

    pub(super) fn grace_period(&mut self, cpu: Cpu) {
        let o = &mut self.own[usize::from(cpu)];
        let at = o.rcu_at;
        let done = std::mem::replace(&mut o.rcu, std::mem::take(&mut o.rcu_next));
        o.rcu_at = if o.rcu.is_empty() { NEVER } else { at + self.scenario.rcu_ps };
        for area in done {
            if !self.vmalloc.cache_stack(cpu, area) {
                self.vfree(cpu, area, at);
            }
        }
    }

    pub(super) fn vfree(&mut self, cpu: Cpu, area: Area, at: u64) {
        let queue = self.vmalloc.vfree(area);
        self.lazy.set(at, self.vmalloc.lazy_nr());
        if queue {
            let ready = at + self.scenario.work_delay_ps;
            let work = Work { ready, run: Run::Drain, full: true, pages: 0, cause: Cause::Purge };
            // A work that runs is queued again where it runs, wherever it was asked for: `__queue_work`.
            let on = self.draining.unwrap_or(cpu);
            self.own[usize::from(on)].works.push(work);
            if on != cpu {
                self.wake(on);
            }
        }
    }

    /// Starts the oldest work that is due.
    pub(super) fn start_work(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        let now = self.m.cores[i].clock;
        let Some(at) = self.own[i].works.iter().position(|w| w.ready <= now) else { return };
        let mut work = self.own[i].works.remove(at);
        if let Run::Task(task) = work.run
            && self.is_gone(cpu, task)
        {
            return self.refresh(cpu);
        }
        self.refresh(cpu);
        let mut taken = u32::from(work.run == Run::Drain);
        let mut user = false;
        let run = match work.run {
            Run::Drain => {
                self.vmalloc.drain_starts();
                let Some(purge) = self.vmalloc.purge_starts() else { return };
                (work.full, work.pages) = (purge.hull > self.kernel.flush_ceiling, purge.hull as u32);
                self.tail = now <= self.last_purge_end.saturating_add(self.scenario.work_delay_ps)
                    && self.last_purge_end > 0;
                self.draining = Some(cpu);
                self.m.add(cpu, Stat::purges, 1);
                self.m.add(cpu, Stat::purges_tail, u64::from(self.tail));
                self.m.add(cpu, Stat::areas_purged, u64::from(purge.areas));
                self.purges.push(PurgeRecord {
                    time_ps: now,
                    cpu,
                    areas: purge.areas,
                    hull: purge.hull,
                    forks: self.forks,
                    tail: self.tail,
                });
                self.entries.purge
            }
            Run::Program(run, purges) => {
                if purges && let Some(purge) = self.vmalloc.purge_starts() {
                    work.full |= purge.hull > self.kernel.flush_ceiling;
                    taken = 1;
                    self.m.add(cpu, Stat::areas_purged, u64::from(purge.areas));
                }
                run
            }
            Run::Task(task) => {
                let (run, flushes) = self.task(cpu, task);
                self.refresh(cpu); // what it queued behind itself is due at once
                user = flushes;
                if let Task::TearDown { mm } = task {
                    taken = u32::from(mm);
                }
                run
            }
        };
        let c = &mut self.m.cores[i];
        c.request.full = work.full;
        c.request.pages = if work.full { 0 } else { work.pages };
        c.request.cause = work.cause;
        c.request.user = user;
        c.promised = false;
        self.push(cpu, run, Why::Work, work.cause, taken);
        self.strand(cpu);
    }

    pub(super) fn work_ends(&mut self, cpu: Cpu) {
        let i = usize::from(cpu);
        self.unstrand(cpu);
        let depth = usize::from(self.m.cores[i].depth);
        let taken = self.own[i].acts[depth].from;
        if taken > 1 {
            self.m.contexts.destroy(taken as u16);
        }
        if taken == 1 {
            self.draining = self.draining.filter(|on| *on != cpu);
            if self.m.cores[i].promised {
                self.vmalloc.purge_ends();
                self.lazy.set(self.m.cores[i].clock, self.vmalloc.lazy_nr());
            } else {
                self.vmalloc.purge_postponed();
                self.m.add(cpu, Stat::purges_postponed, 1);
                // One work item, as `drain_vmap_work` is: whoever frees meanwhile does not multiply the tries.
                if !self.own.iter().any(|own| own.works.iter().any(|work| work.run == Run::Drain)) {
                    let ready = self.m.cores[i].clock + RETRY_PS;
                    let work = Work { ready, run: Run::Drain, full: true, pages: 0, cause: Cause::Purge };
                    self.own[i].works.push(work);
                }
            }
            self.last_purge_end = self.m.cores[i].clock;
            // A purge that waited for the mutex may start now.
            let now = self.m.cores[i].clock;
            let waiting = if std::mem::take(&mut self.blocked) { self.scenario.cpus } else { 0 };
            for who in 0..waiting {
                let works = &mut self.own[usize::from(who)].works;
                works.iter_mut().filter(|w| w.ready == BLOCKED).for_each(|w| w.ready = now);
                if who != cpu {
                    self.wake(who);
                }
            }
            self.refresh(cpu);
        }
    }
}
