//! Each move of a schedule, possible or not, in both machines; when it happens; and what is said of one that cannot be.

use super::tests::{FEATURES, machine, scopes, wander};
use super::*;
use crate::check::Scope;
use crate::check::litmus::Litmus;
use crate::check::{Assume, Move, Role};
use crate::kernel::policy::{POLICIES, builtin, initiators, load};
use crate::kernel::program::Code;
use crate::kernel::text::{File, parse};
use crate::sim::cost::{Bound, Times};
use crate::sim::draw::Draws;

/// All that a CPU could be asked to do.
fn vocabulary(model: &Model) -> Vec<String> {
    let pages = model.layout.pages.iter().map(|p| format!("fill:{}", p.name));
    let picks = (0..model.layout.cpus.len()).map(|c| format!("pick:{c}"));
    let words =
        ["step", "take:yes", "take:no", "drain", "enter", "device", "use", "switch", "irq", "nmi", "mce"];
    let words: Vec<String> = words.map(String::from).into_iter().chain(picks).chain(pages).collect();
    let of = |cpu: usize| {
        // The first is that of a plain `enter`.
        let paths = model.paths[cpu].iter().skip(1).map(|path| format!("enter:{}", path.name));
        words.iter().cloned().chain(paths).map(move |word| format!("{cpu}.{word}")).collect::<Vec<_>>()
    };
    (0..model.layout.cpus.len()).flat_map(of).collect()
}

/// A move that may go on with a loop.
fn loops(token: &str) -> bool {
    token.ends_with("step") || token.contains("pick")
}

/// How often a move was possible in both machines and how often in neither.
#[derive(Default)]
struct Tally {
    possible: u32,
    not: u32,
    /// Device interrupts that are programs.
    devices: u32,
    /// Exceptions that wait for the store buffer where a system call does not.
    delivered: u32,
    broken: u32,
}

impl Tally {
    /// Behind each of `moves`, `rounds` times: is everything that a CPU could be asked to do possible in both machines or in
    /// neither, and does it break the same rule?
    fn compare(&mut self, model: &Model, setup: &Setup, features: Features, rounds: u32, draws: &mut Draws) {
        for _ in 0..rounds {
            let (moves, rule) = wander(model, draws, 120);
            let moves = &moves[..moves.len() - usize::from(rule.is_some() && !moves.is_empty())];
            let length = draws.below(moves.len() as u64 + 1) as usize;
            self.next(model, setup, features, &moves[..length]);
            if rule.is_some() {
                self.next(model, setup, features, moves); // up to where one of them breaks it
            }
        }
    }

    fn next(&mut self, model: &Model, setup: &Setup, features: Features, moves: &[Move]) {
        let before = schedule::format(model, moves);
        let mut s: [u64; crate::check::layout::MAX_WORDS] = model.initial();
        for mv in moves {
            let mut next = None;
            model.each_successor(&s, &mut |m, n| {
                if m == *mv {
                    next = Some(n);
                }
                next.is_none()
            });
            s = next.unwrap().unwrap();
        }
        let mut can = std::collections::BTreeMap::new();
        model.each_successor(&s, &mut |m, n| {
            can.insert(schedule::format(model, &[m]), n);
            true
        });
        // A state that nobody leaves is found where the schedule ends.
        let stuck = |s| {
            let e = model.each_successor(&s, &mut |_, _| true);
            e.deadlock.then_some(Violation::Deadlock)
        };
        let can: std::collections::BTreeMap<String, Option<Violation>> =
            can.into_iter().map(|(token, next)| (token, next.map_or_else(Some, stuck))).collect();
        for token in vocabulary(model) {
            let text = format!("{before} {token}");
            let of = format!("{}: {text}", model.code.name);
            match (play(&model.code, features, &machine(), setup, &text), can.get(&token)) {
                (Ok(p), Some(rule)) => {
                    assert_eq!(p.violation, *rule, "{of}");
                    assert_eq!(p.moves, moves.len() + 1, "{of}");
                    self.possible += 1;
                    self.broken += u32::from(rule.is_some());
                    let runs = |device: &Interrupt| matches!(device, Interrupt::Runs(_));
                    let cpu = usize::from(token.as_bytes()[0] - b'0');
                    self.devices +=
                        u32::from(token.ends_with("device") && setup.tasks[cpu].devices.iter().any(runs));
                }
                (Err(e), None) => {
                    assert_eq!(
                        (e.number, &*e.token, &*e.why),
                        (moves.len() + 1, &*token, "it is not possible there"),
                        "{of}"
                    );
                    self.not += 1;
                    let call = format!("{}enter", &token[..2]);
                    self.delivered += u32::from(token.contains("enter:") && can.contains_key(&call));
                }
                // Where a loop has one CPU left, it is named or not.
                (Ok(_), None) if loops(&token) && can.keys().any(|t| t[..2] == token[..2] && loops(t)) => {}
                // What leaves the state as it is is no transition of the checker.
                (Ok(p), None)
                    if p.violation.is_none() && (token.ends_with("device") || token.ends_with("use")) => {}
                (Ok(_), None) => panic!("only the timed machine can, not {:?}: {of}", can.keys()),
                (Err(e), Some(_)) => panic!("only the abstract machine can ({e}): {of}"),
            }
        }
    }
}

#[test]
fn what_is_possible_next_is_the_same_in_both_machines() {
    let mut tally = Tally::default();
    let undecided = "policy undecided\n  \"x\"\n  based on coalesce-v7\n\nflush_kernel_range\n  if either\n    lfence\n  each cpu in others\n    put cpu into targets\n  ipi targets, flush_handler\n  flush_here\n  await acks\n";
    // A device interrupt is a program of its own where it does more than look.
    let ticking = "policy ticking\n  \"x\"\n  based on coalesce-v7\n\ntick\n  lfence\n";
    // In user mode a store still waits: a system call does not, an exception does.
    let late = "policy late\n  \"x\"\n  based on coalesce-v7\n  var left : 1 bit, per cpu, starts 0, user mapped\n\nto_user\n  mov cr3, user owed\n  left = 1\n";
    // Stores to two variables that share a word wait: each is read back as it was written, or a fence would have to wait.
    let sharing = "policy sharing\n  \"x\"\n  based on coalesce-v7\n  var a : 2 bits, per cpu, starts 1\n  var b : 3 bits, per cpu, starts 2\n\nflush_kernel_range\n  b = 5\n  a = 2\n  if a != 2\n    fence\n  if b != 5\n    fence\n  b = 0\n  if a != 2\n    fence\n  if b\n    fence\n  a = 1\n  if a != 1\n    fence\n  lfence\n";
    let more = [
        ("undecided.policy", undecided),
        ("ticking.policy", ticking),
        ("late.policy", late),
        ("sharing.policy", sharing),
    ];
    let files = POLICIES.iter().map(|row| File::clone(&builtin(row.id).unwrap()));
    for (number, file) in (0..).zip(files.chain(more.map(|(name, text)| parse(name, text).unwrap()))) {
        if initiators(&file)[0] != "purge" {
            continue;
        }
        let code = load(&file, FEATURES).unwrap();
        let mut all = scopes();
        all.push((Scope { mces: 2, ..Scope::standard(3, 1) }, Assume::default()));
        for (which, (mut scope, assume)) in (0..).zip(all) {
            scope.roles[0] = Role::initiator("purge", 2);
            scope.roles[0].devices = 2;
            scope.every_path |= code.name == "late";
            let model = Model::new(&code, FEATURES, &scope, assume, 4).unwrap();
            let Ok(setup) = setup(&model) else { continue };
            let rounds = if ["ticking", "late"].contains(&&*code.name) { 150 } else { 4 };
            let rounds = if code.name == "sharing" { 40 } else { rounds };
            tally.compare(&model, &setup, FEATURES, rounds, &mut Draws::new(number, which, 29));
        }
    }
    let Tally { possible, not, devices, delivered, .. } = tally;
    assert!(
        possible > 1000 && not > 10_000 && devices > 30 && delivered > 0,
        "{possible} {not} {devices} {delivered}"
    );
}

#[test]
fn what_is_possible_next_in_litmus_tests_is_the_same_in_both_machines() {
    let (mut tally, mut played, mut not) = (Tally::default(), 0, std::collections::BTreeMap::new());
    for folder in ["series", "history", "tso", "x86t_elt", "casebook", "cases"] {
        let path = format!("{}/tests/litmus/{folder}", env!("CARGO_MANIFEST_DIR"));
        let mut files: Vec<_> = std::fs::read_dir(path).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        for (number, file) in (0..).zip(files) {
            let text = std::fs::read_to_string(&file).unwrap();
            let Ok(test) = Litmus::new(&file.to_string_lossy(), &text) else { continue };
            // Conditions are no moves.
            let scope = Scope { never: None, forall: None, exists: None, ..test.scope };
            let Ok(model) = Model::new(&test.code, test.features, &scope, test.assume, 4) else { continue };
            match setup(&model) {
                Ok(setup) => {
                    tally.compare(&model, &setup, test.features, 6, &mut Draws::new(number, 0, 30));
                    played += 1;
                }
                Err(why) => *not.entry(why).or_insert(0) += 1,
            }
        }
    }
    let Tally { possible, not: neither, broken, .. } = tally;
    assert!(
        played > 60 && possible > 1000 && neither > 10_000 && broken > 20,
        "{played} {possible} {neither} {broken} {not:?}"
    );
}

#[test]
fn kernel_code_that_reads_what_is_not_mapped_faults_in_both_machines() {
    let path = format!("{}/tests/litmus/cases/u1-request-fused.litmus", env!("CARGO_MANIFEST_DIR"));
    let test = Litmus::new(&path, &std::fs::read_to_string(&path).unwrap()).unwrap();
    let model = Model::new(&test.code, test.features, &test.scope, test.assume, 4).unwrap();
    // The entry is overwritten before CPU 1, which has not got it, reads.
    let text = "1.step*3 0.step*2 1.step";
    let played = timed(&model, test.features, &machine(), text).unwrap();
    assert!(matches!(played, Twin::Played(p) if p.violation == Some(Violation::UnmappedAccess)));
    let moves = schedule::parse(&model, text).unwrap();
    let run = schedule::replay(&model, &moves).unwrap();
    assert_eq!(run.violation, Some(Violation::UnmappedAccess));
    // CPU 1 has got it, and nobody has relied on its being gone.
    let played = timed(&model, test.features, &machine(), &format!("1.fill:k {text}")).unwrap();
    assert!(matches!(played, Twin::Played(p) if p.violation.is_none()));
}

/// Nobody waits, and no loop: which op a CPU is at follows from how often it has stepped.
const STRAIGHT: &str = "policy straight\n  \"x\"\n  based on ipi\n\nflush_kernel_range\n  lfence\n  fence\n";

fn straight(text: &str) -> (Code, Times, Setup) {
    let code = load(&parse("straight.policy", text).unwrap(), FEATURES).unwrap();
    let mut scope = Scope::standard(2, 0);
    scope.roles[0] = Role::initiator("purge", 2);
    let model = Model::new(&code, FEATURES, &scope, Assume::default(), 4).unwrap();
    let times = Times::new(&code, &machine(), FEATURES, Bound::Best);
    let mut setup = setup(&model).unwrap();
    setup.rules.store_buffers = false; // nobody waits for a drain
    (code, times, setup)
}

#[test]
fn a_move_begins_when_the_one_before_is_over_and_takes_what_its_op_takes() {
    let (code, times, setup) = straight(STRAIGHT);
    let ops = |name: &str| {
        let program = &code.programs[usize::from(code.program(name).unwrap().0)];
        (program.start..program.end).map(usize::from).collect::<Vec<_>>()
    };
    let mut longest = 0;
    for seed in 0..200 {
        let mut draws = Draws::new(seed, 1, 29);
        let (mut schedule, mut time, mut moves) = (String::new(), 0, 0);
        // By CPU: the ops that are left of its program, and how often it may begin one.
        let mut left = setup.tasks.iter().map(|t| ops(&t.first)).collect::<Vec<_>>();
        let mut rounds: Vec<u32> = setup.tasks.iter().map(|t| t.left).collect();
        for _ in 0..draws.below(60) {
            let cpu = draws.below(2) as usize;
            let task = &setup.tasks[cpu];
            if left[cpu].is_empty() {
                if rounds[cpu] == 0 {
                    continue;
                }
                rounds[cpu] -= 1;
                let start = task.paths[0].at;
                let program = code.program_of(start).unwrap();
                left[cpu] = (start..program.end).map(usize::from).collect();
                schedule += &format!(" {cpu}.enter");
                moves += 1;
                continue;
            }
            let op = left[cpu].remove(0);
            schedule += &format!(" {cpu}.step");
            moves += 1;
            time += times.op[op];
        }
        let text = schedule.trim();
        match play(&code, FEATURES, &machine(), &setup, text) {
            Ok(p) => assert_eq!((p.time_ps, p.moves), (time, moves), "{text}"),
            Err(e) => panic!("{e}: {text}"),
        }
        longest = longest.max(moves);
    }
    assert!(longest > 40, "{longest}");
}

#[test]
fn an_interrupt_is_taken_when_it_arrives_however_early_its_turn_comes() {
    let text =
        STRAIGHT.replace("  lfence\n  fence\n", "  ipi others, flush_handler\n  fence\n  fence\n  fence\n");
    let (code, times, setup) = straight(&text);
    let program = &code.programs[usize::from(code.program("purge").unwrap().0)];
    let sends = (program.start..program.end)
        .position(|pc| matches!(code.ops[usize::from(pc)], Op::Ipi { .. }))
        .unwrap();
    // CPU 1 goes home first: in user mode it takes interrupts.
    let first = &code.programs[usize::from(code.program(&setup.tasks[1].first).unwrap().0)];
    let home: u64 = (first.start..first.end).map(|pc| times.op[usize::from(pc)]).sum();
    let time = |text: &str| {
        let text = format!("1.step*{} {text}", first.end - first.start);
        play(&code, FEATURES, &machine(), &setup, &text).unwrap().time_ps - home
    };
    let until = |n: usize| (0..n).map(|k| times.op[usize::from(program.start) + k]).sum::<u64>();
    let sent = until(sends + 1) + times.queue_call.0 + times.send;
    assert_eq!(time(&format!("0.step*{sends}")), until(sends));
    assert_eq!(time(&format!("0.step*{}", sends + 1)), sent);
    assert_eq!(time(&format!("0.step*{} 1.irq", sends + 1)), sent + times.ipi.0);
    // Who goes on meanwhile is later only if that takes longer.
    let fence = times.op[usize::from(program.start) + sends + 1];
    assert!(fence < times.ipi.0);
    assert_eq!(time(&format!("0.step*{} 1.irq", sends + 2)), sent + times.ipi.0);
    // After the interrupt the others go on from there.
    assert_eq!(time(&format!("0.step*{} 1.irq 0.step", sends + 1)), sent + times.ipi.0 + fence);
    // It is taken once.
    let twice = format!("1.step*{} 0.step*{} 1.irq*2", first.end - first.start, sends + 1);
    assert!(play(&code, FEATURES, &machine(), &setup, &twice).is_err());
}

#[test]
fn a_schedule_that_cannot_be_read_or_played_is_refused_at_its_move() {
    let (code, _, setup) = straight(STRAIGHT);
    let said =
        |setup: &Setup, text: &str| play(&code, FEATURES, &machine(), setup, text).unwrap_err().to_string();
    for (text, number, token, why) in [
        ("step", 1, "step", "expected CPU.ACTION"),
        ("x.step", 1, "x.step", "a CPU is a number"),
        ("0.step 2.step", 2, "2.step", "there are 2 CPUs"),
        ("0.step*2 0.pick:x", 3, "0.pick:x", "a CPU stands after `pick:`"),
        ("0.pick:", 1, "0.pick:", "a CPU stands after `pick:`"),
        ("0.take", 1, "0.take", "`yes` or `no` stands after `take:`"),
        ("0.take:maybe", 1, "0.take:maybe", "`yes` or `no` stands after `take:`"),
        ("1.fill:nowhere", 1, "1.fill:nowhere", "no such page"),
        ("1.drop:va", 1, "1.drop:va", "the timed engine has no `drop`"),
        ("1.later", 1, "1.later", "the timed engine has no `later`"),
        ("0.step*99", 8, "0.step*99", "it is not possible there"),
        ("0.enter", 1, "0.enter", "it is not possible there"),
        ("0.step 1.irq", 2, "1.irq", "it is not possible there"),
    ] {
        let steps = &code.programs[usize::from(code.program("purge").unwrap().0)];
        let number = if text == "0.step*99" { usize::from(steps.end - steps.start) + 1 } else { number };
        assert_eq!(said(&setup, text), format!("move {number} of the schedule, `{token}`: {why}"));
    }
    // None, and a count that is none.
    for text in ["", "  ", "0.step*0", "0.step*x 1.step*"] {
        let played = play(&code, FEATURES, &machine(), &setup, text).unwrap();
        assert_eq!(played, Played { violation: None, time_ps: 0, moves: 0 }, "{text}");
    }
    let mut other = setup.clone();
    other.tasks[1].first = "nothing".into();
    assert_eq!(said(&other, ""), "move 0 of the schedule, ``: policy `straight` has no program `nothing`");
    // A path that this CPU has not got is only asked where it rests with an entry left.
    let program = &code.programs[usize::from(code.program(&setup.tasks[1].first).unwrap().0)];
    let home = program.end - program.start;
    assert!(
        said(&setup, &format!("1.step*{home} 1.enter:window"))
            .ends_with("this CPU does not enter by `window`")
    );
}
