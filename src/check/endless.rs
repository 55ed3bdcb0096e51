//! States from which no run ends (SEMANTICS S11): a CPU goes round a loop, and nothing that happens by itself lets
//! it out.
//!
//! A loop over a set ends, and a wait that nothing ends is a deadlock: only `loop` and `while` can spin. Invariant:
//! what hardware may do but need not (fills, evictions, NMIs) and entries that nothing says ever come help nobody.

use std::collections::{HashMap, HashSet};

use super::explore::Core;
use super::machine::Model;
use super::model::{Action, Move};
use super::parts::Key;
use super::scope::UNBOUNDED;
use super::with_words;
use crate::kernel::program::{Op, Pc};

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
    fn happens(&self, (cpu, action): Move) -> bool {
        match action {
            Action::Step | Action::Pick(_) | Action::Drain | Action::Irq | Action::Switch => true,
            Action::Enter => self.role(usize::from(cpu)).left != UNBOUNDED,
            Action::Use | Action::Nmi | Action::Mce => false,
            Action::Fill(_) | Action::FillUpper(_) | Action::Drop(_) => false,
        }
    }

    /// Does no run from this state end with every CPU at rest?
    pub fn is_endless<const W: usize>(&self, s: &[u64; W]) -> bool {
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
    with_words!(search.m, W => ends_in::<K, W>(search, limit, go_on))
}

fn ends_in<K: Key, const W: usize>(
    search: &Core<'_, K>,
    limit: usize,
    go_on: &mut dyn FnMut() -> bool,
) -> Ends {
    let (m, n) = (search.m, search.visited.count());
    let number: HashMap<u128, u32> =
        search.visited.from(0).zip(0..).map(|(key, i)| (key.into(), i)).collect();
    let mut ends = vec![false; n];
    let (mut next, mut upto) = (Vec::new(), Vec::with_capacity(n));
    for ((i, end), key) in ends.iter_mut().enumerate().zip(search.visited.from(0)) {
        let held = (number.capacity() + n + next.len()) * size_of::<(u128, u32)>();
        if i.is_multiple_of(SLICE) && held > limit {
            return Ends::Memory;
        }
        if i.is_multiple_of(SLICE) && !go_on() {
            return Ends::Stopped;
        }
        let mut s = [0; W];
        search.parts.decode(key, &mut s);
        let e = m.each_successor(&s, &mut |mv, to| {
            if let Ok(to) = to
                && m.happens(mv)
                && let Some(key) = search.parts.find(&to[..m.layout.words])
            {
                next.push(number[&search.parts.canonical(key).into()]);
            }
            true
        });
        *end = !e.busy;
        upto.push(next.len());
    }
    let next = |i: usize| &next[if i == 0 { 0 } else { upto[i - 1] }..upto[i]];
    // Most successors come later in the order of discovery.
    let mut changed = true;
    while changed {
        changed = false;
        for i in (0..n).rev() {
            if !ends[i] && next(i).iter().any(|&j| ends[j as usize]) {
                ends[i] = true;
                changed = true;
            }
        }
    }
    first_on_cycle(&next, &ends).map_or(Ends::All, Ends::Not)
}

/// The first state on a cycle, of those that are not left `out` (Tarjan's strongly connected components; SIAM J.
/// Comput. 1(2), 1972). Successors of such a state are none that are left out.
fn first_on_cycle<'a>(next: &impl Fn(usize) -> &'a [u32], out: &[bool]) -> Option<usize> {
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
    first
}
