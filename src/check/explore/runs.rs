//! Runs: how a state was reached and what ends a search there, every op a move of its own.
//!
//! What is done once for a run, not for every state, has states of [`MAX_WORDS`]: words that a layout does not use stay 0.

use super::{Core, Cut, End, Stop};
use crate::check::layout::MAX_WORDS;
use crate::check::machine::Model;
use crate::check::model::{Action, Move};
use crate::check::parts::Key;
use crate::kernel::step::Violation;

impl<K: Key> Core<'_, K> {
    pub(super) fn words(&self, key: K) -> Vec<u64> {
        let mut words = vec![0; self.m.layout.words];
        self.parts.decode(key, &mut words);
        words
    }

    pub(super) fn end(&self, state: usize, stop: Stop) -> End {
        match stop {
            Stop::Buffer => End::Cut(Cut::Buffer),
            Stop::Shown(v) => End::Violated(v, self.path(state)),
            Stop::Broken(mv, v) => {
                let mut path = self.path(state);
                path.extend(self.breaking(&path, mv, v));
                End::Violated(v, path)
            }
        }
    }

    /// The moves that break `v` after a path, every op one of its own: `mv`, unless CPUs were renamed on the way, and the
    /// ops fused with it.
    pub(super) fn breaking(&self, path: &[Move], mv: Move, v: Violation) -> Vec<Move> {
        let plain = Model { fuse: false, ..self.m.clone() };
        let end: [u64; MAX_WORDS] = path
            .iter()
            .fold(self.m.initial(), |s, &mv| plain.after(&s, mv).expect("the path was found by running it"));
        let (mut same, mut found) = (false, None);
        self.m.each_successor(&end, &mut |m, next| {
            if next == Err(v) {
                same |= m == mv;
                found = found.or(Some(m));
            }
            true
        });
        let mv = if same { mv } else { found.unwrap_or(mv) };
        let (mut s, mut next, mut out) = (end, mv, Vec::new());
        loop {
            out.push(next);
            match plain.after(&s, next) {
                Some(n) => s = n,
                None => return out,
            }
            next = (mv.0, Action::Step);
        }
    }

    /// How a state was reached, every op a move of its own.
    ///
    /// Under symmetry the states on the way are representatives: what is followed is a run whose states they
    /// represent.
    pub(super) fn path(&self, to: usize) -> Vec<Move> {
        let goals = self.goals(to);
        let words = self.m.layout.words;
        let plain = Model { fuse: false, ..self.m.clone() };
        let mut s: [u64; MAX_WORDS] = self.m.initial();
        let mut out = Vec::new();
        for goal in goals {
            let mut found = None;
            self.m.each_successor(&s, &mut |mv, next| {
                if let Ok(n) = next
                    && self.parts.find(&n[..words]).is_some_and(|k| self.parts.canonical(k) == goal)
                {
                    found = Some((mv, n));
                }
                found.is_none()
            });
            let (mv, end) = found.expect("a state is a successor of its parent");
            let mut next = mv;
            loop {
                s = plain.after(&s, next).expect("a fused move is made of plain ones");
                out.push(next);
                if s == end {
                    break;
                }
                next = (mv.0, Action::Step);
            }
        }
        out
    }

    /// The keys of the states through which one was found, without the first.
    fn goals(&self, to: usize) -> Vec<K> {
        let births = self.visited.births();
        let mut places = Vec::new();
        let mut at = to;
        while at != 0 {
            places.push(births.place(at));
            at = births.parent(at);
        }
        let mut key = self.first();
        let mut next = Vec::new();
        let mut follow = |place: usize| {
            next.clear();
            self.successors(key, &mut next);
            key = next[place].0;
            key
        };
        places.into_iter().rev().map(&mut follow).collect()
    }

    /// The key of the first state.
    fn first(&self) -> K {
        let s: [u64; MAX_WORDS] = self.m.initial();
        let key = self.parts.find(&s[..self.m.layout.words]).expect("the search began with it");
        self.parts.canonical(key)
    }

    /// [`Core::leads`], from the model: the keys of the states a state leads to, in the order in which their places were
    /// counted, up to a move that breaks a rule.
    pub(in crate::check) fn successors(&self, key: K, to: &mut Vec<(K, bool)>) -> bool {
        let mut s = [0; MAX_WORDS];
        self.parts.decode(key, &mut s);
        let e = self.m.each_successor(&s, &mut |mv, next| {
            let key = next.ok().and_then(|n| self.parts.find(&n[..self.m.layout.words]));
            to.extend(key.map(|k| (self.parts.canonical(k), self.m.happens(mv))));
            key.is_some()
        });
        e.busy
    }

    /// The keys of all states of a complete search in order of discovery. `None` if `go_on`, which is asked now and then,
    /// returns `false`.
    pub(in crate::check) fn order(&self, go_on: &mut dyn FnMut() -> bool) -> Option<Vec<K>> {
        let mut all = Vec::with_capacity(self.visited.count());
        all.push(self.first());
        let mut next = Vec::new();
        let mut of = None;
        for (i, (parent, place)) in self.visited.births().from(1).enumerate() {
            if i.is_multiple_of(1 << 14) && !go_on() {
                return None;
            }
            if of.replace(parent) != Some(parent) {
                next.clear();
                let key = all[parent];
                if self.leads(key, |k, happens| next.push((k, happens))).is_none() {
                    next.clear();
                    self.successors(key, &mut next);
                }
            }
            all.push(next[place].0);
        }
        Some(all)
    }
}
