//! A run of fewer CPUs as one of all: the others do what is needed of them, and nothing else.
//!
//! Where one CPU stands for others ([`star`](super::star)), a violation found with one of each kind is one with all. The run is
//! followed move by move in the model with all CPUs. Before a sender leaves a loop it goes through the passes for the
//! others; while it waits for them they take their calls. Nothing rests on that being the right thing to do: every move
//! was enabled, and the last one breaks the rule, or there is no run and the search is made with all CPUs.

use super::layout::{MAX_WORDS, Target};
use super::machine::{Abs, Model};
use super::model::{Action, Move};
use crate::kernel::program::Op;
use crate::kernel::step::Violation;

/// Moves of others in a row at most.
const HELP: usize = 4_000;

/// The moves of `all` that do what `path` does in `few`, whose CPUs are `kept` of its, and then break `v` if one is given.
/// Both models take every op as a move of its own.
pub fn embed(
    few: &Model,
    all: &Model,
    kept: &[usize],
    path: &[Move],
    v: Option<Violation>,
) -> Option<Vec<Move>> {
    Run { all, kept, s: all.initial(), out: Vec::new() }.follow(few, path, v)
}

/// A state: this is done once for a violation, so one width is enough for every layout.
type Words = [u64; MAX_WORDS];

/// A run in the making.
struct Run<'m> {
    all: &'m Model,
    kept: &'m [usize],
    s: Words,
    out: Vec<Move>,
}

impl Run<'_> {
    fn follow(mut self, few: &Model, path: &[Move], v: Option<Violation>) -> Option<Vec<Move>> {
        let mut at: Words = few.initial();
        for (i, &(cpu, action)) in path.iter().enumerate() {
            let to = self.kept[usize::from(cpu)];
            match action {
                Action::Step | Action::Pick(_) | Action::Pass(_) => {
                    self.reach(few, &at, usize::from(cpu), action)?;
                }
                Action::Drain => self.drain_to_others(to)?,
                _ => {}
            }
            let wanted = (to as u8, self.named(few, &at, (cpu, action)));
            if v.is_some() && i + 1 == path.len() {
                return self.breaks(wanted, v).then(|| {
                    self.out.push(wanted);
                    self.out
                });
            }
            self.take(wanted)?;
            at = few.after(&at, (cpu, action))?;
        }
        v.is_none().then_some(self.out)
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let kept = self.kept.to_vec();
        (0..self.all.layout.cpus.len()).filter(move |cpu| !kept.contains(cpu))
    }

    /// Make a move, if it can be made.
    fn take(&mut self, mv: Move) -> Option<()> {
        self.s = self.all.after(&self.s, mv)?;
        self.out.push(mv);
        Some(())
    }

    fn can(&self, mv: Move) -> bool {
        let mut found = false;
        self.all.each_successor(&self.s, &mut |m, _| {
            found |= m == mv;
            !found
        });
        found
    }

    fn breaks(&self, mv: Move, v: Option<Violation>) -> bool {
        let mut found = false;
        self.all.each_successor(&self.s, &mut |m, next| {
            found |= m == mv && next.err() == v;
            true
        });
        found
    }

    /// CPUs that a loop of this CPU can go on to, and the op itself; `None` if it stands at no loop.
    fn choices(m: &Model, s: &Words, cpu: usize) -> Option<(u16, u64)> {
        let mut at = Abs::new(m, *s);
        let level = at.top(cpu)?;
        let (pc, op) = at.next_op(cpu, level);
        let Op::Each { of, .. } = op else { return None };
        at.level = level;
        let members = u64::from(at.members(of, cpu as u16));
        Some((pc, members & !at.get(m.layout.cpus[cpu].frames[level].visited)))
    }

    /// What a move of `few` is called here: a loop with one CPU left there may have more here.
    fn named(&self, few: &Model, at: &Words, (cpu, action): Move) -> Action {
        let here = |cpu: usize| Self::choices(self.all, &self.s, cpu).map_or(0, |(_, c)| c.count_ones());
        let many = here(self.kept[usize::from(cpu)]) > 1;
        match (action, Self::choices(few, at, usize::from(cpu))) {
            (Action::Pick(c), _) => Action::Pick(self.kept[usize::from(c)] as u8),
            (Action::Pass(c), _) => Action::Pass(self.kept[usize::from(c)] as u8),
            (Action::Step, Some((_, left))) if many && left != 0 => {
                Action::Pick(self.kept[left.trailing_zeros() as usize] as u8)
            }
            (other, _) => other,
        }
    }

    /// Come to where this CPU can make its step: the passes for others are behind it, and they have done their calls.
    fn reach(&mut self, few: &Model, at: &Words, cpu: usize, action: Action) -> Option<()> {
        let to = self.kept[cpu];
        if let (Action::Step, Some((_, 0))) = (action, Self::choices(few, at, cpu)) {
            while let Some((pc, left)) = Self::choices(self.all, &self.s, to).filter(|c| c.1 != 0) {
                let next = left.trailing_zeros() as u8;
                let many = left.count_ones() > 1;
                self.take((to as u8, if many { Action::Pick(next) } else { Action::Step }))?;
                let mut steps = 0;
                while Self::choices(self.all, &self.s, to).is_none_or(|(p, _)| p != pc) {
                    steps += 1;
                    if steps > HELP {
                        return None;
                    }
                    if self.take((to as u8, Action::Step)).is_none() {
                        self.help()?;
                    }
                }
            }
        }
        for _ in 0..HELP {
            if self.can((to as u8, self.named(few, at, (cpu as u8, action)))) {
                return Some(());
            }
            if self.drain_to_others(to).is_none() || self.help().is_none() {
                return Some(()); // taking it says so
            }
        }
        None
    }

    /// Make visible what is stored for the others in front of this CPU's oldest other store.
    fn drain_to_others(&mut self, cpu: usize) -> Option<()> {
        let is_others = |run: &Self| {
            let at = Abs::new(run.all, run.s);
            let pending = at.get(run.all.layout.cpus[cpu].pending) > 0;
            pending
                && matches!(at.oldest(cpu).0, Target::Field { field, owner }
                    if run.all.code.vars[usize::from(run.all.code.fields[usize::from(field)].var)].per_cpu
                        && run.others().any(|o| o == usize::from(owner)))
        };
        while is_others(self) {
            self.take((cpu as u8, Action::Drain))?;
        }
        Some(())
    }

    /// One of the others goes on by itself.
    fn help(&mut self) -> Option<()> {
        for cpu in self.others() {
            // At rest it stays there unless it is called.
            let busy = Abs::new(self.all, self.s).top(cpu).is_some();
            let own = [Action::Irq, Action::Step, Action::Take(true), Action::Drain];
            for action in own.into_iter().filter(|&a| busy || matches!(a, Action::Irq | Action::Drain)) {
                if self.take((cpu as u8, action)).is_some() {
                    return Some(());
                }
            }
        }
        None
    }
}
