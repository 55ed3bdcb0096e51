//! Volleys change nothing: the same bytes as one interrupt after the other, whoever is hit and whatever else happens.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::super::super::cost::Bound;
use super::super::super::draw::Draws;
use super::super::super::input::Input;
use super::super::super::run::{Output, Run};
use super::super::super::scenario::Scenario;
use super::super::super::stats::Stat;
use crate::hw::Preset;
use crate::kernel::config::Config;
use crate::kernel::policy::{POLICIES, shared_builtin};

/// Threads of one process or of two on some CPUs, which unmap, sleep and switch; beside them purges, text pokes, ticks
/// and NMIs, or none of these.
fn scenario(draws: &mut Draws, cpus: u64) -> Scenario {
    let mut pick = |from: &[&str]| from[draws.below(from.len() as u64) as usize].to_owned();
    let pages = pick(&["1", "4", "0", "40"]);
    let unmap = format!(r#"{{"do": "unmap", "pages": {pages}, "tables": {}}}"#, pick(&["false", "true"]));
    let more = pick(&[
        "",
        "",
        r#", {"do": "unmap", "pages": 2, "per_mille": 400}"#,
        r#", {"do": "sleep", "per_mille": 300}, {"do": "switch"}"#,
    ]);
    let others = pick(&[
        "",
        r#", {"name": "purge", "on": {"cpus": [0]}, "kind": "chain", "gap": {"mean_ps": 150000000, "exponential": true}, "steps": [
            {"program": "purge", "pages": 0, "cause": "purge"}, {"program": "set_memory", "pages": 3, "cause": "other", "per_mille": 500},
            {"program": "text_poke", "pages": 1, "cause": "text_poke", "per_mille": 300}]}"#,
        r#", {"name": "tick", "on": "all", "kind": "interrupts", "gap": {"mean_ps": 90000000, "exponential": true}, "body_ps": 1000000, "cause": "tick"}"#,
        r#", {"name": "perf", "on": "all", "kind": "nmis", "gap": {"mean_ps": 80000000, "exponential": true}, "body_ps": 500000}"#,
        r#", {"name": "faults", "on": {"cpus": [1]}, "kind": "faults", "gap": {"mean_ps": 50000000, "exponential": true}, "body_ps": 300000, "by": "exception"}"#,
    ]);
    let senders = 1 + draws.below(3.min(cpus - 1));
    let gap = [20_000_000u64, 60_000_000, 200_000_000][draws.below(3) as usize];
    let list = |from: u64, to: u64| (from..to).map(|c| c.to_string()).collect::<Vec<_>>().join(", ");
    let shared = draws.below(4) > 0;
    let loops = draws.below(3) == 0 && cpus > senders + 1;
    let spins = if loops { cpus - 1 } else { cpus };
    let last = if loops {
        format!(
            r#", {{"name": "loop", "on": {{"cpus": [{}]}}, "kind": "syscalls", "gap": {{"mean_ps": 4000000}}, "base_ps": 770000, "kernel_pages": 12, "user_pages": 4}}"#,
            cpus - 1
        )
    } else {
        String::new()
    };
    let text = format!(
        r#"{{"name": "threads", "duration_ps": {}, "cpus": {cpus}, "isolated": [{}], "sockets": {}, "actors": [
            {{"name": "spin", "on": {{"cpus": [{}]}}, "kind": "spin", "user_pages": {}}},
            {{"name": "spin more", "on": {{"cpus": [{}]}}, "kind": "spin", "user_pages": {}}}{last},
            {{"name": "threads", "on": {{"cpus": [{}]}}, "kind": "tasks", "gap": {{"mean_ps": {gap}, "exponential": true}},
              "processes": {}, "shared": {shared}, "also_on": {}, "steps": [{unmap}{more}]}}{others}]}}"#,
        gap * 12,
        list(senders, cpus),
        1 + draws.below(2),
        list(0, spins / 2),
        draws.below(3) * 16,
        list(spins / 2, spins),
        draws.below(3) * 16,
        list(0, senders),
        if shared { 1 } else { 2 },
        if shared { r#""isolated""# } else { "null" },
    );
    Scenario::parse(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn run(input: &Input, volleys: bool) -> (Output, u64) {
    let mut run = Run::new(input.clone()).unwrap();
    run.engine.volleys &= volleys;
    run.finish(&AtomicBool::new(false), |_| {});
    let hit = run.engine.hit;
    (run.into_output(), hit)
}

fn same(a: &Output, b: &Output, of: &str) {
    assert_eq!(a.stats, b.stats, "{of}");
    assert_eq!(a.by_cause, b.by_cause, "{of}");
    assert_eq!(a.events, b.events, "{of}");
    assert_eq!(a.levels, b.levels, "{of}");
    assert_eq!(a.purges, b.purges, "{of}");
    assert_eq!(
        (a.reached_ps, a.dropped, &a.violation, a.runs),
        (b.reached_ps, b.dropped, &b.violation, b.runs),
        "{of}"
    );
    assert!(a.latencies.each().eq(b.latencies.each()), "{of}");
}

fn drawn(n: u64) -> (Input, String) {
    let mut draws = Draws::new(n, 0, 0);
    let machines = Preset::names();
    let machine = machines[draws.below(machines.len() as u64) as usize];
    let policy =
        if draws.below(4) > 0 { "ipi" } else { POLICIES[draws.below(POLICIES.len() as u64) as usize].id };
    let cpus = [2, 3, 5, 9, 40, 70][draws.below(6) as usize];
    let kernel = Config {
        pti: [None, Some(true), Some(false)][draws.below(3) as usize],
        nopcid: draws.below(5) == 0,
        noinvpcid: draws.below(5) == 0,
        ..Config::default()
    };
    let input = Input {
        scenario: scenario(&mut draws, cpus),
        machine: Preset::builtin(machine).unwrap(),
        kernel,
        policy: shared_builtin(policy).unwrap(),
        seed: n,
        skip: true,
        keep: [0, 3, 64][draws.below(3) as usize],
        full: draws.below(8) == 0,
        bound: Bound::Best,
    };
    let of = format!("{n}: {machine}, {policy}, {cpus} CPUs: {:?} {:?}", input.kernel, input.scenario);
    (input, of)
}

#[test]
fn a_volley_is_as_if_each_had_been_interrupted_alone() {
    let (mut all, mut hit, mut met) = (0, 0, 0);
    for n in 0..160 {
        let (input, of) = drawn(n);
        let ((fast, some), (plain, none)) = (run(&input, true), run(&input, false));
        same(&fast, &plain, &of);
        assert_eq!(none, 0);
        // Which policies there are decides nothing here: those that are interrupted one by one are not counted.
        if Run::new(input.clone()).unwrap().engine.volleys {
            let calls: u64 = plain.stats.iter().map(|row| row[Stat::calls_executed as usize]).sum();
            (all, hit) = (all + calls, hit + some);
            met += u32::from(some > 0 && some < calls);
        } else {
            assert_eq!(some, 0, "{of}");
        }
    }
    assert!(hit * 5 > all * 2, "{hit} of {all} calls in volleys");
    assert!(met > 40, "{met} runs with volleys and single calls");
}

#[test]
fn neither_chunks_nor_checkpoints_change_a_volley() {
    let never = AtomicBool::new(false);
    let mut hit = 0;
    for n in 200..230 {
        let (input, of) = drawn(n);
        let (whole, _) = run(&input, true);
        let (mut one, mut at) = (Run::new(input.clone()).unwrap(), 0);
        while at < input.scenario.duration_ps {
            at += input.scenario.duration_ps / 7 + 1;
            one.advance(at, &never);
            let bytes = one.checkpoint();
            hit += one.engine.hit;
            one = Run::new(input.clone()).unwrap();
            one.resume(&bytes).unwrap();
        }
        same(&whole, &one.into_output(), &of);
    }
    assert!(hit > 1000, "{hit}");
}

#[test]
fn what_is_not_mainline_is_interrupted_one_by_one() {
    let (mut input, _) = drawn(0);
    for policy in ["early-ack", "luf", "latr"] {
        input.policy = shared_builtin(policy).unwrap();
        assert!(!Run::new(input.clone()).unwrap().engine.volleys, "{policy}");
    }
    input.policy = Arc::clone(&shared_builtin("ipi").unwrap());
    input.full = false;
    assert!(Run::new(input).unwrap().engine.volleys);
}
