//! One question in both drivers (SEMANTICS H7): what the checker explores, as the timed machine can play it.
//!
//! The drivers do not know each other; here a model of the checker becomes a [`Setup`], or the reason why the timed
//! machine has no equivalent.

use crate::check::layout::{Device, Path};
use crate::check::machine::Model;
use crate::check::schedule;
use crate::check::scope::{InvpcidOrder, Rest};
use crate::hw::Preset;
use crate::kernel::program::{Ask, At, Features, Op, PageKind, Set, Zone};
use crate::kernel::step::Violation;
use crate::sim::machine::scripted::{Rules, Tracked};
use crate::sim::scripted::{Interrupt, Played, ScriptError, Setup, Start, Task, play};

/// What came of a schedule in the timed machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Twin {
    /// It ran.
    Played(Played),
    /// It cannot: why.
    NotTimed(&'static str),
}

/// The setup of a model, or what it has that the timed machine has not.
pub fn setup(model: &Model) -> Result<Setup, &'static str> {
    let pages = &model.layout.pages;
    if pages.iter().any(|p| matches!(p.kind, PageKind::User(_))) {
        return Err("it tracks user memory, and the timed engine gives a page to no address space");
    }
    if model.layout.has_text() || pages.iter().any(|p| p.kind == PageKind::Text) {
        return Err("it tracks patched text, and the timed engine fetches none");
    }
    if model.layout.tables {
        return Err("it frees page tables, and the timed engine's walks go through none");
    }
    if model.layout.typed != 0 {
        return Err("it follows lines of caches, and the timed engine has none");
    }
    if model.layout.graces != 0 {
        return Err("it waits for grace periods, and the timed engine's take as long as a scenario says");
    }
    if model.scope.frames.iter().any(|f| !f.is_empty()) {
        return Err("it tracks the data of pages, and the timed engine keeps none");
    }
    if model.layout.migrates {
        return Err("a task goes on on another CPU, and the timed engine's stay where they are");
    }
    if pages.iter().any(|p| p.within.is_some()) {
        return Err("a page lies in a large one, and the timed engine's pages have one size each");
    }
    if !model.scope.tops.is_empty() {
        return Err(
            "it tracks top-level entries that some mm lacks, and each of the timed engine's has them all",
        );
    }
    if model.scope.never.is_some() || model.scope.exists.is_some() {
        return Err("it asks about a condition on states, and the timed engine knows none");
    }
    if model.layout.cpus.iter().any(|c| c.fault.exists()) {
        return Err("a fault ends a column, and the timed engine goes on behind it");
    }
    let in_mm = |at: At| matches!(at, At::Mm(_) | At::Asid(_));
    let in_contexts = |name: &String| {
        let Some(run) = model.code.program(name) else { return false };
        let program = &model.code.programs[usize::from(run.0)];
        (program.start..program.end).any(|pc| match model.code.ops[usize::from(pc)] {
            Op::Load { from: p, .. } | Op::Store { to: p, .. } | Op::Rmw { at: p, .. } => in_mm(p.at),
            Op::Cas { at: p, .. } | Op::Await { at: p, .. } => in_mm(p.at),
            _ => false,
        })
    };
    if model.scope.roles.iter().any(|r| in_contexts(&r.first) || in_contexts(&r.again)) {
        return Err("it tracks generations of address spaces, whose stores the timed engine does not queue");
    }
    let of_processes = |op: Op| match op {
        Op::Mask { .. } | Op::Each { of: Set::MmCpumask, .. } => true,
        Op::Ask { what, .. } => matches!(what, Ask::NextMm | Ask::FlushMm),
        _ => false,
    };
    let frames = || model.layout.cpus.iter().flat_map(|c| &c.frames);
    if frames().flat_map(|f| &f.locations).any(|l| of_processes(l.op)) {
        return Err("it asks for processes or who runs them, and a schedule of the timed engine has none");
    }
    if model.scope.roles.iter().any(|r| r.deaf) {
        return Err("one of its CPUs takes no interrupts at all, and the timed engine has no such CPU");
    }
    let mask = |zone: Zone| {
        let looks = |p: &usize| Model::zone_may(model.assume, zone, pages[*p].kind);
        (0..pages.len()).filter(looks).fold(0_u32, |mask, p| mask | 1 << p)
    };
    let tracked = |p: &crate::check::layout::PageInfo| Tracked {
        name: p.name.clone(),
        global: p.global,
        user_mapped: p.user_mapped,
        present: p.present,
        handed_on: p.kind == PageKind::Vmalloc,
        direct: p.kind == PageKind::DirectMap,
    };
    let start = |path: &Path| Start {
        name: path.name.clone(),
        at: path.start,
        delivered: path.is_delivered(&model.code),
        device: path.is_of_devices(),
    };
    Ok(Setup {
        tasks: model
            .scope
            .roles
            .iter()
            .enumerate()
            .map(|(i, r)| Task {
                first: r.first.clone(),
                again: r.again.clone(),
                paths: model.paths[i].iter().map(start).collect(),
                devices: model.devices[i].clone().map(|device| match device {
                    Device::Never => Interrupt::Never,
                    Device::Checks(zones) => Interrupt::Checks(zones),
                    Device::Runs(start) => Interrupt::Runs(start),
                }),
                interrupts: u32::from(r.devices),
                left: u32::from(r.left),
                isolated: model.masks[0] >> i & 1 != 0,
                in_flush_mask: model.masks[1] >> i & 1 != 0,
                rests_in_user: r.rest == Rest::User,
                irqs_off: r.irqs_off,
                own: r.own,
            })
            .collect(),
        pages: pages.iter().map(tracked).collect(),
        nmis: u32::from(model.scope.nmis),
        mces: u32::from(model.scope.mces),
        asids: model.layout.asids,
        rules: Rules {
            zones: Zone::ALL.map(|(_, zone)| mask(zone)),
            lasting: u32::from(model.lasting),
            invpcid_publishes: model.assume.invpcid == InvpcidOrder::Publishes,
            invpcid_ordered: model.assume.invpcid >= InvpcidOrder::Ordered,
            broadcast_drains: model.assume.broadcast_drains,
            interrupts_drain: model.assume.interrupts_drain,
            store_buffers: model.assume.store_buffers,
            gs_faults: model.assume.gs_faults,
            ranged: model.assume.ranged,
        },
    })
}

/// The same schedule through the timed machine.
pub fn timed(model: &Model, features: Features, preset: &Preset, text: &str) -> Result<Twin, ScriptError> {
    let livelock = || {
        let moves = schedule::parse(model, text).ok()?;
        schedule::replay(model, &moves).ok()?.violation.filter(|v| *v == Violation::Livelock)
    };
    match setup(model) {
        Ok(_) if model.spins() && livelock().is_some() => {
            Ok(Twin::NotTimed("it ends where CPUs go round for ever, and the timed engine plays an end"))
        }
        Ok(setup) => Ok(Twin::Played(play(&model.code, features, preset, &setup, text)?)),
        Err(why) => Ok(Twin::NotTimed(why)),
    }
}

#[cfg(test)]
mod followed;
#[cfg(test)]
mod moves;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::litmus::Litmus;
    use crate::check::{self, Action, Answer, Assume, Move, Question, Role, Scope, Status, Touches};
    use crate::kernel::policy::{POLICIES, builtin, initiators, load};
    use crate::kernel::program::Code;
    use crate::sim::draw::Draws;

    pub(super) const FEATURES: Features = Features::PTI_PCID;

    pub(super) fn machine() -> Preset {
        Preset::clone(&Preset::builtin("skylake-sp").unwrap())
    }

    pub(super) fn scopes() -> Vec<(Scope, Assume)> {
        let plain = Assume::default();
        let recycled = Assume { danger: Touches::Recycled, ..plain };
        let nmi = Assume { nmi: Touches::Recycled, ..plain };
        vec![
            (Scope::standard(2, 0), plain),
            (Scope::standard(2, 0), recycled),
            (Scope::standard(2, 1), nmi),
            (Scope { asids: 2, ..Scope::standard(2, 0) }, recycled),
        ]
    }

    /// The rule and the reason not to run it, for a schedule.
    fn twin(model: &Model, moves: &[Move]) -> Twin {
        timed(model, FEATURES, &machine(), &schedule::format(model, moves)).unwrap_or_else(|e| panic!("{e}"))
    }

    fn check(code: &Code, scope: Scope, assume: Assume) -> Answer {
        let question = Question {
            code,
            features: FEATURES,
            scope,
            assume,
            memory: 1 << 30,
            plain: false,
            trace: true,
            threads: 1,
        };
        check::check(&question, &mut |_| true).unwrap()
    }

    /// The policy whose purge waits for a grace period, which has no place in a schedule.
    const WAITS: &str = "quarantine-by-grace";

    #[test]
    fn counterexamples_of_the_built_in_policies_break_the_same_rule_in_the_timed_machine() {
        let (mut played, mut not_timed) = (0, Vec::new());
        for row in POLICIES {
            let file = builtin(row.id).unwrap();
            let code = load(&file, FEATURES).unwrap();
            for initiator in initiators(&file) {
                for (mut scope, assume) in scopes() {
                    scope.roles[0] = Role::initiator(initiator, 1);
                    let answer = check(&code, scope, assume);
                    assert_ne!(answer.status(), Status::Inconclusive);
                    let Some((rule, moves)) = answer.violation() else { continue };
                    match twin(&answer.model, moves) {
                        Twin::Played(p) => {
                            assert_eq!(p.violation, Some(rule), "{} {initiator} {assume:?}", row.id);
                            assert!(p.time_ps > 0 && p.moves == moves.len());
                            played += 1;
                        }
                        Twin::NotTimed(why) => not_timed.push((row.id, initiator, why)),
                    }
                }
            }
        }
        assert!(played > 20, "{played}");
        for (id, initiator, why) in not_timed {
            let text = initiator == "text_poke" && why.contains("text");
            assert!(text || id == WAITS && why.contains("grace periods"), "{id} {initiator}: {why}");
        }
    }

    #[test]
    fn the_v7_race_needs_the_store_queue_where_its_fence_is_missing() {
        let text = "policy edited\n  \"An edit.\"\n  based on coalesce-v7-fixed\n\ncoalesce\n  kernel_cr3_loaded = 1\n  \
                    if me in flush_mask\n    invpcid all-including-global\n";
        let code = load(&crate::kernel::text::parse("edited.policy", text).unwrap(), FEATURES).unwrap();
        let answer = check(&code, Scope::standard(2, 0), Assume::default());
        let (rule, moves) = answer.violation().unwrap();
        let played = twin(&answer.model, moves);
        assert!(matches!(played, Twin::Played(p) if p.violation == Some(rule)));
        let mut without = setup(&answer.model).unwrap();
        without.rules.store_buffers = false;
        let schedule = schedule::format(&answer.model, moves);
        let refused = play(&code, FEATURES, &machine(), &without, &schedule).unwrap_err();
        assert!(refused.token.contains("drain") && refused.why == "it is not possible there", "{refused}");
    }

    #[test]
    fn litmus_counterexamples_break_the_same_rule_or_say_what_the_timed_machine_lacks() {
        let (mut played, mut reasons) = (0, std::collections::BTreeSet::new());
        for folder in ["series", "history", "tso", "x86t_elt"] {
            let path = format!("{}/tests/litmus/{folder}", env!("CARGO_MANIFEST_DIR"));
            let mut files: Vec<_> = std::fs::read_dir(path).unwrap().map(|f| f.unwrap().path()).collect();
            files.sort();
            for file in files {
                let text = std::fs::read_to_string(&file).unwrap();
                let test = Litmus::new(&file.to_string_lossy(), &text).unwrap();
                let answer = test.run(1 << 30, false).unwrap().answer;
                let Some((rule, moves)) = answer.violation() else { continue };
                match timed(&answer.model, test.features, &machine(), &schedule::format(&answer.model, moves))
                {
                    Ok(Twin::Played(p)) => {
                        assert_eq!(p.violation, Some(rule), "{}", file.display());
                        played += 1;
                    }
                    Ok(Twin::NotTimed(why)) => {
                        reasons.insert(why);
                    }
                    Err(error) => panic!("{}: {error}", file.display()),
                }
            }
        }
        assert!(played >= 10, "{played} {reasons:?}");
        assert!(reasons.len() <= 6, "{reasons:?}");
    }

    /// A random run of the abstract machine: its moves, and the rule the last one breaks.
    pub(super) fn wander(model: &Model, draws: &mut Draws, length: usize) -> (Vec<Move>, Option<Violation>) {
        const W: usize = check::layout::MAX_WORDS;
        let (mut s, mut moves): ([u64; W], Vec<Move>) = (model.initial(), Vec::new());
        while moves.len() < length {
            let mut all = Vec::new();
            let e = model.each_successor(&s, &mut |m, next| {
                all.push((m, next));
                true
            });
            if all.is_empty() {
                return (moves, e.deadlock.then_some(Violation::Deadlock));
            }
            // What the timed engine has no word for does not happen to it.
            all.retain(|((_, action), _)| !matches!(action, Action::Drop(_) | Action::FillUpper(_)));
            if all.is_empty() {
                return (moves, None);
            }
            let (mv, next) = all.swap_remove(draws.below(all.len() as u64) as usize);
            moves.push(mv);
            match next {
                Ok(next) => s = next,
                Err(rule) => return (moves, Some(rule)),
            }
        }
        let e = model.each_successor(&s, &mut |_, _| true);
        (moves, e.deadlock.then_some(Violation::Deadlock))
    }

    #[test]
    fn random_runs_of_the_abstract_machine_are_runs_of_the_timed_one() {
        let (mut runs, mut broken) = (0, 0);
        for (number, row) in POLICIES.iter().enumerate() {
            let file = builtin(row.id).unwrap();
            let code = load(&file, FEATURES).unwrap();
            if initiators(&file)[0] != "purge" {
                continue;
            }
            for (mut scope, assume) in scopes() {
                scope.roles[0] = Role::initiator("purge", 2);
                let model = Model::new(&code, FEATURES, &scope, assume, 4).unwrap();
                let mut draws = Draws::new(7, number as u16, 0);
                for _ in 0..40 {
                    let (moves, rule) = wander(&model, &mut draws, 160);
                    let p = match twin(&model, &moves) {
                        Twin::Played(p) => p,
                        Twin::NotTimed(why) => {
                            assert!(row.id == WAITS && why.contains("grace periods"), "{}: {why}", row.id);
                            break;
                        }
                    };
                    assert_eq!(p.violation, rule, "{}: {}", row.id, schedule::format(&model, &moves));
                    runs += 1;
                    broken += u32::from(rule.is_some());
                }
            }
        }
        assert!(runs > 1000 && broken > 5, "{runs} {broken}");
    }
}
