//! Areas of vmalloc that processes free one after the other, and the one process among them that moves between CPUs.
//!
//! The drain work runs on the CPU of the process whose free crossed the threshold and waits there with preemption off
//! (`smp_call_function_many_cond`). The process, runnable on the same CPU, is stranded until that CPU's next tick finds two
//! runnable tasks and kicks an idle CPU (`nohz_balancer_kick`), which pulls it: at once in this model.

use super::super::queue::NEVER;
use super::super::scenario::Kind as ActorKind;
use super::Engine;
use crate::kernel::step::Cpu;
use crate::kernel::vmalloc::Area;

/// A process that left its CPU's runqueue because kernel work occupies that CPU.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Pulled {
    to: Cpu,
    /// When it arrives there. Work that ends before keeps it.
    at: u64,
    /// What it would do next, and when.
    next: u64,
}

impl Engine {
    /// Frees the next area of a round.
    pub(super) fn free_next(&mut self, cpu: Cpu, k: usize) {
        let i = usize::from(cpu);
        let at = self.own[i].actors[k].next;
        let ActorKind::Vfree { gap, pages, then, apart_ps, .. } =
            &self.scenario.actors[usize::from(self.own[i].actors[k].actor)].kind
        else {
            unreachable!("the caller asked")
        };
        let (gap, apart) = (*gap, *apart_ps);
        if self.own[i].actors[k].alive.is_empty() {
            // The last to be freed comes first.
            let sizes = then.iter().rev().chain([pages]);
            let round: Vec<Area> = sizes.map(|&pages| self.vmalloc.alloc(pages)).collect();
            self.own[i].actors[k].alive = round;
        }
        let area = self.own[i].actors[k].alive.pop().expect("a round has an area");
        self.vfree(cpu, area, at);
        if self.own[i].actors[k].alive.is_empty() {
            self.next_gap(cpu, k, gap);
        } else {
            self.own[i].actors[k].next = at.saturating_add(apart);
        }
    }

    /// Kernel work begins that occupies this CPU: who roams here waits for another CPU to pull it.
    pub(super) fn strand(&mut self, cpu: Cpu) {
        if !self.roamers {
            return;
        }
        let i = usize::from(cpu);
        let now = self.m.cores[i].clock;
        for k in 0..self.own[i].actors.len() {
            let ActorKind::Vfree { roams_ps: Some(tick), .. } = *self.kind(cpu, k) else { continue };
            let a = &self.own[i].actors[k];
            if a.next == NEVER || a.arrives > now {
                continue;
            }
            let on = self.scenario.cpus_of(&self.scenario.actors[usize::from(a.actor)].on);
            let here = on.iter().position(|c| *c == cpu).expect("it is on this CPU");
            let free = |c: &&Cpu| **c != cpu && self.m.cores[usize::from(**c)].working == 0;
            let Some(&to) = on[here..].iter().chain(&on[..here]).find(free) else { continue };
            let a = &mut self.own[i].actors[k];
            let at = now + a.draws.below(tick);
            let next = std::mem::replace(&mut a.next, NEVER);
            a.pulled = Some(Pulled { to, at, next });
            let held = std::mem::take(&mut a.alive);
            self.seat(to, self.own[i].actors[k].actor, next.max(at), at, held);
        }
        self.refresh(cpu);
    }

    /// The work is over: who has not been pulled yet goes on here.
    pub(super) fn unstrand(&mut self, cpu: Cpu) {
        if !self.roamers {
            return;
        }
        let i = usize::from(cpu);
        let now = self.m.cores[i].clock;
        for k in 0..self.own[i].actors.len() {
            let Some(Pulled { to, at, next }) = self.own[i].actors[k].pulled.take() else { continue };
            if at <= now {
                continue;
            }
            let id = self.own[i].actors[k].actor;
            let there = self.own[usize::from(to)].actors.iter_mut().find(|a| a.actor == id);
            let held = std::mem::take(&mut there.expect("it was sent there").alive);
            self.seat(to, id, NEVER, 0, Vec::new());
            let a = &mut self.own[i].actors[k];
            (a.next, a.alive) = (next.max(now), held);
        }
        self.refresh(cpu);
    }

    /// Puts actor `id` on a CPU.
    fn seat(&mut self, cpu: Cpu, id: u16, next: u64, arrives: u64, alive: Vec<Area>) {
        let a = self.own[usize::from(cpu)].actors.iter_mut().find(|a| a.actor == id);
        let a = a.expect("a process roams among the CPUs its actor is on");
        (a.next, a.arrives, a.alive) = (next, arrives, alive);
        self.wake(cpu);
    }

    /// Something is due on a CPU earlier than it knew.
    pub(super) fn wake(&mut self, cpu: Cpu) {
        self.refresh(cpu);
        let c = &mut self.m.cores[usize::from(cpu)];
        c.resume = c.resume.min(c.init_next);
        let demand = self.m.demand(cpu);
        self.m.queue.set(cpu, demand);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::super::super::cost::Bound;
    use super::super::super::input::Input;
    use super::super::super::run::{Output, Run};
    use super::super::super::scenario::Scenario;
    use super::super::super::stats::Stat;
    use crate::hw::Preset;
    use crate::kernel::config::Config;
    use crate::kernel::policy::shared_builtin;

    /// A process on CPUs 0 and 1 that frees 2,000 and 5 pages twice a millisecond; purges wait for slow interrupts.
    fn input() -> Input {
        let json = r#"{"name": "roam", "duration_ps": 500000000000, "cpus": 4, "isolated": [2, 3],
            "lazy_max_pages": 6100, "extra_ipi_ps": 2000000000, "work_delay_ps": 10000000,
            "actors": [
              {"name": "spin", "on": "isolated", "kind": "spin"},
              {"name": "files", "on": "housekeeping", "kind": "vfree", "pages": 2000, "then": [5],
               "apart_ps": 100000000, "roams_ps": 1000000000,
               "gap": {"mean_ps": 400000000, "exponential": true}}]}"#;
        Input {
            scenario: Scenario::parse(json).unwrap(),
            machine: Preset::builtin("haswell-ep-e5-2699v3").unwrap(),
            kernel: Config::default(),
            policy: shared_builtin("ipi").unwrap(),
            seed: 3,
            skip: true,
            keep: 16,
            full: false,
            bound: Bound::Best,
        }
    }

    fn told(o: &Output) -> String {
        format!("{:?} {:?} {:?} {:?} {}", o.stats, o.by_cause, o.events, o.purges, o.runs)
    }

    #[test]
    fn neither_chunks_nor_checkpoints_change_what_a_process_that_moves_does() {
        let never = AtomicBool::new(false);
        let mut whole = Run::new(input()).unwrap();
        whole.finish(&never, |_| {});
        let whole = whole.output();
        for cpu in 0..2 {
            let row = &whole.stats[cpu];
            assert!(row[Stat::purges as usize] > 20, "CPU {cpu}: {}", row[Stat::purges as usize]);
        }
        let mut pieces = Run::new(input()).unwrap();
        let mut at = 0;
        while at < 500_000_000_000 {
            at += 777_777_777;
            assert!(pieces.advance(at, &never));
            let bytes = pieces.checkpoint();
            pieces = Run::new(input()).unwrap();
            pieces.resume(&bytes).unwrap();
        }
        assert_eq!(told(&whole), told(&pieces.output()));
    }
}
