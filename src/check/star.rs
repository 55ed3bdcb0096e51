//! CPUs that meet each other only through a third: one of a kind stands for any number of them.
//!
//! An isolated CPU of most policies changes nothing but what is its own (its registers, TLB and store buffer, its copies
//! of per-CPU variables, its bit of `mm_cpumask`) and looks at nothing but that and what others tell everyone. Call such
//! a CPU a *leaf* and any other a *hub*, and let hubs come to a leaf only by remote calls, broadcasts and loops over sets
//! whose bodies concern the loop's CPU alone. Then what a leaf meets is the hubs, and no hub remembers which leaf told it
//! what. Take any run of many leaves and strike out one leaf `j`: its moves, and each pass of a loop that is for `j`. What
//! is left is a run:
//!
//! - Another leaf reads and writes nothing of `j`'s.
//! - Such a pass changes nothing but `j`'s copies, registers that are dead behind it, and whether `j` is among the CPUs
//!   a remote call goes to. It looks at no page, so nothing is broken in it; and an interrupt that arrived amid it arrives
//!   just before.
//! - A remote call, a broadcast or a wait for acknowledgements is one op for all targets, and without `j` it waits for
//!   fewer. Stores to `j`'s copies are gone from the buffer, which leaves the order of the others.
//! - A CPU that a walk over `mm_cpumask` passes by (L4) may be the last that is left without `j`. Then the
//!   walk ends there, and the sender stands behind it from then on: what it did until then was for `j`.
//! - NMIs that hit `j` are left over, and none need arrive.
//!
//! - Lines of caches are a CPU's own: `j` brings in none but its own, and where somebody drops a page's lines on every CPU
//!   there are fewer to drop.
//!
//! So whatever rule breaks on a hub or on a leaf breaks without the other leaves of its kind too, and whatever is seen is
//! seen. S11: where nothing can happen and a CPU is amid a program, a hub waits for some leaf, and the hubs and this leaf
//! are stuck by themselves, or no leaf is needed. And where every state of fewer CPUs has an end, so has one of many: a hub goes on to the next leaf
//! it waits for, or whose pass it is in, with that leaf alone, as in the run of those two that ends; it comes to the end
//! of its program as its loops stand within such passes; then each leaf ends by itself.
//!
//! A pass may also end the sender's program, if the sender is the only hub and then does nothing: it has no round left, looks
//! at no tracked page, and could be interrupted at the loop as well as at rest. What `j` made it end is struck out by the
//! sender standing at its loop from then on; no leaf waits for it.
//!
//! Hence a pass of the search with one leaf of each kind is one with more. Of a violation the run is told with all CPUs
//! ([`embed`](super::embed)). The rules for ops are lists of what is allowed: an op that is not known here makes no leaf.

use super::machine::Model;
use super::scope::{CheckError, Rest, Scope};
use super::{BUFFERS, Question};
use crate::kernel::program::{Ask, At, Cond, Fence, Op, Pc, Place, Rcu, Reg, Set, Zone};
use crate::kernel::step::NO_PC;

/// A scope in which one CPU stands for each kind of leaf, if there are more; and does one stand for any number?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Star {
    /// With one leaf of each kind.
    pub scope: Scope,
    /// Which CPUs these are.
    pub kept: Vec<usize>,
    /// It has fewer CPUs than were asked about.
    pub fewer: bool,
}

/// The star that a question's CPUs make; `None` if they make none, or no leaf is among them.
pub fn star(question: &Question<'_>) -> Result<Option<Star>, CheckError> {
    let scope = &question.scope;
    let conditions = [&scope.never, &scope.exists, &scope.forall];
    let asks = conditions.iter().any(|c| c.is_some()) || scope.lists_ends;
    if asks || scope.sought.is_some() || !scope.frames.is_empty() || !scope.tops.is_empty() {
        return Ok(None);
    }
    let m = Model::new(question.code, question.features, scope, question.assume, BUFFERS[0])?;
    if m.layout.migrates {
        return Ok(None); // a hub is one CPU's program
    }
    // What is said of a pass is said of isolated CPUs; another CPU that tells nobody anything counts as a hub.
    let is_leaf = |&cpu: &usize| scope.roles[cpu].isolated && ops_of(&m, cpu).all(is_of_a_leaf);
    let leaves: Vec<usize> = (0..scope.roles.len()).filter(is_leaf).collect();
    let hubs = || (0..scope.roles.len()).filter(|cpu| !leaves.contains(cpu));
    let waits = |cpu: usize| ops_of(&m, cpu).any(|op| matches!(op, Op::Await { .. }));
    let may_end = hubs().count() == 1 && !leaves.iter().any(|&cpu| waits(cpu));
    if leaves.is_empty() || !hubs().all(|cpu| is_hub(&m, cpu, may_end)) {
        return Ok(None);
    }
    let again = |cpu: usize| leaves.iter().any(|&l| l < cpu && scope.roles[l] == scope.roles[cpu]);
    let kept: Vec<usize> =
        (0..scope.roles.len()).filter(|&cpu| !leaves.contains(&cpu) || !again(cpu)).collect();
    let roles: Vec<_> = kept.iter().map(|&cpu| scope.roles[cpu].clone()).collect();
    let fewer = roles.len() < scope.roles.len();
    Ok(Some(Star { scope: Scope { roles, ..scope.clone() }, kept, fewer }))
}

/// Every op that a CPU comes to, remote calls and NMIs included.
fn ops_of(m: &Model, cpu: usize) -> impl Iterator<Item = Op> + '_ {
    m.layout.cpus[cpu].frames.iter().flat_map(|f| &f.locations).map(|l| l.op)
}

/// Is it a set whose members do not depend on what CPUs do?
fn is_fixed(set: Set) -> bool {
    !matches!(set, Set::Targets | Set::MmCpumask)
}

/// May a leaf do this?
fn is_of_a_leaf(op: Op) -> bool {
    let own = |at: At| matches!(at, At::Me | At::Asid(_));
    match op {
        Op::Move { .. } | Op::MoveWide { .. } | Op::Alu { .. } | Op::Jump(_) => true,
        Op::Load { from: Place { at, .. }, .. } | Op::Await { at: Place { at, .. }, .. } => at != At::Cur,
        Op::Store { to: Place { at, .. }, .. } => own(at),
        Op::Rmw { at: Place { at, .. }, .. } | Op::Cas { at: Place { at, .. }, .. } => own(at),
        Op::Unless { c, .. } => match c {
            Cond::Cmp(..) | Cond::Cr3User | Cond::RegUser(_) | Cond::RangeFull | Cond::Either => true,
            // Text is told by hubs; what it has fetched is its own, and so is the handler of the INT3 that it meets, whose
            // ops are among those that are looked at.
            Cond::Text(_) => true,
            Cond::MeIn(set) => is_fixed(set),
            Cond::CurIn(_) | Cond::CurIsMe | Cond::Empty(_) => false,
        },
        Op::Fence(_) | Op::Irq(_) | Op::SwapGs | Op::ReadGs(_) | Op::SetGs(_) | Op::ReadCr3(_) => true,
        Op::Rsp(_) => true,
        Op::MovCr3 { .. } | Op::MovCr4Pge(_) | Op::Invlpg(_) | Op::Invpcid { .. } => true,
        // Its own lines, which nobody else looks at.
        Op::Wbinvd => true,
        Op::Touch(_) | Op::Body(_) | Op::OweUser | Op::OweOthers | Op::HandleCalls | Op::Return => true,
        Op::Ask { what, .. } => match what {
            Ask::NextMm | Ask::InfoMm | Ask::InfoGen | Ask::LoadedAsid | Ask::AsidFor(_) => true,
            Ask::FlushMm => false,
        },
        // LOCKed, of its own bit.
        Op::Mask { .. } => true,
        // Entries are told by hubs, and what it has loaded is its own, like what a walk of the hardware caches.
        Op::Walk { .. } => true,
        // Of its own section; who waits for sections does so for all CPUs in one op, like a wait for acknowledgements.
        Op::Rcu(Rcu::Lock | Rcu::Unlock | Rcu::Watch | Rcu::Unwatch) => true,
        Op::Rcu(Rcu::Start | Rcu::Wait) | Op::CallLater(_) => false,
        // What others read, or what comes to them.
        Op::Loop(_) | Op::Each { .. } | Op::Clear | Op::Put | Op::AwaitAcks | Op::Ipi { .. } | Op::Rar(_) => {
            false
        }
        Op::Invlpgb(_) | Op::InvlpgbOf { .. } | Op::InvlpgbAll | Op::Tlbsync | Op::FlushInfo { .. } => false,
        Op::Pte { .. } | Op::FreeTable(_) | Op::FreeMm(_) | Op::Request(_) | Op::Promise(_) => false,
        Op::Clflush(_) => false,
        // A leaf is one CPU, and a task that comes to it is somebody else's.
        Op::Migrate => false,
        Op::LoadPage { .. } | Op::StorePage { .. } => false,
    }
}

/// May this be in the pass of a loop for one CPU?
fn is_of_a_pass(op: Op) -> bool {
    match op {
        Op::Move { .. } | Op::MoveWide { .. } | Op::Alu { .. } | Op::Jump(_) | Op::Put => true,
        Op::Load { from: Place { at, .. }, .. } => !matches!(at, At::Asid(_)),
        Op::Store { to: Place { at, .. }, .. } => at == At::Cur,
        Op::Rmw { at: Place { at, .. }, .. } | Op::Cas { at: Place { at, .. }, .. } => at == At::Cur,
        Op::Await { at: Place { at, .. }, .. } => at == At::Cur,
        Op::Unless { c, .. } => match c {
            Cond::Cmp(..) | Cond::RangeFull | Cond::CurIsMe | Cond::Either => true,
            Cond::MeIn(set) => is_fixed(set),
            Cond::CurIn(set) => set != Set::Targets,
            Cond::Empty(_) | Cond::Cr3User | Cond::RegUser(_) | Cond::Text(_) => false,
        },
        Op::Fence(Fence::Full | Fence::Load | Fence::Store) | Op::Return => true,
        _ => false,
    }
}

/// Does it look at the loop's CPU?
fn is_about_the_loop(op: Op) -> bool {
    match op {
        Op::Load { from: p, .. } | Op::Store { to: p, .. } => p.at == At::Cur,
        Op::Rmw { at: p, .. } | Op::Cas { at: p, .. } | Op::Await { at: p, .. } => p.at == At::Cur,
        Op::Unless { c: Cond::CurIn(_) | Cond::CurIsMe, .. } | Op::Put => true,
        _ => false,
    }
}

/// The register that an op of a pass writes.
fn written(op: Op) -> Option<Reg> {
    match op {
        Op::Move { to, .. } | Op::MoveWide { to, .. } | Op::Alu { to, .. } => Some(to),
        Op::Load { to, .. } | Op::Rmw { to, .. } | Op::Cas { to, .. } => Some(to),
        _ => None,
    }
}

/// The ops of the pass of the loop at `each`, which goes on to `done`; `None` if it is left in another way, or does
/// what a pass may not.
fn pass(m: &Model, each: Pc, done: Pc) -> Option<Vec<Pc>> {
    let (mut seen, mut todo) = (Vec::new(), vec![each + 1]);
    while let Some(pc) = todo.pop() {
        if pc == each || seen.contains(&pc) {
            continue;
        }
        let op = m.code.ops[usize::from(pc)];
        if pc == done || !is_of_a_pass(op) {
            return None;
        }
        seen.push(pc);
        match op {
            Op::Jump(to) => todo.push(to),
            Op::Unless { to, .. } => todo.extend([to, pc + 1]),
            Op::Return => {}
            _ => todo.push(pc + 1),
        }
    }
    Some(seen)
}

/// Does a CPU that ends its first program at this loop do nothing more, and can it be interrupted there as at rest?
fn is_last(m: &Model, cpu: usize, each: Pc) -> bool {
    let role = m.role(cpu);
    let idle = role.left == 0 && role.rest == Rest::Kernel && !role.irqs_off && m.layout.asids == 1;
    let looks = m.layout.pages.iter().any(|p| Model::zone_may(m.assume, Zone::Kernel, p.kind));
    // At rest an interrupt finds a stack (S13).
    let stacks = ops_of(m, cpu).any(|op| matches!(op, Op::Rsp(_)));
    let Some(first) = m.code.program(&role.first).filter(|_| idle && !looks && !stacks) else { return false };
    // Every op of the program with IF as it may be there.
    let (mut seen, mut todo) = (Vec::new(), vec![(m.code.start(first), true)]);
    while let Some((pc, open)) = todo.pop() {
        if seen.contains(&(pc, open)) {
            continue;
        }
        seen.push((pc, open));
        match m.code.ops[usize::from(pc)] {
            Op::Return => {}
            Op::Jump(to) => todo.push((to, open)),
            Op::Unless { to, .. } | Op::Each { done: to, .. } => todo.extend([(to, open), (pc + 1, open)]),
            Op::Irq(on) => todo.push((pc + 1, on)),
            _ => todo.push((pc + 1, open)),
        }
    }
    seen.contains(&(each, true)) && !seen.contains(&(each, false))
}

/// Does this CPU come to leaves only as hubs may?
fn is_hub(m: &Model, cpu: usize, may_end: bool) -> bool {
    let mut passes: Vec<Pc> = Vec::new();
    let locations = || m.layout.cpus[cpu].frames.iter().flat_map(|f| &f.locations);
    for at in locations() {
        let Op::Each { done, .. } = at.op else { continue };
        let Some(body) = pass(m, at.pc, done) else { return false };
        let ends = body.iter().any(|&pc| m.code.ops[usize::from(pc)] == Op::Return);
        if ends && !(may_end && at.ret == NO_PC && is_last(m, cpu, at.pc)) {
            return false;
        }
        // What one pass leaves in a register, the next one or what follows would see.
        let live = |r: Reg| at.regs[..usize::from(at.live)].iter().any(|l| l.0 == r.0);
        if body.iter().filter_map(|&pc| written(m.code.ops[usize::from(pc)])).any(live) {
            return false;
        }
        passes.extend(body);
    }
    locations().all(|l| {
        let inside = passes.contains(&l.pc);
        let told = matches!(l.op, Op::Unless { c: Cond::Empty(_) | Cond::MeIn(Set::Targets), .. });
        let data = matches!(l.op, Op::LoadPage { .. } | Op::StorePage { .. });
        // A loop that no set ends.
        let spins = !inside && m.is_in_loop(l.pc);
        !told && !data && !spins && (inside || !is_about_the_loop(l.op))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::litmus::Litmus;
    use crate::check::{Assume, Role, tests};
    use crate::kernel::program::Features;

    fn question(code: &crate::kernel::program::Code, cpus: usize) -> Question<'_> {
        Question {
            code,
            features: Features::PTI_PCID,
            scope: Scope::standard(cpus, 0),
            assume: Assume::default(),
            memory: 1 << 28,
            plain: false,
            trace: false,
            threads: 1,
        }
    }

    /// Roles left of a question of three CPUs whose purge and whose system call have these lines.
    fn left(purge: &str, syscall: &str) -> Option<usize> {
        let indented = |lines: &str| lines.lines().fold(String::new(), |all, l| all + "  " + l + "\n");
        let text = format!(
            "litmus star\n  verdict \"verified\"\n  based on ipi\n  var f : 1 bit, per cpu, starts 1, user mapped\n  \
             var x : 1 bit, shared, starts 0, user mapped\n  cpus \"purge; isolated 1; isolated 1\"\n\npurge\n{}\n\
             syscall\n  mov cr3, kernel noflush\n{}  mov cr3, user noflush\n",
            indented(purge),
            indented(syscall)
        );
        let test = Litmus::new("star", &text).unwrap();
        let asked = Question { scope: test.scope.clone(), assume: test.assume, ..question(&test.code, 3) };
        star(&asked).unwrap().map(|s| s.scope.roles.len())
    }

    #[test]
    fn what_may_stand_in_the_pass_of_a_loop() {
        use crate::kernel::program::{Cmp, Index, Rmw, Val};
        let (reg, v) = (Reg(0), Val::Imm(1));
        let of = |at| Place { field: 0, at };
        for (at, load, other) in [
            (At::Cur, true, true),
            (At::Me, true, false),
            (At::Shared, true, false),
            (At::Mm(Index::R0), true, false),
            (At::Asid(Index::R0), false, false),
        ] {
            assert_eq!(is_of_a_pass(Op::Load { to: reg, from: of(at) }), load, "{at:?}");
            for op in [
                Op::Store { to: of(at), v },
                Op::Rmw { f: Rmw::Or, to: reg, at: of(at), v },
                Op::Cas { to: reg, at: of(at), old: v, new: v },
                Op::Await { at: of(at), f: Cmp::Eq, v },
            ] {
                assert_eq!(is_of_a_pass(op), other, "{op:?}");
                assert_eq!(is_about_the_loop(op), at == At::Cur, "{op:?}");
            }
            assert_eq!(is_about_the_loop(Op::Load { to: reg, from: of(at) }), at == At::Cur, "{at:?}");
        }
        let unless = |c| Op::Unless { c, to: 0 };
        for (op, may, about) in [
            (Op::Move { to: reg, v }, true, false),
            (Op::Jump(0), true, false),
            (Op::Put, true, true),
            (Op::Clear, false, false),
            (Op::Return, true, false),
            (Op::AwaitAcks, false, false),
            (Op::Fence(Fence::Full), true, false),
            (Op::Fence(Fence::Serialize), false, false),
            (unless(Cond::RangeFull), true, false),
            (unless(Cond::CurIsMe), true, true),
            (unless(Cond::Either), true, false),
            (unless(Cond::CurIn(Set::Housekeeping)), true, true),
            (unless(Cond::CurIn(Set::Targets)), false, true),
            (unless(Cond::Empty(Set::Targets)), false, false),
            (unless(Cond::Cr3User), false, false),
            (unless(Cond::Text(0)), false, false),
        ] {
            assert_eq!((is_of_a_pass(op), is_about_the_loop(op)), (may, about), "{op:?}");
        }
    }

    const SEND: &str = "pte range = none locked\nrequest range\neach cpu in others\n  if f[cpu]\n    put cpu into targets\nipi \
                        targets, flush_handler\nawait acks\npromise range";

    #[test]
    fn a_cpu_that_meets_the_sender_alone_stands_for_others() {
        assert_eq!(left(SEND, "f = 1\ntouch kernel\nf = 0"), Some(2));
        assert_eq!(left(SEND, "let r = x\nif r == 1\n  touch kernel"), Some(2));
        for name in ["coalesce-v7", "text-defer-v7", "ct-late", "fancy-state"] {
            let code = tests::policy(name);
            let found = star(&question(&code, 4)).unwrap().unwrap();
            assert_eq!((found.scope.roles.len(), found.fewer), (2, true), "{name}");
            assert!(!star(&question(&code, 2)).unwrap().unwrap().fewer, "{name}");
        }
        // It ends at the first note that is left, and has nothing else to do.
        let file = crate::kernel::policy::with_question(
            &crate::kernel::policy::builtin("latr").unwrap(),
            "flush_mm",
        );
        let wanted = ["flush_mm", "run_process"];
        let code = crate::kernel::policy::load_with(&file, &wanted, Features::PTI_PCID).unwrap();
        let mut asked = question(&code, 3);
        asked.scope.roles = vec![
            Role::initiator("flush_mm", 1),
            Role::isolated_in("run_process", 1),
            Role::isolated_in("run_process", 1),
        ];
        assert!(star(&asked).unwrap().unwrap().fewer);
        for role in &mut asked.scope.roles {
            role.isolated = false; // nobody is, and of isolated CPUs it is said
        }
        assert_eq!(star(&asked).unwrap(), None);
        for role in &mut asked.scope.roles[1..] {
            role.isolated = true;
        }
        asked.scope.roles[0].left = 1; // another round
        assert_eq!(star(&asked).unwrap(), None);
    }

    #[test]
    fn a_search_with_all_cpus_has_its_exact_count() {
        let code = tests::policy("coalesce-v7-fixed");
        let assume = Assume { danger: crate::check::Touches::Recycled, ..Assume::default() };
        let asked = Question { assume, ..question(&code, 3) };
        let states = |a: crate::check::Answer| (a.end, a.counts.states);
        let all = states(crate::check::search(&asked, &mut |_| true).unwrap());
        assert_eq!(all, (crate::check::End::Complete, 57_212), "symmetry is at work");
        assert_eq!(
            states(crate::check::check(&asked, &mut |_| true).unwrap()),
            (crate::check::End::Complete, 1_173)
        );
    }

    #[test]
    fn whoever_tells_others_is_no_leaf() {
        for syscall in [
            "x = 1",
            "xchg x, 1",
            "each cpu in others\n  let r = f[cpu]",
            "pte range = none",
            "invlpgb range\ntlbsync",
        ] {
            assert_eq!(left(SEND, syscall), None, "{syscall}");
        }
    }

    #[test]
    fn a_sender_that_remembers_a_cpu_is_no_hub() {
        for purge in [
            "let r = 0\neach cpu in others\n  let r = f[cpu]\nif r == 1\n  pte range = none",
            "let r = 0\neach cpu in others\n  if r == 0\n    put cpu into targets\n  let r = 1\nipi targets, flush_handler\nawait acks",
            "each cpu in others\n  x = 1",
            "each cpu in others\n  touch kernel",
            "each cpu in others\n  if f[cpu]\n    return\npte range = none",
            "each cpu in others\n  serialize",
            "each cpu in others\n  if f[cpu]\n    break",
            "each cpu in others\n  put cpu into targets\nif targets is empty\n  pte range = none",
            "loop\n  let r = x\n  let old = cas x, r, 1\n  if old == r\n    break",
        ] {
            assert_eq!(left(purge, "touch kernel"), None, "{purge}");
        }
    }
}
