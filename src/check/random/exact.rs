//! The search in blocks, shards and numbered parts against one that takes a state after the other and keeps each whole: the
//! same states in the same order, with the same counts, ends and ways to get there. Symmetry against what it says: CPUs
//! that change places change the places of what can happen, and nothing else.

use std::collections::{BTreeSet, HashSet};

use super::{mixed, patching, types, waiting, walking, words};
use crate::check::explore::{Counts, Cut, End, Pause, Search};
use crate::check::layout::MAX_WORDS;
use crate::check::litmus::Litmus;
use crate::check::machine::{Model, Seen};
use crate::check::model::Action;
use crate::check::parts::Key;
use crate::check::reduce::{Class, Symmetry};
use crate::check::schedule;
use crate::kernel::step::Violation;

/// What the plain search found.
struct Taken<const W: usize> {
    states: Vec<[u64; W]>,
    level: Vec<u32>,
    counts: Counts,
    ends: BTreeSet<Vec<u64>>,
    wrong_gs: Option<usize>,
    /// The state at which it ended early, and how.
    stop: Option<(usize, Stop)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Full,
    Breaks(Violation),
    Shows(Violation),
}

/// Breadth first. `same` names the state that stands for this one. Nothing if there are more than `most`.
fn take<const W: usize>(m: &Model, most: usize, same: impl Fn([u64; W]) -> [u64; W]) -> Option<Taken<W>> {
    let first = same(m.initial::<W>());
    let mut known = HashSet::from([first]);
    let mut t = Taken {
        states: vec![first],
        level: vec![0],
        counts: Counts::default(),
        ends: BTreeSet::new(),
        wrong_gs: None,
        stop: None,
    };
    let mut at = 0;
    while at < t.states.len() && t.stop.is_none() {
        let s = t.states[at];
        t.counts.depth = t.level[at];
        let (mut next, mut broken) = (Vec::new(), None);
        let e = m.each_successor(&s, &mut |_, n| {
            t.counts.transitions += 1;
            match n {
                Ok(n) => next.push(same(n)),
                Err(v) => broken = Some(v),
            }
            broken.is_none()
        });
        for n in next {
            if known.insert(n) {
                t.states.push(n);
                t.level.push(t.level[at] + 1);
            }
        }
        t.counts.seen |= e.seen;
        if e.seen & Seen::WRONG_GS != 0 {
            t.wrong_gs = t.wrong_gs.or(Some(at));
        }
        let idle = broken.is_none() && !e.busy && !e.progress;
        if idle {
            t.counts.seen |= Seen::ENDED;
            if m.scope.lists_ends {
                t.ends.insert(m.scope.observed.iter().map(|q| q.value(m, &s).unwrap_or_default()).collect());
            }
        }
        let dead = broken.is_none() && e.busy && !e.progress;
        let stop = if e.seen & Seen::FULL != 0 && !m.deepest {
            Some(Stop::Full)
        } else if m.shows_never(&s) {
            Some(Stop::Shows(Violation::Invariant))
        } else if let Some(v) = broken {
            Some(Stop::Breaks(v))
        } else {
            m.asked(&s, &e).or(dead.then_some(Violation::Deadlock)).map(Stop::Shows)
        };
        t.stop = stop.map(|stop| (at, stop));
        at += 1;
        if t.states.len() > most {
            return None;
        }
    }
    t.counts.states = t.states.len() as u64;
    Some(t)
}

/// The end that the plain search comes to, but for the run that is told.
fn end_of<const W: usize>(t: &Taken<W>) -> End {
    match t.stop {
        Some((_, Stop::Full)) => End::Cut(Cut::Buffer),
        Some((_, Stop::Breaks(v) | Stop::Shows(v))) => End::Violated(v, Vec::new()),
        None if t.counts.seen & Seen::OVERFLOW != 0 => End::Cut(Cut::Overflow),
        None if t.counts.seen & Seen::FULL != 0 => End::Cut(Cut::Buffer),
        None => End::Complete,
    }
}

fn agrees<const W: usize, K: Key>(m: &Model, t: &Taken<W>, search: &Search<'_, K>, end: &End, of: &str) {
    let told = match end {
        End::Violated(v, path) => {
            let plain = Model { fuse: false, ..m.clone() };
            assert_eq!(schedule::replay(&plain, path).unwrap().violation, Some(*v), "{of}");
            let (at, stop) = t.stop.unwrap();
            let breaks = u32::from(matches!(stop, Stop::Breaks(_)));
            assert!(m.fuse || path.len() as u32 == t.level[at] + breaks, "{of}: {}", path.len());
            End::Violated(*v, Vec::new())
        }
        end => end.clone(),
    };
    assert_eq!(told, end_of(t), "{of}");
    assert_eq!(search.counts(), t.counts, "{of}");
    assert_eq!(search.ends(), t.ends.iter().cloned().collect::<Vec<_>>(), "{of}");
    assert_eq!(search.first_wrong_gs(), t.wrong_gs, "{of}");
    if *end != End::Complete {
        return;
    }
    let core = search.core();
    let order = core.order(&mut || true).unwrap();
    let mut whole = [0; W];
    for (key, state) in order.into_iter().zip(&t.states) {
        core.parts.decode(key, &mut whole);
        assert_eq!(whole, *state, "{of}: states in the order of discovery");
    }
    drop(core);
    let plain = Model { fuse: false, ..m.clone() };
    for at in (0..t.states.len()).step_by(t.states.len() / 12 + 1) {
        let path = search.path(at);
        let replay = schedule::replay(&plain, &path).unwrap();
        let (end, words) = (replay.states.last().unwrap(), m.layout.words);
        assert_eq!(end[..words], t.states[at][..words], "{of}: the way to state {at}");
        assert!(m.fuse || path.len() as u32 == t.level[at], "{of}: the way to state {at} is a shortest");
    }
}

/// Both searches of a model; how large it is, or nothing if too large.
fn one(m: &Model, threads: usize, of: &str) -> Option<u64> {
    with_words!(m, W => {
        let t = take::<W>(m, 3_000, |s| s)?;
        let mut narrow: Search<'_, u64> = Search::new(m, 1 << 28, false, threads);
        match narrow.run(&mut |_| true) {
            Pause::Done(end) => agrees(m, &t, &narrow, &end, of),
            Pause::Narrow => {
                let mut wide: Search<'_, u128> = narrow.with_keys();
                let Pause::Done(end) = wide.run(&mut |_| true) else { panic!("{of}: 128 bits are enough") };
                agrees(m, &t, &wide, &end, of);
            }
        }
        Some(t.counts.states)
    })
}

type Make = fn(u64) -> String;
const MAKE: [(&str, Make); 8] = [
    ("mixed", mixed),
    ("types", types),
    ("walking", walking),
    ("waiting", waiting),
    ("patching", patching),
    ("large", words::large),
    ("migrating", words::migrating),
    ("sited", words::sited),
];

/// Models of random texts, that list their ends if they ask about any.
fn models(seeds: std::ops::Range<u64>, mut each: impl FnMut(Model, u64, &str)) {
    for (name, make) in MAKE {
        for seed in seeds.clone() {
            let text = make(seed);
            let Ok(mut test) = Litmus::new("random", &text) else { continue };
            test.scope.lists_ends = !test.scope.observed.is_empty();
            let depth = [2, 3, 6][(seed % 3) as usize];
            if let Ok(m) = Model::new(&test.code, test.features, &test.scope, test.assume, depth) {
                each(m, seed, &format!("{name} {seed}\n{text}"));
            }
        }
    }
}

#[test]
fn a_search_finds_what_taking_one_state_after_the_other_finds() {
    let (mut compared, mut large) = (0, 0);
    models(0..160, |m, seed, of| {
        for fuse in [false, true] {
            let m = Model { fuse: fuse && !m.layout.migrates, deepest: seed % 5 == 0, ..m.clone() };
            let size = one(&m, 1 + (seed % 2) as usize, of);
            compared += u64::from(size.is_some());
            large += u64::from(size.is_some_and(|n| n > 300));
        }
    });
    assert!(compared > 1000 && large > 200, "{compared}, {large} of them with more than 300 states");
}

#[test]
fn each_column_begins_on_the_cpu_of_its_number() {
    let mut migrate = 0;
    models(0..40, |m, _, of| {
        let s: [u64; MAX_WORDS] = m.initial();
        for cpu in 0..m.layout.cpus.len() {
            assert_eq!(m.cpu_of(&s, cpu), cpu, "{of}");
        }
        migrate += u32::from(m.layout.migrates);
    });
    assert!(migrate > 10, "{migrate}");
}

/// What a frame holds that nothing will read, in a state: no two states may differ in it alone.
fn held_in_vain<const W: usize>(m: &Model, s: &[u64; W]) -> Option<String> {
    for (cpu, c) in m.layout.cpus.iter().enumerate() {
        for (level, f) in c.frames.iter().enumerate() {
            let at = f.at.get(s).checked_sub(1).map(|n| &f.locations[n as usize]);
            let live: u64 = at.map_or(0, |at| {
                at.regs[..usize::from(at.live)]
                    .iter()
                    .fold(0, |all, &(_, shift, mask)| all | u64::from(mask) << shift)
            });
            let dead = [
                ("locals", f.area.get(s) & !live),
                ("the CPU of a loop", if at.is_some_and(|at| at.cur) { 0 } else { f.cur.get(s) }),
                ("CPUs visited", if at.is_some_and(|at| at.visited) { 0 } else { f.visited.get(s) }),
                ("CPUs collected", if at.is_some_and(|at| at.targets) { 0 } else { f.targets.get(s) }),
                ("a device's interrupt", if at.is_some_and(|at| at.calls) { 0 } else { f.device.get(s) }),
                ("a machine check", if at.is_some() { 0 } else { f.mce.get(s) }),
            ];
            if let Some((what, v)) = dead.iter().find(|(_, v)| *v != 0) {
                return Some(format!("{what} of CPU {cpu} at level {level} ({at:?}): {v:x}"));
            }
        }
    }
    None
}

#[test]
fn no_two_states_differ_in_what_nothing_reads_any_more() {
    let mut states = 0;
    models(600..660, |m, _, of| {
        with_words!(m, W => {
            let Some(t) = take::<W>(&m, 1_500, |s| s) else { return };
            states += t.states.len();
            for s in &t.states {
                assert_eq!(held_in_vain(&m, s), None, "{of}");
            }
        });
    });
    assert!(states > 10_000, "{states}");
}

/// Every order of so many.
fn orders(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let fewer = orders(n - 1);
    (0..n)
        .flat_map(|at| {
            fewer.iter().map(move |order| {
                let mut order = order.clone();
                order.insert(at, n - 1);
                order
            })
        })
        .collect()
}

fn renamed<const W: usize>(class: &Class, s: &[u64; W], order: &[usize]) -> [u64; W] {
    let mut s = *s;
    class.rename(&mut s, order);
    s
}

/// The least of all that a state can be renamed to.
fn least<const W: usize>(classes: &[Class], s: [u64; W]) -> [u64; W] {
    classes.iter().fold(s, |s, class| {
        // One class after the other: none names the CPUs of another in words that are sorted.
        orders(class.cpus.len()).iter().map(|order| renamed(class, &s, order)).min().expect("there is one")
    })
}

/// What happens after CPUs have changed places is what happened before, with the places changed.
fn commutes<const W: usize>(m: &Model, s: &[u64; W], class: &Class, order: &[usize], of: &str) {
    let to = |cpu: u8| {
        let from = order.iter().position(|&from| class.cpus[from] == usize::from(cpu));
        from.map_or(cpu, |to| class.cpus[to] as u8)
    };
    let after = |s: &[u64; W]| {
        let mut all = Vec::new();
        m.each_successor(s, &mut |(cpu, action), next| {
            all.push((cpu, action, next));
            true
        });
        all
    };
    let place = |(cpu, action, next): &(u8, Action, Result<[u64; W], Violation>)| {
        let action = match *action {
            Action::Pick(who) => Action::Pick(to(who)),
            Action::Pass(who) => Action::Pass(to(who)),
            other => other,
        };
        (to(*cpu), action, next.map(|n| renamed(class, &n, order)))
    };
    let first: BTreeSet<_> = after(s).iter().map(place).collect();
    let then: BTreeSet<_> = after(&renamed(class, s, order)).into_iter().collect();
    assert!(first == then, "{of}: {order:?} of {:?} in {s:x?}", class.cpus);
}

#[test]
fn cpus_of_one_kind_can_change_places_and_one_order_of_them_stands_for_all() {
    let (mut compared, mut fewer, mut with_first) = (0, 0, 0);
    models(0..500, |m, seed, of| {
        let m = Model { fuse: seed % 2 == 0 && !m.layout.migrates, ..m };
        let symmetry = Symmetry::new(&m);
        let classes = symmetry.classes();
        if classes.is_empty() {
            return;
        }
        with_words!(m, W => {
            let Some(all) = take::<W>(&m, 1_500, |s| s) else { return };
            let Some(few) = take::<W>(&m, 1_500, |s| least(classes, s)) else { return };
            for s in all.states.iter().step_by(all.states.len() / 60 + 1) {
                for class in classes {
                    for order in orders(class.cpus.len()) {
                        commutes(&m, s, class, &order, of);
                    }
                }
            }
            let mut search: Search<'_, u64> = Search::new(&m, 1 << 28, true, 1);
            let Pause::Done(end) = search.run(&mut |_| true) else { return };
            if end == End::Complete {
                assert_eq!(end_of(&few), End::Complete, "{of}");
                assert_eq!(search.counts().states, few.counts.states, "{of}: one order stands for all");
                compared += 1;
                fewer += u32::from(few.counts.states < all.counts.states);
                with_first += u32::from(classes.iter().any(|c| c.cpus[0] == 0));
            }
        });
    });
    assert!(
        compared > 30 && fewer > 30 && with_first > 10,
        "{compared}, {fewer} smaller, {with_first} with CPU 0"
    );
}
