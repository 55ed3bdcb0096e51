//! One run from inputs to results, in blocks.

use std::sync::atomic::AtomicBool;

mod checkpoint;
#[cfg(test)]
mod counts;
#[cfg(test)]
mod late;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod ways;

pub use checkpoint::contradiction;

use super::engine::{Engine, PurgeRecord};
use super::error::SimError;
use super::inert::runs_what_is_replaced;
use super::input::Input;
use super::latencies::Latencies;
use super::levels::Change;
use super::prepare::{Costs, assemble, costs_of, engine, entry_ps};
use super::scenario::Kind;
use super::stats::{N_CAUSES, Row, Stat};
use super::timeline::Event;
use crate::hw::preset::{Figure, Mark};
use crate::kernel::step::Cpu;
use crate::pool::Stop;
use crate::room::room;

/// What came out.
#[derive(Clone, Debug)]
pub struct Output {
    /// Statistics by CPU, in the order of [`super::stats::TABLE`].
    pub stats: Vec<Row>,
    /// Interrupts by cause and CPU.
    pub by_cause: Vec<[u64; N_CAUSES]>,
    /// Which CPUs are isolated.
    pub isolated: Vec<bool>,
    /// Events, by time, CPU and order.
    pub events: Vec<Event>,
    /// Events that the rings dropped.
    pub dropped: u64,
    /// What was pending on each CPU and on the lazy list, as it changed; by time, CPU and order.
    pub levels: Vec<Change>,
    /// Purges.
    pub purges: Vec<PurgeRecord>,
    /// How long things took.
    pub latencies: Latencies,
    /// Program runs.
    pub runs: u64,
    /// Time reached.
    pub reached_ps: u64,
    /// Stopped before the end.
    pub interrupted: bool,
    /// What has no effect here, and what did not fit.
    pub notes: Vec<String>,
    /// Why the policy does nothing here, so that the figures are mainline's; empty if it works.
    pub inert: Vec<String>,
    /// Costs that the ops of this policy take, by name in the preset.
    pub costs: Vec<(&'static str, Figure)>,
    /// Costs without a source that the result rests on: it is an interval at best.
    pub unsourced: Vec<&'static str>,
    /// First violation: time, CPU, source place, rule.
    pub violation: Option<(u64, Cpu, String, &'static str)>,
}

/// Program runs between two looks at `cancel` and calls of `progress`: well below 50 ms of work.
const BLOCK_RUNS: u64 = 20_000;

/// Simulated time of the first block.
const FIRST_BLOCK_PS: u64 = 1_000_000_000;

/// A run that can be advanced in pieces.
#[derive(Clone, Debug)]
pub struct Run {
    pub(crate) engine: Engine,
    input: Input,
    notes: Vec<String>,
    inert: Vec<String>,
    costs: Costs,
    unsourced: Vec<&'static str>,
    interrupted: bool,
    starved: bool,
}

/// Bytes that are asked for before each block: its events, levels and purges while what holds them grows.
const BLOCK_BYTES: usize = 32 << 20;

impl Run {
    /// Ready at time 0.
    pub fn new(input: Input) -> Result<Self, SimError> {
        input.scenario.check()?;
        if let Some(actor) =
            input.scenario.actors.iter().find(|a| matches!(a.kind, Kind::Stream { .. }) && !input.full)
        {
            return Err(SimError::Scenario(format!(
                "scenario {:?}: actor {:?} is an access stream: it needs detail \"full\", got \"summary\"",
                input.scenario.name, actor.name
            )));
        }
        let isolated = !input.scenario.isolated.is_empty();
        let programs = input.scenario.programs();
        let (code, features, mut inert) =
            assemble(&input.policy, &input.kernel, &input.machine, isolated, &programs)?;
        if inert.is_empty() && !runs_what_is_replaced(&input, &code, features)? {
            inert.push(format!(
                "`{}` is inert: it replaces nothing that scenario `{}` runs",
                input.policy.name, input.scenario.name
            ));
        }
        let mut notes = inert.clone();
        let mut bodies = Vec::new();
        for actor in &input.scenario.actors {
            bodies.push(match actor.kind {
                Kind::Syscalls { base_ps, kernel_pages, user_pages, by, .. } => {
                    let on_isolated =
                        input.scenario.cpus_of(&actor.on).iter().any(|c| input.scenario.is_isolated(*c));
                    let entry = entry_ps(&input, features, on_isolated, (kernel_pages, user_pages), by)?;
                    if entry > base_ps {
                        notes.push(format!(
                            "actor {:?}: entry and exit alone take {entry} ps, more than base_ps {base_ps}",
                            actor.name
                        ));
                    }
                    base_ps.saturating_sub(entry)
                }
                _ => 0,
            });
        }
        let costs = costs_of(&code, &input.machine);
        let unsourced: Vec<&str> = costs
            .iter()
            .filter(|(n, f)| f.mark == Mark::Unsourced && RESTS_ON.contains(n))
            .map(|c| c.0)
            .collect();
        if !unsourced.is_empty() {
            notes.push(format!(
                "`{}`: figures rest on unsourced costs ({}) and are intervals at best",
                input.policy.name,
                unsourced.join(", ")
            ));
        }
        let engine = engine(&input, code, features, &bodies)?;
        Ok(Run { engine, input, notes, inert, costs, unsourced, interrupted: false, starved: false })
    }

    /// Time it is to reach.
    pub fn duration(&self) -> u64 {
        self.input.scenario.duration_ps
    }

    /// Stopped before its end.
    pub fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// Why it stopped for want of memory.
    pub fn starved(&self) -> Option<SimError> {
        let (now, all) = (self.now() as f64 * 1e-12, self.duration() as f64 * 1e-12);
        self.starved.then(|| SimError::Memory(format!("the simulation stopped after {now} s of {all} s")))
    }

    /// Time reached.
    pub fn now(&self) -> u64 {
        self.engine.now
    }

    /// Goes on to `end` (at most the scenario's duration). `false`: `cancel` was set, or nothing moves any more.
    pub fn advance(&mut self, end: u64, cancel: &dyn Stop) -> bool {
        let end = end.min(self.input.scenario.duration_ps);
        let whole = self.engine.run_until(end, cancel);
        self.interrupted = !whole && !self.engine.halted;
        whole
    }

    /// Goes on to the end in blocks, each about as much work as the others. Blocks never show in results.
    pub fn finish(&mut self, cancel: &dyn Stop, mut progress: impl FnMut(&Run)) {
        let duration = self.input.scenario.duration_ps;
        let mut block = FIRST_BLOCK_PS;
        while self.now() < duration {
            // What there is becomes a result, whose columns take more.
            let kept: usize = self.engine.m.timelines.iter().map(|t| t.events().len()).sum();
            if room(BLOCK_BYTES + 4 * size_of::<Event>() * kept).is_err() {
                (self.starved, self.interrupted) = (true, true);
                return;
            }
            let (end, before) = (self.now().saturating_add(block), self.engine.work);
            if !self.advance(end, cancel) {
                return;
            }
            progress(self);
            let did = self.engine.work - before;
            block = if did > BLOCK_RUNS { (block / 2).max(1) } else { block.saturating_mul(2) };
        }
        self.engine.look_for_deadlock();
    }

    fn standstill(&self) -> Option<String> {
        let (time, cpu, pc, _) = self.engine.halted.then_some(self.engine.m.violation).flatten()?;
        let place = self.engine.source(pc);
        Some(format!("the run ends at {time} ps: nothing moves simulated time on; CPU {cpu} is at {place}"))
    }

    /// The results so far.
    pub fn output(&self) -> Output {
        self.clone().into_output()
    }

    /// The results, of a run that does not go on.
    pub fn into_output(self) -> Output {
        let standstill = self.standstill();
        let mut engine = self.engine;
        let reached_ps = engine.now;
        engine.finish(reached_ps);
        let violation = engine.m.violation.map(|(t, c, pc, v)| (t, c, engine.source(pc), v.name()));
        let m = engine.m;
        let mut events: Vec<Event> = m.timelines.iter().flat_map(|t| t.events().copied()).collect();
        events.sort_by_key(|e| (e.time_ps, e.cpu));
        let mut levels: Vec<Change> = engine.lazy.changes(None, 2).collect();
        for (cpu, pending) in (0..).zip(&m.levels) {
            levels.extend(pending.iter().zip(0..).flat_map(|(level, what)| level.changes(Some(cpu), what)));
        }
        levels.sort_by_key(|c| (c.time_ps, c.cpu, c.what));
        // Where nothing is kept, deferrals are counted in the statistics alone.
        let deferred = |row: &Row| row[Stat::deferrals as usize] + row[Stat::sync_deferrals as usize];
        let unkept = if m.keeps_events { 0 } else { m.stats.iter().map(deferred).sum() };
        Output {
            isolated: (0..self.input.scenario.cpus).map(|c| self.input.scenario.is_isolated(c)).collect(),
            dropped: m.timelines.iter().map(|t| t.dropped).sum::<u64>() + unkept,
            costs: self.costs,
            unsourced: self.unsourced,
            violation,
            stats: m.stats,
            by_cause: m.by_cause,
            events,
            levels,
            purges: engine.purges,
            latencies: engine.latencies,
            runs: engine.runs,
            reached_ps,
            interrupted: self.interrupted,
            notes: self.notes.into_iter().chain(standstill).collect(),
            inert: self.inert,
        }
    }
}

/// Costs whose absence of a source makes a result an interval (SEMANTICS "Words").
const RESTS_ON: [&str; 3] = ["invlpgb", "tlbsync", "rar"];

/// Runs to the end.
pub fn simulate(input: Input) -> Result<Output, SimError> {
    let mut run = Run::new(input)?;
    run.finish(&AtomicBool::new(false), |_| {});
    run.starved().map_or_else(|| Ok(run.into_output()), Err)
}
