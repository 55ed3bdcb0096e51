//! Skipping: jumps over proven fixed points and consumes the same draws, so that it never shows in results.

use super::super::scenario::Kind as ActorKind;
use super::super::stats::{FlushKind, STATS, Stat};
use super::class::Class;
use super::{Engine, draw_gap};
use crate::kernel::step::Cpu;

/// A proven fixed point: a system call from this state takes this long and ends in this state.
#[derive(Clone, Debug)]
pub(super) struct Memo {
    vars: Vec<u16>,
    /// Shared variables that may be read late.
    shared: Vec<u16>,
    cr3: u64,
    cold: bool,
    /// What flushed it last: whose misses the refill is.
    flushed_by: FlushKind,
    cost: u64,
    /// From SYSCALL to the body.
    entered: u64,
    delta: Vec<(usize, u64)>,
    times: u64,
    /// Offset of the last full flush from the start, if there was one.
    flush_at: Option<u64>,
    /// Offset of the last serialising instruction from the start, if there was one.
    serialised_at: Option<u64>,
    /// While pages are looked up: [`CpuTlb::operations`] when the TLB was seen to be as before the call.
    ///
    /// [`CpuTlb::operations`]: super::super::machine::CpuTlb::operations
    operations: u64,
}

/// Learning with looked-up pages compares whole TLBs; where calls do not repeat it is tried ever more seldom.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Patience {
    failures: u32,
    wait: u32,
}

impl Patience {
    pub(super) fn failed(&mut self) {
        self.failures = (self.failures + 1).min(8);
        self.wait = (1 << self.failures) - 1;
    }

    /// Is it too early to try again?
    pub(super) fn waits(&mut self) -> bool {
        let waits = self.wait > 0;
        self.wait -= u32::from(waits);
        waits
    }
}

impl Engine {
    /// Jumps over system calls whose course is known, as many as end before `until`. `false`: none.
    pub(super) fn jump(&mut self, cpu: Cpu, until: u64) -> bool {
        let i = usize::from(cpu);
        let Some(k) = self.own[i].foreground else { return false };
        let ActorKind::Syscalls { gap, .. } = *self.kind(cpu, k) else { return false };
        if self.own[i].stream.is_some() || self.m.debts[i].owed || self.m.cores[i].sync_owed {
            return false;
        }
        let known = match &self.own[i].memo {
            Some(memo) => {
                let c = &self.m.cores[i];
                memo.cr3 == c.cr3
                    && memo.cold == c.cold
                    && memo.flushed_by == c.flushed_by
                    && memo.operations == self.m.tlb_operations(cpu)
                    && memo.vars.iter().eq(self.m.vars_of(cpu))
                    && memo.shared.iter().copied().eq(self.m.read_late())
            }
            None => false,
        };
        if !known {
            return !self.own[i].patience.waits() && self.learn(cpu, until);
        }
        let own = &mut self.own[i];
        let memo = own.memo.as_mut().expect("known");
        let c = &mut self.m.cores[i];
        let (cost, mut start, mut n) = (memo.cost, c.fg_next.max(c.clock), 0u64);
        if start + cost >= until {
            return false;
        }
        if gap.exponential {
            let draws = &mut own.actors[k].draws;
            while start + cost < until {
                n += 1;
                c.clock = start + cost;
                start = c.clock + draw_gap(draws, gap);
            }
        } else {
            let period = cost + gap.mean_ps;
            n = (until - 1 - start - cost) / period + 1;
            c.clock = start + (n - 1) * period + cost;
            start = c.clock + gap.mean_ps;
        }
        c.fg_next = start;
        if let Some(offset) = memo.flush_at {
            self.m.debts[i].flushed_at = c.clock - cost + offset;
        }
        if let Some(offset) = memo.serialised_at {
            c.serialised_at = c.clock - cost + offset;
        }
        self.work += if gap.exponential { n / 8 } else { 0 };
        memo.times += n;
        self.runs += n;
        true
    }

    /// Interprets one system call that nothing interrupts and remembers it if it ends where it began.
    pub(super) fn learn(&mut self, cpu: Cpu, until: u64) -> bool {
        let i = usize::from(cpu);
        self.settle(cpu);
        let before = self.m.stats[i];
        let (vars, cr3, cold, flushed_by) = {
            let c = &self.m.cores[i];
            (self.m.vars_of(cpu).to_vec(), c.cr3, c.cold, c.flushed_by)
        };
        let mmu = self.m.tlbs.as_ref().map(|tlbs| tlbs[i].mmu().clone());
        let c = &self.m.cores[i];
        let began = c.clock.max(c.fg_next);
        let over = self.call_alone(cpu, until);
        let c = &self.m.cores[i];
        if !over || vars != self.m.vars_of(cpu) || cr3 != c.cr3 || cold != c.cold {
            return true;
        }
        let debt = self.m.debts[i];
        if debt.owed || c.sync_owed {
            return true;
        }
        if flushed_by != c.flushed_by {
            return true;
        }
        if let (Some(before), Some(tlbs)) = (&mmu, &self.m.tlbs)
            && !tlbs[i].mmu().same_state(before)
        {
            self.own[i].patience.failed();
            return true;
        }
        self.own[i].patience = Patience::default();
        let delta: Vec<(usize, u64)> = (0..STATS)
            .filter(|&s| s != Stat::longest_quiet_ps as usize && s != Stat::wait_max_ps as usize)
            .map(|s| (s, self.m.stats[i][s] - before[s]))
            .filter(|(_, d)| *d > 0)
            .collect();
        let flush_at = (debt.flushed_at >= began && debt.flushed_at > 0).then(|| debt.flushed_at - began);
        let serialised_at =
            (c.serialised_at >= began && c.serialised_at > 0).then(|| c.serialised_at - began);
        let violated = delta.iter().any(|(s, _)| *s == Stat::violations as usize);
        let cost = c.clock - began;
        if !violated {
            let operations = self.m.tlb_operations(cpu);
            let entered = self.own[i].acts[0].entered;
            self.own[i].memo = Some(Memo {
                vars,
                shared: self.m.read_late().collect(),
                cr3,
                cold,
                flushed_by,
                cost,
                entered,
                delta,
                times: 0,
                flush_at,
                serialised_at,
                operations,
            });
        }
        true
    }

    /// Interprets the next system call. `false`: see [`Engine::alone`].
    pub(super) fn call_alone(&mut self, cpu: Cpu, until: u64) -> bool {
        let i = usize::from(cpu);
        let c = &mut self.m.cores[i];
        c.clock = c.clock.max(c.fg_next);
        self.syscall(cpu);
        self.alone(cpu, 0, until)
    }

    /// Interprets until no more than `depth` programs are left. `false`: that was not before `until`, or others are to be
    /// brought to its time first.
    pub(super) fn alone(&mut self, cpu: Cpu, depth: u8, until: u64) -> bool {
        let i = usize::from(cpu);
        while self.m.cores[i].depth > depth {
            let c = &self.m.cores[i];
            let top = usize::from(c.depth) - 1;
            let pc = self.own[i].acts[top].frame.pc;
            if c.clock >= until {
                return false;
            }
            match self.known[usize::from(pc)].class {
                Class::Private | Class::Mask | Class::Calls | Class::Scan => {
                    self.run_private(cpu, top, until, false);
                }
                Class::Body => {
                    // What is due from `until` on ends its stay, too: whoever drives this CPU asks it at that time.
                    let due = self.due(cpu);
                    if !self.run_body(cpu, top, due, (until, 0), false) {
                        return false;
                    }
                }
                Class::Cross | Class::Acks | Class::Grace | Class::ScanMask => return false,
            }
        }
        self.m.cores[i].clock < until
    }

    /// Writes what was jumped over and replayed into the statistics.
    pub(super) fn settle(&mut self, cpu: Cpu) {
        self.m.settle_volleys(cpu);
        let i = usize::from(cpu);
        let class = usize::from(self.class_of_cpu[i]);
        self.latencies.settle();
        self.m.stats[i][Stat::deferrals as usize] += std::mem::take(&mut self.m.debts[i].deferrals);
        self.own[i].courses.settle(&mut self.m.stats[i]);
        self.own[i].handlers.settle(&mut self.m.stats[i]);
        if let Some(memo) = &mut self.own[i].memo {
            for (s, d) in &memo.delta {
                self.m.stats[i][*s] += d * memo.times;
            }
            if memo.times > 0 {
                self.latencies.syscall[class].record_n(memo.cost, memo.times);
                self.latencies.entry[class].record_n(memo.entered, memo.times);
            }
            memo.times = 0;
        }
    }
}
