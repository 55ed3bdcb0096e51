//! Laws of runs: what neither skipping, nor chunks, nor checkpoints change, and time that adds up.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::super::cost::Bound;
use super::super::draw::Draws;
use super::super::input::Input;
use super::super::scenario::{Kind, On, Path, Scenario};
use super::super::stats::{Cause, Stat};
use super::super::timeline::Kind as EventKind;
use super::{Output, Run, simulate};
use crate::hw::Preset;
use crate::kernel::config::Config;
use crate::kernel::policy::{POLICIES, shared_builtin};

fn scenario(json: &str) -> Scenario {
    Scenario::parse(json).unwrap()
}

fn storm(duration_ms: u64) -> Scenario {
    scenario(&format!(
        r#"{{"name": "storm", "duration_ps": {}, "cpus": 4, "isolated": [2, 3],
        "rcu_ps": 2000000000, "lazy_max_pages": 500,
        "actors": [
          {{"name": "forks", "on": "housekeeping", "kind": "forks", "gap": {{"mean_ps": 50000000, "exponential": true}}, "batch": 24}},
          {{"name": "loop", "on": {{"cpus": [2]}}, "kind": "syscalls", "gap": {{"mean_ps": 400000}}, "base_ps": 770000, "kernel_pages": 12, "user_pages": 4}},
          {{"name": "spin", "on": {{"cpus": [0, 1, 3]}}, "kind": "spin"}},
          {{"name": "tick", "on": "all", "kind": "interrupts", "gap": {{"mean_ps": 300000000, "exponential": true}}, "body_ps": 1000000, "cause": "tick"}},
          {{"name": "perf", "on": "isolated", "kind": "nmis", "gap": {{"mean_ps": 70000000, "exponential": true}}, "body_ps": 500000}}
        ]}}"#,
        duration_ms * 1_000_000_000
    ))
}

fn input(scenario: Scenario, policy: &str) -> Input {
    Input {
        scenario,
        machine: Preset::builtin("broadwell-ep-e5-2699v4").unwrap(),
        kernel: Config::default(),
        policy: shared_builtin(policy).unwrap(),
        seed: 1,
        skip: true,
        keep: 64,
        full: false,
        bound: Bound::Best,
    }
}

fn total(o: &Output, stat: Stat, isolated: bool) -> u64 {
    (0..o.stats.len()).filter(|&c| o.isolated[c] == isolated).map(|c| o.stats[c][stat as usize]).sum()
}

fn same(a: &Output, b: &Output) {
    assert_eq!(a.stats, b.stats);
    assert_eq!(a.by_cause, b.by_cause);
    assert_eq!(a.events, b.events);
    assert_eq!(a.levels, b.levels);
    assert_eq!(a.purges, b.purges);
    assert_eq!((a.reached_ps, a.dropped, &a.violation), (b.reached_ps, b.dropped, &b.violation));
    assert!(a.latencies.each().eq(b.latencies.each()));
    assert_eq!(a.runs, b.runs);
}

#[test]
fn mainline_interrupts_every_isolated_cpu_at_each_purge_and_deferral_none() {
    let ipi = simulate(input(storm(200), "ipi")).unwrap();
    assert!(total(&ipi, Stat::purges, false) > 5, "{}", total(&ipi, Stat::purges, false));
    assert_eq!(total(&ipi, Stat::calls_executed, true), 2 * total(&ipi, Stat::flush_requests, false));
    assert_eq!(total(&ipi, Stat::deferrals, true), 0);
    let v7 = simulate(input(storm(200), "coalesce-v7")).unwrap();
    // The CPU that spins is interrupted only if a tick or an NMI had just brought it into the kernel.
    let calls = |o: &Output| o.stats[3][Stat::calls_executed as usize];
    assert!(calls(&v7) * 4 < calls(&ipi), "{} {}", calls(&v7), calls(&ipi));
    assert!(total(&v7, Stat::deferrals, true) > 0);
    assert!(total(&v7, Stat::entry_flushes_needed, true) > 0);
    assert!(v7.stats[2][Stat::entry_flushes_unneeded as usize] > 1000, "v7 flushes at every entry");
    assert!(v7.stats[2][Stat::syscalls as usize] < ipi.stats[2][Stat::syscalls as usize]);
}

#[test]
fn skipping_changes_nothing() {
    for row in POLICIES {
        let fast = simulate(input(storm(20), row.id)).unwrap();
        let slow = simulate(Input { skip: false, ..input(storm(20), row.id) }).unwrap();
        same(&fast, &slow);
        assert!(fast.stats[2][Stat::syscalls as usize] > 1000, "{}", row.id);
    }
}

#[test]
fn skipping_changes_nothing_while_pages_are_looked_up() {
    for row in POLICIES {
        let full = Input { full: true, ..input(storm(10), row.id) };
        let mut fast = Run::new(full.clone()).unwrap();
        fast.finish(&AtomicBool::new(false), |_| {});
        assert!(fast.engine.work * 2 < fast.engine.runs, "{}: most calls repeat", row.id);
        same(&fast.output(), &simulate(Input { skip: false, ..full }).unwrap());
    }
}

#[test]
fn replaying_changes_nothing() {
    // Pages that fit the first level, that fit the second, and more than both hold; and every entry path.
    let sizes = [(10, 4), (200, 100), (1500, 300)].map(|pages| (pages, Path::Syscall));
    let paths = Path::ALL.map(|path| ((40, 40), path));
    for (case, ((kernel, user), path)) in sizes.into_iter().chain(paths).enumerate() {
        let mut load = storm(4);
        for actor in &mut load.actors {
            match &mut actor.kind {
                Kind::Syscalls { kernel_pages, user_pages, by, .. } => {
                    (*kernel_pages, *user_pages, *by) = (kernel, user, path);
                }
                Kind::Nmis { gap, .. } => gap.mean_ps = 700_000_000,
                _ => {}
            }
        }
        let (mut all, mut replayed) = (0, [0, 0]);
        // Of the paths each is taken under every other policy.
        let (first, every) = if case < sizes.len() { (0, 1) } else { (case % 2, 2) };
        for row in POLICIES.iter().skip(first).step_by(every) {
            all += 1;
            for (full, skip) in [(true, false), (true, true), (false, false)] {
                let run = |replays| {
                    let mut run = Run::new(Input { skip, full, ..input(load.clone(), row.id) }).unwrap();
                    run.engine.replays = replays;
                    run.finish(&AtomicBool::new(false), |_| {});
                    (run.output(), run.engine.replayed)
                };
                let ((each, none), (fast, some)) = (run(false), run(true));
                same(&fast, &each);
                assert_eq!(none, 0);
                replayed[usize::from(full)] +=
                    u32::from(!skip && some * 2 > each.stats[2][Stat::syscalls as usize]);
            }
        }
        for of in replayed {
            assert!(of * 10 > all * 8, "{path:?}, {kernel} pages: {replayed:?} of {all} policies");
        }
    }
}

#[test]
fn at_any_time_a_cpu_is_in_the_state_that_interpreting_leaves() {
    let details = [true, false].into_iter();
    for (row, full) in POLICIES.iter().flat_map(|row| details.clone().map(move |full| (row, full))) {
        let each = Input { skip: false, full, ..input(storm(2), row.id) };
        let mut runs = [false, true].map(|replays| {
            let mut run = Run::new(each.clone()).unwrap();
            run.engine.replays = replays;
            run
        });
        for step in 1..=300 {
            let [each, fast] = &mut runs;
            for run in [&mut *each, &mut *fast] {
                run.advance(step * 6_700_000, &AtomicBool::new(false));
            }
            for (cpu, (a, b)) in each.engine.m.cores.iter().zip(&fast.engine.m.cores).enumerate() {
                assert_eq!(format!("{a:?}"), format!("{b:?}"), "{}: CPU {cpu} after step {step}", row.id);
            }
            assert_eq!(format!("{:?}", each.engine.m.debts), format!("{:?}", fast.engine.m.debts));
        }
        assert!(runs[1].engine.replayed > 500, "{}", row.id);
    }
}

/// Interrupts, NMIs and exceptions of every kind, in user mode, in system calls and out of idle.
fn handlers(duration_ms: u64) -> Scenario {
    let gap = |us: u64| format!(r#""gap": {{"mean_ps": {us}000000, "exponential": true}}"#);
    scenario(&format!(
        r#"{{"name": "handlers", "duration_ps": {}, "cpus": 4, "isolated": [2, 3],
        "actors": [
          {{"name": "purges", "on": {{"cpus": [0]}}, "kind": "chain", {}, "steps": [{{"program": "purge", "pages": 0, "cause": "purge"}}]}},
          {{"name": "idle", "on": {{"cpus": [1]}}, "kind": "idle"}},
          {{"name": "spin", "on": {{"cpus": [0, 2]}}, "kind": "spin", "user_pages": 3}},
          {{"name": "loop", "on": {{"cpus": [3]}}, "kind": "syscalls", {}, "base_ps": 770000, "kernel_pages": 5, "user_pages": 4}},
          {{"name": "tick", "on": "all", "kind": "interrupts", {}, "body_ps": 1000000, "cause": "tick"}},
          {{"name": "device", "on": "all", "kind": "interrupts", {}, "body_ps": 300000, "cause": "device"}},
          {{"name": "faults", "on": {{"cpus": [2, 3]}}, "kind": "faults", {}, "body_ps": 700000, "by": "exception"}},
          {{"name": "perf", "on": "all", "kind": "nmis", {}, "body_ps": 500000}}
        ]}}"#,
        duration_ms * 1_000_000_000,
        gap(400),
        gap(9),
        gap(20),
        gap(30),
        gap(7),
        gap(25)
    ))
}

#[test]
fn replaying_handlers_changes_nothing() {
    for (n, row) in POLICIES.iter().enumerate() {
        for (full, skip) in [(false, false), (false, true), (true, false)] {
            let kernel = Config { pti: Some(n % 2 == 0), nopcid: n % 5 == 0, ..Config::default() };
            let input = Input { kernel, skip, full, ..input(handlers(20), row.id) };
            let Ok(run) = Run::new(input) else { continue };
            let [each, fast] = [false, true].map(|replays| {
                let mut run = run.clone();
                run.engine.replays = replays;
                run.finish(&AtomicBool::new(false), |_| {});
                run
            });
            assert_eq!(each.engine.replayed, 0);
            let (replayed, of) = (fast.engine.replayed, fast.engine.runs);
            let (each, fast) = (each.into_output(), fast.into_output());
            same(&each, &fast);
            for (of, least) in [(Stat::nmis, 400), (Stat::faults, 2000), (Stat::interrupts, 1000)] {
                assert!(fast.stats[2][of as usize] > least, "{}: {of:?}", row.id);
            }
            assert!(skip || replayed * 2 > of, "{}: {replayed} of {of}", row.id);
        }
    }
}

#[test]
fn a_walk_over_words_of_quiet_cpus_is_that_of_its_turns() {
    let mut walked = 0;
    for cpus in [64, 65, 130, 200] {
        for (n, row) in POLICIES.iter().enumerate() {
            let mut draws = Draws::new(5, n as u16, cpus);
            let mut own = |most: u64| draws.below(most);
            let (from, sender, busy) = (own(64) + 1, own(u64::from(cpus)), own(u64::from(cpus)));
            let isolated: Vec<u64> = (from..u64::from(cpus)).collect();
            let load = scenario(&format!(
                r#"{{"name": "walks", "duration_ps": 2000000000, "cpus": {cpus}, "isolated": {isolated:?}, "actors": [
                  {{"name": "spin", "on": "all", "kind": "spin"}},
                  {{"name": "purges", "on": {{"cpus": [{sender}]}}, "kind": "chain", "gap": {{"mean_ps": 40000000, "exponential": true}},
                    "steps": [{{"program": "purge", "pages": 0, "cause": "purge"}}]}},
                  {{"name": "tick", "on": {{"cpus": [{busy}]}}, "kind": "interrupts", "gap": {{"mean_ps": 7000000, "exponential": true}},
                    "body_ps": 1000000, "cause": "tick"}}]}}"#
            ));
            let seed = own(1 << 30);
            let ways = [(false, false), (false, true), (true, true)].map(|(skip, replays)| {
                let input = Input { seed, skip, ..input(load.clone(), row.id) };
                let mut run = Run::new(input).ok()?;
                run.engine.replays = replays;
                run.finish(&AtomicBool::new(false), |_| {});
                Some(run.into_output())
            });
            let [Some(each), Some(replayed), Some(skipped)] = ways else { continue };
            same(&each, &replayed);
            same(&each, &skipped);
            walked += each.runs;
        }
    }
    assert!(walked > 50_000, "{walked}");
}

#[test]
fn an_nmi_keeps_interrupts_and_remote_calls_waiting_to_its_end() {
    let load = scenario(
        r#"{"name": "nmis", "duration_ps": 20000000000, "cpus": 2, "isolated": [1],
        "actors": [
          {"name": "purges", "on": {"cpus": [0]}, "kind": "chain", "gap": {"mean_ps": 90000000, "exponential": true},
           "steps": [{"program": "purge", "pages": 0, "cause": "purge"}]},
          {"name": "spin", "on": "all", "kind": "spin"},
          {"name": "tick", "on": {"cpus": [1]}, "kind": "interrupts", "gap": {"mean_ps": 70000000, "exponential": true},
           "body_ps": 1000000, "cause": "tick"},
          {"name": "perf", "on": {"cpus": [1]}, "kind": "nmis", "gap": {"mean_ps": 100000000}, "body_ps": 50000000}
        ]}"#,
    );
    for (full, skip) in [(false, false), (false, true), (true, false)] {
        let run = simulate(Input { keep: 10_000, full, skip, ..input(load.clone(), "ipi") }).unwrap();
        let taken = run.events.iter().filter(|e| e.cpu == 1 && e.kind == EventKind::Interrupt);
        let taken: Vec<_> = taken.map(|e| (e.time_ps, e.time_ps + e.duration_ps, e.cause)).collect();
        let nmis = || taken.iter().filter(|e| e.2 == Cause::Nmi);
        let amid = |nmi: &(u64, u64, Cause)| taken.iter().any(|e| nmi.0 < e.0 && e.0 < nmi.1);
        assert!(nmis().count() > 150 && !nmis().any(amid), "none begins amid an NMI");
        let causes: Vec<_> =
            nmis().flat_map(|nmi| taken.iter().filter(|e| e.0 == nmi.1).map(|e| e.2)).collect();
        // Half of the time an NMI runs: many wait for its end, and their sender with them.
        for cause in [Cause::Tick, Cause::Purge] {
            assert!(causes.iter().filter(|c| **c == cause).count() > 30, "{cause:?} of {}", causes.len());
        }
        assert!(run.stats[0][Stat::wait_max_ps as usize] > 40_000_000);
    }
}

/// A policy that breaks a rule where an interrupt enters out of the idle loop although that does not wait.
const WAITS: &str = "policy waits
  based on ipi
  page x : vmalloc
  var waits : 1 bit, per cpu, starts 0

ct_exit
  waits = 1

ct_enter
  waits = 0

interrupt_idle
  if waits == 0
    mov cr3, user
    read x
    mov cr3, kernel
  ct_enter
  handle calls
  body interrupt
  ct_exit
";

#[test]
fn the_idle_loop_is_left_by_its_own_way_only_while_it_waits() {
    let policy = Arc::new(crate::kernel::text::parse("waits.policy", WAITS).unwrap());
    // Switches of the CPU that idles between them: what comes amid one waits for its end, where the loop begins anew.
    let load = scenario(
        r#"{"name": "waits", "duration_ps": 20000000000, "cpus": 2, "isolated": [],
        "actors": [
          {"name": "idle", "on": "all", "kind": "idle"},
          {"name": "tasks", "on": {"cpus": [1]}, "kind": "tasks", "gap": {"mean_ps": 5000000, "exponential": true},
           "processes": 5, "steps": [{"do": "switch"}]},
          {"name": "device", "on": {"cpus": [1]}, "kind": "interrupts", "gap": {"mean_ps": 4000000, "exponential": true},
           "body_ps": 300000, "cause": "device"}
        ]}"#,
    );
    for skip in [false, true] {
        let kernel = Config { pti: Some(true), ..Config::default() };
        let like = input(load.clone(), "ipi");
        let run = simulate(Input { policy: policy.clone(), kernel, skip, ..like }).unwrap();
        assert_eq!((total(&run, Stat::violations, false), run.violation), (0, None));
        let row = run.stats[1];
        assert!(row[Stat::interrupts as usize] > 2000 && row[Stat::mm_switches as usize] > 1000);
    }
}

#[test]
fn a_flush_at_each_entry_is_followed_by_a_walk_per_page_and_mainline_by_none() {
    let alone = scenario(
        r#"{"name": "alone", "duration_ps": 1000000000, "cpus": 2, "isolated": [1], "actors": [
          {"name": "loop", "on": {"cpus": [1]}, "kind": "syscalls", "gap": {"mean_ps": 1000000}, "base_ps": 770000, "kernel_pages": 10, "user_pages": 4}]}"#,
    );
    let walks = |policy| {
        let o = simulate(Input { full: true, skip: false, ..input(alone.clone(), policy) }).unwrap();
        let [first, last] = [100_000_000, 1_000_000_000].map(|end| {
            let mut run = Run::new(Input { full: true, ..input(alone.clone(), policy) }).unwrap();
            run.advance(end, &AtomicBool::new(false));
            let o = run.output();
            let row = o.stats[1];
            (row[Stat::syscalls as usize], row[Stat::refill_misses as usize])
        });
        assert_eq!(o.stats[1][Stat::refill_misses as usize], last.1);
        (last.0 - first.0, last.1 - first.1)
    };
    let (calls, misses) = walks("ipi");
    assert!(calls > 300 && misses == 0, "{calls} {misses}");
    // 10 pages of the body, 4 of the user, the stack, and the entry page, which is global: the flush includes those.
    // Either end of the measured time may fall amid a call.
    let (calls, misses) = walks("coalesce-v7");
    assert!(misses.abs_diff(calls * 16) < 16, "{calls} {misses}");
}

/// A task that only spins, a stream of `pattern` every microsecond, and a full flush every 10 ms.
fn streaming(pattern: &str, duration_ms: u64) -> Input {
    let json = format!(
        r#"{{"name": "stream", "duration_ps": {}, "cpus": 2, "isolated": [1], "actors": [
          {{"name": "spin", "on": "all", "kind": "spin"}},
          {{"name": "purge", "on": {{"cpus": [0]}}, "kind": "chain", "gap": {{"mean_ps": 10000000000}}, "steps": [{{"program": "purge", "pages": 0, "cause": "purge"}}]}},
          {{"name": "stream", "on": "isolated", "kind": "stream", "gap": {{"mean_ps": 1000000}}, "phases": [{{"pattern": {pattern}}}]}}]}}"#,
        duration_ms * 1_000_000_000
    );
    Input { full: true, ..input(scenario(&json), "ipi") }
}

#[test]
fn a_stream_over_pages_that_fit_misses_each_once_per_flush() {
    for pattern in [
        r#"{"sequential": {"pages": 40}}"#,
        r#"{"chase": {"pages": 40}}"#,
        r#"{"weighted": {"weights": [9, 9, 9, 9, 9, 9, 9, 9, 9, 9]}}"#,
        r#"{"array": {"pages": [5, 7, 5, 123456, 9, 7]}}"#,
    ] {
        let o = simulate(streaming(pattern, 205)).unwrap();
        let row = o.stats[1];
        let get = |s: Stat| row[s as usize];
        let pages = if pattern.contains("40") {
            40
        } else if pattern.contains("weights") {
            10
        } else {
            4
        };
        assert_eq!(get(Stat::remote_flushes), 20);
        assert_eq!(get(Stat::stream_first), pages, "{pattern}");
        assert_eq!(get(Stat::stream_evicted), 0, "{pattern}");
        assert_eq!(
            get(Stat::refill_misses_remote),
            20 * pages + 20 * 2,
            "{pattern}: stack and entry page too"
        );
        assert!((204_000..205_001).contains(&get(Stat::stream_touches)), "{}", get(Stat::stream_touches));
    }
}

#[test]
fn a_stream_over_more_pages_than_the_tlb_holds_misses_without_any_flush() {
    let o = simulate(streaming(r#"{"chase": {"pages": 4000}}"#, 20)).unwrap();
    let row = o.stats[1];
    assert_eq!(row[Stat::stream_first as usize], 4000);
    assert!(row[Stat::stream_evicted as usize] > 10_000);
    assert!(row[Stat::stream_ps as usize] > 0);
}

#[test]
fn neither_chunks_nor_skipping_change_a_stream() {
    for row in POLICIES {
        let zipf = r#"{"weighted": {"weights": [900, 450, 300, 225, 180, 150, 129, 112, 100, 90]}}"#;
        let mut load = storm(10);
        load.actors.extend(streaming(zipf, 1).scenario.actors.into_iter().filter(|a| a.name == "stream"));
        let input = Input { full: true, ..input(load, row.id) };
        let whole = simulate(input.clone()).unwrap();
        assert!(whole.stats[3][Stat::stream_touches as usize] > 8_000, "{}", row.id);
        same(&whole, &simulate(Input { skip: false, ..input.clone() }).unwrap());
        let (mut run, mut at) = (Run::new(input).unwrap(), 0);
        while at < 10_000_000_000 {
            at += 777_777_777;
            assert!(run.advance(at, &AtomicBool::new(false)));
        }
        same(&whole, &run.output());
    }
}

#[test]
fn a_stream_where_no_page_is_looked_up_or_no_user_runs_is_refused() {
    let chase = r#"{"chase": {"pages": 4}}"#;
    let refused = Run::new(Input { full: false, ..streaming(chase, 1) }).unwrap_err().to_string();
    assert!(refused.contains("actor \"stream\" is an access stream: it needs detail"), "{refused}");
    let mut load = streaming(chase, 1).scenario;
    load.actors[0].on = On::Housekeeping;
    assert!(load.check().unwrap_err().to_string().contains("CPU 1 has no user mode"));
    let mut load = streaming(chase, 1).scenario;
    load.actors.push(load.actors[2].clone());
    assert!(load.check().unwrap_err().to_string().contains("one stream per CPU"));
}

#[test]
fn chunks_change_nothing() {
    for row in POLICIES {
        let whole = simulate(input(storm(20), row.id)).unwrap();
        let mut run = Run::new(input(storm(20), row.id)).unwrap();
        let (mut at, never) = (0, AtomicBool::new(false));
        while at < 20_000_000_000 {
            at += 7_777_777;
            assert!(run.advance(at, &never));
        }
        same(&whole, &run.output());
    }
}

#[test]
fn a_checkpoint_goes_on_to_the_same_end_in_another_run() {
    for row in POLICIES {
        let whole = simulate(input(storm(20), row.id)).unwrap();
        let never = AtomicBool::new(false);
        let mut bytes = None;
        for end in [3_333_333_333, 9_999_999_999, 13_131_313_131, 20_000_000_000] {
            let mut run = Run::new(input(storm(20), row.id)).unwrap();
            if let Some(bytes) = &bytes {
                let bytes: &Vec<u8> = bytes;
                run.resume(bytes).unwrap();
            }
            run.advance(end, &never);
            bytes = Some(run.checkpoint());
            if end == 20_000_000_000 {
                same(&whole, &run.output());
            }
        }
        let mut other = Run::new(Input { seed: 2, ..input(storm(20), row.id) }).unwrap();
        let bytes = bytes.unwrap();
        let refused = other.resume(&bytes).unwrap_err().to_string();
        assert_eq!(refused, "checkpoint: is of a run with other inputs");
        let mut faster = input(storm(20), row.id);
        Arc::make_mut(&mut faster.machine).mhz += 1;
        let refused = Run::new(faster).unwrap().resume(&bytes).unwrap_err().to_string();
        assert_eq!(refused, "checkpoint: is of a run with other inputs");
    }
}

#[test]
fn what_ended_a_run_is_not_what_ends_the_one_that_it_goes_back_to() {
    let never = AtomicBool::new(false);
    let mut run = Run::new(input(storm(20), "ipi")).unwrap();
    assert!(run.advance(9_999_999_999, &never));
    let bytes = run.checkpoint();
    run.advance(15_000_000_000, &never);
    run.engine.halt(15_000_000_000);
    (run.interrupted, run.starved) = (true, true);
    assert!(run.output().notes.iter().any(|note| note.contains("nothing moves simulated time on")));
    run.resume(&bytes).unwrap();
    run.finish(&never, |_| ());
    same(&simulate(input(storm(20), "ipi")).unwrap(), &run.output());
    assert!(run.starved().is_none() && !run.interrupted() && !run.engine.halted);
}

#[test]
fn a_run_that_looks_pages_up_goes_on_from_any_point_to_the_same_end() {
    let never = AtomicBool::new(false);
    for (row, policy) in POLICIES.iter().enumerate() {
        let pattern = [
            r#"{"weighted": {"weights": [900, 450, 300, 225, 180, 150, 129, 112, 100, 90]}}"#,
            r#"{"chase": {"pages": 90}}"#,
            r#"{"array": {"pages": [5, 7, 5, 123456, 9, 7]}}"#,
        ][row % 3];
        let mut load = storm(8);
        load.actors.extend(streaming(pattern, 1).scenario.actors.into_iter().filter(|a| a.name == "stream"));
        let input = Input { full: true, ..input(load, policy.id) };
        let whole = simulate(input.clone()).unwrap();
        assert!(whole.stats[2][Stat::stream_touches as usize] > 1_000, "{}", policy.id);
        let (mut run, mut at) = (Run::new(input.clone()).unwrap(), 0);
        while at < 8_000_000_000 {
            at += 777_777_777;
            assert!(run.advance(at, &never));
            let bytes = run.checkpoint();
            run = Run::new(input.clone()).unwrap();
            run.resume(&bytes).unwrap();
        }
        same(&whole, &run.output());
        // One of another detail is refused.
        let refused =
            Run::new(Input { full: false, scenario: storm(8), ..input }).unwrap().resume(&run.checkpoint());
        assert!(refused.unwrap_err().to_string().contains("other inputs"));
    }
}

#[test]
fn a_set_cancel_stops_at_once_and_keeps_what_there_is() {
    let mut run = Run::new(input(storm(100), "ipi")).unwrap();
    let cancel = AtomicBool::new(false);
    run.advance(50_000_000_000, &cancel);
    cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    run.finish(&cancel, |_| {});
    let out = run.output();
    assert!(out.interrupted && out.reached_ps == 50_000_000_000);
    assert!(out.stats[2][Stat::syscalls as usize] > 0);
}

#[test]
fn time_adds_up() {
    for row in POLICIES {
        let o = simulate(input(storm(50), row.id)).unwrap();
        for (cpu, row) in o.stats.iter().enumerate().filter(|(c, _)| o.isolated[*c]) {
            let sum = row[Stat::user_ps as usize]
                + row[Stat::kernel_ps as usize]
                + row[Stat::interrupt_ps as usize];
            assert_eq!(sum, o.reached_ps, "CPU {cpu}");
        }
    }
}

#[test]
fn pti_off_makes_coalescing_inert_and_free() {
    let machine = Preset::builtin("cascade-lake-sp").unwrap();
    let ipi = simulate(Input { machine: machine.clone(), ..input(storm(20), "ipi") }).unwrap();
    let v7 = simulate(Input { machine, ..input(storm(20), "coalesce-v7") }).unwrap();
    assert!(v7.notes[0].contains("inert"), "{:?}", v7.notes);
    assert_eq!(ipi.stats, v7.stats);
}

#[test]
fn the_base_of_a_system_call_is_met_under_mainline() {
    let o = simulate(input(storm(20), "ipi")).unwrap();
    let row = &o.stats[2];
    let mean = row[Stat::kernel_ps as usize] / row[Stat::syscalls as usize];
    assert!((765_000..790_000).contains(&mean), "{mean}");
}

#[test]
fn more_interrupts_than_a_cpu_can_take_are_no_deadlock() {
    let mut flooded = 0;
    for seed in 0..300 {
        let text = r#"{"name": "flood", "duration_ps": 60000000, "cpus": 2, "isolated": [1], "actors": [
            {"name": "idle", "on": "all", "kind": "idle"},
            {"name": "purge", "on": {"cpus": [0]}, "kind": "chain", "gap": {"mean_ps": 8000000},
             "steps": [{"program": "purge", "pages": 0, "cause": "purge"}]},
            {"name": "tick", "on": {"cpus": [0]}, "kind": "interrupts", "gap": {"mean_ps": 330000, "exponential": true},
             "body_ps": 0, "cause": "tick"}]}"#;
        let o = simulate(Input { seed, ..input(scenario(text), "ipi") }).unwrap();
        assert_eq!(o.violation, None, "seed {seed}");
        // The call is over, and its sender does not come to see that.
        let calls = o.stats[1][Stat::calls_executed as usize];
        flooded += u32::from(calls == 1 && o.stats[0][Stat::flush_requests as usize] == 1);
    }
    assert!(flooded > 20, "{flooded}");
}
