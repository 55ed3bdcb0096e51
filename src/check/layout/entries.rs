//! By which paths a CPU comes into the kernel, and which of them a search has to follow.
//!
//! In user mode every path may be taken at any time, so an entry chooses one. A path is dropped where another one
//! *covers* it: whatever a run through the dropped path does and breaks, a run through the other does and breaks too.
//! Most policies change macros that all paths share, and one path is left.
//!
//! Two kinds of ops matter. *Effects* change or read state; *checks* (touches and bodies) change nothing and may
//! only break a rule. P is covered by Q if
//!
//! - both have the same effects in the same order, jumps to the same places among them included, and
//! - between two effects, and between two places that jumps lead to, each check of P is among Q's or is implied by one.
//!
//! Then a run through P maps to one through Q step by step: a check of P happens in a state in which Q stands between
//! the same two effects and may do the same check, because its own other checks change nothing, and where one of them
//! breaks a rule first the policy is violated all the same. What else differs leaves Q more runs, not fewer:
//!
//! - `sti` and `cli`, where P has none: with interrupts on none need arrive.
//! - `handle calls`, where P is a device interrupt: it runs no remote calls, which have a vector of their own.
//! - a patched instruction that decides a branch is an effect, and what RSP holds at the start is one where there is such
//!   an instruction: its INT3 breaks S13 on Q where it does on P. What its handler does is the same on both.
//! - an end by IRET in P and not in Q: IRET waits for buffered stores, which may drain before, and drops fetched text,
//!   which need not have been fetched. The same holds for what a delivery drains and drops.
//!
//! `exception_espfix` and `exception_bad_iret` are an exception and what follows when its IRET does not return: where
//! the assembled ops say so, what follows is an entry of its own (from the state in which user mode would be).
//! `Scope::every_path` keeps all paths; random policies are checked both ways in `check::tests`.

use crate::check::scope::{Role, Scope};
use crate::check::zone;
use crate::kernel::program::{Code, DELIVERED, Op, Pc, Slot, Zone};
use crate::order;

/// A path into the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Name of its program.
    pub name: String,
    /// Where it starts.
    pub start: Pc,
    end: Pc,
}

impl Path {
    /// Does it begin where its program does, not where another one ends?
    fn is_whole(&self, code: &Code) -> bool {
        code.program_of(self.start).is_some_and(|p| p.start == self.start)
    }

    /// Is it started by an interrupt or exception, so that the store buffer drains first (SEMANTICS H5)? What only follows an
    /// exception is not.
    pub fn is_delivered(&self, code: &Code) -> bool {
        self.is_whole(code) && DELIVERED.contains(&self.name.as_str())
    }

    /// Does a device send it? It takes no remote calls (SEMANTICS H5).
    pub fn is_of_devices(&self) -> bool {
        self.name == "interrupt"
    }

    /// Does it begin with a stack in RSP (SEMANTICS S13)? SYSCALL leaves the user's there; SYSENTER, exceptions, interrupts and
    /// all that FRED delivers begin with one of the kernel's.
    pub fn has_stack(&self, code: &Code) -> bool {
        code.fred || !self.is_whole(code) || !SYSCALLS.contains(&self.name.as_str())
    }

    /// Its name for people: where it is what follows another path, that is said.
    pub fn shown(&self, code: &Code) -> String {
        if self.is_whole(code) { self.name.clone() } else { format!("{}, after its exception", self.name) }
    }
}

/// Does any access of that zone look at a tracked page?
pub type Checks<'a> = &'a dyn Fn(Zone) -> bool;

/// The paths a CPU's entries choose from: at least one if it enters at all.
pub fn paths(code: &Code, scope: &Scope, role: &Role, checks: Checks<'_>) -> Vec<Path> {
    let all = decomposed(code, role);
    if scope.every_path {
        return all;
    }
    let mut kept: Vec<Path> = Vec::new();
    for path in all {
        if !kept.iter().any(|q| covers(code, q, &path, checks)) {
            kept.push(path);
        }
    }
    kept
}

/// Every path of a role, those that begin with another one cut where that ends.
fn decomposed(code: &Code, role: &Role) -> Vec<Path> {
    let mut out: Vec<Path> = Vec::new();
    for name in role.entries() {
        let Some(id) = code.program(name) else { continue };
        let program = &code.programs[usize::from(id.0)];
        let mut path = Path { name: name.clone(), start: program.start, end: program.end };
        // Alone it is what was asked for.
        if role.paths.len() > 1 {
            while let Some(rest) = out.iter().find_map(|first| after(code, first, &path)) {
                path = rest;
            }
        }
        if out.iter().all(|o| !same(code, (o.start, o.end), (path.start, path.end))) {
            out.push(path);
        }
    }
    out
}

/// What is left of `path` after the ops of `first` without its return.
fn after(code: &Code, first: &Path, path: &Path) -> Option<Path> {
    let n = first.end - first.start - 1;
    let cut = path.start + n;
    let longer = path.end - path.start > n + 1;
    let starts = longer && same(code, (first.start, first.end - 1), (path.start, cut));
    // Whatever a frame still holds there would be lost.
    (starts && code.live[usize::from(cut)] == 0).then(|| Path { start: cut, ..path.clone() })
}

/// Are two stretches of code the same, jumps within them included?
fn same(code: &Code, a: (Pc, Pc), b: (Pc, Pc)) -> bool {
    let moved = |pc: Pc, (start, _): (Pc, Pc)| {
        let rel = |to: Pc| to.wrapping_sub(start);
        match code.ops[usize::from(pc)] {
            Op::Jump(to) => Op::Jump(rel(to)),
            Op::Unless { c, to } => Op::Unless { c, to: rel(to) },
            Op::Each { of, done } => Op::Each { of, done: rel(done) },
            op => op,
        }
    };
    a.1 - a.0 == b.1 - b.0 && (a.0..a.1).zip(b.0..b.1).all(|(x, y)| moved(x, a) == moved(y, b))
}

/// A path as its effects, with the checks before each and the places that jumps lead to.
#[derive(Debug, Default, PartialEq)]
struct Shape {
    effects: Vec<Effect>,
    /// Before each effect, and at the end.
    checks: Vec<Vec<Check>>,
    switches_irqs: bool,
}

/// An op that changes or reads state, or a place that a jump leads to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Effect {
    Op(Op),
    Label,
}

/// Which zone is touched, and whether the task may be switched there (`Action::Switch`).
type Check = (Zone, bool);

fn shape(code: &Code, path: &Path, irqs: bool, checks: Checks<'_>) -> Shape {
    let range = usize::from(path.start)..usize::from(path.end);
    let target = |op: Op| match op {
        Op::Jump(to) | Op::Unless { to, .. } | Op::Each { done: to, .. } => Some(to),
        _ => None,
    };
    let ops = &code.ops[range.clone()];
    let mut labels: Vec<Pc> = ops.iter().filter_map(|&op| target(op)).collect();
    order::natural(&mut labels);
    labels.dedup();
    // Labels are numbered in the order they stand in.
    let number = |to: Pc| labels.binary_search(&to).expect("every target was listed") as Pc;
    // Whose GSBASE it is counts SWAPGS ops, unless one of them is jumped over.
    let jumped_over = |pc: usize, op: Op| {
        target(op).is_some_and(|to| {
            let (a, b) = (pc.min(usize::from(to)), pc.max(usize::from(to)));
            code.ops[a..b].contains(&Op::SwapGs)
        })
    };
    let sets = |op: Op| matches!(op, Op::SetGs(_));
    let sure = !range.clone().any(|pc| sets(code.ops[pc]) || jumped_over(pc, code.ops[pc]));
    let mut kernel_gs = code.fred;
    let mut out = Shape { checks: vec![Vec::new()], ..Shape::default() };
    let effect = |out: &mut Shape, e: Effect| {
        out.effects.push(e);
        out.checks.push(Vec::new());
    };
    // Where an instruction that is patched decides a branch, it decides too whether its INT3 finds a stack.
    if code.has_sites() {
        effect(&mut out, Effect::Op(Op::Rsp(path.has_stack(code))));
    }
    for pc in range {
        let op = code.ops[pc];
        if labels.binary_search(&(pc as Pc)).is_ok() {
            effect(&mut out, Effect::Label);
        }
        kernel_gs ^= op == Op::SwapGs;
        let op = match op {
            Op::Jump(to) => Op::Jump(number(to)),
            Op::Unless { c, to } => Op::Unless { c, to: number(to) },
            Op::Each { of, done } => Op::Each { of, done: number(done) },
            Op::Irq(_) => {
                out.switches_irqs = true;
                if !irqs {
                    continue;
                }
                op
            }
            Op::HandleCalls if path.is_of_devices() => continue,
            op => match zone::of(op) {
                // Both tables map it, so where it looks at no page it asks nothing.
                Some(Zone::Entry) if !checks(Zone::Entry) => continue,
                Some(zone) => {
                    // Under the kernel's GSBASE a per-CPU touch asks no more than one of the stack, but for pages.
                    let sure_gs = zone != Zone::PerCpu || sure && kernel_gs;
                    if !sure_gs {
                        effect(&mut out, Effect::Op(op));
                        continue;
                    }
                    let switch = op == Op::Body(Slot::Syscall);
                    out.checks.last_mut().expect("never empty").push((zone, switch));
                    continue;
                }
                None => op,
            },
        };
        effect(&mut out, Effect::Op(op));
    }
    out
}

/// Does check `q` break a rule wherever check `p` does, and allow what `p` allows?
fn implies((q, q_switches): Check, (p, p_switches): Check) -> bool {
    let zone = match p {
        Zone::User | Zone::Kernel => p == q,
        Zone::Entry | Zone::Nmi | Zone::Danger | Zone::PerCpu => p == q || q == Zone::Kernel,
        Zone::DirectMap | Zone::Image | Zone::Recycled => p == q || q == Zone::Kernel,
        Zone::Stack => !matches!(q, Zone::Entry | Zone::User),
    };
    zone && (q_switches || !p_switches)
}

/// Does every run through `p` have its like through `q`?
fn covers(code: &Code, q: &Path, p: &Path, checks: Checks<'_>) -> bool {
    if ends_by_iret(&q.name) && !ends_by_iret(&p.name) {
        return false;
    }
    let irqs = shape(code, p, true, checks).switches_irqs;
    let (p, q) = (shape(code, p, irqs, checks), shape(code, q, irqs, checks));
    let implied =
        |(ps, qs): (&Vec<Check>, &Vec<Check>)| ps.iter().all(|p| qs.iter().any(|q| implies(*q, *p)));
    p.effects == q.effects && p.checks.iter().zip(&q.checks).all(implied)
}

/// What a device interrupt that comes by itself is amid the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// It does not come.
    Never,
    /// It changes nothing: touches of these zones, which may as well all happen at once.
    Checks(Vec<Zone>),
    /// The program at this op.
    Runs(Pc),
}

impl Device {
    /// That of the program of that name, on a CPU of that role.
    pub fn new(code: &Code, role: &Role, name: &str) -> Device {
        let Some(id) = code.program(name).filter(|_| role.takes_devices()) else { return Device::Never };
        let ops = code.ops_of(name);
        if ops.iter().all(|&op| zone::of(op).is_some() || matches!(op, Op::HandleCalls | Op::Return)) {
            return Device::Checks(ops.iter().filter_map(|&op| zone::of(op)).collect());
        }
        Device::Runs(code.start(id))
    }
}

/// Paths into the kernel from user mode that begin with SYSCALL.
const SYSCALLS: [&str; 2] = ["syscall", "syscall_compat"];

/// Paths into the kernel from user mode that end in SYSRET.
const SYSRETS: [&str; 3] = ["syscall", "syscall_compat", "sysenter_compat"];

fn ends_by_iret(path: &str) -> bool {
    !SYSRETS.contains(&path)
}
