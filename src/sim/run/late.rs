//! Whoever reads late what initiators alone write, and idle CPUs of which two things are due at one moment, are as in the order of
//! the queue.

use std::sync::{Arc, atomic::AtomicBool};

use super::super::input::Input;
use super::super::scenario::Scenario;
use super::super::stats::Stat;
use super::ways::{PLAIN, QUICK, Way, carried_out, difference, drawn, total};
use super::{Run, simulate};
use crate::kernel::policy::shared_builtin;
use crate::kernel::text::{File, parse};

fn parsed(text: &str) -> Arc<File> {
    Arc::new(parse("late.policy", text).unwrap())
}

/// Policies whose entry code reads what initiators alone write, on the way in or out, in NMIs, now and then before a flush. Values
/// come back, so that what was found out once is met again.
const READERS: [&str; 3] = [
    "policy epoch
  var epoch : 3 bits, shared, starts 0
  var seen : 3 bits, per cpu, starts 0

to_kernel
  if feature pti
    mov cr3, kernel noflush
  let now = epoch
  if now != seen
    flush_all_here
    seen = now

flush_kernel_range
  let next = epoch + 1
  let next = next & 7
  epoch = next
  each cpu in others
    put cpu into targets
  ipi targets, flush_handler
  flush_here
  await acks
",
    "policy flags
  var busy : 1 bit, shared, starts 0
  var rounds : 2 bits, shared, starts 0

to_user
  let on = busy
  if on
    flush_all_here
  if feature pti
    mov cr3, user owed

nmi_guard
  let round = rounds
  if round == 2
    flush_all_here

flush_kernel_range
  xchg busy, 1
  flush_here
  add rounds, 1
  xchg busy, 0
",
    "",
];

#[test]
fn who_reads_late_what_initiators_write_finds_what_stood_there() {
    let (mut replayed, mut behind) = (0, 0);
    for n in 7000..7090 {
        let policy = match READERS[n as usize % 3] {
            "" => shared_builtin("generation-at-entry").unwrap(),
            text => parsed(text),
        };
        let (input, of) = drawn(n);
        let input = Input { policy, ..input };
        let Ok(run) = Run::new(input.clone()) else { continue };
        behind += u64::from(!run.engine.m.all_driven && !run.engine.m.free.is_empty());
        let quick = carried_out(&input, Way { skip: n % 2 == 0, ..QUICK });
        replayed += quick.engine.replayed;
        let mut plain = Run::new(Input { skip: false, ..input.clone() }).unwrap();
        (plain.engine.replays, plain.engine.volleys) = (false, false);
        plain.engine.read_in_order();
        plain.finish(&AtomicBool::new(false), |_| {});
        let what = difference(&quick.into_output(), &plain.into_output());
        assert!(what.is_none(), "{}: {} of {of}", what.unwrap_or_default(), input.policy.name);
    }
    assert!(behind > 60 && replayed > 1000, "{behind} may leave somebody behind, {replayed} replayed");
}

/// Of an idle CPU whose work and whose NMI are due at one moment the NMI is first, wherever a run stops.
#[test]
fn an_nmi_at_the_end_of_idle_is_taken_first_wherever_a_run_stops() {
    let text = r#"{"name": "both", "duration_ps": 400000000, "cpus": 3, "isolated": [], "actors": [
        {"name": "rest", "on": "all", "kind": "idle"},
        {"name": "watchdog", "on": "all", "kind": "nmis", "gap": {"mean_ps": 20000000}, "body_ps": 500000},
        {"name": "purge", "on": "all", "kind": "chain", "gap": {"mean_ps": 20000000},
         "steps": [{"program": "vunmap", "pages": 1, "cause": "vunmap", "per_mille": 1000}]}]}"#;
    let policy = parsed(READERS[1]);
    let mut input = Input { policy, scenario: Scenario::parse(text).unwrap(), ..drawn(7063).0 };
    input.kernel.pti = Some(false);
    let never = AtomicBool::new(false);
    let whole = simulate(input.clone()).unwrap();
    assert_eq!(total(&whole, Stat::nmis), 3 * 19);
    for apart in [10_000_000, 20_000_000, 20_000_001, 30_000_000] {
        let mut run = Run::new(input.clone()).unwrap();
        while run.now() < run.duration() {
            run.advance(run.now() + apart, &never);
        }
        run.finish(&never, |_| {});
        assert_eq!(difference(&run.into_output(), &whole), None, "stopped each {apart} ps");
    }
}

/// Entry code that reads and writes what all share, so that every CPU is kept in the order of the queue.
const SHARERS: [&str; 2] = [
    "policy swaps
  var busy : 1 bit, shared, starts 0
  var rounds : 2 bits, shared, starts 0

to_user
  let on = busy
  xchg busy, 0
  if on
    flush_all_here
  if feature pti
    mov cr3, user owed

nmi_guard
  xchg rounds, 1
  let round = rounds
  if round == 2
    flush_all_here

flush_kernel_range
  xchg busy, 1
  flush_here
  add rounds, 1
  xchg busy, 0
",
    "policy tickets
  var ticket : 3 bits, shared, starts 0
  var seen : 3 bits, per cpu, starts 0

to_kernel
  if feature pti
    mov cr3, kernel noflush
  let next = ticket + 1
  let next = next & 7
  ticket = next
  if next == seen
    flush_all_here
  seen = next
",
];

/// Calls back to back and NMIs amid their bodies: what is found out of a call stops where an NMI is due.
fn called(pages: u64) -> Scenario {
    Scenario::parse(&format!(
        r#"{{"name": "called", "duration_ps": 3000000000, "cpus": 4, "isolated": [1, 2, 3], "actors": [
        {{"name": "rest", "on": {{"cpus": [0]}}, "kind": "idle"}},
        {{"name": "loop", "on": "isolated", "kind": "syscalls", "gap": {{"mean_ps": 830576}}, "base_ps": 866583,
         "kernel_pages": {pages}, "user_pages": {pages}}},
        {{"name": "watchdog", "on": "isolated", "kind": "nmis", "gap": {{"mean_ps": 15854917, "exponential": true}},
         "body_ps": 2000000}},
        {{"name": "purge", "on": "housekeeping", "kind": "chain", "gap": {{"mean_ps": 61240833, "exponential": true}},
         "steps": [{{"program": "purge", "pages": 23, "cause": "purge", "per_mille": 1000}}]}}]}}"#
    ))
    .unwrap()
}

#[test]
fn what_is_tried_of_a_call_keeps_the_order_of_those_who_share() {
    for n in 0..24 {
        let text = SHARERS[n as usize % 2];
        let policy = parsed(text);
        let mut input = Input { policy, scenario: called(n % 3), seed: n, ..drawn(0).0 };
        input.kernel.pti = Some(n % 4 < 2);
        input.full = n % 5 == 0;
        let plain = carried_out(&input, PLAIN);
        assert!(plain.engine.m.all_driven);
        let plain = plain.into_output();
        for way in [QUICK, Way { skip: false, ..QUICK }, Way { skip: true, ..PLAIN }] {
            let quick = carried_out(&input, way).into_output();
            assert_eq!(difference(&quick, &plain), None, "{n}: {}", input.policy.name);
        }
    }
}

#[test]
fn who_shares_is_carried_out_alike_in_every_way() {
    let mut driven = 0;
    for n in 8000..8060 {
        let text = SHARERS[n as usize % 2];
        let policy = parsed(text);
        let (input, of) = drawn(n);
        let input = Input { policy, ..input };
        if Run::new(input.clone()).is_err() {
            continue;
        }
        let plain = carried_out(&input, PLAIN);
        driven += u64::from(plain.engine.m.all_driven);
        let way = [QUICK, Way { skip: false, ..QUICK }, Way { ahead: false, ..QUICK }][n as usize % 3];
        let (quick, plain) = (carried_out(&input, way).into_output(), plain.into_output());
        assert_eq!(difference(&quick, &plain), None, "{n}: {} of {of}", input.policy.name);
    }
    assert!(driven > 40, "{driven}");
}
