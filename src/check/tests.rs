use super::*;
use crate::kernel::policy::{POLICIES, Stated, builtin, initiators, load};
use crate::kernel::text::{File, parse};

pub(super) const FEATURES: Features = Features::PTI_PCID;

fn code_of(file: &File) -> Code {
    load(file, FEATURES).unwrap_or_else(|e| panic!("{e}"))
}

fn run(code: &Code, nmis: u8, assume: Assume) -> Answer {
    explore_with(code, Scope::standard(2, nmis), assume)
}

fn explore_with(code: &Code, scope: Scope, assume: Assume) -> Answer {
    let question = Question {
        code,
        features: FEATURES,
        scope,
        assume,
        memory: 1 << 30,
        plain: false,
        trace: true,
        threads: 0,
    };
    check(&question, &mut |_| true).unwrap()
}

pub(super) fn policy(name: &str) -> Code {
    code_of(&builtin(name).unwrap())
}

fn recycled() -> Assume {
    Assume { danger: Touches::Recycled, ..Assume::default() }
}

#[test]
fn the_stated_verdicts_hold() {
    let mut wrong = Vec::new();
    for row in POLICIES {
        let code = policy(row.id);
        let both = Assume { nmi: Touches::Recycled, ..Assume::default() };
        let patched = Assume { text: Patched::Danger, ..Assume::default() };
        let initiator = initiators(&builtin(row.id).unwrap())[0];
        let cases = match initiator {
            "text_poke" => [(0, Assume::default()), (0, patched), (1, Assume::default())],
            _ => [(0, Assume::default()), (0, recycled()), (1, both)],
        };
        for ((nmis, assume), stated) in cases.into_iter().zip(row.stated) {
            let mut scope = Scope::standard(2, nmis);
            scope.roles[0] = Role::initiator(initiator, 1);
            let a = explore_with(&code, scope, assume);

            let want = if stated == Stated::Verified { Status::Verified } else { Status::Violated };
            if a.status() != want {
                wrong.push((row.id, nmis, a.status().name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// A policy with one edit.
fn edited(base: &str, section: &str) -> Code {
    let text = format!("policy edited\n  \"An edit.\"\n  based on {base}\n\n{section}\n");
    code_of(&parse("edited.policy", &text).unwrap())
}

#[test]
fn the_fix_needs_the_fence_of_the_entry() {
    let code = edited(
        "coalesce-v7-fixed",
        "coalesce\n  kernel_cr3_loaded = 1\n  if me in flush_mask\n    invpcid all-including-global",
    );
    let a = run(&code, 0, Assume::default());
    assert_eq!(a.violation().unwrap().0, Violation::StaleAccessReused);
    // Unless INVPCID publishes, which its documentation does not say.
    let publishes = run(&code, 0, Assume { invpcid: InvpcidOrder::Publishes, ..Assume::default() });
    assert_eq!(publishes.status(), Status::Verified);
}

#[test]
fn the_fix_needs_the_fence_of_the_sender() {
    let code = edited(
        "coalesce-v7-fixed",
        "purge\n  pte range = none\n  request range\n  flush_kernel_range\n  promise range\n  pte range = fresh",
    );
    let a = run(&code, 0, Assume::default());
    assert_eq!(a.violation().unwrap().0, Violation::StaleAccessReused);
}

#[test]
fn the_v7_race_prints_in_72_columns_and_replays() {
    let a = run(&policy("coalesce-v7"), 0, Assume::default());
    let (rule, moves) = a.violation().unwrap();
    let x = report::explain(&a.model, moves, rule).unwrap();
    assert!(x.text().lines().all(|l| l.chars().count() <= report::WIDTH), "{}", x.text());
    assert_eq!(schedule::parse(&a.model, &x.schedule).unwrap(), moves);
    assert_eq!(schedule::replay(&a.model, moves).unwrap().violation, Some(rule));
}

#[test]
fn plain_and_reduced_searches_agree_on_every_mutant_and_its_counterexample_replays() {
    let mut tried = 0;
    for name in ["ct-late", "coalesce-v7-fixed", "coalesce-tri-state", "pending-bit", "fancy-state", "ipi"] {
        for m in edit::mutants(&builtin(name).unwrap()) {
            let Ok(code) = load(&m.file, FEATURES) else { continue };
            let question = |plain| Question {
                code: &code,
                features: FEATURES,
                scope: Scope::standard(2, 0),
                assume: recycled(),
                memory: 1 << 28,
                plain,
                trace: !plain,
                threads: 0,
            };
            let reduced = check(&question(false), &mut |_| true).unwrap();
            let plain = check(&question(true), &mut |_| true).unwrap();
            assert_eq!(reduced.status(), plain.status(), "{name}: {} in {}", m.what, m.section);
            if let Some((rule, moves)) = reduced.violation() {
                assert_eq!(schedule::replay(&reduced.model, moves).unwrap().violation, Some(rule));
                // Through another path it may be a few touches shorter.
                let shortest = plain.violation().unwrap().1.len();
                assert!((shortest..=shortest + 6).contains(&moves.len()), "{shortest} {}", moves.len());
            }
            tried += 1;
        }
    }
    assert!(tried > 150, "{tried} mutants");
}

#[test]
fn symmetry_and_fusing_agree_with_the_plain_search_on_three_cpus() {
    for (name, section) in [
        ("ipi", ""),
        ("coalesce-v7-fixed", ""),
        ("pending-bit-recheck", ""),
        ("coalesce-v7-fixed", "coalesce\n  kernel_cr3_loaded = 1\n  if me in flush_mask\n    flush_all_here"),
    ] {
        let code = if section.is_empty() { policy(name) } else { edited(name, section) };
        // Every path of two CPUs would not fit; `paths_that_another_one_covers_change_no_verdict` follows them.
        let mut scope = Scope::standard(3, 0);
        scope.roles[1..].fill(Role::isolated_by(2, "syscall"));
        let question = |plain| Question {
            code: &code,
            features: FEATURES,
            scope: scope.clone(),
            assume: Assume::default(),
            memory: 1 << 30,
            plain,
            trace: true,
            threads: 0,
        };
        let reduced = check(&question(false), &mut |_| true).unwrap();
        let plain = check(&question(true), &mut |_| true).unwrap();
        assert_eq!(reduced.status(), plain.status(), "{name}");
        if let Some((rule, moves)) = reduced.violation() {
            let shortest = plain.violation().unwrap().1.len();
            // The shortest run among the paths that are followed is at most a few touches longer than among all.
            let most = if reduced.shortest { shortest + 6 } else { usize::MAX };
            assert!((shortest..=most).contains(&moves.len()), "{name}: {shortest} {}", moves.len());
            assert_eq!(schedule::replay(&reduced.model, moves).unwrap().violation, Some(rule));
        }
    }
}

#[test]
fn the_gate_programs_fit_one_word_per_cpu_with_two_pages() {
    for name in ["coalesce-v7", "pending-bit", "fancy-state", "coalesce-tri-state"] {
        let mut scope = Scope::standard(2, 0);
        scope.pages = 2;
        let question = Question {
            code: &policy(name),
            features: FEATURES,
            scope,
            assume: Assume::default(),
            memory: 1 << 30,
            plain: false,
            trace: false,
            threads: 0,
        };
        let a = check(&question, &mut |_| true).unwrap();
        assert_ne!(a.status(), Status::Inconclusive);
        assert!(a.model.layout.bits.0.iter().all(|&b| b <= 64), "{name}: {:?}", a.model.layout.bits);
        assert!(a.model.layout.bits.1 <= 64);
    }
}

#[test]
fn the_historical_bugs_of_the_gate_fit_one_word_per_cpu() {
    for (name, text) in [
        ("b02", include_str!("../../tests/litmus/history/b02-loaded-mm-window.litmus")),
        ("b04", include_str!("../../tests/litmus/history/b04-switching-after-gen.litmus")),
        ("b07", include_str!("../../tests/litmus/history/b07-ioremap-frees-pte-page.litmus")),
    ] {
        let run = litmus::Litmus::new(name, text).unwrap().run(1 << 30, false).unwrap();
        let (cpus, shared) = &run.answer.model.layout.bits;
        assert!(cpus.iter().all(|&b| b <= 64) && *shared <= 64, "{name}: {cpus:?} {shared}");
    }
}

#[test]
fn renamed_versions_change_no_verdict_and_no_shortest_violation() {
    for row in POLICIES {
        let code = policy(row.id);
        if layout::renames(&code, &Scope { rename: true, ..Scope::standard(2, 0) }).is_err() {
            continue; // patched text
        }
        for (rounds, assume) in [(1, Assume::default()), (2, recycled())] {
            let [plain, renamed] = [false, true].map(|rename| {
                let mut scope = Scope { rename, ..Scope::standard(2, 0) };
                scope.roles[0] = Role::initiator("purge", rounds);
                explore_with(&code, scope, assume)
            });
            assert_eq!(plain.status(), renamed.status(), "{}", row.id);
            assert_eq!(
                plain.violation().map(|(v, moves)| (v, moves.len())),
                renamed.violation().map(|(v, moves)| (v, moves.len()))
            );
            let fewer = renamed.counts.states <= plain.counts.states;
            assert!(fewer || plain.status() == Status::Violated, "{}: renaming joins states", row.id);
        }
    }
}

#[test]
fn a_broadcast_is_complete_at_its_tlbsync_and_not_before() {
    let code = edited("invlpgb", "broadcast\n  if range is full\n    invlpgb all\n  else\n    invlpgb range");
    let a = run(&code, 0, Assume::default());
    assert_eq!(a.violation().unwrap().0, Violation::StaleAccessReused);
    assert_eq!(run(&policy("invlpgb"), 0, Assume::default()).status(), Status::Verified);
}

#[test]
fn the_memory_limit_counts_words_and_answers_beside_states() {
    let code = policy("coalesce-tri-state");
    let question = |memory| Question {
        code: &code,
        features: FEATURES,
        scope: Scope::standard(2, 1),
        assume: Assume::default(),
        memory,
        plain: false,
        trace: false,
        threads: 1,
    };
    let all = check(&question(1 << 30), &mut |_| true).unwrap();
    assert_eq!(all.status(), Status::Verified);
    let states = visited::Visited::<u64>::bytes(all.counts.states as usize, 0, u64::BITS);
    assert!(all.bytes > states);

    let cut = check(&question(states), &mut |_| true).unwrap();
    assert_eq!(cut.end, End::Cut(Cut::Memory));
    assert!(cut.counts.states < all.counts.states && cut.counts.depth > 0);
}
