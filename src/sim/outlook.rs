//! What a policy would do to a machine, from its ops and the one price list: what a system call costs more than under
//! mainline, and which CPUs a request leaves alone, by what they are doing.
//!
//! Nothing here reads a program: small recordings are made up (one CPU, in one mode, and one request), and the
//! programs run over them as over any other ([`super::recorded`]).

use serde::Serialize;

use super::cost::{Bound, Times, name_of};
use super::recorded::{Ask, Call, Costs, Mark, Marked, Played, Request, Target, Variant, Workload, play};
use crate::hw::Preset;
use crate::kernel::policy::{load_with, mainline};
use crate::kernel::program::{Code, Features};
use crate::kernel::text::{File, PolicyError};

/// A time with both ends of what its sources allow, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Nanoseconds {
    /// Best estimate.
    pub best: f64,
    /// At least.
    pub low: f64,
    /// At most.
    pub high: f64,
}

/// Which requests leave a CPU alone, by what that CPU is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Spares {
    /// `nohz_full`, in user mode.
    pub user: bool,
    /// `nohz_full`, idle.
    pub idle: bool,
    /// `nohz_full`, in the kernel.
    pub kernel: bool,
    /// Housekeeping, in user mode.
    pub housekeeping: bool,
}

/// See the module.
#[derive(Clone, Debug, Serialize)]
pub struct Outlook {
    /// Deferrable flushes of the kernel range.
    pub flush: Spares,
    /// Flushes that no policy may defer.
    pub flush_now: Spares,
    /// Syncs of patched text that may be deferred.
    pub sync: Spares,
    /// Flushes of user ranges.
    pub user_flush: Spares,
    /// A system call of a `nohz_full` CPU, beyond mainline's: entry and exit code, refills not included.
    pub entry_ns: Nanoseconds,
    /// The same, when the CPU was left out of a flush, or of a sync if the policy defers no flushes.
    pub owed_ns: Nanoseconds,
    /// The ops that a system call gains, of those that have a price; when something is owed, too.
    pub ops: Vec<String>,
    /// The weakest mark among their costs, empty if there are none.
    pub mark: &'static str,
}

/// One CPU in one mode, and perhaps one request to it. The last stay in the kernel is the one that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    User,
    Idle,
    Kernel,
}

fn workload(ask: Option<Ask>, doing: Doing, isolated: bool) -> Workload {
    let mark = |at_ns, counted, mark| Marked { at_ns, counted, mark };
    let mut marks = vec![mark(10, false, Mark::Exit), mark(10, false, Mark::Own)];
    match doing {
        Doing::User => marks.push(mark(20, false, Mark::Enter)),
        Doing::Idle => marks.push(mark(20, false, Mark::Idle(true))),
        Doing::Kernel => {}
    }
    let interrupt = Mark::Calls { irq: 1, end_ns: 2_000 };
    if doing == Doing::User && ask.is_some() {
        marks.push(mark(1_500, false, Mark::Exit));
        marks.push(mark(1_500, false, interrupt));
        marks.push(mark(2_000, false, Mark::Enter));
    } else if ask.is_some() {
        marks.push(mark(1_500, false, interrupt));
    }
    if doing == Doing::Idle {
        marks.push(mark(3_000, false, Mark::Idle(false)));
    }
    if doing != Doing::User {
        marks.push(mark(4_000, false, Mark::Enter));
    }
    for what in [Mark::Exit, Mark::Own] {
        marks.push(mark(5_000, true, what));
    }
    marks.push(mark(6_000, true, Mark::Enter));
    let calls = ask.map_or_else(Vec::new, |_| {
        vec![Call { cpu: 1, queued_ns: 1_000, guessed: false, irq: 1, counted: true }]
    });
    let request = |ask| Request { sender: Some(0), ask, full: true, complete: false, line: 0, calls: 0..1 };
    Workload {
        cpus: 2,
        targets: vec![Target { cpu: 1, housekeeping: !isolated, marks }],
        requests: ask.map(request).into_iter().collect(),
        calls,
        begin_ns: 0,
        end_ns: 10_000,
        margin_ns: 0,
        idle_known: true,
    }
}

/// A policy on a machine.
struct On<'a> {
    code: Code,
    preset: &'a Preset,
    features: Features,
}

impl On<'_> {
    fn run(&self, w: &Workload, bound: Bound) -> Played {
        let costs = Costs {
            times: Times::new(&self.code, self.preset, self.features, bound),
            features: self.features,
        };
        let variant = Variant { favour: true, unknown: Ask::Purge, tables: false, levels: false };
        play(w, &self.code, costs, variant)
    }

    fn spares(&self, ask: Ask) -> Spares {
        let spared = |doing, isolated| {
            let played = self.run(&workload(Some(ask), doing, isolated), Bound::Best);
            !played.endless && played.spared == [true]
        };
        Spares {
            user: spared(Doing::User, true),
            idle: spared(Doing::Idle, true),
            kernel: spared(Doing::Kernel, true),
            housekeeping: spared(Doing::User, false),
        }
    }
}

/// What a policy would do on a machine with these features.
pub fn outlook(file: &File, features: Features, preset: &Preset) -> Result<Outlook, PolicyError> {
    const WANTS: [&str; 1] = ["flush_mm"];
    let policy = On { code: load_with(file, &WANTS, features)?, preset, features };
    let mainline = On { code: load_with(&*mainline(file)?, &WANTS, features)?, preset, features };
    let flush = policy.spares(Ask::Purge);
    let sync = policy.spares(Ask::Sync);
    let owed = if sync.user && !flush.user { Ask::Sync } else { Ask::Purge };
    let (mut ops, mut mark) = (Vec::new(), None);
    let mut more = |ask: Option<Ask>| {
        let w = workload(ask, Doing::User, true);
        let took = |bound| {
            let [ours, theirs] = [&policy, &mainline].map(|on| on.run(&w, bound));
            (ours.cpus[0].entry_ps as f64 - theirs.cpus[0].entry_ps as f64) / 1e3
        };
        let [ours, theirs] = [&policy, &mainline].map(|on| {
            let played = on.run(&w, Bound::Best);
            let mut texts: Vec<(String, Option<&'static str>)> = Vec::new();
            for (pc, times) in played.counted_ops {
                for _ in 0..times {
                    texts
                        .push((on.code.text[usize::from(pc)].clone(), name_of(on.code.ops[usize::from(pc)])));
                }
            }
            texts
        });
        let mut left = theirs;
        for (text, cost) in ours {
            if let Some(at) = left.iter().position(|(t, _)| *t == text) {
                left.swap_remove(at);
            } else if let Some(figure) = cost.and_then(|cost| preset.costs.get(cost)) {
                mark = mark.max(Some(figure.mark as u8));
                if !ops.contains(&text) {
                    ops.push(text);
                }
            }
        }
        Nanoseconds { best: took(Bound::Best), low: took(Bound::Low), high: took(Bound::High) }
    };
    let (entry_ns, owed_ns) = (more(None), more(Some(owed)));
    let mark = mark.map_or("", |m| crate::hw::preset::Mark::ALL[usize::from(m)].name());
    Ok(Outlook {
        flush,
        flush_now: policy.spares(Ask::Tables),
        sync,
        user_flush: policy.spares(Ask::User),
        entry_ns,
        owed_ns,
        ops,
        mark,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::policy::builtin;
    use crate::kernel::program::Feature;

    fn of(policy: &str) -> Outlook {
        let file = builtin(policy).unwrap();
        let needed = file.needs.iter().filter_map(|n| Feature::named(n));
        let features = needed.fold(Features::PTI_PCID, Features::with);
        outlook(&file, features, &Preset::builtin("skylake-sp").unwrap()).unwrap()
    }

    #[test]
    fn mainline_spares_nobody_and_adds_nothing() {
        for policy in ["ipi", "lazy-tune", "fancy-state-indeterminate"] {
            let o = of(policy);
            for spares in [o.flush, o.flush_now, o.sync, o.user_flush] {
                assert_eq!(spares, Spares::default(), "{policy}");
            }
        }
        assert_eq!((of("ipi").entry_ns, of("ipi").mark), (Nanoseconds::default(), ""));
    }

    #[test]
    fn who_is_spared_is_what_the_programs_do() {
        let user = Spares { user: true, ..Spares::default() };
        assert_eq!(of("coalesce-v7").flush, user);
        assert_eq!(of("ct-late").flush, Spares { idle: true, ..user });
        assert_eq!(of("pending-bit").flush, Spares { housekeeping: true, ..user });
        let all = Spares { user: true, idle: true, kernel: true, housekeeping: true };
        assert_eq!((of("quarantine").flush, of("quarantine").flush_now), (all, Spares::default()));
        assert_eq!((of("invlpgb").flush, of("invlpgb").flush_now, of("rar").flush), (all, all, all));
        assert_eq!((of("invlpgb").user_flush, of("rar").user_flush, of("latr").user_flush), (all, all, all));
        let text = of("text-defer-v7");
        assert_eq!((text.flush, text.sync), (Spares::default(), Spares { idle: true, ..user }));
        assert_eq!(of("coalesce-v7").sync, Spares::default());
    }

    #[test]
    fn every_op_has_its_price() {
        let (v7, fixed) = (of("coalesce-v7"), of("coalesce-v7-fixed"));
        assert!(fixed.entry_ns.best > v7.entry_ns.best + 5.0, "the fence: {fixed:?} {v7:?}");
        assert!(fixed.ops.iter().any(|op| op == "fence"), "{:?}", fixed.ops);
        let bit = of("pending-bit");
        assert!(bit.entry_ns.best > 10.0, "two exchanges: {bit:?}");
        assert!(bit.owed_ns.best > bit.entry_ns.best + 300.0, "and the flush: {bit:?}");
        assert!(of("flush-on-exit").entry_ns.best > 300.0);
        assert!(v7.entry_ns.low <= v7.entry_ns.best && v7.entry_ns.best <= v7.entry_ns.high);
        assert_eq!(v7.mark, "published");
    }
}
