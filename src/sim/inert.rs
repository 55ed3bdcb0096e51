//! Does a policy change anything that a scenario runs? Where it does not, its figures are mainline's, and a comparison
//! says so instead of showing them under the policy's name.

use std::collections::BTreeSet;

use super::error::SimError;
use super::input::{Input, lazy_max_of};
use super::scenario::{Do, Kind, Scenario};
use crate::kernel::policy;
use crate::kernel::program::{Code, Features, Op};
use crate::kernel::text::LINUX;

/// Whether some program that the scenario runs differs from mainline's, or the policy *is* mainline.
pub fn runs_what_is_replaced(input: &Input, code: &Code, features: Features) -> Result<bool, SimError> {
    let (own, scenario) = (&input.policy, &input.scenario);
    if own.sections.is_empty()
        && own.based_on.is_none()
        && own.facts.iter().all(|f| ["source", LINUX].contains(&f.key.as_str()))
    {
        return Ok(true); // there is nothing that it could replace
    }
    let mainline = policy::code(&policy::mainline(own)?, &scenario.programs(), features)?;
    let mut todo: Vec<String> = roots(scenario).into_iter().map(str::to_owned).collect();
    let purges = todo.iter().any(|name| name == "purge");
    if purges && lazy_max_of(own, scenario.cpus).is_some() {
        return Ok(true);
    }
    let mut seen = BTreeSet::new();
    while let Some(name) = todo.pop() {
        if code.lines_of(&name) != mainline.lines_of(&name) {
            return Ok(true);
        }
        if seen.insert(name.clone()) {
            let called = code.ops_of(&name).iter().filter_map(|op| match op {
                Op::Ipi { run, .. } => Some(code.programs[usize::from(run.0)].name.clone()),
                _ => None,
            });
            todo.extend(called);
        }
    }
    Ok(false)
}

/// The kernel's programs that the actors start, and those that interrupts and returns to user mode start.
fn roots(scenario: &Scenario) -> BTreeSet<&str> {
    let mut out = BTreeSet::from(["interrupt_kernel"]);
    let mut user = vec![false; usize::from(scenario.cpus)];
    let mut interrupts = false;
    for actor in &scenario.actors {
        interrupts |= actor.kind.initiates();
        match &actor.kind {
            Kind::Idle | Kind::Spin { .. } | Kind::Stream { .. } => {}
            Kind::Syscalls { by, .. } | Kind::Faults { by, .. } => {
                out.insert(by.program());
            }
            Kind::Interrupts { .. } => interrupts = true,
            Kind::Nmis { .. } => out.extend(["nmi", "nmi_user"]),
            Kind::Forks { .. } | Kind::Vfree { .. } => {
                out.insert("purge");
            }
            Kind::Chain { steps, .. } => out.extend(steps.iter().map(|s| s.program.as_str())),
            Kind::Tasks { steps, .. } => {
                for step in steps {
                    out.extend(of_turn(step.what));
                }
            }
        }
        if actor.kind.is_foreground() && !matches!(actor.kind, Kind::Idle) {
            scenario.cpus_of(&actor.on).into_iter().for_each(|cpu| user[usize::from(cpu)] = true);
        }
    }
    let idle = !user.iter().all(|user| *user);
    if idle {
        out.insert("idle");
    }
    if user.contains(&true) {
        out.insert("enter_user");
        // Work of initiators is entered like a system call, and an interrupt finds user mode.
        if scenario.actors.iter().any(|a| a.kind.initiates()) {
            out.insert("syscall");
        }
        out.extend(interrupts.then_some("interrupt"));
    }
    out.extend((interrupts && idle).then_some("interrupt_idle"));
    out
}

fn of_turn(what: Do) -> &'static [&'static str] {
    match what {
        Do::Switch => &["switch_mm"],
        Do::Sleep => &["enter_lazy"],
        Do::Unmap { tables: false, .. } => &["flush_mm"],
        Do::Unmap { tables: true, .. } => &["flush_mm_tables"],
        Do::Fork | Do::Exit { .. } => &["purge"],
        Do::Exec => &["switch_mm", "flush_mm_tables"],
        Do::Migrate => &["enter_lazy", "switch_mm"],
    }
}
