//! What a layout is derived from: which programs each CPU of a scope can come to run, and what they do.

use super::entries::Checks;
use super::liveness::{Locations, NMI_PROGRAMS, reach};
use super::packing::width;
use super::roots::{Roots, join_migrants, roots_of};
use crate::check::scope::{CheckError, Scope};
use crate::kernel::program::{
    BREAKPOINT, Code, Entry, Level, Op, Page, PageKind, Pages, Pc, ProgId, Set, is_site,
};
use crate::order;

/// What a layout is derived from.
pub(super) struct Plan<'a> {
    pub code: &'a Code,
    pub scope: &'a Scope,
    /// Depth of the store buffers.
    pub buffer: usize,
    /// Bits of a version of a page.
    pub version_bits: u32,
    /// Rights change, and are followed.
    pub rights: bool,
    /// CPUs that send remote calls.
    pub senders: Vec<usize>,
    /// A task goes on on another CPU.
    pub migrates: bool,
    /// What each CPU can come to run.
    pub runs: Vec<Runs>,
}

/// What one CPU can come to run.
pub(super) struct Runs {
    /// It takes remote calls.
    pub receives: bool,
    /// Locations and return addresses, by level.
    pub levels: Vec<Locations>,
    /// The ops at all of them.
    pub ops: Vec<Op>,
}

impl<'a> Plan<'a> {
    /// Find out what the CPUs of a scope can come to run.
    pub fn new(
        code: &'a Code,
        scope: &'a Scope,
        handlers: &[ProgId],
        checks: Checks<'_>,
        buffer: usize,
        versions: u64,
    ) -> Result<Self, CheckError> {
        let nmis = scope.nmis > 0 || scope.mces > 0;
        let mut roots =
            scope.roles.iter().map(|r| roots_of(code, scope, r, checks)).collect::<Result<Vec<_>, _>>()?;
        let migrates = join_migrants(code, scope, &mut roots)?;
        // Only what the scope's own programs can reach counts.
        let sends = |roots: &Roots| {
            let ops = |pc: &Pc| code.program_of(*pc).map_or(&[][..], |p| code.ops_of(&p.name));
            let starts = roots.starts.iter().chain(&roots.calls).flatten();
            starts.flat_map(ops).any(|op| matches!(op, Op::Ipi { .. }))
        };
        let senders: Vec<usize> = (0..roots.len()).filter(|&i| sends(&roots[i])).collect();
        let runs = scope.roles.iter().zip(roots).enumerate().map(|(i, (role, roots))| {
            let receives = !role.deaf && senders.iter().any(|&s| s != i || migrates || sends_to_self(code));
            let mut levels = roots.starts;
            // What runs after a grace period runs like an interrupt, and may ask for another one.
            let asks = levels.iter().any(|starts| {
                let (set, _) = reach(code, starts, handlers, receives);
                set.iter().any(|&(pc, _)| matches!(code.ops[usize::from(pc)], Op::CallLater(_)))
            });
            if asks {
                levels[1].extend(laters(code).map(|run| code.start(run)));
            }
            if receives {
                for (level, calls) in levels.iter_mut().zip(roots.calls) {
                    level.extend(calls);
                }
            }
            // An INT3 starts its handler one level above, and the IRET of that may let another NMI in (SEMANTICS H5).
            let traps = |starts: &[Pc]| {
                let (set, _) = reach(code, starts, handlers, receives);
                set.iter().any(|&(pc, _)| is_site(code.ops[usize::from(pc)]))
            };
            let breakpoint = code.program(BREAKPOINT).map(|p| code.start(p));
            if breakpoint.is_some() && traps(&levels[0]) {
                levels[1].extend(breakpoint);
            }
            if nmis && !role.deaf {
                let interrupted = !levels[1].is_empty() || scope.mces > 0 || traps_in_nmis(code);
                let nmi = code.program("nmi").map(|p| code.start(p));
                levels[1].extend(nmi);
                if interrupted {
                    levels[2].extend(nmi);
                }
            }
            if breakpoint.is_some() && traps(&levels[1]) {
                levels[2].extend(breakpoint);
            }
            let levels: Vec<_> =
                levels.iter().map(|starts| reach(code, starts, handlers, receives)).collect();
            let at = levels.iter().flat_map(|(set, _)| set);
            let ops = at.map(|&(pc, _)| code.ops[usize::from(pc)]).collect();
            Runs { receives, levels, ops }
        });
        let runs: Vec<Runs> = runs.collect();
        let direct = |p: &Page| p.kind == PageKind::DirectMap;
        let rights = |op: &Op| match *op {
            Op::Pte { v: Entry::LessRights | Entry::Uncached | Entry::Cached, .. } => true,
            // An entry that maps the frame of before, with the rights of before (SEMANTICS S4).
            Op::Pte { v: Entry::Initial, level: Level::Leaf, .. } => true,
            Op::Pte { v: Entry::Fresh, level: Level::Leaf, pages, .. } => match pages {
                Pages::One(p) => direct(&code.pages[usize::from(p)]),
                Pages::Range => code.pages.iter().any(direct),
                Pages::Text(..) => false,
            },
            _ => false,
        };
        // Which frame a translation leads to is followed too where one of a large page may lead to a small one's.
        let large = code.pages.iter().any(|p| p.within.is_some());
        let rights = large || runs.iter().flat_map(|r| &r.ops).any(rights);
        Ok(Plan { code, scope, buffer, version_bits: width(versions), rights, senders, migrates, runs })
    }

    /// CPUs whose remote calls this one takes.
    pub fn from(&self, cpu: usize) -> Vec<usize> {
        let sends = |s: &usize| *s != cpu || self.migrates || sends_to_self(self.code);
        self.senders.iter().copied().filter(sends).collect()
    }

    /// Does any CPU come to such an op?
    pub fn any(&self, such: impl Fn(&Op) -> bool) -> bool {
        self.runs.iter().flat_map(|r| &r.ops).any(such)
    }
}

/// Can an NMI run an INT3?
pub(super) fn traps_in_nmis(code: &Code) -> bool {
    NMI_PROGRAMS.iter().any(|name| code.ops_of(name).iter().any(|op| is_site(*op)))
}

/// Programs that run after a grace period.
pub(super) fn laters(code: &Code) -> impl Iterator<Item = ProgId> + '_ {
    let mut all: Vec<ProgId> = code
        .ops
        .iter()
        .filter_map(|op| if let Op::CallLater(run) = op { Some(*run) } else { None })
        .collect();
    order::natural(&mut all);
    all.dedup();
    all.into_iter()
}

/// Can a CPU be among those that it sends remote calls to?
fn sends_to_self(code: &Code) -> bool {
    // A set that can hold the sender: `online` itself, or `targets` collected over it.
    code.ops.iter().any(|op| {
        matches!(
            op,
            Op::Ipi { to: Set::Online, .. } | Op::Loop(Set::Online | Set::Housekeeping | Set::NohzFull)
        )
    })
}
