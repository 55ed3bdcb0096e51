//! States from which no run ends (SEMANTICS S11): a CPU goes round a loop, and nothing that happens by itself lets
//! it out.
//!
//! A loop over a set ends, and a wait that nothing ends is a deadlock: only `loop` and `while` can spin. Invariant:
//! what hardware may do but need not (fills, evictions, NMIs) and entries that nothing says ever come help nobody.

use std::collections::HashSet;

use super::explore::Core;
use super::layout::MAX_WORDS;
use super::machine::Model;
use super::model::{Action, Move};
use super::parts::Key;
use super::scope::UNBOUNDED;
use super::visited::Numbers;
use crate::kernel::program::{Op, Pc};
use crate::room::room;

/// What came of a search's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Each has an end.
    All,
    /// Not all: the first of those without one that can be come back to.
    Not(usize),
    /// The limit of memory was met.
    Memory,
    /// The caller gave up.
    Stopped,
}

/// States between two looks at `go_on`.
const SLICE: usize = 1 << 14;

impl Model {
    /// The loops of this scope's programs that no set ends: first and last op.
    fn loops(&self) -> impl Iterator<Item = (Pc, Pc)> {
        let back = |pc: Pc, to: Pc| to <= pc && !matches!(self.code.ops[usize::from(to)], Op::Each { .. });
        let all = self.layout.cpus.iter().flat_map(|c| &c.frames).flat_map(|f| &f.locations);
        all.filter_map(move |l| match l.op {
            Op::Jump(to) | Op::Unless { to, .. } if back(l.pc, to) => Some((to, l.pc)),
            _ => None,
        })
    }

    /// Can a program of this scope go round for ever?
    pub fn spins(&self) -> bool {
        self.loops().next().is_some()
    }

    /// Is this op in a loop that no set ends?
    pub fn is_in_loop(&self, pc: Pc) -> bool {
        self.loops().any(|(first, last)| (first..=last).contains(&pc))
    }

    /// Does this move happen some day, if nothing else does?
    pub fn happens(&self, (cpu, action): Move) -> bool {
        match action {
            Action::Step
            | Action::Pick(_)
            | Action::Take(_)
            | Action::Drain
            | Action::Irq
            | Action::Later
            | Action::Switch => true,
            Action::Enter | Action::EnterBy(_) => self.role(usize::from(cpu)).left != UNBOUNDED,
            // The walk goes on without it, too.
            Action::Pass(_) => false,
            Action::Use | Action::Device | Action::Nmi | Action::Mce => false,
            Action::Fill(_) | Action::FillUpper(_) | Action::Drop(_) => false,
            Action::Line(_) | Action::WriteBack(_) => false,
        }
    }

    /// Does no run from this state end with every CPU at rest?
    pub fn is_endless(&self, s: &[u64; MAX_WORDS]) -> bool {
        let mut seen = HashSet::from([*s]);
        let mut open = vec![*s];
        while let Some(s) = open.pop() {
            let e = self.each_successor(&s, &mut |mv, next| {
                if let Ok(next) = next
                    && self.happens(mv)
                    && seen.insert(next)
                {
                    open.push(next);
                }
                true
            });
            if !e.busy {
                return false;
            }
        }
        true
    }
}

/// Of a complete search: is there a state without an end? `go_on` may stop the question by returning `false`.
pub fn ends<K: Key>(search: &Core<'_, K>, limit: usize, go_on: &mut dyn FnMut() -> bool) -> Ends {
    let n = search.visited.count();
    let fixed = Numbers::<K>::bytes(n) + n * (size_of::<K>() + size_of::<bool>() + size_of::<usize>());
    if n > u32::MAX as usize || fixed > limit || room(2 * fixed).is_err() {
        return Ends::Memory;
    }
    let Some(order) = search.order(go_on) else { return Ends::Stopped };
    let Some(number) = Numbers::new(&order, go_on) else { return Ends::Stopped };
    let mut ends = Vec::with_capacity(n);
    let (mut to, mut next, mut upto) = (Vec::new(), Vec::new(), Vec::with_capacity(n));
    let mut all = Vec::new();
    for (i, &key) in order.iter().enumerate() {
        if i.is_multiple_of(SLICE) {
            number.of_all(&to, &mut next);
            to.clear();
            let more = next.len() * size_of::<u32>();
            if fixed + more > limit || room((1 << 20) + 2 * more).is_err() {
                return Ends::Memory;
            }
            if !go_on() {
                return Ends::Stopped;
            }
        }
        all.clear();
        let busy = search.leads(key, |k, happens| all.push((k, happens))).unwrap_or_else(|| {
            all.clear();
            search.successors(key, &mut all)
        });
        to.extend(all.iter().filter(|&&(_, happens)| happens).map(|&(k, _)| k));
        ends.push(!busy);
        upto.push(next.len() + to.len());
    }
    number.of_all(&to, &mut next);
    let next = |i: usize| &next[if i == 0 { 0 } else { upto[i - 1] }..upto[i]];
    // Most successors come later in the order of discovery.
    let mut changed = true;
    while changed {
        changed = false;
        for i in (0..n).rev() {
            if i.is_multiple_of(SLICE) && !go_on() {
                return Ends::Stopped;
            }
            if !ends[i] && next(i).iter().any(|&j| ends[j as usize]) {
                ends[i] = true;
                changed = true;
            }
        }
    }
    first_on_cycle(&next, &ends, go_on)
}

/// The first state on a cycle, of those that are not left `out` (Tarjan's strongly connected components; SIAM J.
/// Comput. 1(2), 1972). Successors of such a state are none that are left out.
fn first_on_cycle<'a>(
    next: &impl Fn(usize) -> &'a [u32],
    out: &[bool],
    go_on: &mut dyn FnMut() -> bool,
) -> Ends {
    const NEW: u32 = u32::MAX;
    let mut number = vec![NEW; out.len()];
    let mut low = vec![0; out.len()];
    let mut done = vec![false; out.len()];
    let (mut held, mut open, mut count) = (Vec::new(), Vec::new(), 0);
    let mut first: Option<usize> = None;
    for root in (0..out.len()).filter(|&i| !out[i]) {
        if number[root] == NEW {
            open.push((root, 0));
        }
        while let Some((i, at)) = open.pop() {
            if at == 0 {
                if (count as usize).is_multiple_of(SLICE) && !go_on() {
                    return Ends::Stopped;
                }
                (number[i], low[i]) = (count, count);
                count += 1;
                held.push(i);
            }
            if let Some(&j) = next(i).get(at) {
                open.push((i, at + 1));
                let j = j as usize;
                if number[j] == NEW {
                    open.push((j, 0));
                } else if !done[j] {
                    low[i] = low[i].min(number[j]);
                }
                continue;
            }
            if low[i] == number[i] {
                let from = held.iter().rposition(|&j| j == i).expect("it is held until here");
                let component = held.split_off(from);
                if component.len() > 1 || next(i).contains(&(i as u32)) {
                    first = first.into_iter().chain(component.iter().copied()).min();
                }
                for j in component {
                    done[j] = true;
                }
            }
            if let Some(&(caller, _)) = open.last() {
                low[caller] = low[caller].min(low[i]);
            }
        }
    }
    first.map_or(Ends::All, Ends::Not)
}

#[cfg(test)]
mod tests {
    use super::super::explore::{End, Pause, Search};
    use super::super::scope::{Assume, Scope};
    use super::super::tests::{FEATURES, policy};
    use super::*;

    #[test]
    fn what_happens_by_itself_is_the_same_in_answers_and_in_the_model() {
        for (name, cpus, nmis) in [("pending-bit", 2, 1), ("fancy-state", 3, 0), ("coalesce-v7-fixed", 3, 0)]
        {
            let model =
                Model::new(&policy(name), FEATURES, &Scope::standard(cpus, nmis), Assume::default(), 2);
            let model = Model { fuse: true, ..model.unwrap() };
            let mut search: Search<'_, u128> = Search::new(&model, 1 << 30, true, 1);
            assert!(matches!(search.run(&mut |_| true), Pause::Done(End::Complete)), "{name}");
            let core = search.core();
            let mut kept = 0;
            let order = core.order(&mut || true).unwrap();
            for &key in &order {
                let (mut known, mut run) = (Vec::new(), Vec::new());
                let busy = core.successors(key, &mut run);
                if let Some(b) = core.leads(key, |k, happens| known.push((k, happens))) {
                    kept += 1;
                    assert_eq!((b, known), (busy, run), "{name}");
                }
            }
            assert!(kept * 10 > core.visited.count() * 8, "{name}: {kept} of {}", core.visited.count());
        }
    }
}
