//! From inputs to an engine: the policy is assembled for the machine, what its ops take is looked up, and what the entry
//! code takes is measured, so that the base of a system call can be met.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::cost::{Bound, Times, name_of};
use super::draw::Draws;
use super::engine::{Engine, Kernel};
use super::error::SimError;
use super::input::{Input, lazy_max_of};
use super::machine::{CpuTlb, Layout, Timed};
use super::refuse::refuse;
use super::scenario::{Actor, Gap, Kind, On, Path, Scenario};
use super::stats::Stat;
use crate::cache::Cache;
use crate::hw::Preset;
use crate::hw::preset::Figure;
use crate::kernel::config::Config;
use crate::kernel::policy::{self, shared_builtin};
use crate::kernel::program::{Code, Feature, Features};
use crate::kernel::step::Cpu;
use crate::kernel::text::File;
use crate::order;
use crate::room::room;

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
    let runs = if notes.is_empty() { Arc::clone(policy) } else { policy::mainline(policy)? };
    let code = policy::code(&runs, programs, features)?;
    refuse(&code, &machine.features)?;
    Ok((code, features, notes))
}

/// Is this mainline's code, whatever policy it came from?
fn is_mainline(code: &Arc<Code>, scenario: &Scenario, features: Features) -> Result<bool, SimError> {
    let mainline = policy::code(&shared_builtin("ipi")?, &scenario.programs(), features)?;
    let same = |a: &Code, b: &Code| (&a.ops, &a.vars, &a.fields) == (&b.ops, &b.vars, &b.fields);
    Ok(Arc::ptr_eq(code, &mainline) || same(code, &mainline))
}

/// An engine at time 0. `bodies` by actor: what the entry code leaves of a system call.
pub fn engine(
    input: &Input,
    code: Arc<Code>,
    features: Features,
    bodies: &[u64],
) -> Result<Engine, SimError> {
    let s = &input.scenario;
    let bytes = bytes_of(input);
    if room(bytes).is_err() {
        return Err(SimError::Memory(format!(
            "scenario {:?}: {} CPUs take up to {bytes} bytes",
            s.name, s.cpus
        )));
    }
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
        m.extra_ipi = Some((s.extra_ipi_ps, Draws::new(input.seed, Cpu::MAX, 0)));
    }
    let kernel = Kernel {
        lazy_max: lazy_max_of(&input.policy, s.cpus),
        vmap_stack: input.kernel.vmap_stack,
        flush_ceiling: u64::from(input.kernel.flush_ceiling),
        is_mainline: input.skip && is_mainline(&code, s, features)?,
    };
    Engine::new(code, m, s, input.seed, kernel, bodies, input.skip).map_err(SimError::Scenario)
}

/// Bytes that a run takes before it begins, rather too many.
fn bytes_of(input: &Input) -> usize {
    let s = &input.scenario;
    let structures = input.machine.geometry.levels().iter().flat_map(|level| &level.structures);
    let entries: usize = structures.map(|structure| structure.entries() as usize).sum();
    let tlb = if input.full { ENTRY_BYTES * entries } else { 0 };
    let cpus = usize::from(s.cpus);
    let actors: usize = s.actors.iter().map(|actor| s.cpus_of(&actor.on).len()).sum();
    // Each CPU has a set of CPUs to interrupt.
    cpus * (CPU_BYTES + tlb + cpus / 8) + actors * ACTOR_BYTES
}

/// Bytes of a CPU, of an entry of its TLB, and of an actor on it.
const CPU_BYTES: usize = 8 << 10;
const ENTRY_BYTES: usize = 48;
const ACTOR_BYTES: usize = 2 << 10;

/// Costs, by name.
pub type Costs = Vec<(&'static str, Figure)>;

/// What the ops of a policy take, by name.
pub fn costs_of(code: &Arc<Code>, machine: &Arc<Preset>) -> Costs {
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
        if let Some(name) = name_of(*op)
            && !used.contains(&name)
        {
            used.push(name);
        }
    }
    order::natural(&mut used);
    used.into_iter().filter_map(|name| machine.costs.get(name).map(|figure| (name, figure))).collect()
}

/// What one system call with an empty body takes under mainline on this machine.
pub fn entry_ps(
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
