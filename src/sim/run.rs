//! One run from inputs to results: assemble the policy for the machine, calibrate bodies, run in blocks.

use std::convert::Infallible;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use sha2::{Digest, Sha256};

use super::cost::{Bound, Times};
use super::engine::{Engine, Kernel, PurgeRecord, Saved};
use super::inert::runs_what_is_replaced;
use super::latencies::Latencies;
use super::machine::{CpuTlb, Layout, Timed};
use super::refuse::refuse;
use super::scenario::{Actor, Gap, Kind, On, Path, Scenario};
use super::stats::{N_CAUSES, Row, Stat};
use super::timeline::Event;
use crate::bounded::{RATIO, WHOLE, bounded};
use crate::cache::Cache;
use crate::hw::Preset;
use crate::hw::preset::{Figure, Mark};
use crate::kernel::config::{Config, ConfigError};
use crate::kernel::policy::{self, shared_builtin};
use crate::kernel::program::{Code, Feature, Features};
use crate::kernel::step::Cpu;
use crate::kernel::text::{File, LAZY_MAX_FACTOR, PolicyError};

/// Why a simulation cannot start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimError {
    /// The scenario breaks a rule.
    #[error("{0}")]
    Scenario(String),
    /// The kernel's configuration breaks a rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The policy does not assemble for this machine.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Input {
    /// Workload.
    pub scenario: Scenario,
    /// CPU model.
    pub machine: Arc<Preset>,
    /// Kernel.
    pub kernel: Config,
    /// Policy.
    pub policy: Arc<File>,
    /// Seed.
    pub seed: u64,
    /// Jump over proven fixed points.
    pub skip: bool,
    /// Events to keep per CPU.
    pub keep: usize,
    /// Look every touched page up in the CPU's TLB, instead of charging a sum after each flush.
    pub full: bool,
    /// Which end of the costs' intervals.
    pub bound: Bound,
}

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

/// Assembles a policy for a machine; one that is inert there is mainline.
pub fn assemble(
    policy: &Arc<File>,
    kernel: &Config,
    machine: &Preset,
    isolated: bool,
    programs: &[&str],
) -> Result<(Arc<Code>, Features, Vec<String>), SimError> {
    kernel.check()?;
    let features = kernel.features(&machine.features, isolated);
    let notes = kernel.inert(&policy.name, &policy.needs, &machine.features, isolated);
    let mainline = shared_builtin("ipi")?;
    let code = policy::code(if notes.is_empty() { policy } else { &mainline }, programs, features)?;
    refuse(&code, &machine.features)?;
    Ok((code, features, notes))
}

/// Program runs between two looks at `cancel` and calls of `progress`: well below 50 ms of work.
const BLOCK_RUNS: u64 = 20_000;

/// Simulated time of the first block.
const FIRST_BLOCK_PS: u64 = 1_000_000_000;

const CHECKPOINT_VERSION: u32 = 6;
/// Digest of the sources that decide what a run counts: a run does not go on under other rules.
const ENGINE: &str = env!("TLBCORE_ENGINE");
const CHECKPOINT_MARK: &[u8] = b"tlbcore checkpoint\n";

#[derive(serde::Serialize, serde::Deserialize)]
struct Checkpoint {
    version: u32,
    #[serde(default)]
    engine: String,
    inputs: String,
    state: Saved,
}

/// A run that can be advanced in pieces.
#[derive(Clone, Debug)]
pub struct Run {
    engine: Engine,
    input: Input,
    notes: Vec<String>,
    inert: Vec<String>,
    costs: Vec<(&'static str, Figure)>,
    unsourced: Vec<&'static str>,
    interrupted: bool,
}

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
        Ok(Run { engine, input, notes, inert, costs, unsourced, interrupted: false })
    }

    /// Time it is to reach.
    pub fn duration(&self) -> u64 {
        self.input.scenario.duration_ps
    }

    /// Stopped before its end.
    pub fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// Time reached.
    pub fn now(&self) -> u64 {
        self.engine.now
    }

    /// Goes on to `end` (at most the scenario's duration). `false`: `cancel` was set, or nothing moves any more.
    pub fn advance(&mut self, end: u64, cancel: &AtomicBool) -> bool {
        let end = end.min(self.input.scenario.duration_ps);
        let whole = self.engine.run_until(end, cancel);
        self.interrupted = !whole && !self.engine.halted;
        whole
    }

    /// Goes on to the end in blocks, each about as much work as the others. Blocks never show in results.
    pub fn finish(&mut self, cancel: &AtomicBool, mut progress: impl FnMut(&Run)) {
        let duration = self.input.scenario.duration_ps;
        let mut block = FIRST_BLOCK_PS;
        while self.now() < duration {
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

    /// The state as bytes that [`Run::resume`] takes: a mark, the digest of the rest, and the rest.
    pub fn checkpoint(&self) -> Vec<u8> {
        let state = self.engine.save();
        let whole = Checkpoint {
            version: CHECKPOINT_VERSION,
            engine: ENGINE.to_owned(),
            inputs: self.inputs(),
            state,
        };
        let json = serde_json::to_vec(&whole).expect("plain data");
        let packed = zstd::encode_all(json.as_slice(), 1).expect("memory");
        [CHECKPOINT_MARK, Sha256::digest(&packed).as_slice(), &packed].concat()
    }

    /// Goes on from a checkpoint of a run with the same inputs.
    pub fn resume(&mut self, bytes: &[u8]) -> Result<(), SimError> {
        let fail = |text: String| SimError::Scenario(format!("checkpoint: {text}"));
        let sealed = bytes.strip_prefix(CHECKPOINT_MARK).and_then(|rest| rest.split_at_checked(32));
        let Some((digest, packed)) = sealed else { return Err(fail("not a checkpoint, or damaged".into())) };
        if Sha256::digest(packed).as_slice() != digest {
            return Err(fail("damaged: its digest is not that of its content".into()));
        }
        let mut json = Vec::new();
        bounded(packed, RATIO, WHOLE, zstd::stream::read::Decoder::new)
            .and_then(|mut decoder| decoder.read_to_end(&mut json))
            .map_err(|e| fail(format!("damaged: {e}")))?;
        let whole: Checkpoint = serde_json::from_slice(&json).map_err(|e| fail(format!("damaged: {e}")))?;
        if whole.version != CHECKPOINT_VERSION {
            return Err(fail(format!("has version {}, this is {CHECKPOINT_VERSION}", whole.version)));
        }
        if whole.engine != ENGINE {
            return Err(fail("was written by another build, which may count otherwise".into()));
        }
        if whole.inputs != self.inputs() {
            return Err(fail("is of a run with other inputs".into()));
        }
        if self.engine.restore(whole.state) {
            return Ok(());
        }
        Err(fail("does not fit this run".into()))
    }

    /// Everything that decides the results, as text.
    fn inputs(&self) -> String {
        let i = &self.input;
        let scenario = serde_json::to_string(&i.scenario).expect("plain data");
        let kernel = serde_json::to_string(&i.kernel).expect("plain data");
        let policy = crate::kernel::text::print(&i.policy);
        format!(
            "{scenario} {kernel} {} {} {:?} {:?} {:?} {policy} {} {} {} {:?}",
            i.machine.name,
            i.machine.mhz,
            i.machine.features,
            i.machine.costs,
            i.machine.geometry,
            i.seed,
            i.keep,
            i.full,
            i.bound
        )
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
        Output {
            isolated: (0..self.input.scenario.cpus).map(|c| self.input.scenario.is_isolated(c)).collect(),
            dropped: m.timelines.iter().map(|t| t.dropped).sum(),
            costs: self.costs,
            unsourced: self.unsourced,
            violation,
            stats: m.stats,
            by_cause: m.by_cause,
            events,
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

fn engine(input: &Input, code: Arc<Code>, features: Features, bodies: &[u64]) -> Result<Engine, SimError> {
    let s = &input.scenario;
    let times = Times::new(&code, &input.machine, features, input.bound);
    let layout = Layout {
        cpus: s.cpus,
        isolated: &s.isolated,
        flush_mask: s.flush_mask.as_ref().unwrap_or(&s.isolated),
        sockets: s.sockets,
        keep: input.keep,
    };
    let mut m = Timed::new(&code, features, times, &layout);
    if input.full {
        let pcid = features.has(Feature::Pcid);
        m.tlbs = Some((0..s.cpus).map(|_| CpuTlb::new(&input.machine, pcid)).collect());
    }
    if s.extra_ipi_ps > 0 {
        m.extra_ipi = Some((s.extra_ipi_ps, super::draw::Draws::new(input.seed, Cpu::MAX, 0)));
    }
    let kernel = Kernel {
        lazy_max: lazy_max_of(&input.policy, s.cpus),
        vmap_stack: input.kernel.vmap_stack,
        flush_ceiling: u64::from(input.kernel.flush_ceiling),
    };
    Engine::new(code, m, s, input.seed, kernel, bodies, input.skip).map_err(SimError::Scenario)
}

/// Costs whose absence of a source makes a result an interval (SEMANTICS "Words").
const RESTS_ON: [&str; 3] = ["invlpgb", "tlbsync", "rar"];

/// Costs, by name.
type Costs = Vec<(&'static str, Figure)>;

/// What the ops of a policy take, by name.
fn costs_of(code: &Arc<Code>, machine: &Arc<Preset>) -> Costs {
    type Key = (usize, usize);
    // Both are kept with them, so that no other ones get their addresses.
    static OF: Cache<Key, (Arc<Code>, Arc<Preset>, Costs)> = Cache::new(256);
    let key = (Arc::as_ptr(code) as usize, Arc::as_ptr(machine) as usize);
    let made =
        || Ok::<_, Infallible>((Arc::clone(code), Arc::clone(machine), looked_up_costs(code, machine)));
    let Ok((_, _, costs)) = OF.get_or(key, made);
    costs
}

fn looked_up_costs(code: &Code, machine: &Preset) -> Costs {
    let mut used: Vec<&'static str> = vec![
        "syscall",
        "sysret",
        "interrupt_entry",
        "interrupt_exit",
        "ipi_send",
        "ipi_same_socket",
        "ipi_cross_socket",
        "remote_line",
        "walk_setup",
        "mem_l2",
    ];
    for op in &code.ops {
        if let Some(name) = super::cost::name_of(*op)
            && !used.contains(&name)
        {
            used.push(name);
        }
    }
    used.sort_unstable();
    used.into_iter().filter_map(|name| machine.costs.get(name).map(|figure| (name, figure))).collect()
}

/// `lazy-tune`: a policy's header line `lazy_max_factor "N"` multiplies the threshold.
pub(super) fn lazy_max_of(policy: &File, cpus: Cpu) -> Option<u64> {
    let factor = policy.facts.iter().find(|f| f.key == LAZY_MAX_FACTOR)?;
    let factor: u64 = factor.text.parse().expect("the parser looked");
    Some(crate::kernel::vmalloc::lazy_max_pages(u32::from(cpus)) * factor)
}

/// What one system call with an empty body takes under mainline on this machine.
fn entry_ps(
    input: &Input,
    features: Features,
    isolated: bool,
    pages: (u32, u32),
    by: Path,
) -> Result<u64, SimError> {
    type Key = (usize, Features, bool, (u32, u32), Path, bool, Bound, u16);
    // The machine is kept with it, so that no other one gets its address.
    static MEASURED: Cache<Key, (Arc<Preset>, u64)> = Cache::new(1024);
    let machine = &input.machine;
    let key = (
        Arc::as_ptr(machine) as usize,
        features,
        isolated,
        pages,
        by,
        input.full,
        input.bound,
        input.scenario.sockets,
    );
    let measured = || Ok((Arc::clone(machine), measured_entry_ps(input, features, isolated, pages, by)?));
    MEASURED.get_or(key, measured).map(|(_, entry)| entry)
}

fn measured_entry_ps(
    input: &Input,
    features: Features,
    isolated: bool,
    (kernel_pages, user_pages): (u32, u32),
    by: Path,
) -> Result<u64, SimError> {
    let gap = Gap { mean_ps: 1_000_000, exponential: false };
    let cpu = u16::from(isolated);
    let scenario = Scenario {
        name: "calibration".into(),
        duration_ps: 100_000_000,
        cpus: 2,
        isolated: if isolated { vec![1] } else { vec![] },
        flush_mask: None,
        lazy_max_pages: None,
        extra_ipi_ps: 0,
        actors: vec![Actor {
            name: "syscalls".into(),
            on: On::Cpus(vec![cpu]),
            kind: Kind::Syscalls { gap, base_ps: 1, kernel_pages, user_pages, by },
        }],
        ..input.scenario.clone()
    };
    let policy = shared_builtin("ipi")?;
    let code = policy::code(&policy, &[], features)?;
    let input = Input { scenario, policy, skip: false, keep: 0, ..input.clone() };
    let mut engine = engine(&input, code, features, &[0])?;
    engine.run_until(input.scenario.duration_ps, &AtomicBool::new(false));
    if engine.halted {
        return Ok(0); // the run itself says where
    }
    engine.finish(input.scenario.duration_ps);
    let row = &engine.m.stats[usize::from(cpu)];
    Ok(row[Stat::kernel_ps as usize] / row[Stat::syscalls as usize].max(1))
}

/// Runs to the end.
pub fn simulate(input: Input) -> Result<Output, SimError> {
    let mut run = Run::new(input)?;
    run.finish(&AtomicBool::new(false), |_| {});
    Ok(run.into_output())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::policy::POLICIES;

    pub(super) fn scenario(json: &str) -> Scenario {
        Scenario::parse(json).unwrap()
    }

    fn storm(duration_ms: u64) -> Scenario {
        scenario(&format!(
            r#"{{"name": "storm", "duration_ps": {}, "cpus": 4, "isolated": [2, 3],
            "rcu_ps": 2000000000, "lazy_max_pages": 500,
            "actors": [
              {{"name": "forks", "on": "housekeeping", "kind": "forks", "gap": {{"mean_ps": 50000000, "exponential": true}}, "batch": 24}},
              {{"name": "loop", "on": {{"cpus": [2]}}, "kind": "syscalls", "gap": {{"mean_ps": 400000}}, "base_ps": 770000, "kernel_pages": 12, "user_pages": 4}},
              {{"name": "spin", "on": {{"cpus": [0, 1, 3]}}, "kind": "spin"}},
              {{"name": "tick", "on": "all", "kind": "interrupts", "gap": {{"mean_ps": 300000000, "exponential": true}}, "body_ps": 1000000, "cause": "tick"}},
              {{"name": "perf", "on": "isolated", "kind": "nmis", "gap": {{"mean_ps": 70000000, "exponential": true}}, "body_ps": 500000}}
            ]}}"#,
            duration_ms * 1_000_000_000
        ))
    }

    fn input(scenario: Scenario, policy: &str) -> Input {
        Input {
            scenario,
            machine: Preset::builtin("broadwell-ep-e5-2699v4").unwrap(),
            kernel: Config::default(),
            policy: shared_builtin(policy).unwrap(),
            seed: 1,
            skip: true,
            keep: 64,
            full: false,
            bound: Bound::Best,
        }
    }

    fn total(o: &Output, stat: Stat, isolated: bool) -> u64 {
        (0..o.stats.len()).filter(|&c| o.isolated[c] == isolated).map(|c| o.stats[c][stat as usize]).sum()
    }

    fn same(a: &Output, b: &Output) {
        assert_eq!(a.stats, b.stats);
        assert_eq!(a.by_cause, b.by_cause);
        assert_eq!(a.events, b.events);
        assert_eq!(a.purges, b.purges);
        assert_eq!((a.reached_ps, a.dropped, &a.violation), (b.reached_ps, b.dropped, &b.violation));
        assert!(a.latencies.each().eq(b.latencies.each()));
        assert_eq!(a.runs, b.runs);
    }

    #[test]
    fn mainline_interrupts_every_isolated_cpu_at_each_purge_and_deferral_none() {
        let ipi = simulate(input(storm(200), "ipi")).unwrap();
        assert!(total(&ipi, Stat::purges, false) > 5, "{}", total(&ipi, Stat::purges, false));
        assert_eq!(total(&ipi, Stat::calls_executed, true), 2 * total(&ipi, Stat::flush_requests, false));
        assert_eq!(total(&ipi, Stat::deferrals, true), 0);
        let v7 = simulate(input(storm(200), "coalesce-v7")).unwrap();
        // The CPU that spins is interrupted only if a tick or an NMI had just brought it into the kernel.
        let calls = |o: &Output| o.stats[3][Stat::calls_executed as usize];
        assert!(calls(&v7) * 4 < calls(&ipi), "{} {}", calls(&v7), calls(&ipi));
        assert!(total(&v7, Stat::deferrals, true) > 0);
        assert!(total(&v7, Stat::entry_flushes_needed, true) > 0);
        assert!(v7.stats[2][Stat::entry_flushes_unneeded as usize] > 1000, "v7 flushes at every entry");
        assert!(v7.stats[2][Stat::syscalls as usize] < ipi.stats[2][Stat::syscalls as usize]);
    }

    #[test]
    fn skipping_changes_nothing() {
        for row in POLICIES {
            let fast = simulate(input(storm(20), row.id)).unwrap();
            let slow = simulate(Input { skip: false, ..input(storm(20), row.id) }).unwrap();
            same(&fast, &slow);
            assert!(fast.stats[2][Stat::syscalls as usize] > 1000, "{}", row.id);
        }
    }

    #[test]
    fn skipping_changes_nothing_while_pages_are_looked_up() {
        for row in POLICIES {
            let full = Input { full: true, ..input(storm(10), row.id) };
            let mut fast = Run::new(full.clone()).unwrap();
            fast.finish(&AtomicBool::new(false), |_| {});
            assert!(fast.engine.work * 2 < fast.engine.runs, "{}: most calls repeat", row.id);
            same(&fast.output(), &simulate(Input { skip: false, ..full }).unwrap());
        }
    }

    #[test]
    fn replaying_changes_nothing() {
        // Pages that fit the first level, that fit the second, and more than both hold; and every entry path.
        let sizes = [(10, 4), (200, 100), (1500, 300)].map(|pages| (pages, Path::Syscall));
        for ((kernel, user), path) in sizes.into_iter().chain(Path::ALL.map(|path| ((40, 40), path))) {
            let mut load = storm(4);
            for actor in &mut load.actors {
                match &mut actor.kind {
                    Kind::Syscalls { kernel_pages, user_pages, by, .. } => {
                        (*kernel_pages, *user_pages, *by) = (kernel, user, path);
                    }
                    Kind::Nmis { gap, .. } => gap.mean_ps = 700_000_000,
                    _ => {}
                }
            }
            let (mut all, mut replayed) = (0, 0);
            for row in POLICIES {
                let full = Input { full: true, ..input(load.clone(), row.id) };
                for skip in [false, true] {
                    let run = |replays| {
                        let mut run = Run::new(Input { skip, ..full.clone() }).unwrap();
                        run.engine.replays = replays;
                        run.finish(&AtomicBool::new(false), |_| {});
                        (run.output(), run.engine.replayed)
                    };
                    let ((each, none), (fast, some)) = (run(false), run(true));
                    same(&fast, &each);
                    assert_eq!(none, 0);
                    all += u32::from(!skip);
                    replayed += u32::from(!skip && some * 2 > each.stats[2][Stat::syscalls as usize]);
                }
            }
            assert!(replayed * 10 > all * 8, "{path:?}, {kernel} pages: {replayed} of {all} policies");
        }
    }

    #[test]
    fn at_any_time_a_cpu_is_in_the_state_that_interpreting_leaves() {
        for row in POLICIES {
            let full = Input { full: true, skip: false, ..input(storm(2), row.id) };
            let mut runs = [false, true].map(|replays| {
                let mut run = Run::new(full.clone()).unwrap();
                run.engine.replays = replays;
                run
            });
            for step in 1..=300 {
                let [each, fast] = &mut runs;
                for run in [&mut *each, &mut *fast] {
                    run.advance(step * 6_700_000, &AtomicBool::new(false));
                }
                for (cpu, (a, b)) in each.engine.m.cores.iter().zip(&fast.engine.m.cores).enumerate() {
                    assert_eq!(format!("{a:?}"), format!("{b:?}"), "{}: CPU {cpu} after step {step}", row.id);
                }
                assert_eq!(format!("{:?}", each.engine.m.debts), format!("{:?}", fast.engine.m.debts));
            }
            assert!(runs[1].engine.replayed > 500, "{}", row.id);
        }
    }

    #[test]
    fn a_flush_at_each_entry_is_followed_by_a_walk_per_page_and_mainline_by_none() {
        let alone = scenario(
            r#"{"name": "alone", "duration_ps": 1000000000, "cpus": 2, "isolated": [1], "actors": [
              {"name": "loop", "on": {"cpus": [1]}, "kind": "syscalls", "gap": {"mean_ps": 1000000}, "base_ps": 770000, "kernel_pages": 10, "user_pages": 4}]}"#,
        );
        let walks = |policy| {
            let o = simulate(Input { full: true, skip: false, ..input(alone.clone(), policy) }).unwrap();
            let [first, last] = [100_000_000, 1_000_000_000].map(|end| {
                let mut run = Run::new(Input { full: true, ..input(alone.clone(), policy) }).unwrap();
                run.advance(end, &AtomicBool::new(false));
                let o = run.output();
                let row = o.stats[1];
                (row[Stat::syscalls as usize], row[Stat::refill_misses as usize])
            });
            assert_eq!(o.stats[1][Stat::refill_misses as usize], last.1);
            (last.0 - first.0, last.1 - first.1)
        };
        let (calls, misses) = walks("ipi");
        assert!(calls > 300 && misses == 0, "{calls} {misses}");
        // 10 pages of the body, 4 of the user, the stack, and the entry page, which is global: the flush includes those.
        // Either end of the measured time may fall amid a call.
        let (calls, misses) = walks("coalesce-v7");
        assert!(misses.abs_diff(calls * 16) < 16, "{calls} {misses}");
    }

    /// A task that only spins, a stream of `pattern` every microsecond, and a full flush every 10 ms.
    fn streaming(pattern: &str, duration_ms: u64) -> Input {
        let json = format!(
            r#"{{"name": "stream", "duration_ps": {}, "cpus": 2, "isolated": [1], "actors": [
              {{"name": "spin", "on": "all", "kind": "spin"}},
              {{"name": "purge", "on": {{"cpus": [0]}}, "kind": "chain", "gap": {{"mean_ps": 10000000000}}, "steps": [{{"program": "purge", "pages": 0, "cause": "purge"}}]}},
              {{"name": "stream", "on": "isolated", "kind": "stream", "gap": {{"mean_ps": 1000000}}, "phases": [{{"pattern": {pattern}}}]}}]}}"#,
            duration_ms * 1_000_000_000
        );
        Input { full: true, ..input(scenario(&json), "ipi") }
    }

    #[test]
    fn a_stream_over_pages_that_fit_misses_each_once_per_flush() {
        for pattern in [
            r#"{"sequential": {"pages": 40}}"#,
            r#"{"chase": {"pages": 40}}"#,
            r#"{"weighted": {"weights": [9, 9, 9, 9, 9, 9, 9, 9, 9, 9]}}"#,
            r#"{"array": {"pages": [5, 7, 5, 123456, 9, 7]}}"#,
        ] {
            let o = simulate(streaming(pattern, 205)).unwrap();
            let row = o.stats[1];
            let get = |s: Stat| row[s as usize];
            let pages = if pattern.contains("40") {
                40
            } else if pattern.contains("weights") {
                10
            } else {
                4
            };
            assert_eq!(get(Stat::remote_flushes), 20);
            assert_eq!(get(Stat::stream_first), pages, "{pattern}");
            assert_eq!(get(Stat::stream_evicted), 0, "{pattern}");
            assert_eq!(
                get(Stat::refill_misses_remote),
                20 * pages + 20 * 2,
                "{pattern}: stack and entry page too"
            );
            assert!((204_000..205_001).contains(&get(Stat::stream_touches)), "{}", get(Stat::stream_touches));
        }
    }

    #[test]
    fn a_stream_over_more_pages_than_the_tlb_holds_misses_without_any_flush() {
        let o = simulate(streaming(r#"{"chase": {"pages": 4000}}"#, 20)).unwrap();
        let row = o.stats[1];
        assert_eq!(row[Stat::stream_first as usize], 4000);
        assert!(row[Stat::stream_evicted as usize] > 10_000);
        assert!(row[Stat::stream_ps as usize] > 0);
    }

    #[test]
    fn neither_chunks_nor_skipping_change_a_stream() {
        for row in POLICIES {
            let zipf = r#"{"weighted": {"weights": [900, 450, 300, 225, 180, 150, 129, 112, 100, 90]}}"#;
            let mut load = storm(10);
            load.actors.extend(streaming(zipf, 1).scenario.actors.into_iter().filter(|a| a.name == "stream"));
            let input = Input { full: true, ..input(load, row.id) };
            let whole = simulate(input.clone()).unwrap();
            assert!(whole.stats[3][Stat::stream_touches as usize] > 8_000, "{}", row.id);
            same(&whole, &simulate(Input { skip: false, ..input.clone() }).unwrap());
            let (mut run, mut at) = (Run::new(input).unwrap(), 0);
            while at < 10_000_000_000 {
                at += 777_777_777;
                assert!(run.advance(at, &AtomicBool::new(false)));
            }
            same(&whole, &run.output());
        }
    }

    #[test]
    fn a_stream_where_no_page_is_looked_up_or_no_user_runs_is_refused() {
        let chase = r#"{"chase": {"pages": 4}}"#;
        let refused = Run::new(Input { full: false, ..streaming(chase, 1) }).unwrap_err().to_string();
        assert!(refused.contains("actor \"stream\" is an access stream: it needs detail"), "{refused}");
        let mut load = streaming(chase, 1).scenario;
        load.actors[0].on = On::Housekeeping;
        assert!(load.check().unwrap_err().to_string().contains("CPU 1 has no user mode"));
        let mut load = streaming(chase, 1).scenario;
        load.actors.push(load.actors[2].clone());
        assert!(load.check().unwrap_err().to_string().contains("one stream per CPU"));
    }

    #[test]
    fn chunks_change_nothing() {
        for row in POLICIES {
            let whole = simulate(input(storm(20), row.id)).unwrap();
            let mut run = Run::new(input(storm(20), row.id)).unwrap();
            let (mut at, never) = (0, AtomicBool::new(false));
            while at < 20_000_000_000 {
                at += 7_777_777;
                assert!(run.advance(at, &never));
            }
            same(&whole, &run.output());
        }
    }

    #[test]
    fn a_checkpoint_goes_on_to_the_same_end_in_another_run() {
        for row in POLICIES {
            let whole = simulate(input(storm(20), row.id)).unwrap();
            let never = AtomicBool::new(false);
            let mut bytes = None;
            for end in [3_333_333_333, 9_999_999_999, 13_131_313_131, 20_000_000_000] {
                let mut run = Run::new(input(storm(20), row.id)).unwrap();
                if let Some(bytes) = &bytes {
                    let bytes: &Vec<u8> = bytes;
                    run.resume(bytes).unwrap();
                }
                run.advance(end, &never);
                bytes = Some(run.checkpoint());
                if end == 20_000_000_000 {
                    same(&whole, &run.output());
                }
            }
            let mut other = Run::new(Input { seed: 2, ..input(storm(20), row.id) }).unwrap();
            let bytes = bytes.unwrap();
            let refused = other.resume(&bytes).unwrap_err().to_string();
            assert_eq!(refused, "checkpoint: is of a run with other inputs");
            let mut faster = input(storm(20), row.id);
            Arc::make_mut(&mut faster.machine).mhz += 1;
            let refused = Run::new(faster).unwrap().resume(&bytes).unwrap_err().to_string();
            assert_eq!(refused, "checkpoint: is of a run with other inputs");
        }
    }

    #[test]
    fn a_run_that_looks_pages_up_goes_on_from_any_point_to_the_same_end() {
        let never = AtomicBool::new(false);
        for (row, policy) in POLICIES.iter().enumerate() {
            let pattern = [
                r#"{"weighted": {"weights": [900, 450, 300, 225, 180, 150, 129, 112, 100, 90]}}"#,
                r#"{"chase": {"pages": 90}}"#,
                r#"{"array": {"pages": [5, 7, 5, 123456, 9, 7]}}"#,
            ][row % 3];
            let mut load = storm(8);
            load.actors
                .extend(streaming(pattern, 1).scenario.actors.into_iter().filter(|a| a.name == "stream"));
            let input = Input { full: true, ..input(load, policy.id) };
            let whole = simulate(input.clone()).unwrap();
            assert!(whole.stats[2][Stat::stream_touches as usize] > 1_000, "{}", policy.id);
            let (mut run, mut at) = (Run::new(input.clone()).unwrap(), 0);
            while at < 8_000_000_000 {
                at += 777_777_777;
                assert!(run.advance(at, &never));
                let bytes = run.checkpoint();
                run = Run::new(input.clone()).unwrap();
                run.resume(&bytes).unwrap();
            }
            same(&whole, &run.output());
            // One of another detail is refused.
            let refused = Run::new(Input { full: false, scenario: storm(8), ..input })
                .unwrap()
                .resume(&run.checkpoint());
            assert!(refused.unwrap_err().to_string().contains("other inputs"));
        }
    }

    #[test]
    fn a_set_cancel_stops_at_once_and_keeps_what_there_is() {
        let mut run = Run::new(input(storm(100), "ipi")).unwrap();
        let cancel = AtomicBool::new(false);
        run.advance(50_000_000_000, &cancel);
        cancel.store(true, std::sync::atomic::Ordering::Relaxed);
        run.finish(&cancel, |_| {});
        let out = run.output();
        assert!(out.interrupted && out.reached_ps == 50_000_000_000);
        assert!(out.stats[2][Stat::syscalls as usize] > 0);
    }

    #[test]
    fn time_adds_up() {
        for row in POLICIES {
            let o = simulate(input(storm(50), row.id)).unwrap();
            for (cpu, row) in o.stats.iter().enumerate().filter(|(c, _)| o.isolated[*c]) {
                let sum = row[Stat::user_ps as usize]
                    + row[Stat::kernel_ps as usize]
                    + row[Stat::interrupt_ps as usize];
                assert_eq!(sum, o.reached_ps, "CPU {cpu}");
            }
        }
    }

    #[test]
    fn pti_off_makes_coalescing_inert_and_free() {
        let machine = Preset::builtin("cascade-lake-sp").unwrap();
        let ipi = simulate(Input { machine: machine.clone(), ..input(storm(20), "ipi") }).unwrap();
        let v7 = simulate(Input { machine, ..input(storm(20), "coalesce-v7") }).unwrap();
        assert!(v7.notes[0].contains("inert"), "{:?}", v7.notes);
        assert_eq!(ipi.stats, v7.stats);
    }

    #[test]
    fn the_base_of_a_system_call_is_met_under_mainline() {
        let o = simulate(input(storm(20), "ipi")).unwrap();
        let row = &o.stats[2];
        let mean = row[Stat::kernel_ps as usize] / row[Stat::syscalls as usize];
        assert!((765_000..790_000).contains(&mean), "{mean}");
    }
}
