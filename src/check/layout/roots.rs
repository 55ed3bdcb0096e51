//! Where a CPU can start: by its own programs, and when interrupts, NMIs and remote calls come.

use super::entries::{Checks, Device, paths};
use crate::check::scope::{CheckError, Rest, Role, Scope};
use crate::kernel::program::{Code, Op, Pc, Slot};

/// Where each level of a CPU can start: by itself, and when remote calls come.
#[derive(Clone)]
pub(super) struct Roots {
    pub(super) starts: [Vec<Pc>; 3],
    pub(super) calls: [Vec<Pc>; 2],
}

/// Where the levels of a role's CPU can start.
pub(super) fn roots_of(
    code: &Code,
    scope: &Scope,
    role: &Role,
    checks: Checks<'_>,
) -> Result<Roots, CheckError> {
    let need = |name: &str| {
        code.program(name)
            .map(|p| code.start(p))
            .ok_or_else(|| CheckError::NoProgram { policy: code.name.clone(), program: name.into() })
    };
    let mut out =
        Roots { starts: [vec![need(&role.first)?], Vec::new(), Vec::new()], calls: Default::default() };
    if role.left > 0 {
        role.entries().iter().try_for_each(|name| need(name).map(drop))?;
        out.starts[0].extend(paths(code, scope, role, checks).iter().map(|p| p.start));
    }
    if role.deaf {
        return Ok(out);
    }
    let nmis = scope.nmis > 0 || scope.mces > 0;
    if role.rest == Rest::User {
        out.calls[0].push(need("interrupt")?);
        if nmis {
            out.starts[0].push(need("nmi_user")?);
        }
    }
    let mut amid = vec!["interrupt_kernel"];
    amid.extend(idles(code, role).then_some("interrupt_idle"));
    for name in amid {
        let start = need(name)?;
        match Device::new(code, role, name) {
            Device::Runs(_) => out.starts[1].push(start),
            Device::Never | Device::Checks(_) => out.calls[1].push(start),
        }
    }
    if nmis {
        need("nmi")?;
    }
    Ok(out)
}

/// Where a task migrates, each CPU that tasks go to can come to whatever one of these, or one that they come from, can.
/// Whether one does.
pub(super) fn join_migrants(code: &Code, scope: &Scope, roots: &mut [Roots]) -> Result<bool, CheckError> {
    let runs = |name: &String| code.ops_of(name).contains(&Op::Migrate);
    let migrates = |r: &Role| runs(&r.first) || r.left > 0 && r.entries().iter().any(runs);
    if !scope.roles.iter().any(migrates) {
        return Ok(false);
    }
    if scope.roles.iter().any(|r| migrates(r) && (r.deaf || r.rest == Rest::User)) {
        return Err(CheckError::Litmus(
            "a task migrates that came from user mode, or whose CPU takes no interrupts: that is not modelled (SEMANTICS L11)"
                .into(),
        ));
    }
    let takes = |r: &Role| r.rest == Rest::Kernel && !r.isolated && !r.deaf;
    if scope.roles.iter().any(|r| (takes(r) || migrates(r)) && r.left > 0) {
        return Err(CheckError::Litmus(
            "a task migrates: each CPU that tasks can go to runs one program once, and no rounds".into(),
        ));
    }
    let group = |r: &Role| takes(r) || migrates(r);
    let group: Vec<usize> = (0..roots.len()).filter(|&i| group(&scope.roles[i])).collect();
    let mut all = Roots { starts: Default::default(), calls: Default::default() };
    let add = |to: &mut Vec<Pc>, from: &[Pc]| {
        for pc in from {
            if !to.contains(pc) {
                to.push(*pc);
            }
        }
    };
    for &i in &group {
        for (to, from) in all.starts.iter_mut().zip(&roots[i].starts) {
            add(to, from);
        }
        for (to, from) in all.calls.iter_mut().zip(&roots[i].calls) {
            add(to, from);
        }
    }
    for i in group {
        roots[i] = all.clone();
    }
    Ok(true)
}

/// Is it idle at some time?
pub(super) fn idles(code: &Code, role: &Role) -> bool {
    let mut ops = [&role.first, &role.again].into_iter().flat_map(|name| code.ops_of(name));
    ops.any(|op| *op == Op::Body(Slot::Idle))
}
